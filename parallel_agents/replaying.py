"""Proof of a past run: its chain, its folds from nothing, and the scheduler run again on what each decision was made on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from parallel_agents.around import before_of
from parallel_agents.deep_verification import check_folds
from parallel_agents.eventstore.events import STORE_RUN, RunClaimed, RunForked, RunRolledBack, RunSubmitted
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, Row, decode
from parallel_agents.projections import circuits as circuits_fold
from parallel_agents.projections import letting_go
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector, unknown_run
from parallel_agents.scheduler.accounts import has_agents
from parallel_agents.scheduler.circuits import read_circuits
from parallel_agents.scheduler.redecide import Redecider
from parallel_agents.scheduler.verdicts import Around, Divergence, Judged
from parallel_agents.verification import verify

REPORT_EVERY = 2_000  # Events between two reports of progress.

Told = Callable[[int, int], None]
"""Told of progress: events looked at, and how many there are."""


@dataclass(slots=True)
class Verdict:
    """What came of deciding again. Counts are by type of event."""

    decisions: Counter[str] = field(default_factory=Counter)  # Made again, and the same.
    sampled: Counter[str] = field(default_factory=Counter)  # Made on what no event holds, so not judged.
    divergence: Divergence | None = None  # The first.


def redecide(log: Log, run_id: str, upto: int | None = None, progress: Told | None = None) -> Verdict:
    """Let the scheduler make every decision of a run again, from the events before each and the facts in it.

    Nothing is read from a snapshot. Rows of other runs count as far as they hold slots, money or circuits.

    Args:
        upto: judge no later event of the run.
    Raises:
        UnknownRun: there is no such run.
    """
    end = log.last_seq() if upto is None else upto
    first = next(log.briefs(run_id, 0, end), None)
    if first is None:
        raise unknown_run(log, run_id, upto)
    projector = Projector(log, use_snapshots=False)
    elsewhere = None if log.carried is None else before_of(log.carried.around)
    if elsewhere is None:
        around = Around(projector.occupancy(first[0] - 1), read_circuits(log, first[0] - 1))
    else:
        around = Around(elsewhere.occupancy, elsewhere.circuits)
    verdict, judged = Verdict(), Judged()
    state, decider = st.initial(run_id), Redecider(judged)
    done, folded = 0, 0
    for commit in _commits(log, first[0] - 1, end):
        mine = [decode(row) for row in commit if row.run_id == run_id]
        place = 0  # Of the next one of ours.
        for row in commit:
            done += 1
            if progress is not None and done % REPORT_EVERY == 0:
                progress(done, end - first[0] + 1)
            if row.run_id != run_id:
                record = decode(row)
                if row.run_id == STORE_RUN:
                    verdict.divergence = decider.judge_of_store(state, record, mine[place:], around)
                    if verdict.divergence is not None:
                        return _counted(verdict, judged)
            else:
                record = mine[place]
                verdict.divergence = decider.judge(state, mine, place, around)
                if verdict.divergence is not None:
                    return _counted(verdict, judged)
                place += 1
                if isinstance(record.event, RunRolledBack):
                    state = projector.state(run_id, record.seq)
                    decider.forget()
                elif state.version == 0:
                    state = projector.begin(record)
                else:
                    state = st.fold(state, record, log.blob)
                if isinstance(record.event, RunClaimed):
                    around.actor = str(record.event.holder.get("kind"))
                if isinstance(record.event, RunSubmitted | RunForked) and has_agents(state):
                    around.spend = projector.spend(first[0] - 1) if elsewhere is None else elsewhere.spend
                    around.agent_type = agent_types(projector, end, {} if elsewhere is None else elsewhere.agent_types)
            _fold(around, record)
        folded += len(mine)
        if folded >= letting_go.EVERY:
            folded = 0
            letting_go.let_go(state)
    return _counted(verdict, judged)


def _counted(verdict: Verdict, judged: Judged) -> Verdict:
    verdict.decisions, verdict.sampled = judged.decisions, judged.sampled
    return verdict


def _commits(log: Log, after: int, upto: int) -> Iterator[list[Row]]:
    """Rows that may have been appended together: those of one moment, by one actor."""
    for _, rows in groupby(log.rows(after, upto), lambda row: (row.at_us, row.actor)):
        yield list(rows)


def _fold(around: Around, record: Recorded) -> None:
    occupancy_fold.fold(around.occupancy, record)
    circuits_fold.fold(around.circuits, record)
    if around.spend is not None:
        spend_fold.fold(around.spend, record)


def agent_types(projector: Projector, end: int, told: dict[str, dict[str, str]]) -> Callable[[str, str], str]:
    """The agent type of a task, of any run.

    Args:
        told: by run and task, of runs that the log does not hold.
    """
    known = dict(told)

    def agent_type(run_id: str, task_id: str) -> str:
        if run_id not in known:
            tasks = projector.state(run_id, end).tasks
            known[run_id] = {name: task.task.agent_type for name, task in tasks.items()}
        return known[run_id].get(task_id, "")

    return agent_type


def prove(log: Log, run_id: str, told: Callable[[str, int, int], None]) -> dict[str, Any]:
    """The proof of one run: that its record is whole, that it is read as it was written, that it would be decided the same.

    What comes later is not judged where what it stands on does not hold.

    Args:
        told: told of progress: what is looked at, how much of it is done, and how much there is.
    Returns:
        ``{"run_id", "ok", "chain", "folds", "decisions"}``. ``chain`` is what ``verify`` gives. ``folds``:
        ``{"ok", "snapshots", "findings"}``. ``decisions``: ``{"ok", "same": {type: count}, "sampled": {type: count},
        "divergence": {"seq", "type", "field", "recorded", "now"} | None}``. The last two are None where they were not
        looked at.
    Raises:
        UnknownRun: there is no such run.
    """
    end = log.last_seq()
    if not log.has_begun(run_id, end):
        raise unknown_run(log, run_id)
    chain = verify(log, lambda done, total: told("events", done, total))
    found: dict[str, Any] = {"run_id": run_id, "ok": False, "chain": chain, "folds": None, "decisions": None}
    if not chain["ok"]:
        return found
    findings, snapshots = check_folds(log, run_id, end)
    found["folds"] = {
        "ok": not findings, "snapshots": snapshots, "findings": [finding._asdict() for finding in findings],
    }  # fmt: skip
    verdict = redecide(log, run_id, end, lambda done, total: told("decisions", done, total))
    found["decisions"] = {
        "ok": verdict.divergence is None,
        "same": dict(sorted(verdict.decisions.items())),
        "sampled": dict(sorted(verdict.sampled.items())),
        "divergence": None if verdict.divergence is None else verdict.divergence._asdict(),
    }
    found["ok"] = found["folds"]["ok"] and found["decisions"]["ok"]
    return found
