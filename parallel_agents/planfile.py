"""Plan files, and tasks handed over in Python, as checked tasks with all defaults filled in.

Whatever is wrong is one ``InvalidPlan`` that names the file, the line where there is one, the field and the task, what
was found and the nearest right spelling. Cycles are not looked for here: the scheduler's graph knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from parallel_agents.configuration import Configuration
from parallel_agents.documents import Form, Loaded, Refusal, Where, form_of, parse, read_text, unlocated
from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.eventstore.submission import STRATEGIES, WORKSPACES, Strategy, Task, Workspace
from parallel_agents.plan_fields import (
    COMMANDS,
    FOR_AGENTS,
    PLAN_FIELDS,
    PLAN_WORDS,
    PREPARATION,
    RUNNERS,
    SEQUENCES,
    TASK_FIELDS,
    TASK_WORDS,
    agent_misfit,
    budget_misfit,
    context_misfit,
    explain,
    list_misfit,
    micros,
    name_misfit,
    sparse_misfit,
    special_misfit,
)
from parallel_agents.plan_secrets import secret_tasks, secrets_in, text_misfit
from parallel_agents.scheduler.agents.clients import BUILT_IN
from parallel_agents.scheduler.runners.plugged_in import is_plugged_in
from parallel_agents.wording import Misfit, escaped, nearest_name, place, shown

MAX_EXPANDED_BYTES = 256 * 1024 * 1024  # Of a plan in which every task carries its share of `defaults`.
MAX_COUNTED = 1000  # Problems; whoever has more of them made the same mistake everywhere.
GENERAL = "general"  # The agent type of an agent's task that names none.
TASKS_IN_PYTHON = "tasks"  # The source of what never was a file.

NO_COMMAND_HINT = 'give it one, such as command: ["make", "test"], or another runner'


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """A plan as it was written, checked and with defaults filled in; stages and settings come later."""

    name: str
    strategy: Strategy
    workspace: Workspace | None  # None: the plan does not say; whoever submits it looks where its files are.
    max_parallel_agents: int | None  # None: the plan sets no limit of its own.
    tasks: tuple[Task, ...]
    warnings: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()  # Folders that a checkout holds; none means all of them.
    include_uncommitted: bool = False  # Whether a run starts from the working tree as it is, not from its HEAD.
    budget_usd_micros: int | None = None  # None: the configuration's.


class _Head(NamedTuple):
    """What a plan says besides its tasks."""

    name: str
    strategy: Strategy
    workspace: Workspace | None
    limit: int | None
    sparse: tuple[str, ...]
    include_uncommitted: bool
    budget_usd_micros: int | None


def load_plan_file(
    path: Path, configuration: Configuration, *, strategy: str | None = None, max_parallel_agents: int | None = None
) -> PlanDraft:
    """The plan that a file holds: JSON or YAML, UTF-8, at most 32 MiB.

    Args:
        configuration: where defaults come from.
        strategy, max_parallel_agents: in place of what the plan says.
    Raises:
        InvalidPlan: the file cannot be read, is no plan, or something in it cannot be.
    """
    path = Path(path)
    refuse = Refusal("plan", str(path), InvalidPlan)
    loaded = _parsed(read_text(path, refuse), form_of(path), refuse)
    if isinstance(loaded.value, dict):
        given = {"strategy": strategy, "max_parallel_agents": max_parallel_agents}
        loaded.value.update({name: value for name, value in given.items() if value is not None})
    return _draft(loaded, str(path), configuration)


def parse_plan(text_or_mapping: str | Mapping[str, Any], source: str, configuration: Configuration) -> PlanDraft:
    """The same for a text (JSON or YAML, told apart by its look) or for what one was parsed to.

    Args:
        text_or_mapping: the plan.
        source: how errors call it; without its ending it is the plan's name unless the plan gives one.
        configuration: where defaults come from.
    """
    if not isinstance(text_or_mapping, str):
        return _draft(unlocated(_plain(text_or_mapping)), source, configuration)
    refuse = Refusal("plan", source, InvalidPlan)
    return _draft(_parsed(text_or_mapping, form_of(Path(source)), refuse), source, configuration)


def draft_from_tasks(
    tasks: Sequence[Mapping[str, Any]],
    *,
    name: str,
    configuration: Configuration,
    strategy: str | None = None,
    workspace: str | None = None,
    max_parallel_agents: int | None = None,
) -> PlanDraft:
    """The draft of a plan that was made in Python. It is refused for the same reasons, in the same words.

    A field that is None counts as not given. ``call: True`` marks a task that is a callable. A plan of callables only
    works on nothing that is versioned, so its workspace is ``none`` unless another one is named.
    """
    given = {"name": name, "strategy": strategy, "workspace": workspace, "max_parallel_agents": max_parallel_agents}
    plan = {key: value for key, value in given.items() if value is not None}
    bodies = [
        {key: value for key, value in task.items() if value is not None} if isinstance(task, Mapping) else task
        for task in tasks
    ]
    if workspace is None and bodies and all(isinstance(body, dict) and body.get("call") for body in bodies):
        plan["workspace"] = "none"
    return _draft(unlocated({**plan, "tasks": bodies}), TASKS_IN_PYTHON, configuration, python=True)


def _parsed(text: str, form: Form | None, refuse: Refusal) -> Loaded:
    if form == "toml":
        refuse("is TOML; a plan is YAML or JSON", hint="name the file .yaml or .json")
    loaded = parse(text, form or "yaml", refuse)
    if loaded.value is None:
        refuse("is empty", hint="a plan has at least 'tasks', a list of tasks")
    return loaded


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class _Problems:
    """What is wrong with a plan: the first in full, the others counted."""

    def __init__(self, loaded: Loaded, source: str, configuration: Configuration) -> None:
        self.loaded = loaded
        self.source = source
        self.runners = tuple(dict.fromkeys((*RUNNERS, *BUILT_IN, *configuration.get("agents.runners"))))
        self.default_runner: str = configuration.get("agents.defaultRunner")
        self.first: InvalidPlan | None = None
        self.count = 0

    def add(self, path: Where, message: str, hint: str = "") -> None:
        """Count a problem, and keep it if it is the first; only then its line is worked out."""
        self.count += 1
        if self.first is not None:
            return
        where = place(path)
        if len(path) >= 2 and path[0] == "tasks" and (task_id := self._task_id(path[1])):
            where += f" (task {shown(task_id)})"
        line = self.loaded.line_of(path) if path else None
        self.first = InvalidPlan(f"{self._source(line)}{where or 'the plan'} {message}", hint=hint)

    def add_misfit(self, path: Where, misfit: Misfit) -> None:
        self.add((*path, *misfit.path), misfit.message, misfit.hint)

    def _source(self, line: int | None) -> str:
        if self.source == TASKS_IN_PYTHON:
            return ""
        return f"{escaped(self.source)}{f', line {line}' if line else ''}: "

    def _task_id(self, index: str | int) -> str | None:
        try:
            task_id = self.loaded.value["tasks"][index]["task_id"]
        except (LookupError, TypeError):
            return None
        return task_id if isinstance(task_id, str) else None

    def refuse_if_any(self) -> None:
        if self.first is None:
            return
        more = self.count - 1
        least = "at least " if self.count >= MAX_COUNTED else ""
        tail = f" ({least}{more:,} more problem{'s' if more > 1 else ''} in this plan)" if more else ""
        raise InvalidPlan(self.first.message + tail, hint=self.first.hint)


def _draft(loaded: Loaded, source: str, configuration: Configuration, *, python: bool = False) -> PlanDraft:
    problems = _Problems(loaded, source, configuration)
    plan = loaded.value
    if not isinstance(plan, dict):
        hint = "a plan is a mapping with at least 'tasks', a list of tasks"
        problems.add((), f"is {shown(plan)}, not a mapping", hint)
        problems.refuse_if_any()
    head = _read_head(plan, source, configuration, problems)
    defaults = _read_defaults(plan, problems)
    raw_tasks = plan.get("tasks")
    if not isinstance(raw_tasks, list):
        found = f"is {shown(raw_tasks)}, not a list" if "tasks" in plan else "holds no tasks"
        hint = "write a list of tasks, each with a task_id and a description or a command"
        problems.add(("tasks",) if "tasks" in plan else (), found, hint)
    elif not raw_tasks:
        problems.add(("tasks",), "is an empty list", "a plan needs at least one task")
    elif len(raw_tasks) * (size := _size(defaults)) > MAX_EXPANDED_BYTES:
        problems.add(("defaults",), f"of {size:,} bytes in each of {len(raw_tasks):,} tasks are too much for a store")
    # Without sound defaults every task would be wrong in the same way.
    problems.refuse_if_any()
    assert isinstance(raw_tasks, list)
    base = {**_configured(configuration), **defaults}
    tasks: list[Task | None] = []
    for index, raw in enumerate(raw_tasks):
        tasks.append(_read_task(raw, index, base, problems, python=python))
        if problems.count >= MAX_COUNTED:
            break
    if head.workspace == "none":
        _check_unversioned(plan, raw_tasks, tasks, problems)
    warnings = _check_graph(raw_tasks, tasks, problems)
    sound = [(index, task) for index, task in enumerate(tasks) if task is not None]
    for index, misfits in secret_tasks(sound):
        for misfit in misfits:
            problems.add_misfit(("tasks", index), misfit)
    problems.refuse_if_any()
    return PlanDraft(
        head.name,
        head.strategy,
        head.workspace,
        head.limit,
        tuple(task for _, task in sound),
        tuple(warnings),
        head.sparse,
        head.include_uncommitted,
        head.budget_usd_micros,
    )


def _size(defaults: Mapping[str, Any]) -> int:
    return sum(len(orjson.dumps(value)) for value in defaults.values())


def _read_head(plan: dict[str, Any], source: str, configuration: Configuration, problems: _Problems) -> _Head:
    """The fields of the plan itself. An empty one counts as left out."""
    for field in plan:
        if field not in PLAN_FIELDS:
            hint = PLAN_WORDS.get(field) or nearest_name(str(field), PLAN_FIELDS)
            problems.add((str(field),), "is no field of a plan", hint)
    plan = {field: value for field, value in plan.items() if value is not None}
    name = plan.get("name", _name_from(source))
    if misfit := name_misfit(name) or text_misfit((), name):
        problems.add_misfit(("name",), misfit)
    strategy = plan.get("strategy", configuration.get("defaultStrategy"))
    if _is_one_of(strategy, STRATEGIES, ("strategy",), problems):
        key = f"strategies.{strategy}.enabled"
        if not configuration.get(key):
            message = f"is {strategy}, which is switched off: {key} = false ({escaped(configuration.origin(key))})"
            problems.add(("strategy",), message, "choose another strategy, or switch this one on")
    workspace = plan.get("workspace")
    if workspace is not None:
        _is_one_of(workspace, WORKSPACES, ("workspace",), problems)
    sparse, uncommitted = _read_files(plan, workspace, problems)
    limit = plan.get("max_parallel_agents")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= 10_000):
        problems.add(("max_parallel_agents",), f"is {shown(limit)}, not a whole number from 1 to 10000")
    budget = plan.get("budget_usd")
    if budget is not None and (misfit := budget_misfit(budget)):
        problems.add_misfit(("budget_usd",), misfit)
        budget = None
    return _Head(name, strategy, workspace, limit, sparse, uncommitted, None if budget is None else micros(budget))


def _read_files(plan: dict[str, Any], workspace: Any, problems: _Problems) -> tuple[tuple[str, ...], bool]:
    """What of the project's files a run begins with: the folders, and whether uncommitted changes come along."""
    sparse = plan.get("sparse", ())
    misfit = sparse_misfit(sparse)
    if misfit is None and sparse:
        found = (text_misfit((index,), folder) for index, folder in enumerate(sparse))
        misfit = next((one for one in found if one), None)
    if misfit:
        problems.add_misfit(("sparse",), misfit)
    elif sparse and workspace in ("shared", "none"):
        message = f"is about checkouts, and with workspace: {workspace} there are none"
        problems.add(("sparse",), message, "write workspace: worktree, or leave sparse out")
    uncommitted = plan.get("include_uncommitted", False)
    if type(uncommitted) is not bool:
        problems.add(("include_uncommitted",), f"is {shown(uncommitted)}, not true or false")
    elif uncommitted and workspace == "none":
        message = "is true, and with workspace: none no files are kept"
        problems.add(("include_uncommitted",), message, "leave it out, or write workspace: worktree")
    return (tuple(sparse) if misfit is None else ()), uncommitted is True


