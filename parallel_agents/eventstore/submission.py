"""What a run is submitted with: its tasks, its stages and the settings that shape every decision.

These documents lie in the store as one blob, named by digest in ``RunSubmitted``. They hold everything a decision
depends on, so a replay never looks at today's configuration.
"""

# Annotations are evaluated where they stand: pydantic takes twice as long to make sense of texts.
import contextlib
import gc
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, overload

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PRIORITIES = ("critical", "high", "medium", "low")
STRATEGIES = ("concurrent", "pipeline", "hybrid")
WORKSPACES = ("worktree", "shared", "none")
APPROVALS = ("required", "result")
CONFLICTS = ("interactive", "ours", "theirs", "rebase", "abort", "agent")
PROFILES = ("quality", "balanced", "fast", "ultra-fast")

Priority = Literal["critical", "high", "medium", "low"]
Strategy = Literal["concurrent", "pipeline", "hybrid"]
Workspace = Literal["worktree", "shared", "none"]
Approval = Literal["required", "result"]
ConflictStrategy = Literal["interactive", "ours", "theirs", "rebase", "abort", "agent"]
Profile = Literal["quality", "balanced", "fast", "ultra-fast"]

_TASK_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")


def _check_task_id(value: str) -> str:
    """Task ids become folder and ref names, so they follow the stricter of the two rules."""
    if not _TASK_ID.match(value) or ".." in value or value.endswith((".", ".lock")):
        shown = value if len(value) <= 40 else value[:40] + "..."
        raise ValueError(
            f"{shown!r} cannot be a task id: 1 to 100 characters of A-Z a-z 0-9 . _ -, not starting with . or -, "
            "without '..', not ending in '.' or '.lock'"
        )
    return value


def _check_no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character, which no command or variable can carry")
    return value


TaskId = Annotated[str, AfterValidator(_check_task_id)]
Text = Annotated[str, AfterValidator(_check_no_nul)]
Micros = Annotated[int, Field(ge=0)]  # Micro-dollars.
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]


class Document(BaseModel):
    """A strict, frozen document: an unknown field is an error, and "3" is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

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

    @classmethod
    def trusted(cls, fields: dict[str, Any]) -> Self:
        """A document of fields that were validated before they were stored; ten times faster than to do it again.

        Whoever only reads never makes a validator: that takes longer than most commands.
        """
        document = object.__new__(cls)
        _set(document, "__dict__", {**cls.field_defaults, **fields})
        _set(document, "__pydantic_fields_set__", cls.field_names)  # One set for all of them: nothing changes it.
        _set(document, "__pydantic_extra__", None)
        _set(document, "__pydantic_private__", None)
        return document


_set = object.__setattr__  # Past the lock of frozen models.


class Task(Document):
    """One task as it will be run: defaults filled in, names checked."""

    task_id: TaskId
    agent_type: Annotated[Text, Field(min_length=1, max_length=200)] = "shell"
    description: Text = ""
    priority: Priority = "medium"
    dependencies: tuple[str, ...] = ()
    context: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[Text, ...] = ()
    command: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    runner: str | None = None
    outputs: tuple[Text, ...] = ()  # Paths below the working directory that must exist afterwards.
    env: dict[Text, Text] = Field(default_factory=dict)
    env_from: tuple[Text, ...] = ()  # Names, taken from the dispatcher's environment at each start.
    timeout_s: Seconds = 600.0
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    allow_failure: bool = False
    expected_s: Seconds | None = None  # Expected duration; weighs the longest path to the end of the graph.
    stage: Annotated[int, Field(ge=0)] = 0  # Index into the plan's stages, assigned at submission.
    files: tuple[Text, ...] = ()  # Globs of what it means to change; tasks whose globs meet never run at once.
    approval: Approval | None = None  # required: before it starts; result: before its work is merged.
    setup: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None  # Run before the command, in its checkout.
    teardown: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None  # After it, however it ended.
    setup_timeout_s: Seconds = 600.0  # Of each of the two.
    model: Annotated[Text, Field(min_length=1, max_length=200)] | None = None  # An alias, or a name the client knows.
    budget_usd_micros: Micros | None = None
    expected_usd_micros: Micros | None = None  # Of one attempt, as was known at submission, on ...
    expected_model: str | None = None  # ... this model.


class Stage(Document):
    """Tasks between two barriers: none starts before every task of the stages before it has ended."""

    name: str
    parallel: bool = True  # False: one task at a time.
    fail_fast: bool = False  # True: a failed task here means that the stages after it are skipped.
    limit: Annotated[int, Field(ge=1)] | None = (
        None  # A ceiling of its own, such as strategies.concurrent.maxConcurrency.
    )
    phase: Annotated[int, Field(ge=0)] = 0  # fail_fast reaches the later stages of the same phase only.


class RetryPolicy(Document):
    """When a failed attempt is followed by another. Waits are in seconds."""

    enabled: bool = True
    delay_s: Annotated[float, Field(ge=0)] = 5.0
    exponential: bool = True
    ceiling_s: Annotated[float, Field(gt=0)] = 3600.0


class Gate(Document):
    """A quality gate: a command that says by its exit code whether files are good enough."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]
    after: Literal["task", "stage"] = "stage"
    timeout_s: Seconds = 600.0


