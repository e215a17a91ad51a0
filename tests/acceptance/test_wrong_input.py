"""Whatever is wrong is said in one message that names it, with the nearest right spelling, and appends nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from scratch import Said, Scratch, shell

from parallel_agents.configuration import Configuration
from parallel_agents.eventstore.log import Log
from parallel_agents.planfile import parse_plan
from parallel_agents.submit import make_plan, submit

TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"  # Of the shape of a real one, and in no store.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + last] * 9)}]\n" for last, name in zip("abcdefg", "bcdefgh", strict=True)
)


def one(fields: str) -> str:
    """A plan of one task with these fields."""
    return f"tasks:\n  - {{task_id: build, command: [make], {fields}}}\n"


def identified(task_id: str) -> str:
    """A plan of one task of this id."""
    return f"tasks:\n  - {{task_id: {task_id}, command: [make]}}\n"


CYCLE = "tasks:\n" + "".join(
    f"  - {{task_id: {one}, command: [make], dependencies: [{next_one}]}}\n" for one, next_one in ("ab", "bc", "ca")
)

# What is wrong -> (the plan, what has to be said of it in this order).
PLANS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "cycle": (CYCLE, ("plan.yaml", "circular", "a -> b -> c -> a")),
    "self-dependency": (one("dependencies: [build]"), ("line 2", "dependencies[0]", "itself")),
    "unknown dependency": (
        one("") + "  - {task_id: check, command: [make], dependencies: [biuld]}\n",
        ("line 3", "biuld", "did you mean 'build'?"),
    ),
    "duplicate id": (one("") + "  - {task_id: build, command: [make]}\n", ("line 3", "task_id", "used already")),
    "ids that differ by case": (one("") + "  - {task_id: Build, command: [make]}\n", ("line 3", "case only")),
    "no tasks": ("name: nothing\n", ("plan.yaml", "no tasks")),
    "empty list of tasks": ("name: nothing\ntasks: []\n", ("line 2", "tasks", "at least one")),
    "unknown field": (one("dependancies: []"), ("line 2", "dependancies", "did you mean 'dependencies'?")),
    "unknown field of the plan": ("startegy: hybrid\n" + one(""), ("line 1", "startegy", "did you mean 'strategy'?")),
    "key given twice": ("name: a\nname: b\n" + one(""), ("line 2", '"name"', "twice")),
    "wrong type": (one("timeout_s: soon"), ("line 2", "timeout_s", '"soon"', "a number of seconds")),
    "a text where a list belongs": (one("dependencies: other"), ("line 2", "dependencies", "a list")),
    "a command that is a text": ("tasks:\n  - {task_id: a, command: make all}\n", ("line 2", '["sh", "-c", "make all"]')),
    "unknown priority": (one("priority: hihg"), ("line 2", "priority", "did you mean 'high'?")),
    "unknown strategy": ("strategy: pipline\n" + one(""), ("line 1", "strategy", "did you mean 'pipeline'?")),
    "unknown runner": (one("runner: shel"), ("line 2", "runner", "did you mean 'shell'?")),
    "no command": ("tasks:\n  - {task_id: a, agent_type: qa-engineer}\n", ("line 2", "no command", "no description", "claude")),
    "negative number": (one("timeout_s: -1"), ("line 2", "timeout_s", "-1", "above 0")),
    "zero": (one("timeout_s: 0"), ("line 2", "timeout_s", "above 0")),
    "negative retries": (one("max_retries: -1"), ("line 2", "max_retries", "from 0")),
    "no agents at all": ("max_parallel_agents: 0\n" + one(""), ("line 1", "max_parallel_agents", "from 1")),
    "not a number": (one("timeout_s: .nan"), ("line 2", ".nan")),
    "id that leaves its folder": (identified("../other"), ("line 2", "task_id", "../other", "A-Z")),
    "id with a folder": (identified("a/b"), ("line 2", "task_id", "A-Z")),
    "id with control characters": (identified('"a\\e[31mb"'), ("line 2", "task_id", r"a\u001b[31mb")),
    "long id": (identified("x" * 201), ("line 2", "task_id", "1 to 100 characters")),
    "NUL in a command": ('tasks:\n  - {task_id: a, command: [echo, "a\\0b"]}\n', ("line 2", "command[1]", "NUL")),
    "no YAML": ("tasks: [}\n", ("line 1", "no YAML")),
    "tabs": ("tasks:\n\t- task_id: a\n", ("line 2", "spaces")),
    "a text": ("Buy milk.\n", ("plan.yaml", "Buy milk", "not a mapping")),
    "binary": (b"\x7fELF\x02\x01\x01\x00\x00", ("plan.yaml", "binary", "UTF-8")),
    "empty": ("", ("plan.yaml", "empty")),
    "YAML bomb": (BOMB + "tasks: *h\n", ("line", "aliases")),
    "nested without end": ("[" * 5000, ("line 1", "nested")),
    "a Python object": ("tasks: !!python/object/apply:os.system [touch made]\n", ("line 1", "tag")),
    "a budget that is none": ("budget_usd: -5\n" + one(""), ("line 1", "budget_usd", "-5", "dollars")),
    "scope outside": (one("files: [../other/*]"), ("line 2", "files[0]", "../other/*", "without ..")),
    "scope that takes something out": (one('files: ["!docs/*"]'), ("line 2", "files[0]", "!docs/*", "name only")),
    "output outside": (one("outputs: [/etc/passwd]"), ("line 2", "outputs[0]", "/etc/passwd", "without ..")),
    "unknown approval": (one("approval: resutl"), ("line 2", "approval", "did you mean 'result'?")),
    "approval that is yes": (one("approval: true"), ("line 2", "approval", "true", "required")),
    "unknown workspace": ("workspace: worktre\n" + one(""), ("line 1", "workspace", "did you mean 'worktree'?")),
    "checkouts without git": ("workspace: worktree\n" + one(""), ("worktree", "no git repository", "git init")),
    "folders of a shared directory": (
        "workspace: shared\nsparse: [src]\n" + one(""), ("line 2", "sparse", "shared", "workspace: worktree"),
    ),
    "folders without git": ("sparse: [src]\n" + one(""), ("sparse", "checkouts", "no git repository", "git init")),
    "folders outside": ("sparse: [../src]\n" + one(""), ("line 1", "sparse[0]", "../src", "without ..")),
    "folders by pattern": ("sparse: [src/*]\n" + one(""), ("line 1", "sparse[0]", "src/*", "not a pattern")),
    "uncommitted changes of nothing": (
        "workspace: none\ninclude_uncommitted: true\n" + one(""), ("line 2", "include_uncommitted", "none", "worktree"),
    ),
    "setup that is a text": (one("setup: make env"), ("line 2", "setup", '["sh", "-c", "make env"]')),
    "approval of nothing": (
        "workspace: none\n" + one("approval: result"),
        ("line 3", "approval", "none", "approval: required"),
    ),
    "secret in a variable": (one(f"env: {{API_TOKEN: {TOKEN}}}"), ("line 2", "env.API_TOKEN", "secret", "env_from")),
    "secret in a command": (
        f'tasks:\n  - {{task_id: a, command: [curl, -H, "Authorization: token {TOKEN}"]}}\n',
        ("line 2", "command", "secret", "env_from"),
    ),
}  # fmt: skip


def check_refusal(said: Said, wanted: tuple[str, ...]) -> None:
    """One message and at most one hint, on stderr alone, which say what is wanted in this order."""
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), said.err
    rest = said.err
    for part in wanted:
        assert part in rest, (part, said.err)
        rest = rest[rest.index(part) :]
    assert TOKEN not in said.err


@pytest.mark.parametrize("what", PLANS)
def test_a_plan_that_cannot_be_is_refused_and_makes_no_store(cli: Scratch, what: str) -> None:
    """File or line, field, and what was meant."""
    plan, wanted = PLANS[what]
    cli.write("plan.yaml", plan)
    check_refusal(cli.quick("submit", "plan.yaml", code=2), wanted)
    assert sorted(path.name for path in cli.root.iterdir()) == [".git", "home", "plan.yaml"]


def test_a_plan_that_is_no_file_of_a_plans_size_is_refused(cli: Scratch) -> None:
    """Missing, a directory, a pipe, too big, or of another kind."""
    cli.plan(shell("a", "true"), name="release")
    (cli.root / "folder").mkdir()
    os.mkfifo(cli.root / "pipe.yaml")
    (cli.root / "link.yaml").symlink_to("nowhere.yaml")
    with cli.write("big.yaml", "name: big\n").open("r+b") as big:
        big.truncate(50 * 1024 * 1024)
    cli.write("plan.toml", "tasks = []\n")
    for name, wanted in {
        "relaese.json": ("relaese.json", "no such plan file", "did you mean 'release.json'?"),
        "link.yaml": ("link.yaml", "no such plan file", "did you mean 'big.yaml'?"),
        "folder": ("folder", "is a directory"),
        "pipe.yaml": ("pipe.yaml", "is a pipe"),
        "big.yaml": ("big.yaml", "32 MiB"),
        "plan.toml": ("plan.toml", "YAML or JSON"),
    }.items():
        check_refusal(cli.quick("run", name, code=2), wanted)
    assert not cli.store.parent.exists()


@pytest.fixture(scope="module")
def project(make_project: Callable[[str], Scratch]) -> Scratch:
    """A project with two runs: one that failed, one that nobody has started."""
    scratch = make_project("wrong input")
    plan = scratch.plan(shell("build", "exit 3"), shell("check", "true", "build"))
    scratch.quick("run", plan, code=1)
    scratch.quick("submit", plan)
    return scratch


COMMAND_LINES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "unknown verb": (("statu",), 2, ("'statu'", "did you mean 'status'?")),
    "a verb of other tools": (("kill",), 2, ("'kill'", "did you mean 'stop --now'?")),
    "a debugger without a terminal": (("debug",), 2, ("there is none", "replay", "status --at SEQ")),
    "a debugger that follows the past": (("debug", "--follow", "--at", "3"), 2, ("exclude each other",)),
    "unknown option": (("run", "plan.json", "--detac"), 2, ("--detac", "did you mean --detach?")),
    "option without its value": (("status", "--at"), 2, ("--at", "requires an argument")),
    "two runs": (("status", "one", "two"), 2, ("two", "status --help")),
    "no plan": (("run",), 2, ("PLAN", "run --help")),
    "no task": (("show",), 2, ("TASK", "show --help")),
    "three words for a task": (("why", "a", "b", "c"), 2, ("[RUN] TASK", "a b c")),
    "unknown run": (("status", "nosuchrun"), 3, ("nosuchrun", "there are: ")),
    "empty run": (("status", ""), 3, ("''", "there are: ")),
    "unknown task": (("show", "latest", "biuld"), 3, ("'biuld'", "did you mean 'build'?")),
    "unknown task of a history": (("history", "--task", "biuld"), 3, ("'biuld'", "did you mean 'build'?")),
    "unknown attempt": (("logs", "latest", "build", "--attempt", "7"), 3, ("no attempt 7",)),
    "attempt zero": (("logs", "latest", "build", "--attempt", "0"), 2, ("--attempt", "1")),
    "unknown type of event": (("history", "--type", "taskfailed"), 2, ("'taskfailed'", "did you mean 'TaskFailed'?")),
    "all runs and one": (("history", "latest", "--all"), 2, ("--all", "exclude")),
    "the past does not go on": (("history", "--follow", "--at", "1"), 2, ("--follow", "--at")),
    "event past the end": (("status", "--at", "4711"), 3, ("no event 4711", "1 to ")),
    "event zero": (("status", "--at", "0"), 3, ("no event 0", "1 to ")),
    "negative event": (("status", "--at", "-1"), 3, ("no event -1", "1 to ")),
    "time before the first event": (("status", "--at", "2001-01-01T00:00:00Z"), 3, ("at or before", "history")),
    "words that name no moment": (("status", "--at", "someday"), 3, ("'someday'",)),
    "time that has not come": (("status", "--at", "2999-01-01T00:00:00Z"), 3, ("not come yet", "now is")),
    "day that has not come": (("runs", "--at", "2999-01-01"), 3, ("not come yet", "now is")),
    "day before the first event": (("status", "--at", "2001-01-01"), 3, ("at or before", "history")),
    "words for a time before the first event": (("status", "--at", "300 weeks ago"), 3, ("at or before", "history")),
    "time outside of the calendar": (("status", "--at", "999999999 weeks ago"), 3, ("outside of the calendar",)),
    "no moment of the list": (("runs", "--at", ""), 2, ("''", "412", "'2 hours ago'")),
    "budgets of the past cannot be set": (("budget", "--at", "1", "--budget", "5"), 2, ("--budget", "--at")),
    "cost of all runs and of one": (("cost", "latest", "--all"), 2, ("--all", "exclude")),
    "unknown grouping": (("cost", "--by", "hour"), 2, ("'hour'", "'day'")),
    "flag without a value": (("run", "plan.json", "--set", "maxParallelAgents"), 2, ("maxParallelAgents", "KEY=VALUE")),
    "unknown key": (
        ("run", "plan.json", "--set", "maxParalelAgents=2"), 2, ("maxParalelAgents", "did you mean 'maxParallelAgents'?"),
    ),
    "value that no key has": (("run", "plan.json", "--set", "maxParallelAgents=0"), 2, ("maxParallelAgents", "1 to 10000")),
    "unknown way with conflicts": (
        ("submit", "plan.json", "--set", "conflictResolution.strategy=rebas"), 2,
        ("conflictResolution.strategy", "did you mean 'rebase'?"),
    ),
    "merging unasked": (
        ("submit", "plan.json", "--set", "conflictResolution.autoMerge=true"), 2, ("autoMerge", "parallel-agents merge"),
    ),
    "gate that is a text": (
        ("submit", "plan.json", "--set", 'qualityGates.commands=["make test"]'), 2,
        ("qualityGates.commands[0]", "make test", '["sh", "-c", "make test"]'),
    ),
    "gate after something else": (
        ("submit", "plan.json", "--set", 'qualityGates.commands=[{"command": ["make"], "after": "run"}]'), 2,
        ("qualityGates.commands[0].after", "run", "task", "stage"),
    ),
    "no number": (("submit", "plan.json", "--max-parallel-agents", "many"), 2, ("--max-parallel-agents", "'many'")),
    "too few": (("submit", "plan.json", "--max-parallel-agents", "0"), 2, ("max_parallel_agents", "1 to 10000")),
    "no time to wait": (("wait", "--timeout", "nan"), 2, ("--timeout", "such as 30")),
    "unknown strategy": (("submit", "plan.json", "--strategy", "hybird"), 2, ("strategy", "did you mean 'hybrid'?")),
    "missing configuration": (("run", "plan.json", "--config", "plans.json"), 2, ("no such configuration", "'plan.json'")),
    "stop of everything, by mistake": (("stop",), 2, ("everything", "--now")),
    "pause of what has ended": (("pause", "FIRST"), 2, ("has ended", "retry")),
    "resume of what is not paused": (("cancel", "FIRST"), 2, ("has ended", "retry")),
    "retry of what has not failed": (("retry", "SECOND"), 2, ("no failed task",)),
    "retry of an unknown task": (("retry", "FIRST", "biuld"), 3, ("'biuld'", "did you mean 'build'?")),
    "database of another kind": (("--store", "postgresql://host/name", "status"), 2, ("postgresql://", "sqlite:///PATH")),
    "URL without a path": (("--store", "sqlite://", "runs"), 2, ("sqlite://", "sqlite:///PATH")),
    "empty store": (("runs", "--store", ""), 2, ("--store", "empty")),
    "no store there": (("--store", "nowhere/events.db", "status"), 3, ("nowhere/events.db", "run PLAN")),
    "a store that is a device": (("--store", "/dev/full", "submit", "plan.json"), 2, ("/dev/full", "full")),
    "no daemon": (("daemon", "status"), 7, ("no daemon", "daemon start")),
    "no daemon to stop": (("daemon", "stop"), 7, ("no daemon", "daemon start")),
}  # fmt: skip


def named(project: Scratch, words: tuple[str, ...]) -> list[str]:
    """The words with the ids of the project's two runs in their places."""
    ids = {"FIRST": 0, "SECOND": -1}
    runs = project.quick("runs", "--json").data if ids.keys() & set(words) else []
    return [runs[ids[word]]["run_id"] if word in ids else word for word in words]


