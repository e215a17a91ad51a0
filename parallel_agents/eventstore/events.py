"""The events: facts in the past tense, frozen, JSON-native in every field.

Fields hold only what JSON holds (times are RFC 3339 strings, durations seconds, sizes bytes, money micro-dollars), so that
an event built by hand, one validated from its stored body and one read without validation are the same thing.
"""

# Annotations are evaluated where they stand: pydantic takes twice as long to make sense of texts.
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

STORE_RUN = "store"  # The run_id of events that belong to no run.

Rfc3339 = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$")]
Count = Annotated[int, Field(ge=0)]


# What a model keeps, set past its lock and without looking the names up: every event of a replay comes this way.
_set_fields, _set_given, _set_extra, _set_private = (
    BaseModel.__dict__[name].__set__
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


class Event(BaseModel):
    """A fact. The class name is its `type`; ``schema_version`` grows when the meaning of a field changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    schema_version: ClassVar[int] = 1
    free_text: ClassVar[tuple[str, ...]] = ()  # Fields that people or programs wrote, redacted before the append.
    field_defaults: ClassVar[dict[str, Any]] = {}
    field_names: ClassVar[set[str]] = set()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.field_defaults = {
            name: field.get_default(call_default_factory=True)
            for name, field in cls.model_fields.items()
            if not field.is_required()
        }
        cls.field_names = set(cls.model_fields)
        EVENT_TYPES[cls.__name__] = cls

    @classmethod
    def trusted(cls, body: dict[str, Any]) -> Self:
        """An event from a stored body, which was validated when it was appended and is covered by the chain since."""
        event = object.__new__(cls)
        given = cls.field_names  # One set for all of them: nothing changes it.
        if len(body) != len(given):  # Written by a release that knew fewer fields.
            given, body = set(body), {**cls.field_defaults, **body}
        _set_fields(event, body)
        _set_given(event, given)
        _set_extra(event, None)
        _set_private(event, None)
        return event


EVENT_TYPES: dict[str, type[Event]] = {}


class RunSubmitted(Event):
    """A plan was accepted. The plan itself, with its effective settings, is the blob named here."""

    free_text: ClassVar[tuple[str, ...]] = ("environment",)

    name: str
    plan_digest: str  # SHA-256 in hex of the blob.
    task_count: Count
    strategy: str
    workspace: str
    workdir: str
    environment: dict[str, str] = Field(default_factory=dict)  # PATH, LANG and their like; never a secret.
    base_commit: str | None = None  # Where its files start from; None where they are not versioned.
    repository: str | None = None  # The git repository: the top of the user's working tree, or the shadow repository.
    budget_usd_micros: int | None = None
    callables: bool = False  # Tasks hold Python callables: no other process can ever take this run over.


class RunClaimed(Event):
    """A process dispatches the run from here on. A higher epoch fences every earlier holder off."""

    holder: dict[str, Any]  # pid, start_time, boot_id, kind.
    epoch: Count


class RunReleased(Event):
    """The holder let go of a run that has not ended; anybody may claim it."""

    epoch: Count
    left: bool = False  # In the middle of it: whoever dispatches runs of this store goes on with it, unasked.
    used_s: float = 0.0  # As in ``TaskStarted``.


class RunStarted(Event):
    """The first tick that found the run submitted and held."""


class RunPaused(Event):
    """No task starts any more; running attempts finish."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    reason: str = ""
    code: str = ""  # budget, authentication or spend_cap, where that is why; a script tells by it.
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class RunResumed(Event):
    """Tasks start again, after a pause or because a finished run has open tasks again."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    reason: str = ""


class RunCancelRequested(Event):
    """Somebody wants the run ended: what has not started is cancelled at once, what runs is stopped."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    reason: str = ""
    grace_s: float = 3.0  # Between asking the processes to end and killing them; 0 in an emergency.
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class RunCompleted(Event):
    """Every task has ended and none failed that was not allowed to."""

    counts: dict[str, int]


class RunFailed(Event):
    """Every task has ended, and at least one failed; or a limit of the run was reached."""

    counts: dict[str, int]
    reason: str = "task_failed"  # Or max_execution_time.
    failed: list[str] = Field(default_factory=list)  # At most 20 task ids.


class RunCancelled(Event):
    """The run was cancelled and nothing of it runs."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    counts: dict[str, int]
    reason: str = ""


class RunRolledBack(Event):
    """The run goes on from where it stood at ``to_seq``; what came after is undone, never deleted."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    to_seq: Count
    commit: str | None = None  # The integration line there: where the branch goes.
    reason: str = ""


class RunMoved(Event):
    """From here on the files of the run are in another folder: its store was restored there. No rollback takes that back."""

    workdir: str
    repository: str | None = None


class RunForked(Event):
    """A new run that starts from the state of another one at ``seq``."""

    free_text: ClassVar[tuple[str, ...]] = ("overrides",)

    parent: str
    seq: Count
    overrides: dict[str, Any] = Field(default_factory=dict)
    state_digest: str = ""  # Of the blob that holds the parent's state there, as a snapshot of the status fold.
    plan_digest: str = ""  # Of the plan with the overrides in it.
    name: str = ""
    strategy: str = ""
    task_count: Count = 0
    commit: str | None = None  # The parent's integration line there.
    status: str = "submitted"  # Of the parent there, as the four below.
    started_at_us: int | None = None
    ended_at_us: int | None = None
    counts: dict[str, int] = Field(default_factory=dict)


class TaskQueued(Event):
    """The task is ready and waits for a slot."""

    task_id: str
    reason: str = ""  # Empty: its dependencies are done. Otherwise: rolled_back.


class TaskStarted(Event):
    """An attempt was decided on. The process is started only after this event is committed."""

    task_id: str
    attempt_id: str  # Unique for ever, so that a late result can be told apart.
    attempt: Count  # 1 for the first.
    runner: str
    model: str | None = None  # The alias that was chosen, such as ``sonnet``, or the name that the task gave.
    base_commit: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.
    model_reason: str = ""  # Why this model, in words.
    reserved_usd_micros: Count | None = None  # Held back from the budgets until the attempt has been charged.
    resumes: str | None = None  # The attempt whose session this one goes on with.
    begin_commit: str | None = None  # Whose files it begins with, where that is not its base: work that was cut off.
    role: str = ""  # The agent type that acts where it is not the task's own, such as one that resolves a conflict.
    used_s: float = 0.0  # How long the run has been dispatched by then, since its start or its last resume.


class TaskCompleted(Event):
    """An attempt succeeded."""

    free_text: ClassVar[tuple[str, ...]] = ("output",)

    task_id: str
    attempt_id: str
    duration_s: float
    exit_code: int | None = None
    output: Any = None
    cpu_s: float = 0.0  # What it has used: of its whole process tree, ended processes included.
    peak_memory_bytes: int = 0
    peak_cpu_percent: float = 0.0  # Of all processors together, over about a second; 0 where it was too short for that.
    peak_open_files: int = 0
    disk_written_bytes: int = 0
    commit: str | None = None  # The integration line with its work merged; None where files are not versioned.
    outcome: str = ""  # no_change: an agent that changed no file, where nothing asked for that.


class TaskFailed(Event):
    """An attempt failed by itself."""

    free_text: ClassVar[tuple[str, ...]] = ("error", "output")

    task_id: str
    attempt_id: str
    duration_s: float
    error: str
    exit_code: int | None = None
    retryable: bool = True
    output: Any = None
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    peak_cpu_percent: float = 0.0
    peak_open_files: int = 0
    disk_written_bytes: int = 0
    kind: str = ""  # Of an agent's failure, one of ``runners.protocol.FAILURES``.
    resumable: bool = False  # The next attempt can go on with its session.


class TaskTimedOut(Event):
    """An attempt ran longer than its task allows and was stopped."""

    free_text: ClassVar[tuple[str, ...]] = ("error",)

    task_id: str
    attempt_id: str
    duration_s: float
    timeout_s: float
    error: str
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    peak_cpu_percent: float = 0.0
    peak_open_files: int = 0
    disk_written_bytes: int = 0


class AttemptLost(Event):
    """An attempt vanished: its process is gone and left no result."""

    free_text: ClassVar[tuple[str, ...]] = ("error",)

    task_id: str
    attempt_id: str
    error: str
    retryable: bool = True
    began: bool = True  # False: nothing of it ever ran, so it counts against no retries.
    resumable: bool = False  # The next attempt can go on with the session of its agent.


class ResultDiscarded(Event):
    """A result came for an attempt that the state no longer knows. Its slot is free and its cost still counts."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    task_id: str
    attempt_id: str
    reason: str


class TaskRetryScheduled(Event):
    """A failed attempt will be followed by another one, not before a given time."""

    task_id: str
    attempt_id: str  # The one that failed.
    failures: Count  # Failed attempts so far.
    not_before: Rfc3339
    wait_s: float  # Jitter included.
    jitter_s: float  # Drawn once, here; a replay reads it.


class TaskCancelRequested(Event):
    """Somebody wants a running task ended."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    task_id: str
    reason: str = ""


class TaskCancelled(Event):
    """The task will not run, or its attempt was stopped on request."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    task_id: str
    attempt_id: str | None = None  # None where no attempt was running.
    reason: str = ""
    duration_s: float | None = None
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    peak_cpu_percent: float = 0.0
    peak_open_files: int = 0
    disk_written_bytes: int = 0


class TaskSkipped(Event):
    """The task cannot run because another one failed, was cancelled or was skipped."""

    task_id: str
    because: str  # The task that failed first, not the nearest one.
    reason: str = "dependency"  # Or fail_fast.


class TaskReopened(Event):
    """A finished task is pending again, with its retries ahead of it."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    task_id: str
    reason: str = ""


class TaskBlocked(Event):
    """The task waits for a person. An attempt whose work waits holds no slot meanwhile."""

    free_text: ClassVar[tuple[str, ...]] = ("reason", "output")

    task_id: str
    reason: str  # approval, approval of its result, or conflict; more may follow a colon.
    attempt_id: str | None = None  # Whose work waits to be merged; None where nothing has been started.
    commit: str | None = None  # That work.
    output: Any = None
    exit_code: int | None = None
    duration_s: float | None = None
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    peak_cpu_percent: float = 0.0
    peak_open_files: int = 0
    disk_written_bytes: int = 0


class TaskUnblocked(Event):
    """A person answered; the task is pending again."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    task_id: str
    reason: str = ""
    attempt: Count | None = None  # The number of the attempt that was approved; an approval holds for no later one.


class CheckpointCreated(Event):
    """The files of one moment are held by a commit, and the commit by a ref ``refs/parallel-agents/<run>/<checkpoint>``."""

    free_text: ClassVar[tuple[str, ...]] = ("label", "description")

    checkpoint_id: str
    kind: str  # before_run, before_attempt, after_attempt, stage, after_run, manual, or before_restore.
    label: str = ""
    commit: str | None = None
    task_id: str | None = None
    attempt_id: str | None = None
    stage: Count | None = None  # Of kind stage: the stage that is over, by number.
    changed: Count | None = None  # Paths that differ from where the attempt began.
    paths: list[str] = Field(default_factory=list)  # The first of them.
    description: str = ""
    agent_type: str | None = None
    level: str = ""  # Of the checkpoint engine: agent_execution, quality_gate, commit_preparation, manual.
    tags: list[str] = Field(default_factory=list)
    branch: str | None = None  # That was checked out in the user's working tree.
    folder: str = ""  # The top of those files, where it was made by hand and the store is not the project's own.


class CheckpointRestored(Event):
    """Files were taken back to a checkpoint; statuses stay."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    checkpoint_id: str
    reason: str = ""
    commit: str | None = None  # Where the integration line goes; None where files were restored elsewhere.
    into: str = ""  # The folder that they were restored into, where it is not the integration line.
    in_place: bool = False  # Into the folder that checkpoints are made of: those after this one are off its line.


class FilesRestoring(Event):
    """Files in a folder of the user's are about to be made those of a commit; ``CheckpointRestored`` says that they are."""

    commit: str
    checkpoint_id: str = ""  # That they were said to be restored from, where one was named.


class CheckpointsDropped(Event):
    """Refs of a run's checkpoints are removed because somebody asked for it: there may be no way back to their files."""

    refs: Count


class CostCharged(Event):
    """Money was spent by an attempt on one model. Micro-dollars, whatever becomes of the attempt."""

    task_id: str
    attempt_id: str
    usd_micros: Count | None  # None: nobody knows; never 0 for that.
    model: str | None = None  # As the agent names it.
    agent_type: str = ""
    input_tokens: Count = 0  # Without those read from or written to a cache.
    output_tokens: Count = 0
    calls: Count = 0  # Answers of the model, subagents included.
    partial: bool = False  # Cut off: off by at most the call that was in flight.
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    source: str = "agent"  # Who says so: agent, estimated (tokens times the price table) or unknown.
    prices: str = ""  # Version of the price table that an estimate was made with.
    runner: str = ""
    duration_s: float = 0.0  # Of the attempt; told once, with the first of its charges,
    at_once: Count = 0  # as is how many requests it was seen to make at the same time; 0: that cannot be told.


class BudgetThresholdReached(Event):
    """Spending passed a share of the budget."""

    scope: str
    share: float
    spent_usd_micros: Count
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class BudgetExceeded(Event):
    """The budget is spent."""

    scope: str
    spent_usd_micros: Count
    budget_usd_micros: Count
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class BudgetChanged(Event):
    """Somebody set another budget for a run, or for one of its tasks."""

    scope: str  # run, or task:ID.
    budget_usd_micros: Count | None  # None: no limit any more.


class ToolsDenied(Event):
    """An agent was not allowed to use tools that it wanted to use. It goes on without them, and may end well all the same."""

    task_id: str
    attempt_id: str
    tools: list[str]  # By name, once for each time.


class ProviderLimited(Event):
    """A provider lets nobody work on for the time being: no agent of it is started before ``until``. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    provider: str  # anthropic, openai, ...
    kind: str  # One of ``runners.protocol.FAILURES``.
    until: Rfc3339
    reason: str = ""
    model: str | None = None  # That was asked for.
    stated: bool = False  # Whether the provider said until when; otherwise it is our guess.
    count: Count = 1  # In a row, without an attempt between that got through; a guess grows with it.
    attempt_id: str = ""


class ProviderFreed(Event):
    """The provider lets us work again, or somebody said so. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    provider: str
    reason: str = ""
    attempt_id: str = ""  # That got through; empty where a person said so.


class AttemptStuck(Event):
    """A running attempt looks stuck. It goes on all the same; said once until it has been seen to go on."""

    free_text: ClassVar[tuple[str, ...]] = ("reason", "last_output")

    task_id: str
    attempt_id: str
    kind: str  # silent, process or checkout.
    silent_s: float  # Since it was last seen to do something.
    reason: str  # In words.
    last_output: str = ""  # The last that it has printed.
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class AttemptRevived(Event):
    """An attempt that looked stuck was seen to do something."""

    task_id: str
    attempt_id: str


class RunnerFailed(Event):
    """An attempt failed by its runner's fault. So many in a row open the runner's circuit. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    runner: str
    attempt_id: str
    reason: str
    lost: bool = False  # Its process vanished; what vanishes at about the same moment has one cause.


class CircuitOpened(Event):
    """A runner has failed too often in a row: no attempt of it is started before ``until``. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    runner: str
    until: Rfc3339
    reason: str  # Of the last failure.
    failures: Count  # In a row, this one included.
    openings: Count = 1  # In a row: 1 and each trial that has failed since. The wait grows with it.
    attempt_id: str = ""
    lost: bool = False


class CircuitHalfOpened(Event):
    """The time of an open circuit is over, and one attempt is started to see whether its runner works again. Of no run."""

    runner: str
    attempt_id: str


class CircuitClosed(Event):
    """A runner works again, or somebody said so: what it has failed before is forgotten. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    runner: str
    reason: str = ""
    attempt_id: str = ""  # Whose runner was seen to work; empty where a person said so.
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class ConflictDetected(Event):
    """Two tasks changed the same paths in ways that do not merge."""

    task_id: str  # Whose work does not merge.
    other_task_id: str  # Whose work was there first, or runs at the same time; empty where it cannot be told.
    paths: list[str]
    kinds: list[str] = Field(default_factory=list)  # git's words for each path: contents, add/add, modify/delete ...
    attempt_id: str | None = None
    early: bool = False  # Found while both run: a warning, nothing is decided yet.
    onto: str | None = None  # The integration line that it does not merge with; of an early one the other's work.
    commit: str | None = None  # The work.
    round: Count = 0  # How many attempts of this task have met a conflict, this one included.


class ConflictResolved(Event):
    """A conflict was settled."""

    free_text: ClassVar[tuple[str, ...]] = ("how",)

    task_id: str
    how: str  # ours, theirs, both, files, rebase or abort.
    attempt_id: str | None = None
    commit: str | None = None  # The merge, where there is one.
    paths: list[str] = Field(default_factory=list)


class GateChecked(Event):
    """A quality gate was run on files: one command of ``qualityGates.commands``."""

    free_text: ClassVar[tuple[str, ...]] = ("command", "output")

    scope: str  # task, merge or stage.
    command: str
    passed: bool
    exit_code: int | None = None
    duration_s: float = 0.0
    output: str = ""  # The end of what it printed; all of it lies in the file ``log``.
    log: str = ""  # Below the store's folder.
    commit: str | None = None
    task_id: str | None = None
    attempt_id: str | None = None
    stage: Count | None = None


class SharedStateChanged(Event):
    """While an attempt ran, something of the user's repository changed that no attempt should touch."""

    task_id: str
    attempt_id: str
    what: list[str]  # Such as ``config``, ``stash``, ``branch main``, ``hooks/pre-commit``.


class RunMerged(Event):
    """The result of a run was brought to a branch of the user's, because somebody asked for it."""

    into: str  # The branch.
    commit: str  # Its tip afterwards.
    squash: bool = False


class DispatchThrottled(Event):
    """Starts wait for the machine."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    reason: str
    code: str = ""  # What it is short of: disk, cpu or memory; empty, of older releases: disk.
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class DispatchUnthrottled(Event):
    """The machine has room again."""

    code: str = ""  # Of what; as above.
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class WorkersScaled(Event):
    """How many processes the run may have at once was fitted to what the machine can bear."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    workers: Count
    reason: str = ""
    wait_s: float = 0.0  # So long the machine has to be calm before the next one is added.
    facts: dict[str, Any] = Field(default_factory=dict)  # What the decision was made on, for replay.


class SecretScrubbed(Event):
    """A secret was removed from an old body; ``verify`` accepts exactly this mismatch."""

    seq: Count
    old_digest: str
    new_digest: str


class PlanScheduled(Event):
    """A plan is to run whenever its timetable says so. The plan, with its effective settings, is the blob. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("environment",)

    schedule_id: str
    name: str  # Of the plan.
    plan_digest: str
    task_count: Count
    cron: str  # Five fields, as Debian's cron reads them.
    zone: str  # Whose clocks count: a name of the IANA database.
    misfire: str = "run"  # Where nobody dispatched at that time: run (once, late) or skip.
    workdir: str = ""
    root: str = ""  # Of the project.
    environment: dict[str, str] = Field(default_factory=dict)
    include_uncommitted: bool = False


class ScheduleFired(Event):
    """A scheduled plan was due and became a run, in the same commit. Of no run."""

    schedule_id: str
    due: Rfc3339
    run_id: str
    missed: Count = 0  # Times that were due before, and that nobody saw to; this run stands for them too.
    late_s: float = 0.0


class ScheduleSkipped(Event):
    """A scheduled plan was due, and there is no run for it. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    schedule_id: str
    due: Rfc3339
    reason: str
    missed: Count = 0


class ScheduleRemoved(Event):
    """A plan is not to run by itself any more. What it had started goes on. Of no run."""

    free_text: ClassVar[tuple[str, ...]] = ("reason",)

    schedule_id: str
    reason: str = ""


class RunArchived(Event):
    """The bulk of a run that is over lies in a file: outputs and lists of paths, and what its attempts wrote. Of no run."""

    run_id: str
    version: Count  # Of the run, when it was archived.
    file: str  # Beside the store, in the folder ``archive``.
    sha256: str  # Of that file, in hex.
    bytes: Count
    events: Count  # Whose bodies it holds.
    files: Count  # Of attempts.
