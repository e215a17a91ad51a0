"""Three small indexes for people who ask the SQL views: starts by attempt, charges with their amounts, conflicts by attempt.

Each holds events of one type alone, so that an append pays little. Starts and charges always have a body; that their
conditions say so keeps these indexes from what else asks the store, whose plans stay as they were. The second term of the
other two is the same in every row: whoever names it is sure to be answered from here, not by another index of runs.
"""

from __future__ import annotations

from typing import Final

_KEY: Final = '"attempt_id":"'
_BEGIN: Final = f"instr(body, '{_KEY}') + {len(_KEY)}"
_LONGEST: Final = 101  # As in ``of_task``.
_MICROS: Final = '"usd_micros":'
_DIGITS: Final = 20  # More than any amount has.

OF_ATTEMPT: Final = (
    f"CASE WHEN instr(body, '{_KEY}') THEN"
    f" substr(body, {_BEGIN}, instr(substr(body, {_BEGIN}, {_LONGEST}), '\"') - 1) END"
)
"""The attempt that an event names, as ``OF_TASK`` finds the task. Not for types that may hold anything else before it."""
USD_MICROS: Final = f"CAST(substr(body, instr(body, '{_MICROS}') + {len(_MICROS)}, {_DIGITS}) AS INTEGER)"
"""The amount of a charge; 0 where nobody knows it. Not read as JSON either: a damaged body has to be storable."""

STARTS: Final = "type = 'TaskStarted' AND body <> ''"
CHARGES: Final = "type = 'CostCharged' AND body <> ''"
CONFLICTS: Final = "type = 'ConflictDetected'"
HAS_BODY: Final = "(body <> '')"

VIEW_INDEXES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "events_started": ((OF_ATTEMPT,), STARTS),
    "events_charged": (("run_id", HAS_BODY, "version", USD_MICROS), CHARGES),
    "events_conflicts": (("run_id", "type", OF_ATTEMPT, "version"), CONFLICTS),
}
"""By name: what each is sorted by, and which events it holds."""
MAKE_VIEW_INDEXES: Final = tuple(
    f"CREATE INDEX IF NOT EXISTS {name} ON events ({', '.join(terms)}) WHERE {condition}"
    for name, (terms, condition) in VIEW_INDEXES.items()
)
"""For a store of a release that had none of them."""


def of_attempt(body: str) -> str:
    """``OF_ATTEMPT`` of the body of a row that has a name in its query."""
    return OF_ATTEMPT.replace("body", body)


def usd_micros(body: str) -> str:
    """``USD_MICROS`` of such a body."""
    return USD_MICROS.replace("body", body)