@pytest.mark.parametrize("what", COMMAND_LINES)
def test_a_command_that_cannot_be_says_so_and_appends_nothing(project: Scratch, what: str) -> None:
    """Exit code 2, or 3 for what does not exist, 7 where there is no daemon."""
    words, code, wanted = COMMAND_LINES[what]
    before = project.event_count()
    check_refusal(project.quick(*named(project, words), code=code), wanted)
    assert project.event_count() == before


def test_without_a_verb_the_help_is_shown(project: Scratch) -> None:
    """As it is, not as an error's text; the code says that nothing was done."""
    for words in ((), ("daemon",), ("config",)):
        said = project.quick(*words, code=2)
        assert said.out == ""
        assert said.err.startswith("Usage: parallel-agents")
        assert "\nOptions:" in said.err


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("status", "nosuchrun", "--json"), 3, "unknown_run"),
        (("show", "latest", "nosuchtask", "--json"), 3, "unknown_task"),
        (("queue", "--at", "4711", "--json"), 3, "unknown_event"),
        (("submit", "--json", "wrong.json"), 2, "invalid_plan"),
        (("run", "plan.json", "--set", "maxParalelAgents=0", "--json"), 2, "invalid_configuration"),
        (("runs", "--nosuchoption", "--json"), 2, "usage"),
        (("--store", "plan.json", "runs", "--json"), 2, "store"),
        (("daemon", "stop", "--json"), 7, "no_daemon"),
    ],
)
def test_with_json_an_error_is_json_too(project: Scratch, words: tuple[str, ...], code: int, name: str) -> None:
    """One document on stderr with a stable code, a message and a hint; nothing on stdout."""
    project.write("wrong.json", {"tasks": [{"task_id": "build", "command": ["make"], "priority": "hihg"}]})
    before = project.event_count()
    said = project.quick(*words, code=code)
    assert said.out == ""
    complaint = said.complaint
    assert complaint["code"] == name
    assert complaint["message"]
    assert complaint["hint"]
    assert project.event_count() == before


