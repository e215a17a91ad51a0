"""What agents and users do to a repository while a run goes on: nothing is lost, and what cannot be done is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scratch import Scratch, shell, until_file, wait_until
from versioned import git, versioned

AS_AGENT = "git -c user.name=agent -c user.email=agent@localhost"
INNER = f"git init -q inner; echo precious > inner/file; cd inner; git add -A; {AS_AGENT} commit -qm x; cd .."


def files_of(cli: Scratch, run_id: str) -> list[str]:
    """The names in the result of a run."""
    return git(cli, "ls-tree", "-r", "--name-only", f"parallel-agents/{run_id}").splitlines()


def begun(cli: Scratch, tmp_path: Path, *more: dict[str, Any]) -> tuple[Any, str, Path]:
    """A run whose first task waits, the run's id, and the file that lets it go on."""
    go = tmp_path / "go"
    command = cli.begin("run", cli.plan(shell("a", f"echo a > a; {until_file(str(go))}"), *more))
    return command, cli.until_running("a")["run_id"], go


@pytest.mark.parametrize(
    ("script", "retries"),
    [(INNER, 1), (f"{INNER}; git add -A; {AS_AGENT} commit -qm inner", 0)],
    ids=["made", "committed"],
)
def test_a_repository_that_an_agent_made_in_its_checkout_outlives_it(cli: Scratch, script: str, retries: int) -> None:
    """No commit keeps it, so the attempt fails by name, and its checkout is set aside before the next one begins."""
    versioned(cli, {"f": "1\n", "parallel-agents.toml": "[execution.retry_policy]\nretry_delay = 0\n"})
    said = cli.quick("run", cli.plan(shell("a", script), defaults={"max_retries": retries}), code=1)
    assert "its work could not be kept" in said.out
    assert "inner" in said.out
    asides = sorted((cli.root / ".parallel-agents" / "worktrees").glob("*/.unkept-a-*"))
    assert [(aside / "inner" / "file").read_text() for aside in asides] == ["precious\n"] * (retries + 1)
    assert str(asides[0]) in said.err
    cli.quick("gc", "--yes")
    assert all(aside.exists() for aside in asides)


def test_an_agent_without_its_git_file_takes_nothing_of_the_users_branch_back(cli: Scratch, tmp_path: Path) -> None:
    """Its work is what it changed, whatever the user has committed meanwhile."""
    versioned(cli, {"f": "1\n"})
    go = tmp_path / "go"
    command = cli.begin("run", cli.plan(shell("a", f"rm .git; echo a > a; {until_file(str(go))}")))
    run_id = cli.until_running("a")["run_id"]
    cli.write("users", "u\n")
    git(cli, "add", "users")
    git(cli, "commit", "-qm", "meanwhile")
    go.touch()
    assert cli.said_by(command).code == 0
    assert files_of(cli, run_id) == [".gitignore", "a", "f"]
    assert git(cli, "diff", "--name-status", f"main...parallel-agents/{run_id}") == "A\ta"


def test_what_an_agent_does_to_shared_state_is_told_and_its_work_is_kept(cli: Scratch) -> None:
    """Stash, configuration, hooks, branches, tags; its own commits and what it left uncommitted are the work."""
    versioned(cli, {"f": "1\n"})
    script = f"""
    git config user.evil 1
    echo x > stashed; git add -A; {AS_AGENT} stash -q
    git branch mine; git tag mark
    echo '#!/bin/sh' > "$(git rev-parse --git-common-dir)/hooks/pre-commit"
    git switch -qc other; echo c > committed; git add -A; {AS_AGENT} commit -qm own; echo d > uncommitted
    """
    cli.quick("run", cli.plan(shell("a", script)))
    events = cli.events()
    told = next(event["data"]["what"] for event in events if event["type"] == "SharedStateChanged")
    assert told == ["branch mine", "branch other", "config", "hooks/pre-commit", "stash", "tag mark"]
    assert files_of(cli, events[0]["run_id"]) == [".gitignore", "committed", "f", "uncommitted"]


def test_a_user_on_the_branch_of_a_run_keeps_the_files_that_they_see(cli: Scratch, tmp_path: Path) -> None:
    """The branch stays, and that is said; the run goes on, and its result is brought home from elsewhere."""
    versioned(cli, {"f": "1\n"})
    command, run_id, go = begun(cli, tmp_path, shell("b", "echo b > b", "a"))
    branch = f"parallel-agents/{run_id}"
    wait_until(lambda: git(cli, "branch", "--list", branch), "the branch")
    git(cli, "switch", "-q", branch)
    go.touch()
    said = cli.said_by(command)
    assert said.code == 0
    assert f"the branch {branch} is checked out in {cli.root}, so it does not move" in said.err
    assert git(cli, "status", "--porcelain") == ""
    git(cli, "switch", "-q", "main")
    cli.quick("merge", "--yes")
    assert git(cli, "ls-files").splitlines() == [".gitignore", "a", "b", "f"]
    assert "lost its ref" not in cli.quick("doctor").out


