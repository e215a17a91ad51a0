"""What an ended attempt has left in files, and what that means: merged, in conflict, to be approved, or failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import FileSettings
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.granting import is_agent, resolves
from parallel_agents.scheduler.decide import GATE_FAILED, attributed, decide_end, measured, no_fault
from parallel_agents.scheduler.retry import retries_left
from parallel_agents.scheduler.runners.protocol import Ended

REBASE_ROUNDS = 2
"""How often a task is run again on the merged result of others before a person is asked (``conflicts: rebase``)."""
APPROVAL = "approval"
RESULT_APPROVAL = "approval of its result"
CONFLICT = "conflict"
PATHS_SHOWN = 5
PATHS_KEPT = 50
"""How many of the paths that an attempt has changed its checkpoint's event names, for whoever goes on from there."""


class Clash(NamedTuple):
    """One path that does not merge, and git's word for why."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Gated:
    """A gate that was run."""

    scope: str  # task, merge or stage.
    command: str
    exit_code: int | None
    duration_s: float
    output: str
    log: str = ""
    commit: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the files are good enough."""
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Work:
    """The files of one ended attempt."""

    checkpoint_id: str
    commit: str | None = None  # What it left; None where it could not be kept.
    changed: int = 0  # Paths that differ from where it began.
    onto: str | None = None  # The integration line that it was merged with; None before that was tried.
    merged: str | None = None  # The merge, where it is clean or was resolved by configuration.
    clashes: tuple[Clash, ...] = ()
    other_task_id: str = ""  # Who changed the first of these paths before.
    gates: tuple[Gated, ...] = ()
    shared: tuple[str, ...] = ()  # What changed in the repository that no attempt should touch.
    paths: tuple[str, ...] = ()  # The first of those that differ.

    @property
    def failed_gate(self) -> Gated | None:
        """The first gate of it that did not pass."""
        return next((gate for gate in self.gates if not gate.passed), None)


def wants_merge(state: RunState, task: TaskState, ended: Ended) -> bool:
    """Whether the work of an attempt is to be merged now. A failed one's never is; an unapproved one's not yet."""
    well = ended.outcome == "exited" and ended.error is None
    return well and state.plan.workspace == "worktree" and task.task.approval != "result"


def decide_work(state: RunState, ended: Ended, work: Work, now_us: int, draw: float) -> list[Event]:
    """What the end of an attempt means whose files are known: how it was found, the end itself, and its checkpoint.

    The checkpoint comes last, so that going back to it goes back to after the end.

    Args:
        now_us, draw: see ``decide_end``.
    """
    task = state.tasks[state.running[ended.attempt_id]]
    found = found_out(task.task.task_id, ended.attempt_id, work)
    return [*found, *_end(state, task, ended, work, now_us, draw), *_kept(state, task, ended.attempt_id, work)]


def _end(state: RunState, task: TaskState, ended: Ended, work: Work, now_us: int, draw: float) -> list[Event]:
    settings = state.plan.files
    succeeded = ended.outcome == "exited" and ended.error is None
    gate = work.failed_gate if settings.fail_on_gates else None
    if succeeded and gate is not None and gate.scope == "task":
        ended = replace(ended, error=f"quality gate failed: {gate.command} {_outcome(gate)}")
        succeeded = False
    ended = attributed(task, ended)
    idle = succeeded and is_agent(task.task) and work.commit is not None and not work.changed
    if idle and (task.task.outputs or task.task.files) and not resolves(state, task):
        asked = "outputs" if task.task.outputs else "files to change"
        ended = replace(ended, error=f"no change: it changed no file, and the task names {asked}", kind="no_change")
        succeeded = False
    if not succeeded:
        if resolves(state, task) and _gives_up(state, task, ended):
            return [
                _blocked(task, ended, replace(work, commit=_in_conflict(task)), f"{CONFLICT}: {_why_left(task, ended)}")
            ]
        return decide_end(state, ended, now_us, draw)
    if task.task.approval == "result":
        return [_blocked(task, ended, work, RESULT_APPROVAL)]
    clashes = clashes_of_merge(settings, work)
    if not clashes:
        commit = work.merged or work.commit
        settled: list[Event] = []
        if resolves(state, task) and task.conflict is not None:
            paths, attempt_id = task.conflict["paths"], ended.attempt_id
            settled.append(
                ev.ConflictResolved(
                    task_id=task.task.task_id, how="agent", attempt_id=attempt_id, commit=commit, paths=paths
                )
            )  # fmt: skip
        return [*settled, *decide_end(state, ended, now_us, draw, commit=commit, outcome="no_change" if idle else "")]
    return in_conflict(state, task, ended, work, clashes, now_us, draw)