class FileSettings(Document):
    """What a run does about its files: checkpoints, conflicts, quality gates."""

    before_run: bool = True  # Checkpoints, by the moment that they are made at.
    after_run: bool = True
    per_agent: bool = True
    between_stages: bool = True
    rollback_on_failure: bool = True
    preserve_successful: bool = True
    conflicts: ConflictStrategy = "interactive"
    detect_early: bool = True  # Whether unfinished work is compared while it runs.
    pause_on_conflict: bool = True
    gates: tuple[Gate, ...] = ()
    fail_on_gates: bool = True
    rollback_on_gates: bool = False


class AgentRole(Document):
    """An agent type as it was found when the run was submitted, so that no later edit of its file changes the run."""

    name: str
    description: str = ""
    prompt: str = ""  # Who it is and how it works.
    tools: tuple[str, ...] | None = None  # That it may use; None: those of the configuration.
    model: str | None = None
    source: str = "built-in"  # Or project, user.


class AgentSettings(Document):
    """How a run drives agents and chooses their models."""

    runner: str = "claude"  # Of a task that names neither runner nor command.
    roles: dict[str, AgentRole] = Field(default_factory=dict)  # Of the agent types that its agent tasks name.
    choose_models: bool = True
    profile: Profile = "balanced"
    model_of: dict[str, str] = Field(default_factory=dict)  # Agent type -> alias, over the built-in table.
    models: dict[str, dict[str, str]] = Field(default_factory=dict)  # Alias -> runner -> name, over the built-in table.
    retry_stronger: bool = False  # Whether the attempt after an agent's own failure gets a stronger model.
    clients: dict[str, dict[str, Any]] = Field(default_factory=dict)  # Rows over the built-in table, by runner.
    failover: tuple[str, ...] = ()  # Runners or models to go on with while a provider lets nobody work.
    resolver: str = "merge-engineer"  # The agent type that resolves conflicts (``conflicts: agent``).
    permission_mode: str = "acceptEdits"
    allowed_tools: tuple[str, ...] = ()
    silence_s: Annotated[float, Field(ge=0)] = 900.0
    grace_s: Annotated[float, Field(gt=0)] = 30.0
    max_requests: Annotated[int, Field(ge=1)] = 10  # At once, of all agents, by what their kind was seen to make.
    requests_per_agent: Annotated[int, Field(ge=1)] = 3  # At most so many are counted for one agent.
    requests_per_minute: Annotated[int, Field(ge=1)] = 100


class BudgetSettings(Document):
    """The limits of spending that a run keeps to, besides its own and its tasks'. Days, weeks and months are UTC."""

    enabled: bool = True
    day_usd_micros: Micros | None = None
    week_usd_micros: Micros | None = None  # Monday to Sunday.
    month_usd_micros: Micros | None = None
    warning: float = 0.75  # Shares of a budget: from here on it is told,
    critical: float = 0.90  # only critical and high tasks start,
    emergency: float = 0.95  # only critical ones.
    by_priority: bool = True  # Whether the two shares above act.
    cheaper_first: bool = True  # Near a limit a cheaper model is chosen before a task is put off.
    pause: bool = True  # Whether a spent budget pauses the run; otherwise it is told and nothing more.


