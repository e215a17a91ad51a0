"""A run on paper: its state and agenda, moved on by events, without log, clock or process."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import digest_of
from parallel_agents.eventstore.record import Recorded, rfc3339
from parallel_agents.eventstore.submission import FileSettings, Plan, RetryPolicy, RunSettings, Stage, Task
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.plan import Agenda, Decision, Facts, plan, why_not
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.work import Work, decide_work

SECOND_US = 1_000_000


def task(task_id: str, *dependencies: str, **fields: Any) -> Task:
    """A task that needs others."""
    return Task(task_id=task_id, dependencies=dependencies, command=("true",), **fields)


def plan_of(
    *tasks: Task, stages: Sequence[Stage] = (Stage(name="all"),), retry: RetryPolicy | None = None,
    files: FileSettings | None = None, **limits: Any,
) -> Plan:  # fmt: skip
    """A plan with limits that nothing reaches unless they are given, and without versioned files unless they are."""
    given = {"max_parallel_agents": 100, "store_limit": 100, **limits}
    return Plan(
        name="paper", tasks=tasks, stages=tuple(stages), settings=RunSettings(retry=retry or RetryPolicy(), **given),
        workspace="shared" if files is None else "worktree", files=files or FileSettings(),
    )  # fmt: skip


def ended(attempt_id: str, error: str | None = None, **fields: Any) -> Ended:
    """How an attempt ended: well, or with an error; one second long."""
    given: dict[str, Any] = {"outcome": "exited", "exit_code": 0 if error is None else 1, "error": error, **fields}
    return Ended(attempt_id, started_at_us=10 * SECOND_US, ended_at_us=11 * SECOND_US, **given)


class PaperRun:
    """One run. Attempts are called after their task and number: ``a1`` is the first attempt of ``a``.

    Attributes:
        now_us: the time of the next event; stands still unless a test moves it.
        elsewhere: slots that other runs of the store hold.
    """

    def __init__(self, plan: Plan, *events: Event, started: bool = True) -> None:
        self.now_us = 100 * SECOND_US
        self.elsewhere = 0
        self.events: list[Event] = []
        self.state: RunState = status_fold.initial("paper")
        self._content = plan.to_bytes()
        self.add(
            ev.RunSubmitted(
                name=plan.name, plan_digest=digest_of(self._content), task_count=len(plan.tasks),
                strategy=plan.strategy, workspace=plan.workspace, workdir="/project",
                base_commit="c0" if plan.workspace == "worktree" else None, repository="/project",
            )
        )  # fmt: skip
        if started:
            self.add(ev.RunStarted())
        self.add(*events)
        self.agenda = Agenda(self.state)

    def add(self, *events: Event) -> None:
        """Fold what somebody else has decided."""
        for event in events:
            self.events.append(event)
            number = len(self.events)
            record = Recorded(number, "paper", number, self.now_us, "test", event)
            self.state = status_fold.fold(self.state, record, lambda digest: self._content)

    def facts(self) -> Facts:
        """Slots as they are taken now."""
        return Facts(self.elsewhere + len(self.state.running), len(self.state.running))

    def plan(self, priority: int = 3) -> Decision:
        """What is due now, without doing it. An agenda made from the state alone must say the same."""
        state, agenda = copy.deepcopy((self.state, self.agenda))
        found = plan(state, agenda, self.facts(), self.now_us, priority=priority)
        fresh = copy.deepcopy(self.state)
        assert found == plan(fresh, Agenda(fresh), self.facts(), self.now_us, priority=priority)
        return found

    def tick(self, priority: int = 3) -> list[str]:
        """Plan and do it. Gives the tasks that started, in that order."""
        expected = self.plan(priority)
        decision = plan(self.state, self.agenda, self.facts(), self.now_us, priority=priority)
        assert decision == expected
        return self.carry_out(decision)

    def carry_out(self, decision: Decision) -> list[str]:
        """Do what was planned. Gives the tasks that started, in that order."""
        for skip in decision.skips:
            self.add(ev.TaskSkipped(task_id=skip.task_id, because=skip.because, reason=skip.reason))
        for name in decision.cancels:
            self.add(ev.TaskCancelled(task_id=name, reason=self.state.reason))
        started = []
        for what, name in decision.steps:
            if what == "queue":
                self.add(ev.TaskQueued(task_id=name))
                continue
            if what == "block":
                self.add(ev.TaskBlocked(task_id=name, reason="approval"))
                continue
            attempt_id = f"{name}{self.state.tasks[name].attempts + 1}"
            self.add(decide.decide_start(self.state, name, attempt_id, "shell", self.facts()))
            started.append(name)
        return started

    def end(self, *names: str, error: str | None = None, **fields: Any) -> None:
        """The attempts of these tasks end."""
        for name in names:
            attempt_id = self.state.tasks[name].attempt_id
            assert attempt_id is not None
            self.add(*decide.decide_end(self.state, ended(attempt_id, error, **fields), self.now_us, 0.0))

    def end_with(self, name: str, work: Work, *, error: str | None = None, **fields: Any) -> list[str]:
        """The attempt of a task ends, with files. Gives what was decided, as types."""
        attempt_id = self.state.tasks[name].attempt_id
        assert attempt_id is not None
        decided = decide_work(self.state, ended(attempt_id, error, **fields), work, self.now_us, 0.0)
        self.add(*decided)
        return [type(event).__name__ for event in decided]

    def fail(self, *names: str) -> None:
        """They fail for good, whatever their retries."""
        self.end(*names, error="exit code 1", retryable=False)

    def retry(self, *names: str) -> None:
        """Somebody wants them tried again."""
        self.add(*decide.decide_retry(self.state, names))

    def run_to_its_end(self) -> list[list[str]]:
        """Tick until nothing starts any more; what runs ends well each time. Gives what started, tick by tick."""
        turns = []
        while started := self.tick():
            turns.append(started)
            self.end(*started)
        return turns

    def statuses(self) -> dict[str, str]:
        """Task by task."""
        return {name: one.status for name, one in self.state.tasks.items()}

    def why(self, name: str) -> str:
        """The code of the reason why a task does not start now."""
        return why_not(self.state, name, self.facts(), self.now_us).code

    def resting_until(self, name: str) -> str | None:
        """When a retry is due."""
        not_before_us = self.state.tasks[name].not_before_us
        return None if not_before_us is None else rfc3339(not_before_us)