def _gives_up(state: RunState, task: TaskState, ended: Ended) -> bool:
    """Whether nobody tries any more to resolve a conflict, so that it is a person's."""
    if no_fault(task, ended) or ended.outcome == "lost" or task.cancel_requested or state.cancel_requested:
        return False
    policy = state.plan.settings.retry
    return not retries_left(task.failures + 1, task.task.max_retries, policy, retryable=ended.retryable)


def _in_conflict(task: TaskState) -> str | None:
    return None if task.conflict is None else task.conflict["commit"]


def _why_left(task: TaskState, ended: Ended) -> str:
    paths = ", ".join(task.conflict["paths"][:PATHS_SHOWN]) if task.conflict else ""
    return f"{paths}; {task.role or 'the agent that was to resolve it'} did not: {ended.error}"


def clashes_of_merge(settings: FileSettings, work: Work) -> tuple[Clash, ...]:
    """What keeps work from being merged: paths, or the gate that a textually clean merge does not pass."""
    gate = work.failed_gate if settings.fail_on_gates else None
    return work.clashes if gate is None else (Clash(gate.command, f"gate {_outcome(gate)}"),)


def kept_of_undone(task_id: str, attempt_id: str, work: Work) -> list[Event]:
    """How the files of an attempt are kept that a rollback has undone meanwhile."""
    if work.commit is None or not work.changed:
        return []
    label = f"what {task_id} had done when it was undone"
    return [
        ev.CheckpointCreated(
            checkpoint_id=work.checkpoint_id, kind="after_attempt", label=label, commit=work.commit,
            attempt_id=attempt_id, changed=work.changed,
        )
    ]  # fmt: skip


def _outcome(gate: Gated) -> str:
    return "ran too long" if gate.exit_code is None else f"exit {gate.exit_code}"


def found_out(task_id: str, attempt_id: str, work: Work) -> list[Event]:
    """What was seen of an attempt's work: shared state that changed, and gates."""
    events: list[Event] = []
    if work.shared:
        events.append(ev.SharedStateChanged(task_id=task_id, attempt_id=attempt_id, what=list(work.shared)))
    events += [
        ev.GateChecked(
            scope=gate.scope, command=gate.command, passed=gate.passed, exit_code=gate.exit_code,
            duration_s=gate.duration_s, output=gate.output, log=gate.log, commit=gate.commit or work.commit,
            task_id=task_id, attempt_id=attempt_id,
        )
        for gate in work.gates
    ]  # fmt: skip
    return events


def _kept(state: RunState, task: TaskState, attempt_id: str, work: Work) -> list[Event]:
    if work.commit is None or not (state.plan.files.per_agent or work.changed):
        return []
    task_id = task.task.task_id
    return [
        ev.CheckpointCreated(
            checkpoint_id=work.checkpoint_id, kind="after_attempt", label=f"after {task_id}", commit=work.commit,
            task_id=task_id, attempt_id=attempt_id, changed=work.changed, paths=list(work.paths),
            agent_type=task.task.agent_type,
        )
    ]  # fmt: skip