def _check_unversioned(
    plan: dict[str, Any], raw_tasks: list[Any], tasks: Sequence[Task | None], problems: _Problems
) -> None:
    """Refuse an approval of results where no files are kept, so that there would be nothing to approve."""
    for index, task in enumerate(tasks):
        if task is not None and task.approval == "result":
            own = "approval" in raw_tasks[index]
            path: Where = ("tasks", index, "approval") if own else ("defaults", "approval")
            message = "is result, and with workspace: none no files are kept that could be looked at"
            problems.add(path, message, "write approval: required, which is asked for before the start")
            if not own:
                return


def _is_one_of(value: Any, known: Sequence[str], path: Where, problems: _Problems) -> bool:
    if isinstance(value, str) and value in known:
        return True
    hint = nearest_name(value, known) if isinstance(value, str) else ""
    problems.add(path, f"is {shown(value)}, not one of {', '.join(known)}", hint)
    return False


def _name_from(source: str) -> str:
    stem = "".join(char if char.isprintable() else "_" for char in Path(source).stem)
    return stem[:200] or "plan"


def _configured(configuration: Configuration) -> dict[str, Any]:
    """What the configuration says where neither task nor plan do."""
    retries = configuration.get("execution.retryPolicy.maxRetries")
    return {
        "timeout_s": configuration.get("execution.taskQueue.timeout"),
        "max_retries": retries if configuration.get("execution.retryPolicy.enabled") else 0,
        "priority": configuration.get("execution.taskQueue.defaultPriority"),
    }