def test_the_beginning_of_a_run_has_to_fit_just_one(cli: Scratch) -> None:
    """With more runs than there are letters, two begin alike; a longer beginning tells them apart."""
    task = {"tasks": [{"task_id": "a", "command": ["true"]}]}
    cli.quick("submit", str(cli.write("plan.json", task)))
    with Log(cli.store) as log:
        plan = make_plan(parse_plan(task, "plan", Configuration({}, {})), Configuration({}, {}))
        runs = [submit(log, plan, workdir=cli.root) for _ in range(27)]
    letter = next(run[0] for run in runs if sum(other[0] == run[0] for other in runs) > 1)
    alike = [line["run_id"] for line in cli.quick("runs", "--json").data if line["run_id"][0] == letter]
    before = cli.event_count()
    for words in (("status", letter), ("pause", letter), ("show", letter, "a")):
        check_refusal(cli.quick(*words, code=2), (repr(letter), f"{len(alike)} runs", "more of it", alike[0], alike[1]))
    assert cli.event_count() == before
    shortest = next(
        alike[0][:end] for end in range(2, 11) if sum(other.startswith(alike[0][:end]) for other in alike) == 1
    )
    assert cli.quick("status", shortest, "--json").data["run_id"] == alike[0]
    assert cli.quick("status", "latest", "--json").data["run_id"] == runs[-1]
    assert cli.quick("status", "--json").data["run_id"] == runs[-1]


