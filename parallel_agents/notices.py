"""Events as the notifications that users know, in the words of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from parallel_agents.configuration import Configuration
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.breaker import CIRCUIT_OPEN
from parallel_agents.scheduler.budget import percent, usd, words_of
from parallel_agents.wording import escaped

_LONGEST = 2000  # Characters of what somebody else wrote; with anything that a terminal would obey as an escape.


class Notices:
    """Which notifications a configuration wants, and their words."""

    def __init__(self, configuration: Configuration) -> None:
        self._formats: dict[str, str] = {}
        for name in ("parallelExecutionStarted", "agentStarted", "agentCompleted", "agentFailed", "conflictDetected",
                     "parallelExecutionCompleted"):  # fmt: skip
            if configuration.get(f"notifications.{name}.enabled"):
                self._formats[name] = configuration.get(f"notifications.{name}.format")
        if not configuration.get("monitoring.failureNotifications"):
            self._formats.pop("agentFailed", None)
        if not configuration.get("monitoring.successNotifications"):
            self._formats.pop("agentCompleted", None)

    def of(self, records: Sequence[Recorded], state: RunState) -> Iterator[str]:
        """The lines for new events, oldest first.

        Args:
            state: of their run, with them folded in.
        """
        for record in records:
            named = _notice(record, state)
            if named is None:
                continue
            name, values = named
            template = self._formats.get(name)
            if template is not None:
                shown = {
                    key: escaped(value, _LONGEST) if isinstance(value, str) else value for key, value in values.items()
                }
                yield template.format(run_id=state.run_id, name=state.name, **shown)
        yield from (escaped(line, _LONGEST) for line in news(records, state))


def news(records: Sequence[Recorded], state: RunState) -> Iterator[str]:
    """What nobody can switch off: budgets that come to their end, pauses for money or a key, and attempts that look stuck."""
    scopes_spent: set[str] = set()  # Then it is clear why the run is paused.
    told: dict[str, str] = {}  # By scope: of several shares that were passed at once the last one.
    for record in records:
        match record.event:
            case ev.BudgetThresholdReached(scope=scope, share=share, spent_usd_micros=spent):
                told[scope] = (
                    f"⚠️ {words_of(scope)} is used to {percent(share)}: {usd(spent)}{_starts(state, scope, share)}"
                )
            case ev.BudgetExceeded(scope=scope, spent_usd_micros=spent, budget_usd_micros=budget):
                told[scope] = f"⛔ {words_of(scope)} is spent: {usd(spent)} of {usd(budget)}"
                scopes_spent.add(scope)
            case ev.ToolsDenied(task_id=task_id, tools=tools):
                told[f"tools:{task_id}"] = f"⚠️ {task_id} was not allowed to use {', '.join(dict.fromkeys(tools))}"
            case ev.AttemptStuck(task_id=task_id, reason=reason):
                told[f"stuck:{task_id}"] = f"⚠️ {task_id} looks stuck: {reason}"
            case ev.AttemptRevived(task_id=task_id):
                told[f"stuck:{task_id}"] = f"{task_id} goes on"
            case ev.RunPaused(reason=reason, code=code) if code and scopes_spent.isdisjoint(told):
                told["paused"] = f"⏸️ Paused: {reason}"
            case _:
                pass
    yield from told.values()


def waiting(limit: Mapping[str, Any]) -> str:
    """That a provider lets nobody work, or a runner is broken: until when on this machine's clock, why, and what lifts that."""
    until = datetime.fromisoformat(limit["until"]).astimezone()
    when = f"{until:%H:%M:%S}" if until.date() == datetime.now().astimezone().date() else f"{until:%Y-%m-%d %H:%M:%S}"
    if limit["runner"] is not None:
        until_then = f"until {when}" if limit["kind"] == CIRCUIT_OPEN else "but one attempt that tries it"
        failed = f"it failed {limit['failures']} times in a row: {limit['reason']}"
        return f"⏳ runner {limit['runner']} starts nothing {until_then}: {failed} (`{limit['lift']}` lifts that)"
    sure, why = "" if limit["stated"] else " (our guess)", limit["reason"] or limit["kind"].replace("_", " ")
    return f"⏳ {limit['provider']} lets no agent start until {when}{sure}: {why} (`{limit['lift']}` lifts that)"


def _starts(state: RunState, scope: str, share: float) -> str:
    """Which tasks start from that share of a budget on, where that depends on it."""
    settings = state.plan.budgets
    if scope.startswith("task:") or not (settings.by_priority and settings.pause):
        return ""
    if share >= settings.emergency:
        return "; only critical tasks start"
    return "; only critical and high tasks start" if share >= settings.critical else ""


def _notice(record: Recorded, state: RunState) -> tuple[str, dict[str, Any]] | None:
    match record.event:
        case ev.RunStarted():
            return "parallelExecutionStarted", {"strategy": state.plan.strategy, "total": len(state.tasks)}
        case ev.TaskStarted(task_id=task_id):
            return "agentStarted", _who(state, task_id)
        case ev.TaskCompleted(task_id=task_id, duration_s=duration_s):
            return "agentCompleted", {**_who(state, task_id), "duration": _seconds(duration_s)}
        case ev.TaskFailed() | ev.TaskTimedOut() as event:
            values = {"duration": _seconds(event.duration_s), "error": event.error}
            return "agentFailed", {**_who(state, event.task_id), **values}
        case ev.AttemptLost(task_id=task_id, error=error):
            started_us = state.tasks[task_id].started_at_us
            duration_s = (record.at_us - started_us) / 1e6 if started_us is not None else 0.0
            return "agentFailed", {**_who(state, task_id), "duration": _seconds(duration_s), "error": error}
        case ev.ConflictDetected(task_id=task_id, paths=paths) as event:
            early = f" (so far, with {event.other_task_id or 'what is merged'})" if event.early else ""
            return "conflictDetected", {**_who(state, task_id), "files": ", ".join(paths) + early}
        case ev.RunCompleted(counts=counts) | ev.RunFailed(counts=counts) | ev.RunCancelled(counts=counts):
            started_us = state.started_at_us or record.at_us
            return "parallelExecutionCompleted", {
                "status": state.status,
                "total": len(state.tasks),
                **{name: counts.get(name, 0) for name in (st.COMPLETED, st.FAILED, st.CANCELLED, st.SKIPPED)},
                "duration": _seconds((record.at_us - started_us) / 1e6),
            }
        case _:
            return None


def _who(state: RunState, task_id: str) -> dict[str, str]:
    return {"task_id": task_id, "agent_type": state.tasks[task_id].task.agent_type}


def _seconds(duration_s: float) -> str:
    return f"{duration_s:.1f}"
