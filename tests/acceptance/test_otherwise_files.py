"""What would have happened otherwise to files: merges are made, and conflicts found that never were, or are none any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scratch import Scratch, shell
from test_replay_execute_files import refs
from test_settling_cli import clashing, run_id_of
from versioned import belongings, versioned

FIRST = "1\n2\n3\n4\n5\n6\n7\n"


@pytest.fixture
def project(make_project: Callable[[str], Scratch]) -> Scratch:
    """A project in git."""
    return versioned(make_project("otherwise"), {"f": FIRST})


def asked(cli: Scratch, tmp_path: Path, setting: str) -> Any:
    """What one setting would have led to. Nothing that was there has changed, and nothing is left behind."""
    before, named = belongings(cli), refs(cli)
    cli.environment["TMPDIR"] = str(tmp_path)
    found = cli.quick("replay", "--set", setting, "--json").data
    del cli.environment["TMPDIR"]
    assert (belongings(cli), refs(cli)) == (before, named)
    assert list(tmp_path.iterdir()) == []
    assert found["files_judged"]
    return found


def test_tasks_that_would_have_run_at_once_clash(project: Scratch, tmp_path: Path) -> None:
    """One after the other they did not. Nobody was there to settle what the second merge met: that is assumed, and told."""
    plan = project.plan(
        shell("a", "sed -i s/2/two/ f"), shell("b", "sed -i 's/3/three/; s/two/2/' f"), shell("c", "cp f g", "a", "b"),
        max_parallel_agents=1,
    )  # fmt: skip
    project.quick("run", plan)
    found = asked(project, tmp_path, "max_parallel_agents=3")
    assert (found["recorded"]["conflicts"], found["otherwise"]["conflicts"]) == (0, 1)
    assert found["otherwise"]["tasks"] == {"completed": 3}
    said = "; ".join(f"{one['task_id']}: {one['what']}" for one in found["assumed"])
    assert "b: it began with other files; its own lines are taken in f" in said
    assert "its work waits for a person, which it did not then: its own lines are taken in f, at once" in said
    shown = project.quick("replay", "--set", "max_parallel_agents=3").out.splitlines()
    assert any(line.split() == ["conflicts", "0", "1", "new"] for line in shown)


def test_tasks_that_change_different_places_merge(project: Scratch, tmp_path: Path) -> None:
    """As git does it, whichever comes first."""
    plan = project.plan(shell("a", "sed -i s/1/one/ f"), shell("b", "sed -i s/7/seven/ f"), max_parallel_agents=1)
    project.quick("run", plan)
    found = asked(project, tmp_path, "max_parallel_agents=2")
    assert (found["otherwise"]["conflicts"], found["otherwise"]["meetings"], found["assumed"]) == (0, 1, [])
    assert found["otherwise"]["status"] == "completed"


def test_a_conflict_that_a_person_settled_is_none_where_one_waits_for_the_other(
    project: Scratch, tmp_path: Path
) -> None:
    """What somebody needs comes first, so it is the other one that begins with other files than then."""
    project.quick(
        "run", clashing(project, "sed -i s/2/two/ f", "sed -i s/2/zwei/ f", shell("heir", "true", "two")), code=5
    )
    project.quick("resolve", run_id_of(project), "two", "--take", "theirs")
    project.quick("resume", run_id_of(project))
    found = asked(project, tmp_path, "max_parallel_agents=1")
    assert (found["recorded"]["conflicts"], found["otherwise"]["conflicts"]) == (1, 0)
    assert [one["task_id"] for one in found["assumed"]] == ["one"]


def test_a_conflict_that_comes_again_is_settled_as_then(project: Scratch, tmp_path: Path) -> None:
    """By the same side, after as long; what was approved is approved."""
    looked_at = shell("looked-at", "echo x > x", approval="result")
    plan = clashing(project, "sed -i s/2/two/ f", "sed -i s/2/zwei/ f", shell("heir", "true", "two"), looked_at)
    project.quick("run", plan, code=5)
    project.quick("approve", run_id_of(project), "looked-at")
    project.quick("resolve", run_id_of(project), "two", "--take", "theirs")
    project.quick("resume", run_id_of(project))
    found = asked(project, tmp_path, "heir.priority=critical")
    assert found["differs_from"] is None
    found = asked(project, tmp_path, "max_parallel_agents=2")
    assert found["differs_from"] is not None
    assert (found["otherwise"]["conflicts"], found["otherwise"]["tasks"]) == (1, {"completed": 4})
    assert found["assumed"] == []
