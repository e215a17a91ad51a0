"""Every key that a configuration may have: what it may hold, what it holds where nobody says, and whether it acts yet.

The table is data: reading, checking, `config show` and the JSON Schema for editors are made from it. What a key may
hold is a fragment of JSON Schema; `misfit` below understands exactly the words that the table uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from parallel_agents.eventstore.submission import CONFLICTS, PRIORITIES, PROFILES, STRATEGIES
from parallel_agents.wording import Misfit, nearest_name, shown

Shape = Mapping[str, Any]
Force = Literal["in force", "fixed", "not built", "ignored"]

YEAR_S = 31_536_000

SWITCH: Shape = {"type": "boolean"}
TEXT: Shape = {"type": "string", "minLength": 1, "maxLength": 1000}
ANYTHING: Shape = {}
TEXTS: Shape = {"type": "array", "items": TEXT}
SECONDS: Shape = {"type": "number", "exclusiveMinimum": 0, "maximum": YEAR_S}
WAIT: Shape = {"type": "number", "minimum": 0, "maximum": YEAR_S}
SHARE: Shape = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
PERCENT: Shape = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}


def whole(low: int, high: int) -> Shape:
    """A whole number from ``low`` to ``high``."""
    return {"type": "integer", "minimum": low, "maximum": high}


def choice(*names: str) -> Shape:
    """One of these texts."""
    return {"enum": list(names)}


def record(required: Mapping[str, Shape], optional: Mapping[str, tuple[Shape, Any]]) -> Shape:
    """A mapping with these fields; an optional one that is left out gets its default."""
    fields: dict[str, Shape] = dict(required)
    fields |= {name: {**shape, "default": default} for name, (shape, default) in optional.items()}
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def records(required: Mapping[str, Shape], optional: Mapping[str, tuple[Shape, Any]]) -> Shape:
    """A list of such mappings."""
    return {"type": "array", "items": record(required, optional)}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration."""

    path: str  # camelCase, as in the JSON file: execution.taskQueue.timeout
    shape: Shape
    default: Any
    force: Force = "in force"
    # in force: does what it says. fixed: in force, and only the default will do. not built: the same, because its part
    # does not exist yet. ignored: mere description.
    why: str = ""  # Of a fixed key: why nothing else will do. Of one in force: how far it goes.


AGENTS: Shape = {"type": "array", "items": TEXT, "minItems": 1}
STAGES = records({"stage": TEXT, "agents": AGENTS}, {"parallel": (SWITCH, True)})
# A rule inside a hybrid strategy names a strategy for its agents; hybrid again would have no rules of its own.
RULES = records({"condition": TEXT, "strategy": choice("concurrent", "pipeline"), "agents": AGENTS}, {})
GRAPH: Shape = {
    "type": "object",
    "additionalProperties": record({}, {"dependsOn": (TEXTS, []), "provides": (TEXTS, [])}),
}
AGENTS_WIDE = whole(1, 10_000)
# A command, word by word. A gate is one, or one with what it says about itself; `after` depends on runBetweenStages.
WORDS: Shape = {"type": "array", "items": {"type": "string", "minLength": 0, "maxLength": 100_000}, "minItems": 1}
GATE: Shape = {
    "anyOf": [
        WORDS,
        {
            "type": "object",
            "properties": {
                "command": WORDS,
                "after": choice("task", "stage"),
                "timeout": {**SECONDS, "default": 600},
            },
            "required": ["command"],
            "additionalProperties": False,
        },
    ]
}

# What is put between attempts and the machine (``scheduler.sandbox``): one that is known by name, or words of one's own.
SANDBOX: Shape = {"anyOf": [{"type": "string", "enum": ["none", "namespaces", "bwrap"]}, WORDS]}

# A row of the table of command-line agents (``scheduler.agents.clients``), or what changes in one that is there already.
MANY: Shape = {"type": "array", "items": TEXT}
CLIENT: Shape = {
    "type": "object",
    "properties": {
        "command": WORDS,
        "prompt": choice("talk", "stdin", "argument", "file"),
        "output": choice("claude", "codex", "json", "text"),
        **dict.fromkeys(("model", "role", "tools", "permission", "session", "resume", "resumeCommand", "limit"), MANY),
        **dict.fromkeys(("passes", "withholds", "keys"), MANY),
        "sets": {"type": "object", "additionalProperties": TEXT},
        "configVariable": TEXT,
        "provider": TEXT,
        "tells": {"type": "array", "items": choice("cost", "tokens", "session")},
    },
    "required": [],
    "additionalProperties": False,
}
DOLLARS: Shape = {"type": "number", "minimum": 0, "maximum": 1_000_000}
ALLOWED_TOOLS = [
    "Read", "Edit", "Write", "Glob", "Grep", "NotebookEdit", "TodoWrite", "Task",
    "Bash(git status *)", "Bash(git diff *)", "Bash(git log *)", "Bash(git show *)", "Bash(ls *)",
]  # fmt: skip

