"""Which task an event names, as an expression on its row. Of itself, because who makes the tables needs none of the events.

A text within a body that looks like the name has its quotation marks escaped, so it is no match, and the first field of that
name is the event's own. Nothing here reads the body as JSON: a damaged one has to be storable, or ``verify`` could not find it.
"""

from __future__ import annotations

from typing import Final

_KEY: Final = '"task_id":"'
_BEGIN: Final = f"instr(body, '{_KEY}') + {len(_KEY)}"
_LONGEST: Final = 101  # An id has at most 100 characters; a quotation mark follows.

OF_TASK: Final = (
    f"CASE WHEN instr(body, '{_KEY}') THEN"
    f" substr(body, {_BEGIN}, instr(substr(body, {_BEGIN}, {_LONGEST}), '\"') - 1) END"
)
"""The task that an event names; NULL where it names none, or where its body lies in an archive. As the index has it."""
TASK_INDEX: Final = "events_of_task"
MAKE_TASK_INDEX: Final = f"CREATE INDEX IF NOT EXISTS {TASK_INDEX} ON events (run_id, {OF_TASK}, version)"
"""For a store of a release that had no such index."""


def of_task(body: str) -> str:
    """``OF_TASK`` of the body of a row that has a name in its query."""
    return OF_TASK.replace("body", body)
