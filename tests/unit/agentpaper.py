"""A run of agents on paper: granted, started, charged and ended by the same functions as in a dispatcher, in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from paper import SECOND_US, PaperRun, ended, plan_of

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import AgentSettings, BudgetSettings, FileSettings, Plan, Task
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.spend import Spend
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.accounts import Accounts, agent_facts, charges_of
from parallel_agents.scheduler.agents.granting import Grant, Held
from parallel_agents.scheduler.plan import Decision, Facts
from parallel_agents.scheduler.runners.protocol import Charge, Ended
from parallel_agents.scheduler.work import Work, decide_work

CENT = 10_000  # Micro-dollars.


def agent(task_id: str, *dependencies: str, **fields: Any) -> Task:
    """A task of a backend engineer, whom ``claude`` runs on ``sonnet`` unless something else is said."""
    given = {"runner": "claude", "agent_type": "backend-engineer", "description": "Do it.", **fields}
    return Task(task_id=task_id, dependencies=dependencies, **given)


def agents_plan(
    *tasks: Task, agents: Mapping[str, Any] | None = None, budgets: Mapping[str, Any] | None = None,
    budget: int | None = None, files: FileSettings | None = None, **limits: Any,
) -> Plan:  # fmt: skip
    """A plan of theirs."""
    made = plan_of(*tasks, files=files, **limits)
    return made.model_copy(
        update={
            "agents": AgentSettings(**(agents or {})),
            "budgets": BudgetSettings(**(budgets or {})),
            "budget_usd_micros": budget,
        }
    )


def paid(*usd_micros: int | None) -> tuple[Charge, ...]:
    """Charges of one model each."""
    return tuple(Charge(f"m{number}", micros, "agent") for number, micros in enumerate(usd_micros))


class AgentRun(PaperRun):
    """One run of agents, in a store that has nothing else.

    Attributes:
        live: what those that run are seen to have spent.
    """

    def __init__(self, plan: Plan) -> None:
        self.spend = Spend()
        self.live: dict[str, int] = {}
        self.accounts = Accounts(cast(Projector, None), lambda: self.live)
        self.accounts.spend = self.spend
        super().__init__(plan)
        self.state.budget_usd_micros = plan.budget_usd_micros

    def add(self, *events: Event) -> None:
        """Fold what somebody else has decided."""
        super().add(*events)
        for event in events:
            self._spends(event, "paper")

    def store(self, *events: Event) -> None:
        """The same of events of no run."""
        for event in events:
            self.events.append(event)
            self._spends(event, "store")

    def _spends(self, event: Event, run_id: str) -> None:
        spend_fold.fold(self.spend, Recorded(1, run_id, 1, self.now_us, "test", event))

    def facts(self) -> Facts:
        """Slots and money as they are now."""
        facts = super().facts()
        facts.agents = agent_facts(self.spend, self.state, {"paper": self.state}, self.now_us, self.live)
        return facts

    def carry_out(self, decision: Decision) -> list[str]:
        """Do what was planned. Gives the tasks that started, in that order."""
        super().carry_out(Decision(skips=decision.skips, cancels=decision.cancels))
        started = []
        for what, name in decision.steps:
            if what == "start":
                attempt_id = f"{name}{self.state.tasks[name].attempts + 1}"
                granted = decision.grants.get(name)
                self.add(decide.decide_start(self.state, name, attempt_id, "shell", super().facts(), granted))
                started.append(name)
            else:
                super().carry_out(Decision(steps=[(what, name)]))
        return started

    def tick(self, priority: int = 3) -> list[str]:
        """Plan and do it. A moment passes before anything that was started can end."""
        started = super().tick(priority)
        self.now_us += bool(started)
        return started

    def granted(self, name: str) -> Grant | Held | None:
        """What a plan would say of a task now; None where it does not come to that."""
        decision = self.plan()
        return decision.grants.get(name) or decision.held.get(name)

    def fails(self, name: str, kind: str, *, work: Work | None = None, **fields: Any) -> list[str]:
        """The attempt of a task ends with a failure of a kind. Gives what was decided, as types."""
        return self.ends(name, error=f"{kind} trouble", kind=kind, work=work, **fields)

    def ends(self, name: str, *, error: str | None = None, work: Work | None = None, **fields: Any) -> list[str]:
        """The attempt of a task ends, as a dispatcher would tell it. Gives what was decided, as types."""
        task = self.state.tasks[name]
        assert task.attempt_id is not None
        self.live.pop(task.attempt_id, None)
        end: Ended = self.accounts.cut_short(ended(task.attempt_id, error, **fields), self.state)
        before = len(self.events)
        self.add(*charges_of(name, task.role or task.task.agent_type, task.runner or "", end))
        said = self.accounts.of_provider(end, task.started_at_us or 0, task.model, self.now_us)
        if said is not None:
            self.store(said)
        if work is not None:
            self.add(*decide_work(self.state, end, work, self.now_us, 0.0))
        else:
            self.add(*decide.decide_end(self.state, decide.attributed(task, end), self.now_us, 0.0))
        return [type(event).__name__ for event in self.events[before:]]

    def starts(self, name: str) -> ev.TaskStarted:
        """A tick; the start of that task."""
        self.tick()
        return [one for one in self.events if isinstance(one, ev.TaskStarted) and one.task_id == name][-1]

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_us += round(seconds * SECOND_US)

    def of(self, event_type: type[Event]) -> list[Any]:
        """All events of a type."""
        return [one for one in self.events if isinstance(one, event_type)]
