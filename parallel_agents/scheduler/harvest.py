"""From the end of an attempt to what its files mean: keep, gates, merge one at a time, gates on the merge.

Each step is done by somebody else (git on a lane, a gate as a supervised command) and ends as a result for the next tick;
here stands only who waits for what. Nothing of it is needed after a crash: the exit file of the attempt is still there,
and whoever adopts it begins at the first step again, to the same commits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import Gate
from parallel_agents.scheduler.checkouts import Checkouts, Followed, Kept, Merged, Order, Prepared, Probed
from parallel_agents.scheduler.runners.folder import STDERR, STDOUT, last_bytes
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.scheduler.work import Gated, Work

OUTPUT_CHARS = 2000  # Of a gate's output that its event holds; all of it lies in the gate's folder.


class Reaped(NamedTuple):
    """An attempt's end with all that is known of its files."""

    order: Order
    ended: Ended
    work: Work


class StageChecked(NamedTuple):
    """The gates at the end of a stage were run on one commit, up to the first that did not pass."""

    run_id: str
    stage: int
    commit: str
    gates: tuple[Gated, ...]
    error: str | None = None


@dataclass(slots=True)
class _Round:
    """Gates that are run one after the other in one checkout."""

    order: Order
    scope: str
    cwd: Path
    commit: str
    left: deque[Gate]
    done: list[Gated] = field(default_factory=list)
    ended: Ended | None = None
    work: Work | None = None
    stage: int | None = None
    gate_id: str = ""
    folder: str = ""


