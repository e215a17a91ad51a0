"""Repositories that no run can work in, and what they are told: the way out, before anything is appended or made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scratch import Said, Scratch, shell

WHO = ("-c", "user.name=A User", "-c", "user.email=user@localhost", "-c", "init.defaultBranch=main")


class Repository:
    """A repository of the user's, around the project or in its place."""

    def __init__(self, cli: Scratch) -> None:
        self.cli = cli
        (cli.root / ".git").rmdir()  # It only marks the project's root.

    def git(self, *words: str, cwd: Path | None = None) -> str:
        """A git command of the user's own."""
        done = subprocess.run(
            ["git", *WHO, *words], cwd=cwd or self.cli.root, env=self.cli.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self) -> None:
        """A first commit of one file."""
        self.git("init", "-q")
        self.cli.write(".git/info/exclude", "home\nplan.json\n*.sh\nother\n")
        self.cli.write("file", "text\n")
        self.git("add", "file")
        self.git("commit", "-q", "-m", "first")


def branch_in_the_way(project: Repository) -> None:
    project.commit()
    project.git("branch", "parallel-agents")


def submodule(project: Repository) -> None:
    project.commit()
    oid = project.git("rev-parse", "HEAD").strip()
    project.git("update-index", "--add", "--cacheinfo", f"160000,{oid},lib/one")
    project.git("commit", "-q", "-m", "a submodule")


def tracked_store(project: Repository) -> None:
    project.commit()
    project.cli.write("deep/.parallel-agents/notes", "mine")
    project.git("add", "-f", "deep")
    project.git("commit", "-q", "-m", "ours")


def without_a_commit(project: Repository) -> None:
    project.git("init", "-q")


def bare(project: Repository) -> None:
    project.git("init", "-q", "--bare", ".")


def inside_the_git_directory(project: Repository) -> None:
    project.commit()
    (project.cli.root / "home").rename(project.cli.root / ".git" / "home")
    project.cli.environment["HOME"] = str(project.cli.root / ".git" / "home")
    project.cli.root = project.cli.root / ".git"


def broken_head(project: Repository) -> None:
    project.commit()
    project.cli.write(".git/HEAD", "rubbish\n")


def link_to_nowhere(project: Repository) -> None:
    project.cli.write(".git", "gitdir: /nowhere/at/all\n")


def old_git(project: Repository) -> None:
    project.commit()
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    script = f'case "$*" in version) echo git version 2.25.1;; *) exec {real} "$@";; esac'
    shim = project.cli.write("other/git", f"#!/bin/sh\n{script}\n")
    shim.chmod(0o755)
    project.cli.environment["PATH"] = f"{shim.parent}{os.pathsep}{project.cli.environment['PATH']}"


def folder_of_repositories(project: Repository) -> None:
    (project.cli.root / "nested").mkdir()
    project.git("init", "-q", cwd=project.cli.root / "nested")
    project.cli.write("nested/file", "x")


def nested_and_uncommitted(project: Repository) -> None:
    project.commit()
    folder_of_repositories(project)


# What is wrong -> (how it comes to be, what the plan says of its files, what has to be said in this order).
UNFIT: dict[str, tuple[Callable[[Repository], None], dict[str, object], tuple[str, ...]]] = {
    "a branch in the way": (branch_in_the_way, {}, ("branch named parallel-agents", "git branch -m")),
    "a submodule": (submodule, {}, ("submodules", "lib/one", "workspace none")),
    "a store that git tracks": (tracked_store, {}, (".parallel-agents", "tracked", "git rm -r --cached")),
    "no commit yet": (
        without_a_commit, {"workspace": "worktree"}, ("'worktree'", "no commit yet", "workspace: shared"),
    ),
    "folders without a commit": (without_a_commit, {"sparse": ["src"]}, ("sparse", "no commit yet", "leave sparse out")),
    "a bare repository": (bare, {}, ("bare repository", "clone")),
    "the git directory itself": (inside_the_git_directory, {}, ("inside a git directory", "own directory")),
    "a broken repository": (broken_head, {}, ("cannot be used", "mend it")),
    "a link to nowhere": (link_to_nowhere, {}, ("cannot be used", "/nowhere/at/all", "mend it")),
    "an old git": (old_git, {}, ("git 2.25.1 is too old", "2.38", "workspace: none")),
    "a repository in it": (
        nested_and_uncommitted, {"include_uncommitted": True},
        ("repositories", "nested", ".gitignore", "leave include_uncommitted out"),
    ),
    "a folder of repositories": (
        folder_of_repositories, {}, ("repositories", "nested", ".gitignore", "workspace: none"),
    ),
}  # fmt: skip


def told(said: Said, wanted: tuple[str, ...]) -> None:
    """One message and its hint on stderr alone."""
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], said.err
    rest = said.err
    for part in wanted:
        assert part in rest, (part, said.err)
        rest = rest[rest.index(part) :]


@pytest.mark.parametrize("what", UNFIT)
def test_a_repository_that_no_run_can_work_in_is_refused_and_stays_as_it_is(cli: Scratch, what: str) -> None:
    """Submitted or run at once: code 2, nothing appended, no ref, worktree or lock; with workspace none all the same it runs."""
    spoil, head, wanted = UNFIT[what]
    project = Repository(cli)
    spoil(project)
    plan = cli.plan(shell("a", "true"), **head)
    before = _belongings(cli.root)
    told(cli.quick("submit", plan, code=2), wanted)
    told(cli.quick("run", plan, code=2), wanted)
    assert cli.event_count() == 0
    assert _belongings(cli.root) == before
    assert cli.ours() == {}
    said = cli.quick("run", cli.plan(shell("a", "true"), workspace="none"), "--json")
    assert said.data["status"] == "completed"
    assert _belongings(cli.root) == before


def _belongings(root: Path) -> dict[str, bytes]:
    """Every file but objects, which nobody sees, the store, the plan and what is the test's own."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        ours = name.startswith((".parallel-agents/", "home/", "plan.json")) or "objects/" in name
        if path.is_file() and not ours:
            found[name] = path.read_bytes()
    return found