class RunSettings(Document):
    """The effective configuration of one run, as recorded in ``RunSubmitted``."""

    max_parallel_agents: Annotated[int, Field(ge=1)] = 5  # Attempts of this run at once.
    store_limit: Annotated[int, Field(ge=1)] = 5  # Attempts of the whole store at once, as this run sees it.
    max_queue_size: Annotated[int, Field(ge=1)] = 100  # Tasks in `queued` at once; the rest stay `pending`.
    max_execution_s: Annotated[float, Field(gt=0)] = 3600.0  # Of the run, as long as a process dispatches it.
    min_free_mb: Annotated[int, Field(ge=0)] = 500  # Of 10^6 bytes, where checkouts lie; below it nothing starts.
    # Of the machine, for attempts that are processes. Percents are of all processors together; None: no limit, as in
    # plans of releases that knew none.
    max_cpu_percent: Annotated[float, Field(gt=0, le=100)] | None = None  # Above it nothing starts,
    throttle_cpu_percent: Annotated[float, Field(gt=0, le=100)] | None = (
        None  # above it starts are held back for a while.
    )
    agent_cpu_percent: Annotated[float, Field(gt=0, le=100)] | None = None  # That one attempt may use.
    max_memory_mb: Annotated[int, Field(ge=1)] | None = None  # Of 10^6 bytes, of all attempts together.
    agent_memory_mb: Annotated[int, Field(ge=1)] | None = None  # Of one attempt, which ends above it.
    memory_warning_percent: Annotated[float, Field(gt=0, le=100)] = 85.0  # Of max_memory_mb.
    min_workers: Annotated[int, Field(ge=1)] = 1  # So many attempts may run whatever the load of the processors is.
    max_workers: Annotated[int, Field(ge=1)] | None = None  # What automatic scaling goes up to.
    auto_scale: bool = False
    scaling_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    sandbox: tuple[Text, ...] = ()  # Words that go before the command of every attempt (see ``scheduler.sandbox``).
    retry: RetryPolicy = Field(default_factory=lambda: RetryPolicy.trusted({}))
    # Failures of a runner in a row that open its circuit, and for how long the first time. None: nothing ever does.
    circuit_failures: Annotated[int, Field(ge=1, le=100)] | None = None
    circuit_reset_s: Seconds = 30.0
    health_check_s: Seconds | None = None  # Between two looks at running attempts; None: nobody looks.
    stuck_after_s: Seconds = 300.0  # Silent and idle for so long, an attempt is told to look stuck.
    max_output_mb: Annotated[int, Field(ge=1)] | None = None  # Of 10^6 bytes, kept of each output of an attempt.

    @property
    def max_output_bytes(self) -> int | None:
        """The same in bytes."""
        return None if self.max_output_mb is None else self.max_output_mb * 1_000_000


class Plan(Document):
    """A whole plan after defaults, configuration and strategy were applied: what the blob holds."""

    name: str
    strategy: Strategy = "concurrent"
    workspace: Workspace = "shared"
    sparse: tuple[Text, ...] = ()  # Folders of the repository that a checkout holds; none means all of it.
    files: FileSettings = Field(default_factory=lambda: FileSettings.trusted({}))
    agents: AgentSettings = Field(default_factory=lambda: AgentSettings.trusted({}))
    budgets: BudgetSettings = Field(default_factory=lambda: BudgetSettings.trusted({}))
    budget_usd_micros: Micros | None = None  # Of the whole run.
    stages: tuple[Stage, ...] = Field(default_factory=lambda: (Stage.trusted({"name": "all"}),))
    tasks: tuple[Task, ...]
    settings: RunSettings = Field(default_factory=lambda: RunSettings.trusted({}))

    def to_bytes(self) -> bytes:
        """The bytes that the store keeps: JSON without the fields that stand at their default."""
        made = self if isinstance(self.tasks, tuple) else self.model_copy(update={"tasks": tuple(self.tasks)})
        return orjson.dumps(made.model_dump(mode="json", exclude_defaults=True))


_SEQUENCES = frozenset({"dependencies", "tags", "command", "outputs", "env_from", "files", "setup", "teardown"})
NO_PLAN = Plan.trusted({"name": "", "tasks": ()})  # Of a run before its first event.


def trusted_task(body: dict[str, Any]) -> Task:
    """A task from a blob."""
    for name in body:
        if name in _SEQUENCES:
            body[name] = tuple(body[name])
    return Task.trusted(body)