def _read_defaults(plan: dict[str, Any], problems: _Problems) -> dict[str, Any]:
    """The plan's ``defaults``, checked as if they were a task; a field of a task replaces its default whole."""
    above = {name: plan[name] for name in PREPARATION if plan.get(name) is not None}
    defaults = plan.get("defaults")
    if defaults is None:
        return _read_fields(above, (), problems)
    if not isinstance(defaults, dict):
        problems.add(("defaults",), f"is {shown(defaults)}, not a mapping", "write fields of a task below it")
        return {}
    if "task_id" in defaults:
        problems.add(("defaults", "task_id"), "cannot be the same for all tasks", "give each task its own")
    for name in above.keys() & defaults.keys():
        problems.add(("defaults", name), "is said by the plan itself as well", "keep one of the two")
    return _read_fields(above, (), problems) | _read_fields(defaults, ("defaults",), problems)


def _read_fields(fields: dict[str, Any], path: Where, problems: _Problems) -> dict[str, Any]:
    """Fields that hold for tasks in general, as a task would hold them."""
    if not fields:
        return {}
    task = _checked({**fields, "task_id": "x"}, fields, path, problems)
    if task is None:
        return {}
    for misfit in secrets_in(task):
        problems.add_misfit(path, misfit)
    kept = {name: getattr(task, name) for name in fields if name in Task.model_fields and name != "task_id"}
    return kept | ({"budget_usd_micros": task.budget_usd_micros} if "budget_usd" in fields else {})


