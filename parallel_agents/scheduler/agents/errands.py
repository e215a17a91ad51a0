"""From the state of a run to what one attempt of an agent is told. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from parallel_agents.eventstore.submission import AgentRole
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.clients import Client
from parallel_agents.scheduler.agents.granting import resolves
from parallel_agents.scheduler.agents.models import name_for
from parallel_agents.scheduler.agents.prompt import (
    Before,
    Conflict,
    Left,
    PromptFacts,
    build_prompt,
    resolve_prompt,
    resume_prompt,
)
from parallel_agents.scheduler.runners.protocol import Errand

_SESSIONS = uuid.UUID("5a1b8a4e-31f3-4f57-9d3a-0f7a3a0f8c11")  # The name space of our session ids; any would do.
NO_ROLE = AgentRole(name="")


def session_id(attempt_id: str) -> str:
    """The id that a client is told to give to the session of an attempt, so that it is known before there is one."""
    return str(uuid.uuid5(_SESSIONS, attempt_id))


def errand(state: RunState, task: TaskState, attempt_id: str, client: Client, attempts: str, *, begins: bool) -> Errand:
    """What an attempt that has been started is asked to do.

    Args:
        attempts: the folder in which those of this run have theirs.
        begins: whether it is to be told at all; otherwise it is taken over.
    """
    settings, spec = state.plan.agents, task.task
    role = settings.roles.get(task.role or spec.agent_type, NO_ROLE)
    resumed = f"{attempts}/{spec.task_id}/{task.resumed}" if task.resumed is not None else None
    prompt = prompt_of(state, task) if begins else ""
    again = resume_prompt(spec, task.before or "it was stopped", state.plan.workspace) if begins and resumed else ""
    return Errand(
        client=client, prompt=prompt, resume_prompt=again,
        model=None if task.model is None or not client.takes_model else name_for(task.model, client.name, settings),
        role_prompt=role.prompt, tools=role.tools if role.tools is not None else settings.allowed_tools,
        session_id=session_id(attempt_id), resumes_folder=resumed, limit_usd_micros=task.limit_usd_micros,
        permission_mode=settings.permission_mode, silence_s=settings.silence_s, grace_s=settings.grace_s,
        setup=spec.setup, teardown=spec.teardown, setup_timeout_s=spec.setup_timeout_s,
    )  # fmt: skip


def prompt_of(state: RunState, task: TaskState) -> str:
    """The prompt of a task's attempt that begins anew."""
    conflict = conflict_of(state.tasks, task)
    if conflict is not None and task.role and resolves(state, task):
        checks = [" ".join(gate.command) for gate in state.plan.files.gates if gate.after == "task"]
        return resolve_prompt(task.task, conflict, summary=task.output, run_name=state.name, checks=checks)
    left = [_left(state.tasks[name]) for name in task.task.dependencies]
    before = None
    if task.lesson is not None and conflict is None:
        here = state.plan.workspace != "worktree" or task.begin_commit is not None
        before = Before(task.lesson["error"], task.lesson["output"], task.lesson["changed"], work_is_here=here)
    return build_prompt(PromptFacts(task.task, state.name, state.plan.workspace, left, before, conflict))


def conflict_of(tasks: Mapping[str, TaskState], task: TaskState) -> Conflict | None:
    """The conflict that the last attempt of a task has met, and that is still open."""
    found = task.conflict
    if found is None:
        return None
    other = tasks.get(found["other_task_id"])
    return Conflict(
        found["paths"], found["kinds"], found["other_task_id"], "" if other is None else other.task.description,
        None if other is None else other.output,
    )  # fmt: skip


def _left(other: TaskState) -> Left:
    spec, done = other.task, other.status == st.COMPLETED
    return Left(
        spec.task_id,
        spec.agent_type,
        spec.description,
        other.output if done else other.error,
        other.changed or (),
        other.status,
    )
