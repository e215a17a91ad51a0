"""Events in words: a sentence for each type, with who, what, why and how much. What it is about stands before it in a line."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import Any

from parallel_agents.cli.drawing import duration, local_time, size
from parallel_agents.look import fields_of

_PATHS = 3  # That a line names.
_SHORT = 10  # Digits of a commit that people read.
_BY_SOMEBODY = frozenset(
    {
        "RunSubmitted", "RunForked", "RunPaused", "RunResumed", "RunCancelRequested", "RunRolledBack", "RunMerged", "RunMoved",
        "TaskCancelRequested", "TaskReopened", "TaskUnblocked", "BudgetChanged", "ProviderFreed", "CircuitClosed",
        "CheckpointRestored", "CheckpointsDropped", "ConflictResolved", "SecretScrubbed", "PlanScheduled", "ScheduleRemoved",
        "RunArchived",
    }
)  # fmt: skip
"""Of which the line says by whom: a person's command, or a process on its own."""


def sentence(event: dict[str, Any]) -> str:
    """What an event says, without its task.

    Args:
        event: as ``history --json`` has it; of an older release some fields may be missing.
    """
    data, type_ = fields_of(event), event["type"]
    for words in (_of_run, _of_task, _of_attempt, _of_files, _of_money, _of_runners, _of_schedule):
        said = words(type_, data)
        if said is not None:
            actor = event.get("actor")
            return said + (f" (by {actor})" if actor and type_ in _BY_SOMEBODY else "")
    raise AssertionError(f"{type_} has no sentence")


def _of_run(type_: str, data: dict[str, Any]) -> str | None:
    match type_:
        case "RunSubmitted":
            money = "" if data["budget_usd_micros"] is None else f", {_dollars(data['budget_usd_micros'], 2)} to spend"
            tasks = _count(data["task_count"], "task")
            return f"{data['name']} is submitted: {tasks}, {data['strategy']}, in {data['workdir']}{money}"
        case "RunForked":
            name = data["name"] or "it"
            return f"{name} begins as {data['parent']} stood at event {data['seq']}" + _named(
                data["overrides"], ", with "
            )
        case "RunClaimed":
            holder = data["holder"]
            return f"{holder.get('kind', 'a process')} {holder.get('pid', '')}".rstrip() + " dispatches it from here on"
        case "RunReleased":
            left = ", in the middle of it; whoever dispatches next goes on" if data["left"] else ""
            return f"nobody dispatches it any more{left}"
        case "RunStarted":
            return "it begins"
        case "RunPaused":
            return "no task starts any more; what runs finishes" + _why(data)
        case "RunResumed":
            return "tasks start again" + _why(data)
        case "RunCancelRequested":
            return f"it is to end: what runs gets {data['grace_s']:g} s, nothing else starts" + _why(data)
        case "RunCompleted" | "RunFailed" | "RunCancelled":
            end = {"RunCompleted": "it is completed", "RunFailed": "it has failed", "RunCancelled": "it is cancelled"}
            failed = f"; {', '.join(data['failed'])} failed" if data.get("failed") else ""
            reason = (data.get("reason") or "").replace("_", " ")
            return f"{end[type_]}: {_counts(data['counts'])}{failed}" + (f" ({reason})" if reason else "")
        case "RunRolledBack":
            return f"back to event {data['to_seq']}; what came after is undone" + _why(data)
        case "RunMoved":
            return f"its files are in {data['workdir']} from here on"
        case "RunMerged":
            squashed = ", squashed" if data["squash"] else ""
            return f"its result is brought into {data['into']} as {data['commit'][:_SHORT]}{squashed}"
        case "RunArchived":
            moved = f"{_count(data['events'], 'body', 'bodies')} and {_count(data['files'], 'file')}"
            return f"{moved} of {data['run_id']} lie in {data['file']} now, {size(data['bytes'])}"
        case "SecretScrubbed":
            return f"a secret was removed from event {data['seq']}"
        case _:
            return None


def _of_task(type_: str, data: dict[str, Any]) -> str | None:
    match type_:
        case "TaskQueued":
            return "waits for a slot" + (f" again: {data['reason'].replace('_', ' ')}" if data["reason"] else "")
        case "TaskRetryScheduled":
            if not data["failures"]:  # It never began, or what ended it counts as no failure.
                return "is tried again, and this counts as no failure"
            return f"failed {_times(data['failures'])}, is tried again in {data['wait_s']:.1f} s"
        case "TaskCancelRequested":
            return "its attempt is to end" + _why(data)
        case "TaskCancelled":
            when = "before it started" if data["attempt_id"] is None else "while it ran"
            after = "" if data["duration_s"] is None else f", after {duration(data['duration_s'])}"
            return f"cancelled {when}{after}" + _why(data)
        case "TaskSkipped":
            return f"skipped, because {data['because']} did not complete" + (
                ", and the stage fails fast" if data["reason"] == "fail_fast" else ""
            )
        case "TaskReopened":
            return "is open again, with all its retries" + _why(data)
        case "TaskBlocked":
            return f"waits for a person: {data['reason']}" + _short(", its work is ", data["commit"])
        case "TaskUnblocked":
            attempt = f": attempt {data['attempt']}" if data["attempt"] else ""
            return f"waits for nobody any more{attempt}" + _why(data)
        case _:
            return None