def _read_task(raw: Any, index: int, base: dict[str, Any], problems: _Problems, *, python: bool) -> Task | None:
    """One task with defaults filled in, or None where something is wrong with it."""
    path = ("tasks", index)
    if not isinstance(raw, dict):
        problems.add(path, f"is {shown(raw)}, not a mapping", "a task has a task_id, and a description or a command")
        return None
    call = False
    if python and "call" in raw:
        raw = dict(raw)
        call = bool(raw.pop("call"))
    fields = {**base, **raw}
    if fields.get("runner") is None:
        shell = fields.get("command") is not None
        fields["runner"] = "python" if call else "shell" if shell else problems.default_runner
    if fields["runner"] not in RUNNERS:
        fields.setdefault("agent_type", GENERAL)
    task = _checked(fields, raw, path, problems)
    if task is None:
        return None
    if call and task.command is not None:
        problems.add(path, "has a command and is a callable", "give it one of the two")
    elif call and task.runner != "python":
        problems.add((*path, "runner"), f"is {shown(task.runner)}, but a callable is run by python")
    elif call and (said := [name for name in PREPARATION if raw.get(name) is not None]):
        message = "is for commands; a callable has no process and no checkout to prepare"
        problems.add((*path, said[0]), message, "leave it out, and do it in the callable")
    elif not call and task.runner == "python":
        problems.add((*path, "runner"), 'is "python", which runs callables', "give the task call= in the Python API")
    elif task.runner == "shell" and task.command is None:
        problems.add(path, "has no command, which is what the shell runs", NO_COMMAND_HINT)
    elif task.runner in RUNNERS and (named := [name for name in FOR_AGENTS if raw.get(name) is not None]):
        message = f"is for agents, and this task is run by {task.runner}"
        problems.add((*path, named[0]), message, "leave it out; among `defaults` it counts for agents only")
    elif task.runner not in RUNNERS and (misfit := agent_misfit(task)):
        problems.add_misfit(path, misfit)
    else:
        return task
    return None


