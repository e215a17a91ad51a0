"""A past run with files executed again: every attempt leaves what it left, and git comes to the same commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scratch import Scratch, shell
from test_replay_verify import rewrite
from test_settling_cli import ONE, START, TWO, clashing, run_id_of
from versioned import belongings, git, versioned

QUICKLY = "execution: {retry_policy: {retry_delay: 0}}\n"


def refs(cli: Scratch) -> str:
    """All of the repository, those of ours included, and its worktrees."""
    return git(cli, "for-each-ref") + git(cli, "worktree", "list", "--porcelain")


def test_work_that_clashed_in_every_way_clashes_again(make_project: Callable[[str], Scratch], tmp_path: Path) -> None:
    """A person settled it, and what followed began with that. Nothing of the user's changes, and nothing stays behind."""
    cli = versioned(make_project("clashing"), START)
    heir = shell("heir", "cat content added > heard; echo x > made.json", "two", outputs=["made.json"])
    cli.quick("run", clashing(cli, ONE, TWO, heir), code=5)
    cli.quick("resolve", run_id_of(cli), "two", "--take", "theirs")
    cli.quick("resume", run_id_of(cli))
    before, named = belongings(cli), refs(cli)
    cli.environment["TMPDIR"] = str(tmp_path)
    found = cli.quick("replay", "--execute", "--json").data
    assert (found["ok"], found["files_judged"], found["divergence"]) == (True, True, None)
    assert found["same"]["ConflictDetected"] == found["same"]["TaskBlocked"] == 1
    assert found["commits"]["same"] > 10
    assert found["commits"]["alike"] == 0
    said = cli.quick("replay", "--execute").out
    assert f"✓ its files  {found['commits']['same']} times the same commit, in a repository of its own" in said
    assert (belongings(cli), refs(cli)) == (before, named)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def with_gates(make_project: Callable[[str], Scratch]) -> Scratch:
    """A task that a gate has sent back, and one whose work met another one's, so that it was made anew on top of that."""
    cli = versioned(make_project("gates"), {"f": "first\n", "passes": "", "parallel-agents.yaml": QUICKLY})
    flag = cli.root / "flags" / "tried"
    flag.parent.mkdir(exist_ok=True)
    again = shell("gated", f"[ -e {flag} ] || {{ touch {flag}; rm passes; }}; echo x > of-gated", max_retries=1)
    gate = {"command": ["sh", "-c", "test -e passes || { echo not there; exit 3; }"], "after": "task"}
    end = {"command": ["sh", "-c", "test $(wc -l <f) = 2"], "after": "stage"}
    settings = (f"qualityGates.commands={json.dumps([gate, end])}", "conflictResolution.strategy=rebase")
    branch = "refs/heads/parallel-agents/$PARALLEL_AGENTS_RUN"
    merged = f"git rev-parse -q --verify {branch} >/dev/null && git show {branch}:f | grep -q one"
    meets = f"grep -q one f || {{ echo two >> f; until {merged}; do sleep 0.02; done; }}; echo 2 > of-two"
    plan = cli.plan(shell("one", "echo one >> f"), shell("two", meets), again)
    cli.quick("run", plan, "--set", settings[0], "--set", settings[1])
    return cli.keep()


@pytest.fixture
def cli(with_gates: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_gates.anew()


def test_what_gates_said_is_taken_up_and_work_that_met_other_work_is_made_anew(cli: Scratch) -> None:
    """No command of a gate runs: what it looks at is not there any more."""
    told = [one["data"]["passed"] for one in cli.events(run_id_of(cli)) if one["type"] == "GateChecked"]
    assert False in told
    (cli.root / "flags" / "tried").unlink()
    found = cli.quick("replay", "--execute", "--json").data
    assert (found["ok"], found["files_judged"], found["divergence"]) == (True, True, None)
    assert found["same"]["GateChecked"] == len(told)
    assert found["same"]["TaskFailed"] == found["same"]["TaskRetryScheduled"] == 2
    assert found["same"]["ConflictDetected"] == found["same"]["ConflictResolved"] == 1
    assert not (cli.root / "flags" / "tried").exists()


def test_a_commit_that_nobody_can_have_made_is_named(cli: Scratch) -> None:
    """It is there, and holds other files."""
    base = git(cli, "rev-parse", "main")
    seq = rewrite(cli, "TaskCompleted", lambda data: data.update(commit=base))
    said = cli.quick("replay", "--execute", code=8)
    assert f"event {seq} TaskCompleted: commit was '{base}', and executed again it is '" in said.err


def test_a_conflict_that_never_was_is_named(cli: Scratch) -> None:
    """Paths are compared, too."""
    seq = rewrite(cli, "ConflictDetected", lambda data: data.update(paths=["g"]))
    said = cli.quick("replay", "--execute", code=8)
    assert f"event {seq} ConflictDetected: paths was ['g'], and executed again it is ['f']" in said.err


def test_commits_that_are_gone_are_told_and_the_rest_is_judged(cli: Scratch) -> None:
    """Somebody has taken our refs away and collected what they held."""
    for ref in git(cli, "for-each-ref", "--format=%(refname)").splitlines():
        if ref != "refs/heads/main":
            git(cli, "update-ref", "-d", ref)
    git(cli, "worktree", "prune")
    git(cli, "gc", "--prune=now", "--quiet")
    found = cli.quick("replay", "--execute", "--json").data
    assert (found["ok"], found["files_judged"], found["commits"]) == (True, False, None)
    assert "is not in " in found["files_left"]
    assert "not judged its files: commit " in cli.quick("replay", "--execute").out


def test_a_directory_that_attempts_shared_is_not_judged(make_project: Callable[[str], Scratch]) -> None:
    """What one saw of another one's half-done work is nowhere."""
    cli = versioned(make_project("shared"), {"f": "1\n"})
    cli.quick("run", cli.plan(shell("a", "echo a > a"), shell("b", "cat a > b", "a"), workspace="shared"))
    found = cli.quick("replay", "--execute", "--json").data
    assert (found["ok"], found["files_judged"]) == (True, False)
    assert found["files_left"].startswith("its attempts shared a directory")
