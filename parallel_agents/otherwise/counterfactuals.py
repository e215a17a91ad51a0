"""Many past runs, each played again under other settings: what these would have meant for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed, ParallelAgentsError
from parallel_agents.eventstore.log import Log
from parallel_agents.otherwise.counterfactual import PAST_RUNS, otherwise
from parallel_agents.otherwise.in_slices import in_slices
from parallel_agents.otherwise.surroundings import Surroundings
from parallel_agents.past_attempts import Past, read_past
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.strategies import StrategyOptions

KEPT = ("status", "makespan_s", "cost_usd", "attempts", "retries", "meetings")
"""Of the figures of each run; the order of its tasks is told of one run at a time."""


def all_otherwise(
    store: Path,
    settings: Mapping[str, str],
    options: StrategyOptions | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
    *,
    processes: int | None = None,
) -> dict[str, Any]:
    """Every run of a store that is over, played again under other settings, by as many processes as there are processors.

    Args:
        store: its file. This process may have no log of it open: SQLite's locks do not bear to be copied with a process.
        settings: see ``otherwise_settings.differently``.
        told: told of progress: runs that were played, and how many there are.
        processes: at most so many.
    Returns:
        ``{"settings", "runs": [{"run_id", "name", "recorded", "otherwise", "ratio", "range", "differs", "assumed"}],
        "skipped": [{"run_id", "why"}], "summary": {"runs", "unchanged", "ratio": {"median", "low", "high"} | None,
        "makespan_s": {"recorded", "otherwise"}, "cost_usd": {"recorded", "otherwise"}}}``. ``ratio`` is that of the
        makespans, None where one is 0.
    Raises:
        NotAllowed: no run is over.
        InvalidUsage: the settings fit no run.
    """
    with Log(store, create=False) as log:
        summaries = Projector(log).runs()
    over = [run_id for run_id, run in summaries.items() if run.status in st.ENDED]
    if not over:
        raise NotAllowed("no run of this store is over", hint="`parallel-agents runs` lists them")
    skipped = [
        {"run_id": run_id, "why": f"it is {run.status}"} for run_id, run in summaries.items() if run_id not in over
    ]

    def work() -> Callable[[str], dict[str, Any]]:
        own = Log(store, create=False)
        past: dict[str, Past] = {}
        around = Surroundings(own)

        def play(run_id: str) -> dict[str, Any]:
            name = summaries[run_id].name
            if name not in past:
                past[name] = read_past(own, name, runs=PAST_RUNS)
            try:
                return _line(otherwise(own, run_id, settings, options, past[name], around))
            except ParallelAgentsError as error:
                return {"run_id": run_id, "why": error.message, "hint": error.hint}

        return play

    lines: dict[int, dict[str, Any]] = {}
    for number, line in in_slices(over, work, processes=processes):
        lines[number] = line
        told(len(lines), len(over))
    found = [lines[number] for number in sorted(lines)]
    runs = [line for line in found if "why" not in line]
    if not runs:
        raise InvalidUsage(found[0]["why"], hint=found[0]["hint"])
    skipped += [{"run_id": line["run_id"], "why": line["why"]} for line in found if "why" in line]
    return {"settings": dict(settings), "runs": runs, "skipped": skipped, "summary": _summary(runs)}


def _line(found: dict[str, Any]) -> dict[str, Any]:
    before, after = found["recorded"], found["otherwise"]
    return {
        "run_id": found["run_id"],
        "name": found["name"],
        "recorded": {name: before[name] for name in KEPT},
        "otherwise": {name: after[name] for name in KEPT},
        "ratio": after["makespan_s"] / before["makespan_s"] if before["makespan_s"] else None,
        "range": found["range"],
        "differs": found["differs_from"] is not None,
        "assumed": len(found["assumed"]),
    }


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = sorted(line["ratio"] for line in runs if line["ratio"] is not None)
    ratio = {"median": median(ratios), "low": ratios[0], "high": ratios[-1]} if ratios else None

    def total(name: str) -> dict[str, float]:
        return {when: sum(line[when][name] for line in runs) for when in ("recorded", "otherwise")}

    return {
        "runs": len(runs),
        "unchanged": sum(not line["differs"] for line in runs),
        "ratio": ratio,
        "makespan_s": total("makespan_s"),
        "cost_usd": total("cost_usd"),
    }
