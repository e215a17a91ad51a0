"""A run on a clock of its own: the real dispatcher, with a store in memory and attempts that only are told.

The clock stands still while the dispatcher ticks and jumps to the next moment at which anything happens: an attempt ends, a
rest is over, a provider or a budget lets somebody go on, somebody steers. So an hour takes milliseconds, and what is decided
is decided by the code that decides real runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Draft, digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.scratch import scratch_log
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.agents.granting import runner_name
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.scheduler.runners.recorded import Part, RecordedRunner

if TYPE_CHECKING:
    from parallel_agents.scheduler.checkouts import Result, Step

NOWHERE: Final = Path("/nonexistent/parallel-agents")
"""Where such a run says that its files lie: nobody may ever find anything there."""
AGAIN_US: Final = 1_000_000  # Where something is due now and comes to nothing, as a dispatcher looks once a second.
WATCHED_US: Final = 1_000_000
"""Between two looks at what running attempts have spent: as often as a dispatcher looks at the least."""
IDLE_LOOKS: Final = 10_000  # Looks that come to nothing, in a row.


class LanesAtOnce:
    """Makes lanes without threads: what is put there is done before anything else.

    Attributes:
        done: how much was.
    """

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, name: str, take: Callable[[Result], None]) -> _LaneAtOnce:
        return _LaneAtOnce(self, take)


class _LaneAtOnce:
    def __init__(self, lanes: LanesAtOnce, take: Callable[[Result], None]) -> None:
        self._lanes, self._take = lanes, take

    def put(self, work: Step) -> None:
        self._lanes.done += 1
        result = work()
        if result is not None:
            if (error := getattr(result, "error", None)) is not None:
                raise NotAllowed(f"the files cannot be laid out: {error}", hint=f"is there room in {gettempdir()}?")
            self._take(result)

    def end(self) -> None:
        pass

    def join(self, timeout_s: float) -> None:
        pass


class Place(NamedTuple):
    """Where the files of such a run are.

    Attributes:
        store: the path that its store goes by; checkouts lie beside that.
        repository, workdir: as ``RunSubmitted`` names them.
    """

    store: Path
    repository: str
    workdir: str
    lanes: LanesAtOnce


class VirtualRun:
    """One run in a store of its own.

    Args:
        part_of: says what an attempt does that is started.
        begin_us: the time at which the clock starts, microseconds since the epoch.
        runners: names of all that attempts may be started by.
        obeys: see ``RecordedRunner``.
        place: where its files are; None where it has none.
    Attributes:
        now_us: the time.
        records: all events of the store, in order.
        place_of: gives the place of an attempt's end among those that are told in one look.
        draw_of: gives the draw for the rest after an attempt has failed, in [0, 1), by the attempt's id.
        live: what running attempts are seen to have spent beyond what the log says, in micro-dollars by attempt.
        evenly: whether they are seen to spend evenly what they will have spent at their end, instead.
        steady_us: the time by the clock that nobody sets. It stands still where ``frozen`` is said: how long a run is
            dispatched is then up to who moves it.
    """

    def __init__(
        self,
        run_id: str,
        part_of: Callable[[Launch], Part],
        begin_us: int,
        runners: Collection[str],
        *,
        obeys: bool = True,
        frozen: bool = False,
        place: Place | None = None,
    ) -> None:
        self.run_id = run_id
        self.now_us = begin_us
        self.skipped_us = 0
        self._frozen_us = begin_us if frozen else None
        self.records: list[Recorded] = []
        self.live: dict[str, int] = {}
        self.evenly = False
        self.place_of: Callable[[str], int] = lambda attempt_id: 0
        self.draw_of: Callable[[str], float] = lambda attempt_id: 0.5
        self.log = scratch_log(NOWHERE / "events.db" if place is None else place.store, lambda: self.now_us)
        self.runner = RecordedRunner(part_of, lambda: self.now_us, obeys=obeys)
        self._drawn: set[str] = set()
        self.dispatcher = Dispatcher(
            self.log, dict.fromkeys(sorted(runners), self.runner), kind="replay", clock=lambda: self.now_us, draw=self._draw,
            environ={}, steady=self.steady_us, live_spend=self._spending, lane=None if place is None else place.lanes,
            snapshots=False,
        )  # fmt: skip
        self._lanes = None if place is None else place.lanes
        self._fresh: list[Recorded] = []
        self.dispatcher.listeners.append(self._fresh.extend)
        self.due_us = self.dispatcher.tick()  # It has seen an empty store; all that comes now it folds as it comes.
        self.state: RunState | None = None  # As of the last look.

    def steady_us(self) -> int:
        """The time by the clock that nobody sets."""
        return (self.now_us if self._frozen_us is None else self._frozen_us) + self.skipped_us

    def append(self, events: Sequence[tuple[str, Event]], blobs: Mapping[str, bytes] | None = None) -> list[Recorded]:
        """Append what somebody else does than the dispatcher, as (run, event)."""

        def add(draft: Draft) -> None:
            for digest, content in (blobs or {}).items():
                draft.add_blob(digest, content)
            for run_id, event in events:
                draft.add(run_id, event)

        made = self.log.transact(add, actor="outside")
        self.records += made
        return made

    def submit(self, plan: Plan, submitted: ev.RunSubmitted) -> None:
        """Append the run. The event is given the plan's digest."""
        content = plan.to_bytes()
        event = submitted.model_copy(update={"plan_digest": digest_of(content), "task_count": len(plan.tasks)})
        self.append([(self.run_id, event)], {digest_of(content): content})

    def look(self) -> list[Recorded]:
        """One tick of the dispatcher. Gives what it has appended."""
        if self.run_id not in self.dispatcher.held:
            self.dispatcher.hold(self.run_id)  # It has ended, and somebody has opened it again; or it begins.
        before = len(self.records)
        seq = self.records[-1].seq if self.records else 0
        self.settle()
        self.dispatcher.attempts.ends.sort(key=lambda ended: self.place_of(ended.attempt_id))
        self.due_us = self.dispatcher.tick()
        held = self.dispatcher.held.get(self.run_id)
        if held is not None:
            self.state = held.state
        self.records += [one for one in self._fresh if one.seq > seq]
        self._fresh.clear()
        self.settle()
        return self.records[before:]

    def settle(self) -> None:
        """Let all that is under way with files come to its end: checkouts, what ends by now, merges. Decide nothing."""
        attempts, before = self.dispatcher.attempts, -1
        while self._lanes is not None and before != self._lanes.done + self.runner.moves:
            before = self._lanes.done + self.runner.moves
            attempts.poll()
            attempts.look_at_ends()
            attempts.make_so((), ())

    def next_us(self) -> int | None:
        """When anything happens next by itself; None where only somebody from outside can go on."""
        if self._lanes is not None and self.dispatcher.attempts.has_news:
            return self.now_us
        comes = (self.due_us, self.runner.next_end_us(), self.watch_us())
        return min((at for at in comes if at is not None), default=None)

    def watch_us(self) -> int | None:
        """When somebody looks next at what running attempts have spent; None where nobody does."""
        return self.now_us + WATCHED_US if self.evenly and self.runner.spending() else None

    def _spending(self) -> dict[str, int]:
        return self.runner.spending() if self.evenly else self.live

    def go_on(self, until_us: int | None = None) -> bool:
        """Play until a time, or to where nothing happens any more.

        Returns:
            Whether the time was reached; False where nothing happens before it.
        """
        idle = 0
        while (at_us := self.next_us()) is not None and (until_us is None or at_us < until_us):
            watches = at_us == self.watch_us()
            self.now_us = max(self.now_us + (AGAIN_US if idle > 1 else 0), at_us)
            if until_us is not None and self.now_us >= until_us:
                break
            idle = 0 if self.look() or watches else idle + 1
            if idle > IDLE_LOOKS:
                raise AssertionError(f"run {self.run_id} is said to have something due, and nothing comes of it")
        if until_us is None:
            return False
        self.now_us = max(self.now_us, until_us)
        return True

    def close(self) -> None:
        """Forget all of it."""
        self.dispatcher.close()
        self.log.close()

    def _draw(self) -> float:
        """The draw for the end that is decided on: they are decided in their order, but for those that count no more."""
        for ended in self.dispatcher.attempts.ends:
            if ended.attempt_id not in self._drawn and self._counts(ended):
                self._drawn.add(ended.attempt_id)
                return self.draw_of(ended.attempt_id)
        raise AssertionError("nothing has ended that could be drawn for")

    def _counts(self, ended: Ended) -> bool:
        held = self.dispatcher.held.get(self.run_id)
        return held is not None and ended.attempt_id in held.state.running


