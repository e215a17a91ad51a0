"""What would have happened otherwise, asked at the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from scratch import Scratch, shell


@pytest.fixture(scope="module")
def with_two_runs(make_project: Callable[[str], Scratch]) -> Scratch:
    """Two runs of a plan, one task after the other."""
    cli = make_project("project")
    plan = cli.plan(shell("a", "true"), shell("b", "true"), shell("c", "true", "a"), max_parallel_agents=1)
    for _ in range(2):
        cli.quick("run", plan)
    return cli.keep()


@pytest.fixture
def cli(with_two_runs: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_two_runs.anew()


def test_more_slots_let_more_start_at_once(cli: Scratch) -> None:
    """What was stands beside what would have been; nothing is appended."""
    before = cli.quick("history", "--json").out
    found = cli.quick("replay", "--set", "max_parallel_agents=3", "--json").data
    assert found["differs_from"]["now"] == "TaskStarted b"
    assert found["otherwise"]["makespan_s"] < found["recorded"]["makespan_s"]
    assert found["settings"] == {"max_parallel_agents": 3}
    said = cli.quick("replay", "--set", "max_parallel_agents=3").out
    assert "WOULD BE" in said
    assert "nothing would have been different" in cli.quick("replay", "--set", "max_parallel_agents=1").out
    assert cli.quick("history", "--json").out == before


def test_all_runs_are_asked_at_once(cli: Scratch) -> None:
    """One line each, and a summary."""
    found = cli.quick("replay", "--all", "--set", "max_parallel_agents=3", "--json").data
    assert [one["differs"] for one in found["runs"]] == [True, True]
    assert found["summary"]["ratio"]["high"] < 1.0
    said = cli.quick("replay", "--all", "--set", "max_parallel_agents=3").out
    assert "2 runs, with max_parallel_agents=3" in said
    assert "of what it was in the middle run" in said


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--set", "max_paralel_agents=8"), "did you mean 'max_parallel_agents'?"),
        (("--all", "--set", "nothing=8"), "nothing of that name"),
        (("--set", "max_parallel_agents"), "no NAME=VALUE"),
        (("--set", "max_queue_size=1", "--set", "max_queue_size=2"), "is said twice"),
        (("--set", "max_parallel_agents=0"), "greater than or equal to 1"),
        (("--set", "a.command=x"), "as they were recorded"),
        (("--all",), "add --set NAME=VALUE"),
        (("latest", "--all", "--set", "max_queue_size=1"), "--all means every run"),
        (("--execute", "--set", "max_queue_size=1"), "--execute and --set are two questions"),
        (("--set", "max_queue_size=1", "--at", "3"), "--at is of no use"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(cli: Scratch, words: tuple[str, ...], what: str) -> None:
    """With what there is instead."""
    assert what in cli.quick("replay", *words, code=2).err


def test_where_nothing_was_run_nothing_can_be_asked(make_project: Callable[[str], Scratch]) -> None:
    """As everywhere."""
    cli = make_project("empty")
    assert "no store" in cli.quick("replay", "--all", "--set", "max_queue_size=1", code=3).err