def _of_attempt(type_: str, data: dict[str, Any]) -> str | None:
    match type_:
        case "TaskStarted":
            return _started(data)
        case "TaskCompleted":
            how = " without a change" if data["outcome"] == "no_change" else ""
            merged = _short(", merged as ", data["commit"])
            return f"completed in {duration(data['duration_s'])}{how}{merged}" + _so(data["output"])
        case "TaskFailed":
            return f"failed after {duration(data['duration_s'])}: {_kind(data['kind'])}{data['error']}"
        case "TaskTimedOut":
            limit = duration(data["timeout_s"])
            return f"stopped after {duration(data['duration_s'])}, it may run {limit}: {data['error']}"
        case "AttemptLost":
            return ("vanished" if data["began"] else "vanished before it began") + f": {data['error']}"
        case "ResultDiscarded":
            return f"what {data['attempt_id']} came to is not taken" + _why(data)
        case "AttemptStuck":
            last = f"; its last words: {data['last_output']}" if data["last_output"] else ""
            return f"looks stuck: {data['reason']}{last}"
        case "AttemptRevived":
            return "goes on after all"
        case "ToolsDenied":
            tools = (
                name + (f" ({_times(times)})" if times > 1 else "") for name, times in Counter(data["tools"]).items()
            )
            return f"was not allowed to use {', '.join(tools)}"
        case "SharedStateChanged":
            return f"while it ran, this changed in the repository: {', '.join(data['what'])}"
        case _:
            return None


def _started(data: dict[str, Any]) -> str:
    """Who, on which model, why, how it begins, and what is held back for it."""
    said = f"attempt {data['attempt']} by {data['runner']}"
    if data["role"]:
        said += f" as {data['role']}"
    if data["model_reason"]:
        said += f" on {data['model'] or 'its own model'} ({data['model_reason']})"
    said += f", {data['attempt_id']}" + _short(", on ", data["base_commit"])
    if data["resumes"]:
        said += f", goes on with the session of {data['resumes']}"
    said += _short(", with the work that is in ", data["begin_commit"])
    if data["reserved_usd_micros"]:
        said += f", {_dollars(data['reserved_usd_micros'], 2)} held back"
    return said


def _of_files(type_: str, data: dict[str, Any]) -> str | None:
    match type_:
        case "CheckpointCreated":
            label = data["label"] or data["description"]
            what = f"checkpoint {data['checkpoint_id']}, {data['kind'].replace('_', ' ')}" + _short(
                ", ", data["commit"]
            )
            changed = f", {_count(data['changed'], 'path')} changed{_some(data['paths'])}" if data["changed"] else ""
            return what + changed + _so(label or None)
        case "CheckpointRestored":
            where = " in place" if data["in_place"] else f", into {data['into']}" if data["into"] else ""
            return f"files are those of {data['checkpoint_id']} again{where}" + _why(data)
        case "FilesRestoring":
            return f"files are about to be made those of {data['commit'][:_SHORT]}"
        case "CheckpointsDropped":
            return f"{_count(data['refs'], 'ref')} of checkpoints removed: there may be no way back to their files"
        case "ConflictDetected":
            named = zip_longest(data["paths"], data["kinds"])
            paths = [str(path) + (f" ({kind})" if kind else "") for path, kind in named]
            other = f"with {data['other_task_id'] or 'what was merged before'} over {', '.join(paths)}"
            again = f", for the {_nth(data['round'])} time" if data["round"] > 1 else ""
            return f"will not merge, as both stand now, {other}" if data["early"] else f"does not merge {other}{again}"
        case "ConflictResolved":
            paths = [", ".join(data["paths"])] if data["paths"] else []
            return ": ".join([f"settled by {data['how']}", *paths]) + _short(", merged as ", data["commit"])
        case "GateChecked":
            code = data["exit_code"]
            how = "passed" if data["passed"] else "ran too long" if code is None else f"did not pass, exit {code},"
            return f"{data['scope']} gate {how} after {duration(data['duration_s'])}: {data['command']}"
        case _:
            return None


