"""Crash points: which there are, that each lies somewhere and is told of, and what the variable does."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_agents.configuration import NOT_CONFIGURATION
from parallel_agents.eventstore import crash_points
from parallel_agents.eventstore.crash_points import POINTS, VARIABLE
from parallel_agents.scheduler.agents.clients import BUILT_IN, environment
from parallel_agents.scheduler.environment import process_environment

ROOT = Path(__file__).parents[2]
REACHING = """
import sys
from parallel_agents.eventstore.crash_points import reach
for name in sys.argv[1:]:
    reach(name)
    print(name, flush=True)
"""


def reached_in(source: str) -> Iterator[tuple[int, str | None]]:
    """Where a module reaches points: line and name, None where the name is no literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach":
            name = node.args[0]
            yield node.lineno, name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def run(at: str | None, *names: str) -> subprocess.CompletedProcess[str]:
    """A process that comes to these points, one after the other."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", REACHING, *names], env=env | ({VARIABLE: at} if at is not None else {}),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_every_point_lies_in_one_place_and_every_place_is_named() -> None:
    """One that is named and reached nowhere would be a promise; one that is reached under another name could not be meant."""
    places: dict[str, list[str]] = {}
    for module in sorted((ROOT / "parallel_agents").rglob("*.py")):
        for line, name in reached_in(module.read_text(encoding="utf-8")):
            assert name is not None, f"{module}:{line}: the name of a point is a literal"
            places.setdefault(name, []).append(f"{module.relative_to(ROOT)}:{line}")
    assert places.keys() == POINTS.keys()
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
    assert len(POINTS) >= 40


def test_the_scan_finds_what_it_looks_for() -> None:
    """Or every table would fit."""
    assert list(reached_in("def f():\n    reach('a.b')\n    reach(name)\n")) == [(2, "a.b"), (3, None)]


def test_names_and_sentences_have_one_form() -> None:
    """``place.moment``, and a sentence."""
    assert [name for name in POINTS if not re.fullmatch(r"[a-z]+\.[a-z]+(-[a-z]+)*", name)] == []
    assert [text for text in POINTS.values() if not re.fullmatch(r"[A-Z].*[^.]\.", text)] == []
    assert len(set(POINTS.values())) == len(POINTS)


def test_the_paper_has_the_same_table() -> None:
    """Name by name, in the same order."""
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", (ROOT / "docs" / "crashes.md").read_text(), re.MULTILINE)
    assert rows == list(POINTS.items())


def test_without_the_variable_points_are_passed_by() -> None:
    """The function that is called there does nothing at all."""
    assert crash_points.reach is crash_points._pass_by
    assert run(None, "log.committed", "merge.made").stdout.split() == ["log.committed", "merge.made"]
    assert run("", "log.committed").stdout.split() == ["log.committed"]


@pytest.mark.parametrize(
    ("at", "passed"), [("log.committed", 0), ("log.committed:1", 0), ("log.committed:3", 4), ("merge.made", 1)]
)
def test_a_process_dies_where_and_when_it_was_told_to(at: str, passed: int) -> None:
    """By a signal that nothing can catch; other points count for nothing."""
    names = ["log.committed", "merge.made", "log.committed", "merge.made", "log.committed"]
    done = run(at, *names)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == names[:passed]


@pytest.mark.parametrize("at", ["log.commited", "log.committed:0", "log.committed:-1", "log.committed:x", ":2"])
def test_what_names_no_point_is_refused(at: str) -> None:
    """Somebody who has mistyped it would wait for ever."""
    done = run(at, "log.committed")
    assert done.returncode == 2
    assert done.stdout == ""
    assert at in done.stderr
    assert "docs/crashes.md" in done.stderr


def test_the_variable_is_no_configuration_and_no_attempt_gets_it() -> None:
    """An agent that runs this very program would die in its place."""
    assert VARIABLE in NOT_CONFIGURATION
    environ = {VARIABLE: "log.committed", "HOME": "/home/user", "PATH": "/bin"}
    built = process_environment(environ, {"PATH": "/bin"}, {}, (), {"RUN": "r"})
    assert VARIABLE not in built
    for client in BUILT_IN.values():
        assert VARIABLE not in environment(client, environ, built, "/config")