def test_files_that_are_no_store_are_said_to_be_none_and_stay_as_they_are(project: Scratch) -> None:
    """A text, somebody else's database, half a store, a store with a page of rubbish."""
    whole = project.store.read_bytes()
    with closing(sqlite3.connect(project.root / "shop.db")) as connection, connection:
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY)")
    files = {
        "notes.txt": (b"Buy milk.\n" * 500, ("notes.txt", "not an SQLite file", "--store")),
        "shop.db": ((project.root / "shop.db").read_bytes(), ("shop.db", "not a store of parallel-agents", "--store")),
        "half.db": (whole[:9000], ("half.db", "corrupt", "backup")),
        "rubbish.db": (whole[:4096] + b"\xaa" * (len(whole) - 4096), ("rubbish.db", "corrupt", "backup")),
    }
    for name, (content, wanted) in files.items():
        path = project.write(name, content)
        for words in (("status",), ("submit", "plan.json")):
            check_refusal(project.quick("--store", name, *words, code=2), wanted)
        assert path.read_bytes() == content
    (project.root / "empty folder").mkdir()
    check_refusal(project.quick("--store", "empty folder", "history", code=3), ("no store", "empty folder/events.db"))
    assert not list((project.root / "empty folder").iterdir())


@pytest.mark.parametrize(
    "verb",
    ["status", "wait", "attach", "history", "logs a", "show a", "why a", "timeline", "cost", "verify", "pause", "resume",
     "cancel", "retry", "stop --now"],
)  # fmt: skip
def test_where_there_is_no_store_there_is_no_run(cli: Scratch, verb: str) -> None:
    """Said by every verb that needs one; looking makes no store."""
    check_refusal(cli.quick(*verb.split(), code=3), ("no store", "hence no run", "run PLAN"))
    assert not cli.store.parent.exists()