def _of_money(type_: str, data: dict[str, Any]) -> str | None:
    match type_:
        case "CostCharged":
            micros = data["usd_micros"]
            amount = "an unknown amount" if micros is None else _dollars(micros)
            tokens = data["input_tokens"] + data["cache_read_tokens"] + data["cache_write_tokens"]
            used = (
                f", {tokens:,} tokens in and {data['output_tokens']:,} out" if tokens or data["output_tokens"] else ""
            )
            used += f", {_count(data['calls'], 'call')}" if data["calls"] else ""
            how = " (estimated)" if data["source"] == "estimated" else ""
            return (
                f"{amount} for {data['model'] or 'an unknown model'}{how}{', cut off' if data['partial'] else ''}{used}"
            )
        case "BudgetThresholdReached":
            return f"{data['share']:.0%} of {_budget(data['scope'])} is spent: {_dollars(data['spent_usd_micros'])}"
        case "BudgetExceeded":
            spent, limit = _dollars(data["spent_usd_micros"]), _dollars(data["budget_usd_micros"])
            return f"{_budget(data['scope'])} is spent: {spent} of {limit}"
        case "BudgetChanged":
            micros = data["budget_usd_micros"]
            return (
                f"{_budget(data['scope'])} is {'without limit' if micros is None else _dollars(micros, 2)} from here on"
            )
        case "ProviderLimited":
            sure = "" if data["stated"] else " (our guess)"
            model = f", asked for {data['model']}" if data["model"] else ""
            reason = data["reason"] or data["kind"].replace("_", " ")
            return f"{data['provider']} lets nobody work until {local_time(data['until'])}{sure}{model}: {reason}"
        case "ProviderFreed":
            return f"{data['provider']} lets us work again" + _why(data)
        case _:
            return None


def _of_runners(type_: str, data: dict[str, Any]) -> str | None:
    match type_:
        case "RunnerFailed":
            return f"{data['runner']} {'lost' if data['lost'] else 'failed'} {data['attempt_id']}: {data['reason']}"
        case "CircuitOpened":
            until, failed = local_time(data["until"]), _times(data["failures"])
            return f"{data['runner']} starts nothing until {until}, it failed {failed} in a row: {data['reason']}"
        case "CircuitHalfOpened":
            return f"{data['runner']} is tried by one attempt, {data['attempt_id']}"
        case "CircuitClosed":
            return f"{data['runner']} is trusted again" + _why(data)
        case "DispatchThrottled":
            return f"nothing starts, the machine is short of {data['code'] or 'disk'}" + _why(data)
        case "DispatchUnthrottled":
            return f"tasks start again, the machine has enough {data['code'] or 'disk'}"
        case "WorkersScaled":
            return f"{_count(data['workers'], 'process', 'processes')} at once from here on" + _why(data)
        case _:
            return None


def _of_schedule(type_: str, data: dict[str, Any]) -> str | None:
    match type_:
        case "PlanScheduled":
            plan = f"{data['name']}, {_count(data['task_count'], 'task')}"
            return f"{plan}, runs at {data['cron']} ({data['zone']}) from here on, as {data['schedule_id']}"
        case "ScheduleFired":
            late = f", {duration(data['late_s'])} late" if data["late_s"] >= 1 else ""
            due = f"{data['schedule_id']}, due {local_time(data['due'])}"
            return f"{due}{late}, begins as run {data['run_id']}" + _missed(data)
        case "ScheduleSkipped":
            return f"{data['schedule_id']}, due {local_time(data['due'])}, is left out" + _why(data) + _missed(data)
        case "ScheduleRemoved":
            return f"{data['schedule_id']} runs no more" + _why(data)
        case _:
            return None


def _missed(data: dict[str, Any]) -> str:
    return f" ({_times(data['missed'])} before that nobody saw to it)" if data["missed"] else ""


def _why(data: dict[str, Any]) -> str:
    return _so(str(data.get("reason") or "").replace("_", " ") or None)


def _so(said: Any) -> str:
    return "" if said is None else f": {said}"


def _kind(kind: str) -> str:
    return f"{kind.replace('_', ' ')}: " if kind else ""


def _named(values: dict[str, Any], before: str) -> str:
    return before + ", ".join(f"{name} = {value}" for name, value in values.items()) if values else ""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "no task"


def _budget(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return f"the budget of {kind} {name}" if name else f"the {kind}'s budget"


def _dollars(micros: int, digits: int = 4) -> str:
    return f"${micros / 1e6:.{digits}f}"


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _PATHS} more" if len(paths) > _PATHS else ""
    return f" ({', '.join(paths[:_PATHS])}{more})" if paths else ""


def _count(number: int, one: str, many: str = "") -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {many or one + 's'}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _nth(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _short(before: str, commit: str | None) -> str:
    """The first digits of a commit, where there is one."""
    return f"{before}{commit[:_SHORT]}" if commit else ""