def test_a_commit_of_somebody_else_on_the_branch_of_a_run_is_kept_and_told(cli: Scratch, tmp_path: Path) -> None:
    """What the run did is in its result all the same."""
    versioned(cli, {"f": "1\n"})
    command, run_id, go = begun(cli, tmp_path)
    foreign = git(cli, "commit-tree", "-m", "mine", "HEAD^{tree}")
    wait_until(lambda: git(cli, "branch", "--list", f"parallel-agents/{run_id}"), "the branch")
    git(cli, "update-ref", f"refs/heads/parallel-agents/{run_id}", foreign)
    go.touch()
    said = cli.said_by(command)
    assert f"somebody put {foreign[:12]} on the branch" in said.err
    assert git(cli, "rev-parse", f"parallel-agents/{run_id}") == foreign
    cli.quick("merge", "--yes")
    assert git(cli, "ls-files").splitlines() == [".gitignore", "a", "f"]


def test_work_outlives_a_project_that_is_moved_while_it_is_done(cli: Scratch, tmp_path: Path) -> None:
    """Who missed it first decides what becomes of the attempt; its work is held by a ref or set aside, whatever comes after."""
    versioned(cli, {"f": "1\n"})
    go, pids = tmp_path / "go", tmp_path / "pids"
    command = cli.begin("run", cli.plan(shell("a", f"echo $$ > a; echo $$ >> {pids}; {until_file(str(go))}")))
    run_id = cli.until_running("a")["run_id"]
    wait_until(pids.exists, "the attempt to have written")
    names = ("refs/parallel-agents", "refs/heads/parallel-agents")
    wait_until(lambda: len(git(cli, "for-each-ref", *names).splitlines()) == 3, "the refs")
    # Of a git that is moved away in the middle a lock is left, which whoever resumes waits for in vain for half a minute.
    wait_until(lambda: not list((cli.root / ".git" / "refs").rglob("*.lock")), "git to have ended")
    elsewhere = cli.root.with_name("elsewhere")
    os.rename(cli.root, elsewhere)
    go.touch()
    assert cli.said_by(command).code != 0
    os.rename(elsewhere, cli.root)
    cli.quick("retry", code=None)  # Refused where its failure was not recorded any more.
    cli.quick("resume", code=None)
    held = git(cli, "log", f"--glob=refs/parallel-agents/{run_id}", "--format=", "--patch", "--", "a").splitlines()
    held += [
        f"+{(aside / 'a').read_text().strip()}" for aside in cli.root.glob(".parallel-agents/worktrees/*/.unkept-a-*")
    ]
    assert f"+{pids.read_text().split()[0]}" in held


def test_two_runs_at_once_in_one_repository_are_in_nobodys_way(cli: Scratch) -> None:
    """Each has its branch, its checkouts and its ports."""
    versioned(cli, {"f": "1\n"})
    plans = [
        cli.plan(*(shell(f"t{at}", f"echo $PARALLEL_AGENTS_PORT > {name}{at}") for at in range(3)), name=name)
        for name in ("one", "two")
    ]
    for command in [cli.begin("run", plan) for plan in plans]:
        assert cli.said_by(command).code == 0
    runs = {run["name"]: run["run_id"] for run in cli.quick("runs", "--json").data}
    for name, run_id in runs.items():
        assert files_of(cli, run_id) == sorted([".gitignore", "f", *(f"{name}{at}" for at in range(3))])
    assert len(git(cli, "worktree", "list").splitlines()) == 1


def test_a_user_who_works_on_meanwhile_loses_nothing_and_takes_nothing(cli: Scratch, tmp_path: Path) -> None:
    """They stash, switch, commit and clean up the repository for good."""
    versioned(cli, {"f": "1\n"})
    command, run_id, go = begun(cli, tmp_path, shell("b", "echo b > b", "a"))
    cli.write("f", "mine\n")
    git(cli, "stash")
    git(cli, "switch", "-qc", "feature")
    cli.write("users", "u\n")
    git(cli, "add", "-A")
    git(cli, "commit", "-qm", "meanwhile")
    git(cli, "gc", "-q", "--prune=now")
    git(cli, "worktree", "prune", "--expire=now")
    go.touch()
    assert cli.said_by(command).code == 0
    assert files_of(cli, run_id) == [".gitignore", "a", "b", "f"]
    assert git(cli, "show", "stash@{0}:f") == "mine"
    assert git(cli, "log", "-1", "--format=%s", "feature") == "meanwhile"
    assert git(cli, "status", "--porcelain") == ""


def test_a_process_that_an_agent_leaves_behind_writes_into_no_commit_after_its_end(cli: Scratch) -> None:
    """It is stopped with the attempt."""
    versioned(cli, {"f": "1\n"})
    script = "(setsid sh -c 'while :; do echo . >> noise; done' &); until [ -s noise ]; do sleep 0.02; done; echo a > a"
    cli.quick("run", cli.plan(shell("a", script)))
    assert files_of(cli, cli.events()[0]["run_id"]) == [".gitignore", "a", "f", "noise"]
    assert cli.ours() == {}


def test_two_attempts_never_share_ports() -> None:
    """Not even those of two dispatchers, mostly: each attempt begins to look at a place of its own."""
    from parallel_agents.scheduler.ports import SIZE, Ports

    ports = Ports()
    given = [ports.take(f"attempt{number}") for number in range(30)]
    assert len(set(given)) == 30
    assert all(port % SIZE == 0 for port in given)
    assert {Ports().take("one"), Ports().take("two")} != {Ports().take("one")}