def test_where_there_is_no_store_the_lists_are_empty(cli: Scratch) -> None:
    """That is an answer."""
    for verb in ("runs", "queue"):
        said = cli.quick(verb, "--json")
        assert (said.data, said.err) == ([], "")
        assert cli.quick(verb).out == ""
    assert not cli.store.parent.exists()


def test_a_wrong_configuration_names_its_file_and_line_and_stops_no_reading(project: Scratch) -> None:
    """A typing error there must not hide what happened."""
    before = project.event_count()
    for name, text, wanted in (
        ("parallel-agents.yaml", "max_paralel_agents: 3\n", ("line 1", "max_paralel_agents", "'max_parallel_agents'")),
        ("parallel-agents.toml", "max_parallel_agents = 'three'\n", ("max_parallel_agents", "three")),
        ("parallel-agents.toml", "max_parallel_agents = \n", ("parallel-agents.toml", "no TOML")),
        ("parallel-agents.yaml", "output_aggregation: {format: html}\n", ("format", "not built yet", "markdown")),
    ):
        path = project.write(name, text)
        check_refusal(project.quick("submit", "plan.json", code=2), (str(path), *wanted))
        path.unlink()
    path = project.write(".claude/config/parallel-agents-config.json", '{"maxParallelAgents": 3,}')
    check_refusal(project.quick("run", "plan.json", code=2), (str(path), "line 1", "no JSON"))
    assert project.quick("status", "--json").data["name"] == "plan"
    assert any(finding["level"] == "error" for finding in project.quick("doctor", "--json", code=1).data)
    path.unlink()
    assert project.event_count() == before


