"""Which repository a project lies in, what stands in its way, and what attempts share with the user there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gitrepos import AT_US, as_git_keeps, belongings, found, head, make_project, no_settings, tree, user_git, write

from parallel_agents.checkpoint import repository as repositories
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.refs import branch_ref, checkpoint_ref, hold
from parallel_agents.checkpoint.repository import (
    current_branch,
    dirty_paths,
    find_repository,
    head_commit,
    known_repository,
    obstacles,
    shadow_repository,
    shared_state,
)
from parallel_agents.checkpoint.snapshot import restore, snapshot


def test_a_repository_is_found_from_any_folder_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by the top of its working tree and by its git directory."""
    project = make_project(tmp_path, monkeypatch)
    inside = found(project.top / "src")
    assert (inside.top, inside.git_dir, inside.shadow) == (tmp_path / "project", tmp_path / "project" / ".git", False)


def test_a_worktree_of_the_users_is_a_top_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same git directory, and its own HEAD."""
    project = make_project(tmp_path, monkeypatch)
    user_git(project.top, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    write(tmp_path / "side", {"new": "x"})
    side = found(tmp_path / "side")
    assert (side.top, side.git_dir) == (tmp_path / "side", project.git_dir)
    assert current_branch(side) == "side"
    assert dirty_paths(side) == (["new"], 1)
    assert shared_state(side)["HEAD"] == "ref: refs/heads/side"


def test_a_folder_without_a_repository_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is no error."""
    no_settings(monkeypatch)
    assert find_repository(tmp_path) is None


def test_a_bare_repository_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no files to work on."""
    no_settings(monkeypatch)
    user_git(tmp_path, "init", "-q", "--bare", "store.git")
    with pytest.raises(GitFailed, match=r"store\.git is a bare repository") as caught:
        find_repository(tmp_path / "store.git")
    assert "clone" in caught.value.hint


def test_the_inside_of_a_git_directory_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody means to version it."""
    project = make_project(tmp_path, monkeypatch)
    with pytest.raises(GitFailed, match="inside a git directory"):
        find_repository(project.git_dir)


@pytest.mark.parametrize("damage", ["no HEAD", "dangling"])
def test_a_broken_repository_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Or its files would be kept elsewhere without a word."""
    project = make_project(tmp_path, monkeypatch)
    if damage == "no HEAD":
        (project.git_dir / "HEAD").unlink()
    else:
        project.git_dir.rename(tmp_path / "moved")
        (project.top / ".git").write_text("gitdir: ../nowhere\n")
    with pytest.raises(GitFailed, match=r"project cannot be used"):
        find_repository(project.top / "src")


def test_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a branch, on no branch, or before the first commit."""
    project = make_project(tmp_path, monkeypatch)
    assert (current_branch(project), head_commit(project)) == ("main", head(project))
    user_git(project.top, "checkout", "-q", "--detach")
    assert (current_branch(project), head_commit(project)) == (None, head(project))
    user_git(project.top, "checkout", "-q", "--orphan", "unborn")
    assert (current_branch(project), head_commit(project)) == ("unborn", None)
    assert obstacles(project) == []


def test_an_ordinary_repository_has_no_obstacles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches of runs are none, nor is a file that is only named like the store's folder."""
    project = make_project(tmp_path, monkeypatch, {"parallel-agents": "x", "a/not.parallel-agents/b": "x"})
    hold(project, {branch_ref("run"): head(project)})
    assert obstacles(project) == []


def test_a_branch_in_the_way_of_ours_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git keeps no branch below a branch."""
    project = make_project(tmp_path, monkeypatch)
    user_git(project.top, "branch", "parallel-agents")
    (obstacle,) = obstacles(project)
    assert "branch named parallel-agents" in obstacle.message
    assert obstacle.hint.startswith("rename it: git branch -m parallel-agents")
    user_git(project.top, *obstacle.hint.removeprefix("rename it: git ").split())
    assert obstacles(project) == []


def test_submodules_are_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, wherever they lie."""
    project = make_project(tmp_path, monkeypatch)
    line = f"160000 {head(project)}\tlibs/module"
    user_git(project.top, "update-index", "--index-info", stdin=line.encode())
    user_git(project.top, "commit", "-qm", "module")
    (obstacle,) = obstacles(project)
    assert "submodules are not kept: libs/module" in obstacle.message


