"""The rules of the house that no other tool checks: who may import whom, and what files are called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "parallel_agents"
MODULES = sorted(ROOT.rglob("*.py"))

# Each room and what it may import of ours besides itself: cli -> API -> scheduler -> checkpoint, projections -> eventstore.
ARROWS = {
    "eventstore": {"version"},
    "projections": {"eventstore", "version"},
    "checkpoint": {"eventstore", "version"},
    "scheduler": {"checkpoint", "projections", "eventstore", "version"},
    "api": {"scheduler", "checkpoint", "projections", "eventstore", "version"},
    "cli": {"api", "version"},
    "version": set(),
}
OF_THE_API = {"otherwise", "pictures", "debugger"}
"""Rooms within the API that know nothing of each other, and that nothing but the command line knows of."""
DAEMON = "parallel_agents.scheduler.daemon"  # The one thing below the API that the command line may start.
SCHEDULER = "parallel_agents.scheduler."
# What decides. Of the runners it knows the protocol, which is data and one class without code.
PURE = {
    "decide",
    "plan",
    "graph",
    "scopes",
    "strategies",
    "retry",
    "budget",
    "work",
    "decide_settling",
    "decide_budgets",
    "decide_money",
    "throttle",
    "breaker",
    "health",
    "rests",
    "governing",
    "scaling",
    "machine_load",
    "runners.protocol",
    "runners.limits",
    "trees",
    "agents.reading",
    "agents.claude_stream",
    "agents.codex_stream",
    "agents.text_output",
    "agents.verdict",
    "agents.reset_times",
    "agents.bill",
    "agents.prompt",
    "agents.models",
    "agents.clients",
    "agents.granting",
    "agents.errands",
    "providers",
}
# What a pure module has no use for: the world, and what tells the time.
WORLD = {
    "os",
    "subprocess",
    "socket",
    "threading",
    "time",
    "random",
    "secrets",
    "psutil",
    "apscheduler",
    "sqlite3",
    "sqlalchemy",
}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports, inside functions too."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(name: str) -> str:
    """The room of a module of ours; what lies directly in the package is the API."""
    parts = name.split(".")
    if len(parts) == 1:
        return "api"
    return parts[1] if parts[1] in ARROWS else "api"


def name_of(module: Path) -> str:
    """The dotted name of a file."""
    parts = module.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def wrong_imports(module: Path) -> list[str]:
    """The imports of a module that go against an arrow."""
    room = room_of(name_of(module))
    return [
        f"{name_of(module)}:{line} imports {name}"
        for line, name in imports(module)
        if name.startswith("parallel_agents.")
        and room_of(name) != room
        and room_of(name) not in ARROWS[room]
        and not (room == "cli" and f"{name}.".startswith(f"{DAEMON}."))
    ]


def impure_imports(module: Path) -> list[str]:
    """What a pure module of the scheduler imports of the shell (all of the scheduler that is not pure) or of the world."""
    pure = tuple(f"{SCHEDULER}{name}." for name in PURE)
    return [
        f"{name_of(module)}:{line} imports {name}"
        for line, name in imports(module)
        if (name.startswith(SCHEDULER) and not f"{name}.".startswith(pure)) or name.split(".")[0] in WORLD
    ]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_point_one_way(module: Path) -> None:
    """And are absolute."""
    assert wrong_imports(module) == []


@pytest.mark.parametrize("room", sorted(OF_THE_API))
def test_a_room_of_the_api_is_entered_by_the_command_line_alone(room: str) -> None:
    """Whatever else needs something of it is in the wrong place, or what it needs is."""
    inside, found = f"parallel_agents.{room}.", []
    for module in MODULES:
        name = name_of(module)
        if room_of(name) != "cli" and not f"{name}.".startswith(inside):
            found += [
                f"{name}:{line} imports {other}" for line, other in imports(module) if f"{other}.".startswith(inside)
            ]
    assert found == []


@pytest.mark.parametrize(
    "module", [module for module in MODULES if name_of(module).removeprefix(SCHEDULER) in PURE], ids=name_of
)
def test_what_decides_knows_nothing_of_what_acts(module: Path) -> None:
    """The shell imports the pure part, never the reverse; time and chance are handed in."""
    assert impure_imports(module) == []


def test_the_rules_find_what_they_forbid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they would hold for any code."""
    monkeypatch.setattr("test_architecture.ROOT", tmp_path / "parallel_agents")

    def module(path: str, text: str) -> Path:
        made = tmp_path / "parallel_agents" / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(text)
        return made

    assert wrong_imports(module("eventstore/log.py", "from parallel_agents.projections import status"))
    assert wrong_imports(module("projections/cost.py", "import parallel_agents.scheduler.loop"))
    assert wrong_imports(module("scheduler/plan.py", "def f():\n    from parallel_agents.submit import submit"))
    assert wrong_imports(module("cli/main.py", "from parallel_agents.eventstore.log import Log"))
    assert wrong_imports(module("cli/x.py", "from parallel_agents.scheduler.daemonic import start"))
    assert not wrong_imports(module("cli/daemon.py", "from parallel_agents.scheduler.daemon import start"))
    assert not wrong_imports(module("cli/look.py", "from parallel_agents import look\nimport os"))
    assert not wrong_imports(module("submit.py", "from parallel_agents.scheduler.loop import x"))
    assert impure_imports(module("scheduler/graph.py", "from parallel_agents.scheduler.runners import shell"))
    assert impure_imports(module("scheduler/graph.py", "from parallel_agents.scheduler.engine import tick"))
    assert impure_imports(module("scheduler/retry.py", "import random"))
    assert not impure_imports(module("scheduler/decide.py", "from parallel_agents.scheduler import plan"))
    with pytest.raises(AssertionError, match="relative"):
        wrong_imports(module("cli/y.py", "from . import main"))


def test_a_file_is_called_after_what_it_knows() -> None:
    """Not after its being of use."""
    assert [name_of(module) for module in MODULES if module.stem in NAMELESS or module.parent.name in NAMELESS] == []


def test_there_is_something_to_check() -> None:
    """The rooms that exist are the ones that the arrows name."""
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert {"eventstore", "projections", "scheduler", "cli"} <= rooms <= ARROWS.keys() | OF_THE_API