def test_a_variable_that_means_nothing_is_refused_with_the_nearest_that_does(project: Scratch) -> None:
    """A misspelt limit must not be no limit."""
    before = project.event_count()
    said = project.quick("submit", "plan.json", code=2, env={"PARALLEL_AGENTS_MAX_PARALEL_AGENTS": "1"})
    check_refusal(said, ("PARALLEL_AGENTS_MAX_PARALEL_AGENTS", "'PARALLEL_AGENTS_MAX_PARALLEL_AGENTS'"))
    said = project.quick("submit", "plan.json", code=2, env={"PARALLEL_AGENTS_MAX_PARALLEL_AGENTS": "few"})
    check_refusal(said, ("PARALLEL_AGENTS_MAX_PARALLEL_AGENTS", "few"))
    said = project.quick("runs", code=2, env={"PARALLEL_AGENTS_STORE": "mysql://host/name"})
    check_refusal(said, ("mysql://host/name", "sqlite:///PATH"))
    assert project.event_count() == before


def test_words_that_would_move_a_cursor_come_back_as_escapes(project: Scratch) -> None:
    """Names are shown, never obeyed; bytes that are no text neither."""
    colour = "\x1b[31mred\x07"
    shown = {
        ("status", colour): 3, ("show", "latest", colour): 3, (colour,): 2, ("run", colour): 2,
        ("--store", colour, "status"): 3, ("history", "--type", colour): 2, ("status", "--at", colour): 3,
        ("run", "plan.json", "--set", f"{colour}=1"): 2, ("runs", f"--{colour}"): 2,
    }  # fmt: skip
    for words, code in shown.items():
        said = project.quick(*words, code=code)
        assert not any(ord(char) < 32 and char != "\n" for char in said.err), (words, said.err)
    bytes_of_none = os.fsdecode(b"\xff\xfe")
    for words, code in {("status", bytes_of_none): 3, ("submit", bytes_of_none): 2, (bytes_of_none,): 2}.items():
        assert project(*words, code=code).err.startswith("error: ")


