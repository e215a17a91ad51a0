"""What dispatchers are tested with: a scripted runner, a store that can refuse, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from paper import SECOND_US, plan_of

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.replaying import redecide
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.submit import submit

START_US = 1_700_000_000 * SECOND_US


class ScriptedRunner:
    """Runs nothing: a test says when and how an attempt ends. Attempts are named by their task."""

    def __init__(self, name: str = "shell") -> None:
        self.name = name
        self.launched: list[Launch] = []
        self.adopted: list[str] = []
        self.stops: list[tuple[str, bool, float]] = []
        self._ends: list[Ended] = []

    def start(self, launch: Launch) -> None:
        """Take note."""
        self.launched.append(launch)

    def adopt(self, launches: Iterable[Launch]) -> None:
        """Take note."""
        for launch in launches:
            self.launched.append(launch)
            self.adopted.append(launch.task_id)

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """Take note."""
        names = {one.task_id for one in self.launched if one.attempt_id == attempt_id}
        self.stops += [(name, timed_out, grace_s) for name in names]

    def poll(self) -> list[Ended]:
        """What has ended since."""
        ends, self._ends = self._ends, []
        return ends

    def close(self) -> None:
        """Nothing to let go of."""

    def tasks(self) -> list[str]:
        """What was started, in order."""
        return [launch.task_id for launch in self.launched if launch.task_id not in self.adopted]

    def end(self, *names: str, error: str | None = None, **fields: Any) -> None:
        """The last attempt of these tasks ends."""
        for name in names:
            attempt_id = [launch.attempt_id for launch in self.launched if launch.task_id == name][-1]
            given = {"outcome": "exited", "exit_code": 0 if error is None else 1, "error": error, **fields}
            self._ends.append(Ended(attempt_id, started_at_us=0, ended_at_us=SECOND_US, **given))


class MoodyLog(Log):
    """Refuses as many commits as it is told to: after everything was decided, or before anything was."""

    refusals = 0
    at_once = False

    def transact(self, decide: Callable[[Draft], None], *, actor: str | None = None) -> list[Recorded]:
        """As a log does, or not at all."""
        if self.refusals == 0:
            return super().transact(decide, actor=actor)
        self.refusals -= 1

        def then_fail(draft: Draft) -> None:
            if not self.at_once:
                decide(draft)
            raise StoreError("the disk is full")

        return super().transact(then_fail, actor=actor)


class Scene:
    """A store, its clock, and the dispatchers that a test makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_us = START_US
        self.set_us = 0  # By how much somebody has set the clock: that is no time that passes.
        self.log = MoodyLog(folder / "events.db", clock=lambda: self.now_us, environ={})
        self.runner = ScriptedRunner()
        self.dispatcher = self.another("run")

    def another(
        self, kind: str, runner: ScriptedRunner | None = None, *, dead: bool = False, **options: Any
    ) -> Dispatcher:
        """One more dispatcher. A dead one is taken for the dispatcher of a process that has ended."""
        runner = runner or self.runner
        options.setdefault("environ", {})
        options.setdefault("clock", lambda: self.now_us)
        options.setdefault("steady", lambda: self.now_us - self.set_us)
        made = Dispatcher(self.log, {runner.name: runner}, kind=kind, draw=lambda: 0.0, **options)
        if dead:
            made._me = {**made._me, "start_time": 1}
        return made

    def set_clock(self, by_us: int) -> None:
        """Somebody sets the clock of the machine."""
        self.now_us += by_us
        self.set_us += by_us

    def submit(self, *tasks: Task, plan: Plan | None = None, **limits: Any) -> str:
        """A run that this scene's dispatcher shall hold from its next tick on."""
        run_id = submit(self.log, plan or plan_of(*tasks, **limits), workdir=self.folder, environ={})
        self.dispatcher.hold(run_id)
        return run_id

    def tick(self) -> int | None:
        """One tick of this scene's dispatcher. What it holds is what the log says, each time."""
        due = self.dispatcher.tick()
        for run_id, held in self.dispatcher.held.items():
            assert plain(held.state) == plain(self.state(run_id))
        return due

    def state(self, run_id: str) -> RunState:
        """A run by the log alone."""
        return Projector(self.log, use_snapshots=False).state(run_id)

    def statuses(self, run_id: str) -> dict[str, str]:
        """Its tasks."""
        return {name: one.status for name, one in self.state(run_id).tasks.items()}

    def types(self, after: int = 0, *, of: str = "") -> list[str]:
        """What was appended after a seq, as types with the task where there is one."""
        return [
            type(one.event).__name__ + (f" {one.event.task_id}" if hasattr(one.event, "task_id") else "")
            for one in self.log.read(after)
            if of in type(one.event).__name__
        ]

    def last(self, event_type: type[ev.Event]) -> Any:
        """The last event of a type."""
        return [one.event for one in self.log.read() if isinstance(one.event, event_type)][-1]

    def append(self, run_id: str, *events: ev.Event) -> None:
        """Somebody else appends."""
        self.log.append(run_id, Projector(self.log).state(run_id).version, events)

    def end_of_story(self) -> None:
        """All that was decided is decided the same by the log alone."""
        try:
            for run_id in Projector(self.log).runs():
                found = redecide(self.log, run_id)
                assert found.divergence is None, f"run {run_id}: {found.divergence}"
        finally:
            self.log.close()


def plain(state: RunState) -> dict[str, Any]:
    """Every field of a state but what the scheduler has still to look at."""
    return {name: getattr(state, name) for name in RunState.__slots__ if name not in ("touched", "broken")}


class Calls(Scene):
    """A scene whose tasks are callables of this process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.steady_us = 0
        self.runner = ScriptedRunner("python")
        self.dispatcher = self.another("python", steady=lambda: self.steady_us)

    def submit_calls(self, *names: str, **fields: Any) -> str:
        """A run of callables."""
        tasks = [Task(task_id=name, **fields) for name in names]
        run_id = submit(self.log, plan_of(*tasks), workdir=self.folder, environ={}, callables=True)
        for name in names:
            self.dispatcher.calls[run_id, name] = (print, name)
        self.dispatcher.hold(run_id)
        return run_id
