"""A run on a clock of its own: decided and folded by the real scheduler, without store, process or file."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Stage, Task
from parallel_agents.projections import status as st
from parallel_agents.projections.effective import effective
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.decide_past import decide_rollback
from parallel_agents.scheduler.plan import Agenda, Facts, plan
from parallel_agents.scheduler.runners.protocol import Ended

SECOND_US = 1_000_000


def plan_of(needs: Mapping[str, Sequence[str]], *, at_once: int) -> Plan:
    """A plan of one stage. A failed attempt is followed by one more, at once."""
    tasks = tuple(
        Task(task_id=name, dependencies=tuple(needed), command=("true",), max_retries=1)
        for name, needed in needs.items()
    )
    settings = RunSettings(max_parallel_agents=at_once, store_limit=at_once, retry=RetryPolicy(delay_s=0.0))
    return Plan(name="paper", workspace="worktree", stages=(Stage(name="all"),), tasks=tasks, settings=settings)


class OnPaper:
    """One run.

    Attributes:
        executed_us: what all of its attempts have taken, those included that failed or were stopped.
        now_us: the time.
    """

    def __init__(self, of: Plan) -> None:
        self.executed_us = 0
        self.now_us = 0
        self._content = of.to_bytes()
        self._records: list[Recorded] = []
        self._ends: list[tuple[int, str, bool]] = []  # When which attempt ends, and whether well.
        self._begun: dict[str, int] = {}  # Attempt id -> when.
        self._before: dict[str, int] = {}  # Attempt id -> the number of its first checkpoint.
        self._checkpoint = 0  # The last one.
        self.state = st.initial("paper")
        self._add(
            ev.RunSubmitted(
                name=of.name, plan_digest=digest_of(self._content), task_count=len(of.tasks), strategy=of.strategy,
                workspace="worktree", workdir="/", base_commit="0", repository="/",
            ),
            ev.RunStarted(),
        )  # fmt: skip
        self._agenda = Agenda(self.state)

    @property
    def done(self) -> bool:
        """Whether every task has completed."""
        return self.state.counts[st.COMPLETED] == len(self.state.tasks)

    def start_what_can(self) -> list[tuple[str, str]]:
        """Plan, and start what was planned. Gives task and attempt ids."""
        running = len(self.state.running)
        facts, started = Facts(running, running), []
        for what, name in plan(self.state, self._agenda, facts, self.now_us).steps:
            if what == "queue":
                self._add(ev.TaskQueued(task_id=name))
                continue
            attempt_id = f"{name}.{len(self._records)}"
            self._save(attempt_id, "before_attempt")
            self._before[attempt_id] = self._checkpoint
            self._add(decide.decide_start(self.state, name, attempt_id, "shell", facts))
            self._begun[attempt_id] = self.now_us
            started.append((name, attempt_id))
        return started

    def will_end(self, attempt_id: str, after_us: int, *, well: bool) -> None:
        """How long an attempt that was just started takes, and how it ends."""
        heapq.heappush(self._ends, (self.now_us + after_us, attempt_id, well))

    def next_end(self) -> tuple[str, bool]:
        """Move on to the next end of an attempt. Gives its task, and whether it went well; nothing is recorded yet."""
        while True:
            at_us, attempt_id, well = heapq.heappop(self._ends)
            if attempt_id in self._begun:
                self.now_us = at_us
                self._ended = attempt_id
                return self.state.running[attempt_id], well

    def record_end(self, *, well: bool, retryable: bool = True) -> None:
        """Record the end that was moved to, with its checkpoint."""
        attempt_id = self._ended
        begun_us = self._begun.pop(attempt_id)
        self.executed_us += self.now_us - begun_us
        ended = Ended(
            attempt_id, "exited", exit_code=int(not well), error=None if well else "failed", retryable=retryable,
            started_at_us=begun_us, ended_at_us=self.now_us,
        )  # fmt: skip
        commit = attempt_id if well else None
        self._add(*decide.decide_end(self.state, ended, self.now_us, 0.0, commit=commit))
        self._save(attempt_id, "after_attempt")

    def stop_all(self) -> None:
        """What runs is stopped where it is."""
        self.executed_us += sum(self.now_us - begun_us for begun_us in self._begun.values())
        self._begun.clear()

    def last_checkpoint(self) -> int:
        """The number of the last checkpoint."""
        return self._checkpoint

    def before(self, task_id: str) -> int:
        """The number of the checkpoint before the last attempt of a task."""
        return self._before[self.state.tasks[task_id].attempt_id or ""]

    def roll_back(self, to: int) -> None:
        """Take the run back to a checkpoint, stop what was undone, and go on."""
        there = self._fold(self._records[:to])
        self._record(*decide_rollback(self.state, there, to))
        self.stop_all()
        self._record(ev.RunResumed(reason="rolled back"))
        self.state = self._fold(self._records)
        self._agenda = Agenda(self.state)

    def _save(self, attempt_id: str, kind: str) -> None:
        event = {"checkpoint_id": str(len(self._records)), "kind": kind, "commit": self.state.integration}
        self._add(ev.CheckpointCreated.model_validate({**event, "attempt_id": attempt_id}))
        self._checkpoint = len(self._records)

    def _fold(self, records: Sequence[Recorded]) -> st.RunState:
        state = st.initial("paper")
        for record in effective(records)[0]:
            state = st.fold(state, record, lambda _: self._content)
        state.seq = state.version = len(records)
        return state

    def _record(self, *events: Event) -> list[Recorded]:
        first = len(self._records) + 1
        made = [Recorded(at, "paper", at, self.now_us, "bench", event) for at, event in enumerate(events, first)]
        self._records += made
        return made

    def _add(self, *events: Event) -> None:
        for record in self._record(*events):
            self.state = st.fold(self.state, record, lambda _: self._content)