DEFAULT_PIPELINE = [
    {"stage": "design", "agents": ["software-architect", "ux-designer"], "parallel": True},
    {"stage": "implement", "agents": ["backend-engineer", "frontend-engineer"], "parallel": True},
    {"stage": "test", "agents": ["qa-engineer"], "parallel": False},
    {"stage": "review", "agents": ["reviewer"], "parallel": False},
    {"stage": "deploy", "agents": ["deployment-engineer"], "parallel": False},
]

# What a notification's format may name in braces, and the format where nobody gives one. `duration` is in seconds with
# one decimal.
NOTIFICATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "parallelExecutionStarted": (
        "🚀 Parallel execution started: {total} tasks ({strategy})",
        ("run_id", "name", "strategy", "total"),
    ),
    "agentStarted": ("▶️ Agent started: {agent_type}", ("run_id", "name", "task_id", "agent_type")),
    "agentCompleted": (
        "✅ Agent completed: {agent_type} ({duration}s)",
        ("run_id", "name", "task_id", "agent_type", "duration"),
    ),
    "agentFailed": (
        "❌ Agent failed: {agent_type} - {error}",
        ("run_id", "name", "task_id", "agent_type", "duration", "error"),
    ),
    "parallelExecutionCompleted": (
        "🎉 Parallel execution completed: {completed}/{total} successful",
        ("run_id", "name", "status", "total", "completed", "failed", "cancelled", "skipped", "duration"),
    ),
    "conflictDetected": ("⚠️ Conflict detected: {files}", ("run_id", "name", "task_id", "agent_type", "files")),
}


_BOUNDS_LAUNCHES = (
    "bounds how many agents start, by what their kind asks for; a gateway for the requests is not built yet"
)


def _not_built(prefix: str, keys: Mapping[str, tuple[Shape, Any]]) -> list[Key]:
    return [Key(f"{prefix}.{name}", shape, default, "not built") for name, (shape, default) in keys.items()]


def _in_force(prefix: str, keys: Mapping[str, tuple[Shape, Any]]) -> list[Key]:
    return [Key(f"{prefix}.{name}", shape, default) for name, (shape, default) in keys.items()]


def _switches(*names: str, on: bool = True) -> dict[str, tuple[Shape, Any]]:
    return dict.fromkeys(names, (SWITCH, on))


def _notification(event: str, template: str) -> list[Key]:
    channels_why = "notifications go to the console; other channels are not built yet"
    return [
        Key(f"notifications.{event}.enabled", SWITCH, True),
        Key(f"notifications.{event}.channels", TEXTS, ["console"], "fixed", channels_why),
        Key(f"notifications.{event}.format", TEXT, template),
    ]


