"""Git commands leave no trace, whatever the user has set, and nothing of the user's is touched by any operation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from gitrepos import AT_US, belongings, found, head, make_project, settings, user_git, write

from parallel_agents.checkpoint import merging, refs, worktrees
from parallel_agents.checkpoint.git import Git, GitFailed
from parallel_agents.checkpoint.repository import (
    Repository,
    current_branch,
    dirty_paths,
    find_repository,
    head_commit,
    obstacles,
    shared_state,
)
from parallel_agents.checkpoint.snapshot import changed_paths, restore, snapshot

Operation = Callable[[Repository, Path], object]


def _snapshot(repository: Repository, parent: str | None = None) -> str:
    parents = [parent or head(repository)]
    return snapshot(repository, repository.top, message="m", parents=parents, at_us=AT_US).commit


def _merge(repository: Repository, folder: Path) -> None:
    """A merge with a conflict, one that is resolved in each way, and a clean one."""
    theirs = worktree_commit(repository, folder / "worktree", {"readme": "theirs\n"})
    ours = worktree_commit(repository, folder / "other", {"readme": "ours\n"})
    assert merging.merge(repository, ours, theirs, message="m", at_us=AT_US).commit is None
    for take in ("ours", "theirs", "both"):
        assert merging.merge(repository, ours, theirs, message="m", at_us=AT_US, take=take).commit
    resolved = merging.merge(repository, ours, theirs, message="m", at_us=AT_US, files={"readme": b"x\n"})
    assert resolved.commit
    assert merging.hunks(repository, ours, theirs, "readme")


def worktree_commit(repository: Repository, path: Path, files: dict[str, str]) -> str:
    """The commit of an attempt that wrote files."""
    base = head(repository)
    worktrees.add(repository, path, base)
    write(path, files)
    return snapshot(repository, path, message="m", parents=[base], at_us=AT_US).commit


def _refs(repository: Repository, _: Path) -> None:
    commit = _snapshot(repository)
    refs.hold(repository, {refs.checkpoint_ref("run", "one"): commit})
    assert refs.move_branch(repository, "run", commit, None) is None
    assert refs.move_branch(repository, "run", head(repository), commit) is None
    assert not list(repository.git_dir.glob("logs/refs/**/*run*")), "a ref of ours has a reflog"
    refs.drop(repository, [*refs.held(repository), refs.branch_ref("run")])


def _worktrees(repository: Repository, folder: Path) -> None:
    worktrees.add(repository, folder / "one", head(repository))
    worktrees.add(repository, folder / "two", head(repository), sparse=["src"])
    worktrees.reuse(repository, folder / "one", folder / "three", _snapshot(repository))
    worktrees.copy_included(repository, folder / "three")
    assert len(worktrees.listed(repository, folder)) == 2
    worktrees.remove(repository, folder / "two")
    worktrees.remove(repository, folder / "three")


def _look(repository: Repository, _: Path) -> None:
    head_commit(repository)
    current_branch(repository)
    obstacles(repository)
    dirty_paths(repository)
    shared_state(repository)
    changed_paths(repository, head(repository), _snapshot(repository))


def _restore(repository: Repository, folder: Path) -> None:
    commit = _snapshot(repository)
    restore(repository, commit, folder / "restored")
    assert restore(repository, commit, repository.top, in_place=True) == 0


OPERATIONS: list[Operation] = [_look, _refs, _worktrees, _restore, _merge]


def full_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository in the middle of work: staged, changed and new files, a stash, hooks, reflogs, settings that act."""
    repository = make_project(tmp_path, monkeypatch)
    top, git_dir = repository.top, repository.git_dir
    user_git(top, "checkout", "-q", "-b", "topic")
    write(top, {"src/one": "stashed\n"})
    user_git(top, "stash")
    write(top, {".gitignore": "*.log\n", "a.log": "ignored\n", ".worktreeinclude": "*.log\n", "src/two": "staged\n"})
    user_git(top, "add", "src/two")
    write(top, {"src/two": "changed\n", "new": "new\n"})
    user_git(top, "fetch", "-q", ".", "main")
    (git_dir / "ORIG_HEAD").write_text(head(repository) + "\n")
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit", "post-commit"):
        (git_dir / "hooks").mkdir(exist_ok=True)
        (git_dir / "hooks" / hook).write_text(f"#!/bin/sh\necho ran >> '{top}/hooks-ran'\n")
        (git_dir / "hooks" / hook).chmod(0o755)
    watcher = tmp_path / "watcher"
    watcher.write_text(f"#!/bin/sh\necho ran >> '{top}/watcher-ran'\nexit 1\n")
    watcher.chmod(0o755)
    user_git(top, "config", "core.fsmonitor", str(watcher))
    for name, value in (
        ("commit.gpgSign", "true"),
        ("gpg.program", "false"),
        ("core.logAllRefUpdates", "always"),
        ("core.untrackedCache", "true"),
        ("core.splitIndex", "true"),
    ):
        user_git(top, "config", name, value)
    (top / "hooks-ran").unlink(missing_ok=True)
    (top / "watcher-ran").unlink(missing_ok=True)
    return repository


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__.strip("_"))
def test_nothing_of_the_users_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: Operation) -> None:
    """Branch, index, working tree, stash, hooks, configuration, reflogs: every byte is what it was."""
    repository = full_project(tmp_path, monkeypatch)
    before = belongings(repository)
    operation(repository, tmp_path / "folder")
    assert belongings(repository) == before
    assert b"hooks-ran" not in before
    assert b".git/logs/HEAD" in before
    assert b".git/logs/refs/stash" in before
    assert [path.name for path in (repository.git_dir / "parallel-agents").glob("*")] in ([], ["worktrees.lock"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__.strip("_"))
@pytest.mark.parametrize("trouble", ["locked index", "detached", "rebase", "merge", "nobody"])
def test_work_goes_on_whatever_the_user_is_in_the_middle_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: Operation, trouble: str
) -> None:
    """A locked index, a HEAD that is no branch, a rebase or a merge that stopped, nobody's name: all the same."""
    repository = make_project(tmp_path, monkeypatch)
    top = repository.top
    if trouble == "locked index":
        (repository.git_dir / "index.lock").touch()
    elif trouble == "detached":
        user_git(top, "checkout", "-q", "--detach")
    elif trouble in ("rebase", "merge"):
        user_git(top, "checkout", "-q", "-b", "side")
        write(top, {"readme": "side\n"})
        user_git(top, "commit", "-qam", "side")
        user_git(top, "checkout", "-q", "main")
        write(top, {"readme": "main\n"})
        user_git(top, "commit", "-qam", "main")
        with pytest.raises(AssertionError):
            user_git(top, trouble, "side")
        assert "<<<<<<<" in (top / "readme").read_text()
    before = belongings(repository)
    operation(repository, tmp_path / "folder")
    assert belongings(repository) == before