class StoredTasks(Sequence[Task]):
    """The tasks of a plan from the store, each made when it is looked at first: a plan may have 100,000 of them.

    It stands where a plan has its tuple, and is equal to one of the same tasks.
    """

    __slots__ = ("_ends", "_packed", "_tasks")

    def __init__(self, stored: list[Any]) -> None:
        self._tasks = stored  # What JSON holds of each, or the task, once it was made.
        self._packed = bytearray()  # Once they are packed: the JSON of all of them, one behind the other,
        self._ends = array("Q")  # and where each ends.

    def pack(self) -> None:
        """Keep no more than their JSON from here on: a fifth of the memory, and each is made anew by who looks at it.

        Only before somebody has looked at one.
        """
        for task in self._tasks:
            self._packed += orjson.dumps(task)
            self._ends.append(len(self._packed))
        self._tasks = []

    def __len__(self) -> int:
        return len(self._ends) or len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Task, ...]: ...
    def __getitem__(self, index: int | slice) -> Task | tuple[Task, ...]:
        if isinstance(index, slice):
            return tuple(self[one] for one in range(*index.indices(len(self))))
        if self._packed:
            return trusted_task(orjson.loads(self._json_of(index)))
        task = self._tasks[index]
        if type(task) is dict:
            task = self._tasks[index] = trusted_task(task)
        made: Task = task
        return made

    def _json_of(self, index: int) -> bytearray:
        place = range(len(self._ends))[index]
        return self._packed[self._ends[place - 1] if place else 0 : self._ends[place]]

    def __iter__(self) -> Iterator[Task]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, tuple | StoredTasks) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # As of a list.

    def fields(self, name: str) -> Iterator[Any]:
        """One field of every task as it is stored, None where it stands at its default; no task is made for it."""
        if self._packed:
            key = orjson.dumps(name)
            found = map(self._json_of, range(len(self)))
            yield from (orjson.loads(one).get(name) if key in one else None for one in found)
            return
        for task in self._tasks:
            yield task.get(name) if type(task) is dict else getattr(task, name)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """While much is made that stays, and nothing that could be collected: looking through it takes longer than making it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_at_hand: dict[str, Plan] = {}


def keep_at_hand(digest: str, plan: Plan) -> None:
    """A plan was just stored under a digest by the process that will dispatch it, which need not read it again."""
    _at_hand.clear()
    _at_hand[digest] = plan


def plan_of(digest: str, blob: Callable[[str], bytes]) -> Plan:
    """The plan of a digest: the one at hand, once, or the one of the blob."""
    return _at_hand.pop(digest, None) or load_plan(blob(digest))


def load_plan(stored: bytes) -> Plan:
    """The plan of a blob (see ``Plan.to_bytes``), which is trusted: the store has validated it, and names it by digest.

    Its tasks are ``StoredTasks``.
    """
    with uncollected():
        plan = orjson.loads(stored)
        plan["tasks"] = StoredTasks(plan["tasks"])
    if "stages" in plan:
        plan["stages"] = tuple(map(Stage.trusted, plan["stages"]))
    if "sparse" in plan:
        plan["sparse"] = tuple(plan["sparse"])
    if "files" in plan:
        files = plan["files"]
        if "gates" in files:
            files["gates"] = tuple(Gate.trusted({**gate, "command": tuple(gate["command"])}) for gate in files["gates"])
        plan["files"] = FileSettings.trusted(files)
    if "agents" in plan:
        agents = plan["agents"]
        for name in {"failover", "allowed_tools"} & agents.keys():
            agents[name] = tuple(agents[name])
        agents["roles"] = {name: _trusted_role(role) for name, role in agents.get("roles", {}).items()}
        plan["agents"] = AgentSettings.trusted(agents)
    if "budgets" in plan:
        plan["budgets"] = BudgetSettings.trusted(plan["budgets"])
    if "settings" in plan:
        settings = plan["settings"]
        if "retry" in settings:
            settings["retry"] = RetryPolicy.trusted(settings["retry"])
        if "sandbox" in settings:
            settings["sandbox"] = tuple(settings["sandbox"])
        plan["settings"] = RunSettings.trusted(settings)
    return Plan.trusted(plan)


def _trusted_role(role: dict[str, Any]) -> AgentRole:
    if role.get("tools") is not None:
        role["tools"] = tuple(role["tools"])
    return AgentRole.trusted(role)
