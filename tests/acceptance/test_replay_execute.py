"""A past run executed again at the command line, with attempts that do what they did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from scratch import Scratch, shell
from test_replay_verify import rewrite


@pytest.fixture(scope="module")
def with_an_executable_run(make_project: Callable[[str], Scratch]) -> Scratch:
    """A run that has failed: a task that was tried twice, and one that was skipped for it."""
    cli = make_project("project")
    again = shell("b", "echo tried >> tries; exit 1", "a", max_retries=1)
    cli.write("parallel-agents.yaml", "execution: {retry_policy: {retry_delay: 0}}\n")
    plan = cli.plan(shell("a", "true"), again, shell("c", "true", "b"), shell("d", "true"))
    cli.quick("run", plan, code=1)
    return cli.keep()


@pytest.fixture
def cli(with_an_executable_run: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_an_executable_run.anew()


def test_a_run_comes_out_the_same_and_nothing_is_run_for_it(cli: Scratch) -> None:
    """No command of it is started, and no event is added."""
    before = cli.quick("history", "--json").out
    tries = sorted(str(path.relative_to(cli.root)) for path in cli.root.rglob("*"))
    found = cli.quick("replay", "--execute", "--json").data
    assert (found["ok"], found["attempts"], found["divergence"]) == (True, 4, None)
    assert found["same"]["TaskStarted"] == 4
    assert found["same"]["TaskRetryScheduled"] == found["same"]["TaskSkipped"] == found["same"]["RunFailed"] == 1
    assert "✓ the same" in cli.quick("replay", "--execute").out
    assert cli.quick("history", "--json").out == before
    assert sorted(str(path.relative_to(cli.root)) for path in cli.root.rglob("*")) == tries


def test_what_comes_out_otherwise_is_named(cli: Scratch) -> None:
    """With its event, the field, what is recorded and what comes out now; the exit code says so too."""
    seq = rewrite(cli, "TaskSkipped", lambda data: data.update(because="d"))
    said = cli.quick("replay", "--execute", code=8)
    assert f"event {seq} TaskSkipped: because was 'd', and executed again it is 'b'" in said.err
    found = cli.quick("replay", "--execute", "--json", code=8)
    assert json.loads(found.out)["divergence"]["seq"] == seq
    assert found.complaint["code"] == "replay_differs"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--verify",), "--verify and --execute"),
        (("--speed", "2"), "--speed is of no use"),
        (("--at", "3"), "--at is of no use"),
    ],
)
def test_what_does_not_go_with_it_is_refused(cli: Scratch, words: tuple[str, ...], what: str) -> None:
    """By name."""
    assert what in cli.quick("replay", "--execute", *words, code=2).err


def test_a_run_that_is_not_there_is_named(cli: Scratch) -> None:
    """As everywhere."""
    assert "no run" in cli.quick("replay", "nosuchrun1", "--execute", code=3).err