class Harvest:
    """Takes the attempts of one dispatcher from their end to their meaning.

    Args:
        start: runs a gate as a supervised command; its end is handed to ``gate_ended``.
    """

    def __init__(self, checkouts: Checkouts, start: Callable[[Launch], None]) -> None:
        self.checkouts = checkouts
        self._start = start
        self._gates_of: dict[str, tuple[Gate, ...]] = {}  # By run, those after a task.
        self._how: dict[str, str] = {}  # By run, its way with conflicts.
        self._lines: dict[str, deque[tuple[Order, Ended, Work]]] = {}  # Waiting to be merged, by run.
        self._merging: set[str] = set()  # Runs with a merge under way.
        self._rounds: dict[str, _Round] = {}  # By the id of the gate that runs.
        self._waiting: dict[str, _Round] = {}  # For their checkout, by attempt.
        self._stages: set[tuple[str, int]] = set()  # Whose gates are under way.
        self.prepared: list[Prepared] = []
        self.reaped: list[Reaped] = []
        self.followed: list[Followed] = []
        self.stages: list[StageChecked] = []
        self.probed: list[Probed] = []

    def keep(self, order: Order, ended: Ended, gates: Iterable[Gate], how: str) -> None:
        """Take an ended attempt. The gates are those of its run that follow a task."""
        self._gates_of[order.run_id] = tuple(gates)
        self._how[order.run_id] = how
        self.checkouts.keep(order, ended)

    def merge(self, order: Order, ended: Ended, work: Work) -> None:
        """Wait for a merge, or for another one because the integration line has moved since."""
        self._lines.setdefault(order.run_id, deque()).append((order, ended, work))

    def merge_next(self, run_id: str, onto: str) -> None:
        """Begin the next merge of a run, unless one is under way.

        Args:
            onto: the integration line as it is now.
        """
        line = self._lines.get(run_id)
        if line and run_id not in self._merging:
            self._merging.add(run_id)
            self.checkouts.merge(*line.popleft(), onto, self._how[run_id])

    def merged(self, run_id: str) -> None:
        """What a merge led to is in the log, or was given up: the next one may begin."""
        self._merging.discard(run_id)

    def check_stage(self, order: Order, stage: int, gates: Iterable[Gate]) -> None:
        """Run the gates of a stage that is over, on its order's base, unless that is under way."""
        if (order.run_id, stage) not in self._stages:
            self._stages.add((order.run_id, stage))
            self._waiting[order.attempt_id] = _Round(order, "stage", Path(), order.base, deque(gates), stage=stage)
            self.checkouts.prepare(order)

    def forget_run(self, run_id: str) -> None:
        """The run is not ours any more, or has ended."""
        self._lines.pop(run_id, None)
        self._merging.discard(run_id)
        self._stages = {key for key in self._stages if key[0] != run_id}

    def gates_of(self, of: str) -> list[str]:
        """The gates of an attempt or of a run that are running, by id, to be stopped."""
        return [gate_id for gate_id, one in self._rounds.items() if of in (one.order.attempt_id, one.order.run_id)]

    def poll(self) -> None:
        """Take up what was done since, and begin the step after it."""
        for result in self.checkouts.poll():
            match result:
                case Prepared(order=order) if order.attempt_id in self._waiting:
                    self._checkout_for_gates(self._waiting.pop(order.attempt_id), result)
                case Prepared():
                    self.prepared.append(result)
                case Kept():
                    self._kept(result)
                case Merged():
                    self._merged(result)
                case Followed():
                    self.followed.append(result)
                case Probed():
                    self.probed.append(result)

    def gate_ended(self, ended: Ended) -> bool:
        """Take the end of a gate. False where it is none."""
        one = self._rounds.pop(ended.attempt_id, None)
        if one is None:
            return False
        gate = one.left.popleft()
        one.done.append(gated(one.scope, gate, ended, one.folder, one.commit))
        if one.left and one.done[-1].passed:
            self._next_gate(one)
        else:
            self._gates_done(one)
        return True

    def _kept(self, kept: Kept) -> None:
        order, ended, work = kept
        gates = self._gates_of.get(order.run_id, ())
        if ended.outcome != "exited" or ended.error is not None or work.commit is None:
            self.reaped.append(Reaped(order, ended, work))
        elif gates:
            cwd = self.checkouts.cwd(order)
            self._next_gate(_Round(order, "task", cwd, work.commit, deque(gates), ended=ended, work=work))
        else:
            self._to_merge(order, ended, work)

    def _to_merge(self, order: Order, ended: Ended, work: Work) -> None:
        if order.merges:
            self.merge(order, ended, work)
        else:
            self.reaped.append(Reaped(order, ended, work))

    def _merged(self, merged: Merged) -> None:
        order, ended, work = merged
        gates = self._gates_of.get(order.run_id, ())
        if gates and ended.error is None and work.merged is not None and work.merged != work.commit:
            self._waiting[order.attempt_id] = _Round(
                order, "merge", Path(), work.merged, deque(gates), ended=ended, work=work
            )
            self.checkouts.set_to(order, work.merged)
        else:
            self.reaped.append(Reaped(order, ended, work))

    def _checkout_for_gates(self, one: _Round, prepared: Prepared) -> None:
        one.cwd = prepared.cwd
        if prepared.error is None:
            self._next_gate(one)
            return
        if one.stage is not None:
            self._stages.discard((one.order.run_id, one.stage))
            self.stages.append(StageChecked(one.order.run_id, one.stage, one.commit, (), prepared.error))
            return
        assert one.ended is not None
        assert one.work is not None
        self.reaped.append(Reaped(one.order, replace(one.ended, error=prepared.error), one.work))

    def _next_gate(self, one: _Round) -> None:
        gate, order = one.left[0], one.order
        one.gate_id = new_id()
        one.folder = f"{order.folder}/gates/{one.gate_id}"
        self._rounds[one.gate_id] = one
        self._start(
            Launch(
                run_id=order.run_id, task_id=order.task_id, attempt_id=one.gate_id, folder=one.folder, workdir=one.cwd,
                command=gate.command, env=order.env, timeout_s=gate.timeout_s,
            )
        )  # fmt: skip
        reach("gate.given")

    def _gates_done(self, one: _Round) -> None:
        if one.stage is not None:
            self._stages.discard((one.order.run_id, one.stage))
            self.stages.append(StageChecked(one.order.run_id, one.stage, one.commit, tuple(one.done)))
            return
        assert one.ended is not None
        assert one.work is not None
        work = replace(one.work, gates=(*one.work.gates, *one.done))
        if one.scope == "task" and (work.failed_gate is None or not one.order.fail_on_gates):
            self._to_merge(one.order, one.ended, work)
        else:
            self.reaped.append(Reaped(one.order, one.ended, work))


def gated(scope: str, gate: Gate, ended: Ended, folder: str, commit: str) -> Gated:
    """What came of a gate.

    Args:
        folder: where its output lies.
        commit: that it was run on.
    """
    text = last_bytes(f"{folder}/{STDOUT}", OUTPUT_CHARS) + last_bytes(f"{folder}/{STDERR}", OUTPUT_CHARS)
    if ended.outcome not in ("exited", "timed_out"):
        text += f"\n{ended.error or ended.outcome}"
    exit_code = ended.exit_code if ended.outcome == "exited" else None
    duration_s = max(0, ended.ended_at_us - ended.started_at_us) / 1e6
    return Gated(scope, " ".join(gate.command), exit_code, duration_s, text[-OUTPUT_CHARS:], folder, commit)