def test_a_tracked_store_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge would write over the events."""
    project = make_project(tmp_path, monkeypatch, {"sub/.parallel-agents/events.db": "x"})
    (obstacle,) = obstacles(project)
    assert ".parallel-agents are tracked" in obstacle.message


def test_a_git_that_cannot_merge_without_a_checkout_is_an_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both versions in the message."""
    project = make_project(tmp_path, monkeypatch)
    monkeypatch.setattr(repositories, "git_version", lambda: (2, 37, 9))
    (obstacle,) = obstacles(project)
    assert obstacle == (
        "git 2.37.9 is too old to merge without a checkout",
        "install git >= 2.38, or say workspace: none",
    )


def test_dirty_paths_are_the_first_ones_and_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untracked files included, ignored ones and the store not; names as they are."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {".gitignore": "*.log\n", "a.log": "x", "new/deep é": "x", "readme": "changed\n"})
    write(project.top, {".parallel-agents/events.db": "x", "sub/.parallel-agents/events.db": "x"})
    (project.top / "src/one").rename(project.top / "src/three")
    user_git(project.top, "add", "src")
    paths = [".gitignore", "new/deep é", "readme", "src/one", "src/three"]
    found_paths, count = dirty_paths(project)
    assert (sorted(found_paths), count) == (paths, 5)
    first, count = dirty_paths(project, limit=2)
    assert (len(first), count) == (2, 5)


def test_line_ends_that_the_user_has_converted_are_not_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dirty is what the user's own git says."""
    project = make_project(tmp_path, monkeypatch)
    user_git(project.top, "config", "core.autocrlf", "true")
    (project.top / "readme").unlink()
    user_git(project.top, "checkout", "--", "readme")
    assert (project.top / "readme").read_bytes() == b"hello\r\n"
    os.utime(project.top / "readme", (1, 1))
    assert dirty_paths(project) == ([], 0)


def test_what_attempts_change_of_shared_state_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thing by itself; what is ours is left out."""
    project = make_project(tmp_path, monkeypatch)
    top = project.top

    def changed_by(*args: str) -> set[str]:
        before = shared_state(project)
        user_git(top, *args)
        after = shared_state(project)
        return {name for name in {*before, *after} if before.get(name) != after.get(name)}

    write(top, {"readme": "changed\n"})
    assert changed_by("stash") == {"stash"}
    assert changed_by("config", "user.name", "Somebody") == {"config"}
    assert changed_by("branch", "side/topic") == {"branch side/topic"}
    assert changed_by("checkout", "-q", "side/topic") == {"HEAD"}
    assert changed_by("commit", "-q", "--allow-empty", "-m", "x") == {"branch side/topic"}
    assert changed_by("tag", "v1") == {"tag v1"}
    assert changed_by("stash", "drop", "-q") == {"stash"}
    assert changed_by("branch", "-D", "-q", "main") == {"branch main"}
    assert changed_by("update-ref", branch_ref("run"), "HEAD") == set()
    assert changed_by("update-ref", checkpoint_ref("run", "one"), "HEAD") == set()
    assert changed_by("status") == set()

    (project.git_dir / "hooks").mkdir(exist_ok=True)
    hook = project.git_dir / "hooks" / "pre-commit"
    before = shared_state(project)
    hook.write_text("#!/bin/sh\n")
    made = shared_state(project)
    assert set(made) - set(before) == {"hooks/pre-commit"}
    hook.chmod(0o755)
    assert shared_state(project)["hooks/pre-commit"] != made["hooks/pre-commit"]


def test_a_folder_without_git_is_kept_by_a_shadow_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the store, which itself is never kept; ignored files are not either."""
    no_settings(monkeypatch)
    top = tmp_path / "project"
    write(top, {"a": "1\n", "b/c": "2\n", ".gitignore": "*.log\n", "x.log": "x", ".parallel-agents/events.db": "x"})
    shadow = shadow_repository(top, top / ".parallel-agents")
    assert shadow.shadow
    assert (head_commit(shadow), obstacles(shadow)) == (None, [])
    first = snapshot(shadow, top, message="first", parents=[], at_us=AT_US)
    write(top, {"a": "changed\n", "new": "x"})
    assert b"b/c" in (shadow.git_dir / "index").read_bytes(), "the next snapshot does not begin where this one ended"
    second = snapshot(shadow, top, message="second", parents=[first.commit], at_us=AT_US)
    restore(shadow, first.commit, tmp_path / "fresh")
    assert set(tree(tmp_path / "fresh", without=())) == {b"a", b"b/c", b".gitignore"}
    before = as_git_keeps(tree(top))
    restore(shadow, first.commit, top, in_place=True)
    assert (top / "a").read_text() == "1\n"
    assert not (top / "new").exists()
    assert (top / "x.log").exists()
    restore(shadow, second.commit, top, in_place=True)
    assert as_git_keeps(tree(top)) == before
    assert not (top / ".git").exists()