def in_conflict(
    state: RunState, task: TaskState, ended: Ended, work: Work, clashes: tuple[Clash, ...], now_us: int, draw: float
) -> list[Event]:
    """A conflict at the merge: first in wins, and the configuration says what becomes of the later one."""
    task_id, settings = task.task.task_id, state.plan.files
    found: list[Event] = [
        ev.ConflictDetected(
            task_id=task_id, other_task_id=work.other_task_id, paths=[clash.path for clash in clashes],
            kinds=[clash.kind for clash in clashes], attempt_id=ended.attempt_id, onto=work.onto, commit=work.commit,
            round=task.conflicts + 1,
        )
    ]  # fmt: skip
    resolved = ev.ConflictResolved(
        task_id=task_id, how=settings.conflicts, attempt_id=ended.attempt_id, commit=work.merged,
        paths=[clash.path for clash in clashes],
    )  # fmt: skip
    reason = f"{CONFLICT}: {named(clashes)}" + (f" with {work.other_task_id}" if work.other_task_id else "")
    match settings.conflicts:
        case "ours" | "theirs" if work.merged is not None and clashes == work.clashes:  # No side mends a gate.
            return [*found, resolved, *decide_end(state, ended, now_us, draw, commit=work.merged)]
        case "rebase" | "agent" if task.conflicts < REBASE_ROUNDS:
            then = "it runs again on the merged result" if settings.conflicts == "rebase" else "an agent resolves it"
            # Its session would go on with the files that did not merge.
            failed = replace(ended, error=f"{reason}; {then}", retryable=False, resumable=False)
            again = ev.TaskRetryScheduled(
                task_id=task_id, attempt_id=ended.attempt_id, failures=task.failures, not_before=rfc3339(now_us),
                wait_s=0.0, jitter_s=0.0,
            )  # fmt: skip
            told = [resolved] if settings.conflicts == "rebase" else []
            return [*found, *told, *decide_end(state, failed, now_us, draw), again]
        case "abort":
            failed = replace(ended, error=reason, retryable=False)
            found = [*found, resolved, *decide_end(state, failed, now_us, draw)]
        case _:
            found.append(_blocked(task, ended, work, reason))
    pause = decide_conflict_pause(state, task_id, reason)
    return found if pause is None else [*found, pause]


def decide_conflict_pause(state: RunState, task_id: str, reason: str) -> ev.RunPaused | None:
    """The pause of a run because work of it did not merge, where it is configured so."""
    if not state.plan.files.pause_on_conflict or state.status != st.RUNNING:
        return None
    return ev.RunPaused(reason=f"{task_id}: {reason}")


def decide_stage(state: RunState, stage: int, gates: Sequence[Gated | ev.GateChecked]) -> list[Event]:
    """What the gates at the end of a stage mean for the run: nothing, or that it ends, with the files of the stage before.

    Args:
        gates: as far as they were run, which is up to the first that did not pass.
    """
    failed = next((gate for gate in gates if not gate.passed), None)
    if failed is None or not state.plan.files.fail_on_gates:
        return []
    name = state.plan.stages[stage].name
    ends: list[Event] = [ev.RunCancelRequested(reason=f"{GATE_FAILED}: {failed.command} after stage {name}")]
    if not state.plan.files.rollback_on_gates or state.last_stage is None:
        return ends
    checkpoint_id, commit = state.last_stage
    return [ev.CheckpointRestored(checkpoint_id=checkpoint_id, reason="autoRollbackOnFailure", commit=commit), *ends]


def named(clashes: tuple[Clash, ...]) -> str:
    """The first paths of a conflict."""
    more = len(clashes) - PATHS_SHOWN
    return ", ".join(clash.path for clash in clashes[:PATHS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _blocked(task: TaskState, ended: Ended, work: Work, reason: str) -> Event:
    return ev.TaskBlocked(
        task_id=task.task.task_id, reason=reason, attempt_id=ended.attempt_id, commit=work.commit, output=ended.output,
        exit_code=ended.exit_code, duration_s=max(0, ended.ended_at_us - ended.started_at_us) / 1e6,
        **measured(ended),
    )  # fmt: skip


def facts_of_conflict(conflict: dict[str, Any]) -> str:
    """A conflict as the attempt after it reads it: what met what, in words."""
    paths = "\n".join(f"  {path} ({kind})" for path, kind in zip(conflict["paths"], conflict["kinds"], strict=False))
    other = conflict["other_task_id"] or "work that was merged before"
    return f"The work of the attempt before did not merge with {other}. It is not in this checkout. Paths:\n{paths}\n"