def test_variables_of_another_repository_do_not_lead_a_command_astray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand in the environment of every hook of the user."""
    repository = make_project(tmp_path, monkeypatch)
    other = tmp_path / "other"
    other.mkdir()
    user_git(other, "init", "-q")
    expected = head(repository)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.bare")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    assert head_commit(found(repository.top)) == expected
    assert dirty_paths(repository) == ([], 0)


def test_a_missing_git_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitFailed, match="git was not found") as caught:
        find_repository(tmp_path)
    assert "install git" in caught.value.hint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """And is not taken for a missing git."""
    with pytest.raises(GitFailed, match=r"cannot run in .*/nowhere"):
        find_repository(tmp_path / "nowhere")


def test_a_failure_says_what_was_tried_and_what_git_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the settings that we put before each command."""
    repository = make_project(tmp_path, monkeypatch)
    with pytest.raises(GitFailed, match=r"^git cat-file failed in .*: .*nothing") as caught:
        repository.git().run("cat-file", "-e", "nothing")
    assert "core." not in caught.value.message
    assert repository.git().run("cat-file", "-e", "nothing", ok=(128,)).code == 128


def test_text_keeps_bytes_that_are_no_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes off one line end."""
    repository = make_project(tmp_path, monkeypatch, {"a": "1\n"})
    name = b"\xff\xfe"
    with open(os.path.join(os.fsencode(repository.top), name), "w") as file:
        file.write("x")
    git = Git(repository.git_dir, repository.top)
    said = git.text("ls-files", "--others", "-z")
    assert said.encode("utf-8", "surrogateescape") == name + b"\0"
    assert git.text("show", "HEAD:a") == "1"


def test_what_the_user_ignores_everywhere_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's configuration counts where it says what files are."""
    repository = make_project(tmp_path, monkeypatch)
    (tmp_path / "ignore").write_text("*.swp\n")
    settings(monkeypatch, tmp_path / "settings", f"[core]\nexcludesFile = {tmp_path / 'ignore'}\n")
    write(repository.top, {"a.swp": "x", "kept": "x"})
    assert dirty_paths(repository) == (["kept"], 1)
    commit = _snapshot(repository)
    assert [change.path for change in changed_paths(repository, head(repository), commit)] == ["kept"]


def test_what_a_ref_holds_is_flushed_once_and_with_the_ref(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are sent to the disk on their way; only the command that makes the ref waits for it."""
    project = make_project(tmp_path, monkeypatch)
    told = tmp_path / "told"
    settings(monkeypatch, tmp_path / "settings", f"[trace2]\n\teventTarget = {told}\n")

    def flushes() -> tuple[int, int]:
        """Objects sent on their way, and flushes that were waited for, since the last look."""
        counts = [0, 0]
        for line in told.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "data" and event.get("category") == "fsync":
                counts[event["key"] == "fsync/hardware-flush"] += int(event["value"])
        told.unlink()
        return counts[0], counts[1]

    start = head(project)
    write(project.top, {"readme": "ours\n"})
    ours = _snapshot(project, start)
    write(project.top, {"readme": "hello\n", "src/one": "theirs\n"})
    theirs = _snapshot(project, start)
    made = merging.merge(project, ours, theirs, message="m", at_us=AT_US)
    assert made.commit not in (None, ours, theirs)
    sent, waited = flushes()
    assert sent > 0
    assert waited == 0
    refs.hold(project, {refs.checkpoint_ref("run", "one"): theirs})
    assert flushes() == (0, 1)