@pytest.mark.parametrize("home", ["keep [a]*? it", "deep/er"])
def test_a_store_of_another_name_is_not_kept_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    """Wherever it lies in the directory."""
    no_settings(monkeypatch)
    top = tmp_path / "project"
    write(top, {"a": "1\n", f"{home}/events.db": "x"})
    shadow = shadow_repository(top, top / home)
    kept = snapshot(shadow, top, message="m", parents=[], at_us=AT_US)
    restore(shadow, kept.commit, tmp_path / "fresh")
    assert set(tree(tmp_path / "fresh", without=())) == {b"a"}


def test_a_shadow_repository_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that come at the same time one makes it; nothing half made is ever seen or left."""
    no_settings(monkeypatch)
    home = tmp_path / ".parallel-agents"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: shadow_repository(tmp_path, home), range(8)))
    assert set(made) == {made[0]}
    assert os.listdir(home) == ["shadow.git"]
    commit = snapshot(made[0], tmp_path, message="m", parents=[], at_us=AT_US).commit
    assert shadow_repository(tmp_path, home).git().text("cat-file", "-t", commit) == "commit"


def test_looking_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the times that an index has of files, which git refreshes by the way."""
    project = make_project(tmp_path, monkeypatch)
    os.utime(project.top / "readme", (1, 1))
    before = belongings(project)
    assert dirty_paths(project) == ([], 0)
    obstacles(project)
    assert belongings(project) == before


def test_a_shadow_repository_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else has its name; what was begun is gone again."""
    no_settings(monkeypatch)
    (tmp_path / "shadow.git" / "somebody's").mkdir(parents=True)
    with pytest.raises(GitFailed, match=r"shadow\.git cannot be made: Directory not empty"):
        shadow_repository(tmp_path, tmp_path)
    assert os.listdir(tmp_path) == ["shadow.git"]


@pytest.mark.parametrize("place", ["plain", "linked worktree", "git directory elsewhere", "of another user"])
def test_a_repository_that_is_known_is_the_one_that_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Without asking git where it lies plainly there and is ours; else by asking."""
    project = make_project(tmp_path, monkeypatch)
    top = project.top
    if place == "linked worktree":
        top = tmp_path / "linked"
        user_git(project.top, "worktree", "add", "-q", str(top))
    elif place == "git directory elsewhere":
        (top / ".git").rename(tmp_path / "elsewhere.git")
        (top / ".git").symlink_to(tmp_path / "elsewhere.git")
    elif place == "of another user":
        monkeypatch.setattr(os, "geteuid", lambda: project.git_dir.stat().st_uid + 1)
    expected, asked = find_repository(top), []
    monkeypatch.setattr(repositories, "find_repository", lambda folder: asked.append(folder) or expected)
    assert known_repository(top) == expected
    assert asked == ([] if place == "plain" else [top])