def runners_of(plan: Plan, more: Collection[str] = ()) -> set[str]:
    """The names of all runners that attempts of a plan may be started by."""
    agents = plan.agents
    return {*map(runner_name, plan.tasks), agents.runner, *agents.failover, "shell", "python", *more}


def without_world(plan: Plan, *, files: bool = False) -> Plan:
    """The plan with what only the world can answer taken out: whether outputs are there, variables, disk, health, load.

    What the machine lets run is said by ``WorkersScaled`` alone, so that whoever knows can say so.

    Args:
        files: whether its files are kept and merged all the same. What attempts had written before they ended is nowhere.
    """
    settings = plan.settings.model_copy(
        update={
            "health_check_s": None, "min_free_mb": 0, "sandbox": (), "max_memory_mb": None, "max_cpu_percent": None,
            "throttle_cpu_percent": None, "auto_scale": True, "min_workers": 0,
        }
    )  # fmt: skip
    changes: dict[str, Any] = {"settings": settings, "tasks": tuple(_without_world(one, files) for one in plan.tasks)}
    changes |= {"files": plan.files.model_copy(update={"detect_early": False})} if files else {"workspace": "none"}
    return plan.model_copy(update=changes)


def _without_world(task: Task, files: bool) -> Task:
    if not (task.outputs or task.env_from or task.setup or task.teardown):
        return task
    outputs = task.outputs if files else ()
    return task.model_copy(update={"outputs": outputs, "env_from": (), "setup": None, "teardown": None})
