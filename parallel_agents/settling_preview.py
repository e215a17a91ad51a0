"""What settling a conflict would change, before anybody agrees to it, and which tasks of a run there are to be settled."""

from __future__ import annotations

import shlex
from typing import Any

from parallel_agents import gates_here, past_files, travel
from parallel_agents.conflicts import fitting
from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed
from parallel_agents.eventstore.events import RunResumed
from parallel_agents.eventstore.log import Log
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.decide_settling import clashes_of, decide_settled, is_conflict, settling_command
from parallel_agents.settling import Resolution


def to_settle(state: RunState, task_id: str | None) -> str:
    """The task whose conflict is meant: one that was chosen, else the only one that there is.

    Raises:
        NotAllowed: no task waits for that; the hint says what is waited for instead.
        InvalidUsage: several do, and none of them was chosen.
    """
    waiting = [name for name, task in state.tasks.items() if is_conflict(task)]
    if task_id in waiting:
        return str(task_id)
    if len(waiting) > 1:
        raise InvalidUsage(
            f"{len(waiting)} conflicts wait: {', '.join(waiting)}", hint="choose one of these tasks first"
        )
    if waiting:
        return waiting[0]
    others = [command for task in state.tasks.values() if (command := settling_command(state.run_id, task))]
    hint = f"what waits for something else: `{others[0]}`" if others else ""
    raise NotAllowed(f"no conflict of run {state.run_id} waits to be settled", hint=hint)


def sides(state: RunState, task_id: str) -> list[str]:
    """The sides that can be taken of a task's conflict."""
    return fitting({clash.kind for clash in clashes_of(state.tasks[task_id])})


def preview(log: Log, made: Resolution) -> dict[str, Any]:
    """What would follow if a resolution was merged now.

    Returns:
        ``{"run_id", "task_id", "how", "paths", "run_status", "files", "gates", "may_start", "patch"}``: ``run_status`` now and
        then, ``files`` as ``travel.changed_files`` tells what changes in the run's, ``gates`` the commands that are run
        first, ``may_start`` the tasks that wait for nothing else, ``patch`` as git shows it.
    Raises:
        NotAllowed: the task does not wait for it any more.
    """
    state = Projector(log).state(made.run_id)
    events = decide_settled(state, made.task_id, made.commit, made.how, made.paths)
    resumed = any(isinstance(event, RunResumed) for event in events)
    gates = gates_here.task_gates(state) if made.gates else []
    return {
        "run_id": made.run_id,
        "task_id": made.task_id,
        "how": made.how,
        "paths": list(made.paths),
        "run_status": {"now": state.status, "then": st.RUNNING if resumed else state.status},
        "files": travel.changed_files(state, made.onto, made.commit),
        "gates": [shlex.join(gate.command) for gate in gates],
        "may_start": [
            name
            for name in state.dependents.get(made.task_id, ())
            if state.tasks[name].status == st.PENDING and state.tasks[name].open_dependencies == 1
        ],
        "patch": past_files.patch_between(state, made.onto, made.commit),
    }
