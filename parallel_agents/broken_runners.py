"""Which runners are left alone for a while because they fail by their own fault, and how that is lifted. As plain data."""

from __future__ import annotations

from typing import Any

from parallel_agents.eventstore.events import CircuitClosed, Event
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.projections.circuits import Circuits
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.granting import by_agent, is_agent, runner_name, runner_of
from parallel_agents.scheduler.breaker import CIRCUIT_OPEN, CircuitFacts, standing
from parallel_agents.scheduler.circuits import facts_of, read_circuits

HALF_OPEN = "circuit_half_open"


def circuit_facts(log: Log, state: RunState, running: Any, now_us: int, upto: int | None = None) -> CircuitFacts | None:
    """What the starts of a run depend on, as its dispatcher sees it.

    Args:
        running: attempts of the store that hold a slot.
    """
    return facts_of(read_circuits(log, upto), state, running, now_us)


def circuit_lines(circuits: Circuits, now_us: int) -> list[dict[str, Any]]:
    """The runners whose circuits are not closed at a moment, in the form of the waits for providers."""
    lines = []
    for runner, circuit in sorted(circuits.items()):
        found = standing(circuit, now_us)
        if found == "closed":
            continue
        assert circuit.until_us is not None
        assert circuit.opened_us is not None
        lines.append(
            {
                "provider": None,
                "runner": runner,
                "kind": CIRCUIT_OPEN if found == "open" else HALF_OPEN,
                "until": rfc3339(circuit.until_us),
                "stated": True,
                "reason": circuit.reason,
                "model": None,
                "since": rfc3339(circuit.opened_us),
                "attempt_id": circuit.trial or "",
                "failures": circuit.count,
                "lift": f"parallel-agents limits --clear {runner}",
            }
        )
    return lines


def of_run(lines: list[dict[str, Any]], state: RunState) -> list[dict[str, Any]]:
    """Those that a run may meet: of the runners of its tasks."""
    if not lines:
        return []
    resolved = state.plan.files.conflicts == "agent"
    runners = {
        runner_of(state, task) if resolved or is_agent(task.task) else runner_name(task.task)
        for task in state.tasks.values()
    }
    return [line for line in lines if line["runner"] in runners]


def why_of_circuit(state: RunState, task: TaskState, facts: CircuitFacts | None) -> dict[str, Any]:
    """What ``why`` adds for a task whose runner is left alone: until when, and the command that does not wait."""
    runner = runner_of(state, task) if by_agent(state, task) else runner_name(task.task)
    lines = [] if facts is None else circuit_lines(facts.circuits, facts.now_us)
    return next(({"until": line["until"], "settle": line["lift"]} for line in lines if line["runner"] == runner), {})


def closing(circuits: Circuits, runner: str, now_us: int, reason: str) -> Event | None:
    """What lets a runner start again at once; None where nothing keeps it from that."""
    if standing(circuits.get(runner), now_us) == "closed":
        return None
    return CircuitClosed(runner=runner, reason=reason or "closed by a person")