KEYS: tuple[Key, ...] = (
    *[Key(name, ANYTHING, None, "ignored") for name in ("$schema", "version", "description", "lastUpdated")],
    Key("performance", ANYTHING, None, "ignored"),
    Key("enabled", SWITCH, True),
    Key("maxParallelAgents", AGENTS_WIDE, 5),
    Key("defaultStrategy", choice(*STRATEGIES), "concurrent"),
    Key("execution.workerPool.minWorkers", AGENTS_WIDE, 2),
    Key("execution.workerPool.maxWorkers", AGENTS_WIDE, 5),
    Key("execution.workerPool.autoScale", SWITCH, True),
    Key("execution.workerPool.scalingThreshold", SHARE, 0.8),
    Key("execution.taskQueue.maxQueueSize", whole(1, 1_000_000), 100),
    Key(
        "execution.taskQueue.priorityLevels",
        TEXTS,
        list(PRIORITIES),
        "fixed",
        "the levels are these four in this order",
    ),
    Key("execution.taskQueue.defaultPriority", choice(*PRIORITIES), "medium"),
    Key("execution.taskQueue.timeout", SECONDS, 600),
    Key("execution.retryPolicy.enabled", SWITCH, True),
    Key("execution.retryPolicy.maxRetries", whole(0, 100), 3),
    Key("execution.retryPolicy.retryDelay", WAIT, 5),
    Key("execution.retryPolicy.exponentialBackoff", SWITCH, True),
    Key("strategies.concurrent.enabled", SWITCH, True),
    Key("strategies.concurrent.maxConcurrency", AGENTS_WIDE, 5),
    *_not_built(
        "strategies.concurrent",
        {
            "agentGroups": ({"type": "object", "additionalProperties": TEXTS}, {}),
            "allowedParallelGroups": ({"type": "array", "items": TEXTS}, []),
        },
    ),
    Key("strategies.pipeline.enabled", SWITCH, True),
    Key("strategies.pipeline.defaultPipeline", STAGES, DEFAULT_PIPELINE),
    Key("strategies.pipeline.checkpointBetweenStages", SWITCH, True),
    Key("strategies.pipeline.failFast", SWITCH, True),
    Key("strategies.hybrid.enabled", SWITCH, True),
    Key("strategies.hybrid.rules", RULES, []),
    Key("dependencies.enabled", SWITCH, True),
    Key("dependencies.dependencyGraph", GRAPH, {}),
    Key("dependencies.automaticResolution", SWITCH, True),
    Key("dependencies.circularDependencyDetection", SWITCH, True, "fixed", "a plan with a cycle is always refused"),
    # Free space below which no task of a run with versioned files starts, of 10^6 bytes; 0: no limit.
    Key("resourceManagement.disk.minFreeMB", whole(0, 1 << 30), 500),
    # Of all processors together, and of 10^6 bytes; for attempts that are processes, callables are none.
    *_in_force(
        "resourceManagement",
        {
            "cpu.maxCpuPercent": (PERCENT, 80),
            "cpu.perAgentLimit": (PERCENT, 25),
            "cpu.throttleThreshold": (PERCENT, 90),
            "memory.maxMemoryMB": (whole(1, 1 << 30), 4096),
            "memory.perAgentLimitMB": (whole(1, 1 << 30), 1024),
            "memory.warningThresholdPercent": (PERCENT, 85),
        },
    ),
    Key("resourceManagement.api.maxConcurrentRequests", whole(1, 100_000), 10, why=_BOUNDS_LAUNCHES),
    Key("resourceManagement.api.perAgentLimit", whole(1, 100_000), 3, why=_BOUNDS_LAUNCHES),
    Key("resourceManagement.api.rateLimitPerMinute", whole(1, 1_000_000), 100, why=_BOUNDS_LAUNCHES),
    Key("agents.defaultRunner", TEXT, "claude"),
    Key("agents.runners", {"type": "object", "additionalProperties": CLIENT}, {}),
    Key("agents.profile", choice(*PROFILES), "balanced"),
    # Alias -> runner -> the name that its client knows; and agent type -> alias.
    Key(
        "agents.models",
        {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": TEXT}},
        {},
    ),
    Key("agents.modelOf", {"type": "object", "additionalProperties": TEXT}, {}),
    Key("agents.retryStronger", SWITCH, False),
    Key("agents.failover", TEXTS, []),
    Key(
        "agents.permissionMode", choice("acceptEdits", "default", "plan", "dontAsk", "bypassPermissions"), "acceptEdits"
    ),
    Key("agents.allowedTools", TEXTS, ALLOWED_TOOLS),
    Key("agents.silenceTimeout", WAIT, 900),
    Key("agents.resultGrace", SECONDS, 30),
    *_in_force(
        "checkpointIntegration",
        _switches(
            "enabled",
            "autoCheckpointBeforeParallel",
            "autoCheckpointAfterParallel",
            "perAgentCheckpoints",
            "rollbackOnFailure",
            "preserveSuccessfulAgents",
        ),
    ),
    *_in_force(
        "costOptimization",
        {
            **_switches(
                "enabled", "budgetAware", "modelSelectionPerAgent", "pauseOnBudgetExceeded", "priorityBasedExecution"
            ),
            "costThresholds.warning": (SHARE, 0.75),
            "costThresholds.critical": (SHARE, 0.90),
            "costThresholds.emergency": (SHARE, 0.95),
            # In dollars; 0 or nothing: no limit. Of a run and of a task where the plan names none; days are UTC.
            "budgets.run": (DOLLARS, 0),
            "budgets.task": (DOLLARS, 0),
            "budgets.day": (DOLLARS, 0),
            "budgets.week": (DOLLARS, 0),
            "budgets.month": (DOLLARS, 0),
        },
    ),
    Key("monitoring.realTimeProgress", SWITCH, True),
    Key("monitoring.progressUpdateInterval", {"type": "number", "exclusiveMinimum": 0, "maximum": 3600}, 1),
    Key("monitoring.detailedLogs", SWITCH, True, "fixed", "every transition is an event, and there is no shorter log"),
    Key("monitoring.performanceMetrics", SWITCH, True, "fixed", "what attempts take and use is always measured"),
    # Of 10^6 bytes, kept of each of the two outputs of an attempt; 0: all.
    Key("monitoring.maxOutputMB", whole(0, 1_000_000), 64),
    Key("monitoring.failureNotifications", SWITCH, True),
    Key("monitoring.successNotifications", SWITCH, True),
    Key("conflictResolution.enabled", SWITCH, True),
    Key("conflictResolution.strategy", choice(*CONFLICTS), "interactive"),
    Key(
        "conflictResolution.autoMerge",
        SWITCH,
        False,
        "fixed",
        "a result comes to your branch by `parallel-agents merge`, when you ask for it",
    ),
    *_in_force("conflictResolution", _switches("fileConflictDetection", "pauseOnConflict")),
    Key("conflictResolution.agent", TEXT, "merge-engineer"),
    *_in_force(
        "qualityGates",
        {
            **_switches("enabled", "runBetweenStages", "failOnQualityIssues"),
            **_switches("autoRollbackOnFailure", on=False),
            "commands": ({"type": "array", "items": GATE}, []),
        },
    ),
    *_not_built(
        "outputAggregation",
        {
            **_switches("enabled", "combineOutputs", "preserveAgentIdentity"),
            "format": (TEXT, "markdown"),
            **_switches("includeMetadata"),
        },
    ),
    Key("safetyFeatures.maxExecutionTime", SECONDS, 3600),
    Key("safetyFeatures.sandbox", SANDBOX, "none"),
    # Every so many seconds each running attempt is looked at; one that is silent and idle for longer than stuckAfter is named.
    Key("safetyFeatures.healthChecks", SWITCH, True),
    Key("safetyFeatures.healthCheckInterval", SECONDS, 30),
    Key("safetyFeatures.stuckAfter", SECONDS, 300),
    Key("safetyFeatures.automaticFailover", SWITCH, True),
    # A runner that fails so often in a row by its own fault is left alone for so many seconds, then tried once.
    Key("safetyFeatures.circuitBreaker.enabled", SWITCH, True),
    Key("safetyFeatures.circuitBreaker.failureThreshold", whole(1, 100), 3),
    Key("safetyFeatures.circuitBreaker.resetTimeout", SECONDS, 30),
    Key("safetyFeatures.gracefulShutdown", SWITCH, True, "fixed", "the first Ctrl-C always lets what runs finish"),
    Key("safetyFeatures.emergencyStop", SWITCH, True, "fixed", "`parallel-agents stop --now` can always be said"),
    *[key for event, (template, _) in NOTIFICATIONS.items() for key in _notification(event, template)],
    *_not_built(
        "experimentalFeatures",
        {
            **_switches(
                "aiTaskScheduling.enabled", "predictiveScaling.enabled", "crossSessionParallel.enabled", on=False
            ),
            "aiTaskScheduling.confidence_threshold": (SHARE, 0.8),
            "predictiveScaling.accuracy_target": (SHARE, 0.8),
        },
    ),
)

BY_PATH: dict[str, Key] = {key.path: key for key in KEYS}
# Groups that existing files also have at top level.
ALIASES = {"retryPolicy": "execution.retryPolicy", "pipeline": "strategies.pipeline", "hybrid": "strategies.hybrid"}


def snake_case(name: str) -> str:
    """``maxMemoryMB`` as TOML, YAML and the environment spell it: ``max_memory_mb``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def fitted(value: Any, shape: Shape, *, snake: bool, path: tuple[str | int, ...] = ()) -> Any:
    """The value with defaults filled in and its fields in camelCase.

    Args:
        value: what the file, the environment or the flag says.
        shape: what the key may hold.
        snake: whether the fields of mappings inside the value are written in snake_case.
        path: where inside the key's value this stands.
    Raises:
        Misfit: the value has another type, is out of range, or has a field too many or too few.
    """
    if not shape:
        return value
    if "enum" in shape:
        if not isinstance(value, str) or value not in shape["enum"]:
            hint = nearest_name(value, shape["enum"]) if isinstance(value, str) else ""
            raise Misfit(path, f"is {shown(value)}, not {expected(shape)}", hint)
        return value
    if "anyOf" in shape:
        for one in shape["anyOf"]:
            if _is_type(value, one["type"]):
                return fitted(value, one, snake=snake, path=path)
        raise Misfit(path, f"is {shown(value)}, not {expected(shape)}", _words_hint(value))
    if not _is_type(value, shape["type"]) or not _in_range(value, shape):
        raise Misfit(path, f"is {shown(value)}, not {expected(shape)}", _type_hint(value, shape))
    match shape["type"]:
        case "array":
            return [fitted(item, shape["items"], snake=snake, path=(*path, i)) for i, item in enumerate(value)]
        case "object":
            return _fitted_fields(value, shape, snake, path)
        case _:
            return value


def _fitted_fields(value: dict[Any, Any], shape: Shape, snake: bool, path: tuple[str | int, ...]) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in value):
        raise Misfit(path, "has a name that is no text", "write the name in quotes")
    fields = shape.get("properties")
    if fields is None:
        each = shape["additionalProperties"]
        return {name: fitted(item, each, snake=snake, path=(*path, name)) for name, item in value.items()}
    spelled = {snake_case(name) if snake else name: name for name in fields}
    result = {}
    for name, item in value.items():
        if name not in spelled:
            raise Misfit((*path, name), "is no field of this key", nearest_name(name, spelled))
        result[spelled[name]] = fitted(item, fields[spelled[name]], snake=snake, path=(*path, name))
    for name in fields:
        if name not in result:
            if name in shape["required"]:
                raise Misfit(path, f"has no {name!r}")
            if "default" in fields[name]:
                result[name] = fields[name]["default"]
    return result


def _is_type(value: Any, kind: str) -> bool:
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and math.isfinite(value)
            )
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            raise AssertionError(kind)


def _in_range(value: Any, shape: Shape) -> bool:
    if shape["type"] in ("string", "array"):
        length = len(value)
        least, most = ("minLength", "maxLength") if shape["type"] == "string" else ("minItems", "maxItems")
        return bool(shape.get(least, 0) <= length <= shape.get(most, math.inf))
    if shape["type"] in ("integer", "number"):
        return bool(
            value >= shape.get("minimum", -math.inf)
            and value > shape.get("exclusiveMinimum", -math.inf)
            and value <= shape.get("maximum", math.inf)
        )
    return True


def _type_hint(value: Any, shape: Shape) -> str:
    if isinstance(value, str) and shape["type"] in ("integer", "number", "boolean"):
        return "write it without quotes" if re.fullmatch(r"-?\d+(\.\d+)?|true|false", value) else ""
    if shape is WORDS:
        return _words_hint(value)
    if isinstance(value, str) and shape["type"] == "array":
        return "write it as a list, in square brackets"
    return ""


def _words_hint(value: Any) -> str:
    words = f'["sh", "-c", {shown(value)}]' if isinstance(value, str) and value.strip() else '["make", "test"]'
    return f"write a command as a list of its words: {words}"


def expected(shape: Shape) -> str:
    """What a shape wants, in words that fit behind "is X, not ..."."""
    if "enum" in shape:
        return "one of " + ", ".join(shape["enum"])
    if "anyOf" in shape:
        return " or ".join(map(expected, shape["anyOf"]))
    match shape["type"]:
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number from {shape['minimum']} to {shape['maximum']}"
        case "number" if "exclusiveMinimum" in shape:
            return f"a number above {shape['exclusiveMinimum']}, at most {shape['maximum']}"
        case "number":
            return f"a number from {shape['minimum']} to {shape['maximum']}"
        case "string":
            return f"a text of {shape['minLength']} to {shape['maxLength']} characters"
        case "array":
            return "a list" + (" of at least one" if shape.get("minItems") else "")
        case "object":
            return "a mapping"
        case kind:
            raise AssertionError(kind)


def misfit_of_format(template: str, fields: tuple[str, ...]) -> Misfit | None:
    """What is wrong with a notification's format, if anything: only plain ``{field}`` is understood."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        return Misfit((), f"is {shown(template)}: {error}", "write {{ and }} for braces")
    for _, name, specification, conversion in parts:
        if name is None:
            continue
        if specification or conversion:
            return Misfit((), f"has more than a name in the braces of {{{name}}}", "write the name alone")
        if name not in fields:
            return Misfit((), f"names {shown(name)}, which this notification does not know", nearest_name(name, fields))
    return None
