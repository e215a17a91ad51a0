"""Events in words: what happened, one line each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from rich.text import Text

from parallel_agents.cli.drawing import SIGNS, console, duration, local_time, one_line
from parallel_agents.held_back import GOES_ON, OWN
from parallel_agents.look import fields_of

_AFTER = {
    "TaskStarted": "running", "TaskCompleted": "completed", "TaskFailed": "failed", "TaskTimedOut": "failed",
    "AttemptLost": "failed", "TaskCancelled": "cancelled", "TaskSkipped": "skipped", "TaskQueued": "queued",
    "TaskRetryScheduled": "queued", "TaskBlocked": "blocked", "RunCompleted": "completed", "RunFailed": "failed",
    "RunCancelled": "cancelled", "RunPaused": "paused", "RunSubmitted": "submitted",
}  # fmt: skip
_SHORT = 10  # Digits of a commit that people read.


class HistoryPage:
    """Prints events as they come.

    Args:
        undone: whether an event, told by its run and its seq, is undone.
        with_run: say of which run each is.
    """

    def __init__(self, *, undone: Callable[[str, int], bool], with_run: bool) -> None:
        self._undone = undone
        self._with_run = with_run
        self._console = console()
        self.lines = 0
        self._failed: dict[str, dict[str, Any]] = {}  # By attempt: what was said of an agent's failure.

    def print(self, event: dict[str, Any]) -> None:
        """One line."""
        if not self.lines:
            run = f"{'RUN':<11} " if self._with_run else ""
            self._console.print(Text(f"{'SEQ':>6}  {'TIME':<12}  {run}{'EVENT':<20} {'TASK':<16} WHAT", style="bold"))
        self.lines += 1
        undone = self._undone(event["run_id"], event["seq"])
        style = SIGNS[_AFTER[event["type"]]][1] if event["type"] in _AFTER else ""
        line = Text(f"{event['seq']:>6}  {local_time(event['at'], precise=True):<12}  ")
        if self._with_run:
            line.append(f"{event['run_id']:<11} ")
        line.append(f"{event['type']:<20} ", style=style)
        line.append(f"{event['data'].get('task_id') or '':<16} ")
        line.append(one_line(sentence(event) + self._how_again(event)) + (" (undone)" if undone else ""))
        if undone:
            line.stylize("dim strike")
        self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def _how_again(self, event: dict[str, Any]) -> str:
        """How an agent that failed is tried again: as it was, where it was, or with what went wrong in its prompt."""
        data = event["data"]
        if event["type"] in ("TaskFailed", "AttemptLost"):
            self._failed[data["attempt_id"]] = data
        failed = self._failed.get(data.get("attempt_id", "")) if event["type"] == "TaskRetryScheduled" else None
        if failed is None or not (failed.get("kind") or failed.get("resumable")):
            return ""
        kind = failed.get("kind", "infrastructure")
        if kind in OWN:
            return ", with the error in its prompt"
        return ", going on with its session" if failed.get("resumable") and kind in GOES_ON else ", unchanged"


def sentence(event: dict[str, Any]) -> str:
    """What an event says besides its type and its task."""
    data = fields_of(event)
    match event["type"]:
        case "RunSubmitted":
            return f"{data['name']}: {data['task_count']} tasks, {data['strategy']}, in {data['workdir']}"
        case "RunClaimed":
            holder = data["holder"]
            return f"by {holder.get('kind', 'a process')} {holder.get('pid', '')}".rstrip()
        case "RunReleased":
            return "in the middle of it; whoever dispatches next goes on" if data.get("left") else ""
        case "RunCompleted" | "RunFailed" | "RunCancelled":
            counts = ", ".join(f"{number} {status}" for status, number in data["counts"].items())
            reason = (data.get("reason") or "").replace("_", " ")
            return counts + (f" ({reason})" if reason else "")
        case "TaskStarted":
            return _started(data)
        case "TaskCompleted":
            return f"in {duration(data['duration_s'])}" + (f": {data['output']}" if data["output"] is not None else "")
        case "TaskFailed" | "TaskTimedOut" | "AttemptLost":
            took = f"after {duration(data['duration_s'])}: " if "duration_s" in data else ""
            kind = f"{data['kind'].replace('_', ' ')}: " if data.get("kind") else ""
            return took + kind + str(data["error"])
        case "TaskRetryScheduled":
            if not data["failures"]:  # It never began, or what ended it counts as no failure.
                return "again, and this counts as no failure"
            return f"failed {_times(data['failures'])}, again in {data['wait_s']:.1f} s"
        case "TaskSkipped":
            return f"because {data['because']} failed" + (
                ", and the stage fails fast" if data["reason"] == "fail_fast" else ""
            )
        case "RunRolledBack":
            return f"to event {data['to_seq']}" + (f": {data['reason']}" if data.get("reason") else "")
        case "RunMoved":
            return f"to {data['workdir']}"
        case "RunForked":
            return f"from {data['parent']} at event {data['seq']}"
        case "CostCharged":
            micros = data["usd_micros"]
            how = " (estimated)" if data.get("source") == "estimated" else ""
            how += ", cut off" if data["partial"] else ""
            amount = "an unknown amount" if micros is None else f"${micros / 1e6:.4f}"
            return f"{amount} for {data['model'] or 'an unknown model'}{how}"
        case "ProviderLimited":
            sure = "" if data["stated"] else " (our guess)"
            return f"{data['provider']} until {local_time(data['until'])}{sure}: {data['reason'] or data['kind']}"
        case "PlanScheduled":
            return (
                f"{data['name']}, {data['task_count']} tasks, at {data['cron']} ({data['zone']}), {data['schedule_id']}"
            )
        case "ScheduleFired":
            late = f", {duration(data['late_s'])} late" if data["late_s"] >= 1 else ""
            return f"{data['schedule_id']}, due {local_time(data['due'])}{late}, as run {data['run_id']}" + _missed(
                data
            )
        case "ScheduleSkipped":
            return f"{data['schedule_id']}, due {local_time(data['due'])}: {data['reason']}" + _missed(data)
        case "ScheduleRemoved":
            return str(data["schedule_id"]) + (f": {data['reason']}" if data["reason"] else "")
        case "ToolsDenied":
            return f"not allowed: {', '.join(dict.fromkeys(data['tools']))}"
        case "ProviderFreed":
            return f"{data['provider']}" + (f": {data['reason']}" if data["reason"] else "")
        case "AttemptStuck":
            return str(data["reason"]) + (f"; its last words: {data['last_output']}" if data["last_output"] else "")
        case "AttemptRevived":
            return "it goes on"
        case "RunnerFailed" | "CircuitOpened" | "CircuitHalfOpened" | "CircuitClosed":
            return _of_circuit(event["type"], data)
        case "BudgetChanged":
            micros = data["budget_usd_micros"]
            return f"{data['scope']}: " + ("no limit" if micros is None else f"${micros / 1e6:.2f}")
        case "BudgetThresholdReached":
            return f"{data['scope']}: {data['share']:.0%} is spent, ${data['spent_usd_micros'] / 1e6:.4f}"
        case "BudgetExceeded":
            spent, limit = data["spent_usd_micros"] / 1e6, data["budget_usd_micros"] / 1e6
            return f"{data['scope']}: ${spent:.4f} of ${limit:.4f}"
        case "DispatchUnthrottled":
            return f"of {data['code']}" if data.get("code") else ""
        case "WorkersScaled":
            return f"to {data['workers']}" + (f": {data['reason']}" if data["reason"] else "")
        case _:
            return _of_files(event["type"], data)


def _started(data: dict[str, Any]) -> str:
    """Who, on which model, why, and how it begins."""
    said = f"attempt {data['attempt']} by {data['runner']}"
    if data.get("role"):
        said += f" as {data['role']}"
    if data.get("model_reason"):
        said += f" on {data['model'] or 'its own model'} ({data['model_reason']})"
    said += f", {data['attempt_id']}" + _short(", on ", data.get("base_commit"))
    if data.get("resumes"):
        return f"{said}, goes on with the session of {data['resumes']}"
    return said


def _of_circuit(type_: str, data: dict[str, Any]) -> str:
    """What is said of a runner as such."""
    match type_:
        case "CircuitOpened":
            failed = f"{data['runner']} until {local_time(data['until'])}, failed {_times(data['failures'])} in a row"
            return f"{failed}: {data['reason']}"
        case "CircuitHalfOpened":
            return f"{data['runner']} is tried by {data['attempt_id']}"
        case _:
            return f"{data['runner']}" + (f": {data['reason']}" if data["reason"] else "")


def _missed(data: dict[str, Any]) -> str:
    return f" ({_times(data['missed'])} before that nobody saw to it)" if data["missed"] else ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _of_files(type_: str, data: dict[str, Any]) -> str:
    """What an event about files says; of any other its reason."""
    match type_:
        case "CheckpointCreated":
            label = data.get("label") or data.get("description")
            what = f"{data['checkpoint_id']}, {data['kind'].replace('_', ' ')}"
            return what + _short(", ", data.get("commit")) + (f": {label}" if label else "")
        case "CheckpointRestored":
            where = " in place" if data.get("in_place") else f", into {data['into']}" if data["into"] else ""
            return str(data["checkpoint_id"]) + where + (f": {data['reason']}" if data["reason"] else "")
        case "ConflictDetected":
            named = zip_longest(data["paths"], data.get("kinds", ()))
            paths = [str(path) + (f" ({kind})" if kind else "") for path, kind in named]
            said = f"with {data['other_task_id'] or 'what was merged before'} over {', '.join(paths)}"
            return f"coming, as both stand now: {said}" if data.get("early") else said
        case "ConflictResolved":
            return f"{data['how']}: {', '.join(data.get('paths', ()))}" + _short(", merged as ", data.get("commit"))
        case "TaskBlocked":
            return f"waits for a person: {data['reason']}" + _short(", its work is ", data.get("commit"))
        case "TaskUnblocked":
            attempt = f"attempt {data['attempt']}" if data.get("attempt") else ""
            return ": ".join(part for part in (attempt, data.get("reason")) if part)
        case "GateChecked":
            code = data["exit_code"]
            how = "passed" if data["passed"] else "ran too long" if code is None else f"exit {code}"
            return f"{data['scope']} gate {how} after {duration(data['duration_s'])}: {data['command']}"
        case "SharedStateChanged":
            return f"changed in the repository: {', '.join(data['what'])}"
        case "RunMerged":
            return f"into {data['into']} as {data['commit'][:_SHORT]}" + (", squashed" if data["squash"] else "")
        case "CheckpointsDropped":
            return f"{data['refs']} refs of checkpoints, by gc"
        case "RunArchived":
            return f"{data['run_id']} into {data['file']}: {data['events']} bodies, {data['files']} files"
        case "FilesRestoring":
            return f"to {data['commit'][:_SHORT]}"
        case _:
            return str(data.get("reason") or data.get("how") or data.get("label") or "").replace("_", " ")


def _short(before: str, commit: str | None) -> str:
    """The first digits of a commit, where there is one."""
    return f"{before}{commit[:_SHORT]}" if commit else ""