def _checked(fields: dict[str, Any], raw: dict[str, Any], path: Where, problems: _Problems) -> Task | None:
    """A task of these fields, or None. What stands in ``raw`` is looked at; the rest was checked before."""
    before = problems.count
    if not raw.keys() <= TASK_FIELDS:
        _check_names(fields, raw, path, problems)
    for name in raw.keys() & SEQUENCES:
        value = raw[name]
        if isinstance(value, list):
            fields[name] = tuple(value)
        elif not isinstance(value, tuple) and not (value is None and name in COMMANDS):
            problems.add_misfit(path, list_misfit(name, value))
            del fields[name]
    if "budget_usd" in raw:
        fields["budget_usd_micros"] = budget = fields.pop("budget_usd")
        if budget is not None and (misfit := budget_misfit(budget)):
            problems.add_misfit((*path, "budget_usd"), misfit)
            fields["budget_usd_micros"] = None
        elif budget is not None:
            fields["budget_usd_micros"] = micros(budget)
    if raw.get("context") and (misfit := context_misfit(raw["context"], ("context",))):
        problems.add_misfit(path, misfit)
        del fields["context"]
    try:
        task = Task.model_validate(fields)
    except ValidationError as error:
        details = error.errors(include_url=False)
        for detail in details:
            # A list whose only item is wrong is "too short" as well; that says nothing more.
            if detail["type"] != "too_short" or len(details) == 1:
                problems.add_misfit(path, explain(detail))
        return None
    if task.runner is not None and task.runner not in problems.runners and not is_plugged_in(task.runner):
        message = f"is {shown(task.runner)}; the runners there are: {', '.join(problems.runners)}"
        problems.add((*path, "runner"), message, nearest_name(task.runner, problems.runners))
    if misfit := special_misfit(task, raw):
        problems.add_misfit(path, misfit)
    return task if problems.count == before else None


def _check_names(fields: dict[str, Any], raw: dict[str, Any], path: Where, problems: _Problems) -> None:
    """Refuse the names in ``raw`` that are no fields, and take them out of ``fields``."""
    for name in raw:
        if name in TASK_FIELDS:
            continue
        del fields[name]
        problems.add((*path, str(name)), "is no field of a task", _hint_for_field(str(name)))


def _hint_for_field(name: str) -> str:
    meant = TASK_WORDS.get(name)
    return f"did you mean {meant!r}?" if meant else nearest_name(name, TASK_FIELDS)


def _check_graph(raw_tasks: list[Any], tasks: list[Task | None], problems: _Problems) -> list[str]:
    """Ids that clash and dependencies that lead nowhere. The warnings are about what is merely odd."""
    ids: dict[str, int] = {}
    folded: dict[str, int] = {}
    for index, raw in enumerate(raw_tasks):
        task_id = raw.get("task_id") if isinstance(raw, dict) else None
        if not isinstance(task_id, str):
            continue
        path = ("tasks", index, "task_id")
        if task_id in ids:
            problems.add(path, f"is used already by tasks[{ids[task_id]}]", "every task needs an id of its own")
        elif task_id.casefold() in folded:
            other = folded[task_id.casefold()]
            message = f"differs from {shown(raw_tasks[other]['task_id'])} of tasks[{other}] by case only"
            problems.add(path, message, "ids become folders, and some file systems know no case")
        ids.setdefault(task_id, index)
        folded.setdefault(task_id.casefold(), index)
    warnings = []
    known = ids.keys()
    for index, task in enumerate(tasks):
        if task is None or not task.dependencies:
            continue
        if task.task_id in task.dependencies or not known >= set(task.dependencies):
            _report_dependencies(index, task, ids, problems)
        if len(set(task.dependencies)) < len(task.dependencies):
            tasks[index] = task.model_copy(update={"dependencies": tuple(dict.fromkeys(task.dependencies))})
            warnings.append(f"tasks[{index}] ({task.task_id}) names a dependency twice")
    return warnings


def _report_dependencies(index: int, task: Task, ids: Mapping[str, int], problems: _Problems) -> None:
    for position, needed in enumerate(task.dependencies):
        path = ("tasks", index, "dependencies", position)
        if needed == task.task_id:
            problems.add(path, "is the task itself", "a task cannot wait for its own end")
        elif needed not in ids:
            # Not worked out for every problem: a look through 100,000 ids takes a while.
            hint = nearest_name(needed, ids.keys() - {task.task_id}) if problems.count == 0 else ""
            problems.add(path, f"is {shown(needed)}, and there is no such task", hint)
