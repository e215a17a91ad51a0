"""A plan played before it is run, at the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scratch import Scratch, shell


@pytest.fixture
def cli(make_project: Callable[[str], Scratch]) -> Scratch:
    """A project in which nothing was run."""
    return make_project("project")


def test_a_plan_is_played_and_nothing_is_run_or_kept(cli: Scratch) -> None:
    """Not even a store is made."""
    plan = cli.plan(shell("a", "touch here", expected_s=2), shell("b", "touch here", "a", expected_s=3))
    found = cli.quick("simulate", plan, "--json").data
    assert (found["tasks"], found["at_middle_s"], found["completes"]) == (2, 5.0, 1.0)
    assert found["makespan_s"]["low"] < 5.0 < found["makespan_s"]["high"]
    said = cli.quick("simulate", plan).out
    assert "nothing was run" in said
    assert "waits for people" in said
    assert not (cli.root / "here").exists()
    assert not cli.store.exists()


def test_other_settings_stand_beside_the_plan_as_it_is(cli: Scratch) -> None:
    """With the same draws."""
    plan = cli.plan(shell("a", "true", expected_s=2), shell("b", "true", expected_s=2), max_parallel_agents=1)
    found = cli.quick("simulate", plan, "--set", "max_parallel_agents=2", "--json").data
    assert found["settings"] == {"max_parallel_agents": 2}
    assert (found["as_planned"]["at_middle_s"], found["at_middle_s"]) == (4.0, 2.0)
    assert "AS PLANNED" in cli.quick("simulate", plan, "--set", "max_parallel_agents=2").out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--set", "max_paralel_agents=2"), "did you mean 'max_parallel_agents'?"),
        (("--set", "max_parallel_agents"), "no NAME=VALUE"),
        (("--set", "a.command=x"), "cannot be another one"),
    ],
)
def test_what_cannot_be_said_differently_is_refused(cli: Scratch, words: tuple[str, ...], what: str) -> None:
    """By name."""
    assert what in cli.quick("simulate", cli.plan(shell("a", "true")), *words, code=2).err


def test_a_plan_that_is_not_there_or_cannot_be_run_is_refused(cli: Scratch) -> None:
    """As `run` refuses it."""
    assert "nosuch.yaml" in cli.quick("simulate", "nosuch.yaml", code=2).err
    cycle = cli.plan(shell("a", "true", "b"), shell("b", "true", "a"))
    assert "circular dependency: a -> b -> a" in cli.quick("simulate", cycle, code=2).err