def test_a_folder_whose_name_is_no_text_is_refused_where_it_would_have_to_be_recorded(cli: Scratch) -> None:
    """An event is UTF-8; such a byte in PATH does no harm."""
    folder = cli.root / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    plan = str(cli.write("plan.json", {"tasks": [{"task_id": "a", "command": ["true"]}]}))
    check_refusal(cli("submit", plan, cwd=folder, code=2), ("caf", "no UTF-8", "rename"))
    assert cli.event_count() == 0
    assert cli("runs", "--json", cwd=folder).data == []
    cli("run", plan, env={"PATH": f"{cli.environment['PATH']}:{folder}", "LC_CTYPE": os.fsdecode(b"\xff")})


def test_a_folder_that_is_gone_is_said_to_be(cli: Scratch) -> None:
    """By every verb that needs one."""
    plan = cli.plan(shell("a", "true"))
    for words in (("status",), ("run", plan), ("daemon", "start"), ("config", "show")):
        gone = cli.root / "gone"
        gone.mkdir()
        said = cli(*words, cwd=gone, code=2, script='rmdir "$PWD" && exec "$@"')
        check_refusal(said, ("working directory", "does not exist", "change"))


def test_the_store_is_found_from_below_and_a_path_may_be_a_url(project: Scratch) -> None:
    """And a folder stands for the store in it."""
    below = project.root / "src" / "deep"
    below.mkdir(parents=True, exist_ok=True)
    runs = project.quick("runs", "--json").data
    for words, options in (
        (("runs", "--json"), {"cwd": below}),
        (("--store", str(project.store), "runs", "--json"), {"cwd": Path("/")}),
        (("--store", f"sqlite:///{project.store}", "runs", "--json"), {"cwd": Path("/")}),
        (("runs", "--json", "--store", str(project.store.parent)), {"cwd": Path("/")}),
        (("runs", "--json"), {"cwd": Path("/"), "env": {"PARALLEL_AGENTS_STORE": str(project.store)}}),
    ):
        assert project.quick(*words, **options).data == runs
