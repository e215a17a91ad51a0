"""Checkouts of attempts: made, used again and taken away, whatever a crash or an agent has left of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gitrepos import AT_US, as_git_keeps, belongings, found, head, make_project, settings, shim, tree, user_git, write
from waiting import wait_until

from parallel_agents.checkpoint import worktrees
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import changed_paths, snapshot
from parallel_agents.checkpoint.worktrees import Worktree, add, copy_included, listed, remove, reuse


def home(repository: Repository) -> Path:
    """Where worktrees of a run lie."""
    return repository.top / ".parallel-agents" / "worktrees" / "run"


def commit_of(repository: Repository, files: dict[str, str], *, gone: tuple[str, ...] = ()) -> str:
    """A commit on top of what the user stands on, made by an attempt."""
    path = home(repository).parent / "made"
    add(repository, path, head(repository))
    write(path, files)
    for name in gone:
        (path / name).unlink()
    made = snapshot(repository, path, message="m", parents=[head(repository)], at_us=AT_US).commit
    remove(repository, path)
    return made


def files_of(repository: Repository, commit: str) -> set[bytes]:
    """The paths of a commit."""
    return set(repository.git().run("ls-tree", "-r", "-z", "--name-only", commit).out.split(b"\0")[:-1])


def test_a_worktree_holds_a_commit_and_stands_on_no_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As git itself sees it, and with nothing to commit."""
    project = make_project(tmp_path, monkeypatch)
    path = home(project) / "task"
    commit = commit_of(project, {"new": "x"}, gone=("readme",))
    add(project, path, commit)
    assert set(tree(path)) == {b"new", b"src/one", b"src/two"}
    assert user_git(path, "rev-parse", "HEAD") == commit
    assert user_git(path, "branch", "--show-current") == ""
    assert user_git(path, "status", "--porcelain") == ""
    assert listed(project) == [Worktree(path, commit, locked=True, prunable=False)]
    remove(project, path)
    assert listed(project) == []
    assert not path.exists()
    assert not (project.git_dir / "worktrees").exists()
    remove(project, path)


def test_two_tasks_of_the_same_name_have_a_worktree_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two runs."""
    project = make_project(tmp_path, monkeypatch)
    paths = [home(project).parent / run / "task" for run in ("one", "two")]
    for path in paths:
        add(project, path, head(project))
    write(paths[0], {"readme": "one"})
    assert (paths[1] / "readme").read_text() == "hello\n"
    assert [worktree.path for worktree in listed(project, home(project).parent / "two")] == [paths[1]]
    remove(project, paths[0])
    assert user_git(paths[1], "status", "--porcelain") == ""


def test_a_worktree_outlives_housekeeping_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commit too, which no ref reaches; even while its folder cannot be seen."""
    project = make_project(tmp_path, monkeypatch)
    commit = commit_of(project, {"new": "x"})
    path = home(project) / "task"
    add(project, path, commit)
    path.rename(tmp_path / "unmounted")
    user_git(project.top, "worktree", "prune", "--expire=now")
    user_git(project.top, "gc", "-q", "--prune=now")
    (tmp_path / "unmounted").rename(path)
    assert user_git(path, "status", "--porcelain") == ""
    assert user_git(path, "rev-parse", "HEAD") == commit


def test_a_sparse_worktree_holds_only_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what lies beside the way to it; a snapshot of it keeps all the rest."""
    files = dict.fromkeys(("top", "a/x", "a/b/y", "a/b/c/z", "a/d/w", "e/v", "w[e]*ird/u", "weird/t"), "x\n")
    project = make_project(tmp_path, monkeypatch, files)
    path = home(project) / "task"
    config = (project.git_dir / "config").read_bytes()
    add(project, path, head(project), sparse=["a/b/", "/w[e]*ird", "a/b/c", "missing"])
    assert set(tree(path)) == {b"top", b"a/x", b"a/b/y", b"a/b/c/z", b"w[e]*ird/u"}
    assert (project.git_dir / "config").read_bytes() == config
    assert user_git(path, "status", "--porcelain") == ""
    write(path, {"a/b/y": "changed\n", "e/v": "written\n", "new/n": "new\n"})
    (path / "top").unlink()
    made = snapshot(project, path, message="m", parents=[head(project)], at_us=AT_US).commit
    changes = {change.path: change.status for change in changed_paths(project, head(project), made)}
    assert changes == {"a/b/y": "M", "e/v": "M", "new/n": "A", "top": "D"}
    reuse(project, path, path, made, sparse=["e"])
    assert set(tree(path)) == {b"e/v"}
    reuse(project, path, path, made)
    assert set(tree(path)) == files_of(project, made)


@pytest.mark.parametrize("root", ["project/.parallel-agents", "elsewhere"])
@pytest.mark.parametrize("left", ["worktree", "entry", "folder", "empty folder", "broken entry", "unlocked", "files"])
def test_a_stale_worktree_makes_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, root: str) -> None:
    """Whole, or what a crash or an agent has left of it; wherever worktrees are to lie."""
    project = make_project(tmp_path, monkeypatch)
    path = tmp_path / root / "worktrees" / "task"
    add(project, path, head(project))
    write(path, {"stale": "x", "deep/stale": "x"})
    (entry,) = (project.git_dir / "worktrees").iterdir()
    if left == "entry":
        shutil.rmtree(path)
    elif left == "folder":
        shutil.rmtree(entry)
    elif left == "empty folder":
        shutil.rmtree(entry)
        shutil.rmtree(path)
        path.mkdir()
    elif left == "broken entry":
        (entry / "HEAD").unlink()
        (entry / "commondir").unlink()
    elif left == "files":
        (path / ".git").unlink()
        user_git(path, "init", "-q")
    elif left == "unlocked":
        user_git(project.top, "worktree", "unlock", str(path))
    if root == "elsewhere" and left in ("folder", "unlocked"):  # It could as well be the user's.
        with pytest.raises(GitFailed, match="is no worktree of parallel-agents"):
            add(project, path, head(project))
        return
    add(project, path, head(project))
    assert set(tree(path)) == files_of(project, head(project))
    assert [worktree.path for worktree in listed(project)] == [path]
    assert user_git(path, "status", "--porcelain") == ""
    assert os.listdir(path.parent) == ["task"]


def test_an_empty_folder_may_become_a_worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing in it to lose."""
    project = make_project(tmp_path, monkeypatch)
    (tmp_path / "empty").mkdir()
    add(project, tmp_path / "empty", head(project))
    assert set(tree(tmp_path / "empty")) == files_of(project, head(project))


@pytest.mark.parametrize("place", ["folder", "file", "repository", "worktree", "link"])
def test_what_is_not_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """It is named, and nothing is removed."""
    project = make_project(tmp_path, monkeypatch)
    path = tmp_path / "place"
    if place == "file":
        write(tmp_path, {"place": "mine"})
    elif place == "worktree":
        user_git(project.top, "worktree", "add", "-q", "--detach", str(path))
    elif place == "link":
        write(tmp_path, {"elsewhere/mine": "mine"})
        path.symlink_to("elsewhere")
    else:
        write(path, {"mine": "mine"})
        if place == "repository":
            user_git(path, "init", "-q")
    before = tree(tmp_path, without=("parallel-agents",))
    for change in (lambda: add(project, path, head(project)), lambda: remove(project, path)):
        with pytest.raises(GitFailed, match="place is no worktree of parallel-agents"):
            change()
    assert listed(project) == []
    assert tree(tmp_path, without=("parallel-agents",)) == before


def test_what_was_put_aside_by_a_process_that_died_is_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal is one step that is seen, and a long one that is not."""
    project = make_project(tmp_path, monkeypatch)
    path = home(project) / "task"

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    add(project, path, head(project))
    write(path, {"a/b": "x"})
    (path / "a").chmod(0o500)
    with monkeypatch.context() as during:
        during.setattr(worktrees, "_sweep", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(project, path)
    assert not path.exists()
    assert listed(project) == []
    assert len(os.listdir(home(project))) == 1
    add(project, path, head(project))
    assert os.listdir(home(project)) == ["task"]


def test_worktrees_are_made_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By threads and by processes, which git alone does not stand."""
    project = make_project(tmp_path, monkeypatch)
    script = (
        "import sys; from pathlib import Path\n"
        "from parallel_agents.checkpoint.repository import find_repository\n"
        "from parallel_agents.checkpoint.worktrees import add, remove\n"
        "project = find_repository(Path(sys.argv[1]))\n"
        "for number in range(4):\n"
        "    add(project, Path(sys.argv[2]) / f'{number}' / 'task', sys.argv[3])\n"
        "    if number % 2: remove(project, Path(sys.argv[2]) / f'{number}' / 'task')\n"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", script, str(project.top), str(home(project) / name), head(project)])
        for name in ("p1", "p2")
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: add(project, home(project) / f"t{n}" / "task", head(project)), range(6)))
    assert [process.wait() for process in others] == [0, 0]
    paths = [home(project) / f"t{n}" / "task" for n in range(6)]
    paths += [home(project) / name / number / "task" for name in ("p1", "p2") for number in "02"]
    assert {worktree.path for worktree in listed(project)} == set(paths)
    for path in paths:
        assert user_git(path, "status", "--porcelain") == ""


def test_a_checkout_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one would be taken for a worktree."""
    project = make_project(tmp_path, monkeypatch)
    commit = head(project)
    full = """case "$*" in *' read-tree '*) echo 'error: unable to write file readme' >&2; exit 128;; esac"""
    shim(tmp_path, monkeypatch, full)
    with pytest.raises(GitFailed, match=r"git read-tree failed in .*task: unable to write file readme"):
        add(project, home(project) / "task", commit)
    assert os.listdir(home(project)) == []
    assert listed(project) == []


def test_what_the_system_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every failure of git is."""
    project = make_project(tmp_path, monkeypatch)
    write(tmp_path, {"file": "x"})
    with pytest.raises(GitFailed, match=r"file/worktrees: Not a directory"):
        add(project, tmp_path / "file" / "worktrees" / "task", head(project))


def test_what_killed_processes_left_in_the_git_directory_goes_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not what somebody may be using."""
    project = make_project(tmp_path, monkeypatch)
    own = project.git_dir / "parallel-agents"
    write(own, {"index-old/index": "x", "index-new/index": "x"})
    os.utime(own / "index-old", (1, 1))
    add(project, home(project) / "task", head(project))
    assert sorted(os.listdir(own)) == ["index-new", "worktrees.lock"]


def test_who_changes_worktrees_waits_for_whoever_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes in only after the first has gone out."""
    project = make_project(tmp_path, monkeypatch)
    asked, inside, together = [], [], []
    flock, clear = fcntl.flock, worktrees._clear

    def asking(lock: int, how: int) -> None:
        asked.append(lock)
        flock(lock, how)

    def clearing(repository: Repository, path: Path) -> None:
        inside.append(path)
        together.append(wait_until(lambda: len(inside) if len(asked) == 2 or len(inside) == 2 else 0, "the other one"))
        clear(repository, path)
        inside.remove(path)

    monkeypatch.setattr(fcntl, "flock", asking)
    monkeypatch.setattr(worktrees, "_clear", clearing)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: add(project, home(project) / name, head(project)), ["one", "two"]))
    assert together == [1, 1]


@pytest.mark.parametrize(
    "trick",
    ["unlock", "assume-unchanged", "skip-worktree", "no-skip-worktree", "branch", "conflict", "stopped", "same time"],
)
def test_a_used_worktree_becomes_exactly_what_the_next_one_is_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: str
) -> None:
    """Whatever an agent has done in it: ignored files, repositories, branches, a merge that stopped, hidden changes."""
    files = {".gitignore": "*.log\nbuild/\n", "a": "1\n", "b/c": "2\n", "hidden": "3\n"}
    project = make_project(tmp_path, monkeypatch, files)
    old, new = home(project) / "old", home(project).parent / "other" / "new"
    commit = commit_of(project, {"b/d": "new\n"}, gone=("a",))
    add(project, old, head(project))
    write(old, {"a.log": "x", "build/out/x": "x", "b/c": "changed", "nested/x": "x", "b/d": "untracked\n"})
    user_git(old / "nested", "init", "-q")
    times = (old / "hidden").stat()
    if trick == "same time":  # Git tells times of change apart by the second, and a file system has them a little late.
        wait_until(lambda: time.time() > int(times.st_ctime) + 1.1, "the next second")
    write(old, {"hidden": "x\n"})
    entry = project.git_dir / "worktrees" / "old"
    if trick in ("assume-unchanged", "skip-worktree", "no-skip-worktree"):
        user_git(old, "update-index", f"--{trick}", "hidden")
    elif trick == "branch":
        user_git(old, "checkout", "-q", "-b", "agents-own")
    elif trick == "conflict":
        oid = user_git(old, "hash-object", "-w", "hidden")
        stages = "".join(f"100644 {oid} {stage}\thidden\n" for stage in (1, 2, 3))
        user_git(old, "update-index", "--index-info", stdin=f"0 {'0' * 40}\thidden\n{stages}".encode())
    elif trick == "stopped":
        (entry / "MERGE_HEAD").write_text(head(project))
        (entry / "rebase-merge").mkdir()
    elif trick == "unlock":
        user_git(project.top, "worktree", "unlock", str(old))
    elif trick == "same time":
        os.utime(old / "hidden", ns=(times.st_atime_ns, times.st_mtime_ns))
        os.utime(entry / "index", ns=(times.st_atime_ns, times.st_mtime_ns + 10_000_000_000))
        user_git(project.top, "config", "core.trustctime", "false")
    branches = user_git(project.top, "branch", "--list", "agents-own", "--format=%(objectname)")
    reuse(project, old, new, commit)
    assert not old.exists()
    assert set(tree(new)) == files_of(project, commit)
    assert {name: (new / name).read_text() for name in ("hidden", "b/d", "b/c")} == {
        "hidden": "3\n",
        "b/d": "new\n",
        "b/c": "2\n",
    }
    assert user_git(new, "status", "--porcelain", "--ignored") == ""
    assert user_git(new, "branch", "--show-current") == ""
    said = user_git(new, "status")
    assert "rebas" not in said
    assert "merge" not in said
    assert user_git(project.top, "branch", "--list", "agents-own", "--format=%(objectname)") == branches
    assert listed(project) == [Worktree(new, commit, locked=True, prunable=False)]


def test_a_worktree_is_used_again_without_being_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are the same are not written again, which is what makes it quick."""
    project = make_project(tmp_path, monkeypatch)
    old, new = home(project) / "old", home(project) / "new"
    add(project, old, head(project))
    kept = {name: (old / name).stat().st_ino for name in ("readme", "src/two")}
    write(old, {"src/one": "changed\n"})
    reuse(project, old, new, commit_of(project, {"src/one": "next\n"}))
    assert {name: (new / name).stat().st_ino for name in kept} == kept
    assert (new / "src/one").read_text() == "next\n"
    assert [worktree.path for worktree in listed(project)] == [new]


@pytest.mark.parametrize("damage", ["missing", "no entry", "no index", "no .git", "corrupt index", "index locked"])
def test_a_worktree_that_cannot_be_used_again_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """The caller need not know."""
    project = make_project(tmp_path, monkeypatch)
    old, new = home(project) / "old", home(project).parent / "other" / "new"
    add(project, old, head(project))
    entry = project.git_dir / "worktrees" / "old"
    if damage == "missing":
        remove(project, old)
    elif damage == "no entry":
        shutil.rmtree(entry)
    elif damage == "no .git":
        (old / ".git").unlink()
    elif damage == "no index":
        (entry / "index").unlink()
    elif damage == "corrupt index":
        (entry / "index").write_bytes(b"corrupt")
    elif damage == "index locked":
        (entry / "index.lock").touch()
    reuse(project, old, new, head(project))
    assert set(tree(new)) == files_of(project, head(project))
    assert user_git(new, "status", "--porcelain") == ""
    assert [worktree.path for worktree in listed(project)] == [new]
    assert os.listdir(home(project)) == []


def test_a_crash_while_a_worktree_moves_is_mended_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is at the new place, its entry still at the old one."""
    project = make_project(tmp_path, monkeypatch)
    old, new = home(project) / "old", home(project) / "new"
    add(project, old, head(project))
    old.rename(new)
    add(project, old, head(project))
    add(project, new, head(project))
    for path in (old, new):
        assert user_git(path, "status", "--porcelain") == ""
    assert {worktree.path for worktree in listed(project)} == {old, new}
    new.rename(home(project) / "moved")
    add(project, new, head(project))
    reuse(project, home(project) / "moved", home(project) / "third", head(project))
    for path in (old, new, home(project) / "third"):
        assert user_git(path, "status", "--porcelain") == ""
    assert len(listed(project)) == 3


def test_a_project_behind_a_link_is_the_same_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git writes paths down without the link."""
    project = make_project(tmp_path, monkeypatch)
    (tmp_path / "link").symlink_to("project")
    path = tmp_path / "link" / ".parallel-agents" / "task"
    linked = found(tmp_path / "link")
    add(linked, path, head(project))
    shutil.rmtree(path)
    add(linked, path, head(project))
    reuse(linked, path, path.with_name("next"), head(project))
    assert len(listed(linked, tmp_path / "link")) == 1
    remove(linked, path.with_name("next"))
    assert listed(linked) == []


@pytest.mark.parametrize("how", ["today", "formerly"])
def test_a_sparse_tree_of_the_user_makes_no_worktree_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Git would hand its patterns on."""
    project = make_project(tmp_path, monkeypatch, {"a/one": "1\n", "b/two": "2\n"})
    if how == "today":
        user_git(project.top, "sparse-checkout", "set", "a")
    else:  # In the shared configuration.
        user_git(project.top, "config", "core.sparseCheckout", "true")
        write(project.git_dir, {"info/sparse-checkout": "/a/\n"})
        user_git(project.top, "read-tree", "-m", "-u", "HEAD")
    assert not (project.top / "b").exists()
    before = belongings(project)
    path = home(project) / "task"
    add(project, path, head(project))
    assert set(tree(path)) == {b"a/one", b"b/two"}
    assert user_git(path, "status", "--porcelain") == ""
    user_git(path, "reset", "-q", "--hard")
    assert set(tree(path)) == {b"a/one", b"b/two"}
    reuse(project, path, path, head(project), sparse=["b"])
    assert set(tree(path)) == {b"b/two"}
    assert belongings(project) == before


def test_files_are_checked_out_as_the_repository_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line ends of the commit, whatever the user has them converted to: they come back as they were."""
    project = make_project(tmp_path, monkeypatch, {"lf": "a\nb\n", "crlf": "a\r\nb\r\n"})
    settings(monkeypatch, tmp_path / "settings", "[core]\nautocrlf = true\neol = crlf\n")
    path = home(project) / "task"
    add(project, path, head(project))
    assert (path / "lf").read_bytes() == b"a\nb\n"
    write(path, {"lf": "a\nc\n", "new": "x\r\n"})
    made = snapshot(project, path, message="m", parents=[head(project)], at_us=AT_US).commit
    assert [change.path for change in changed_paths(project, head(project), made)] == ["lf", "new"]
    expected = as_git_keeps(tree(path))
    add(project, path, made)
    assert as_git_keeps(tree(path)) == expected


def test_files_that_are_named_are_copied_into_a_worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the ignored ones those that `.worktreeinclude` matches, with their permissions; links as links."""
    ignored = ".env*\nconfig/\n*.key\nlink\nout\n"
    included = (
        "# local settings\n.env*\n!.env.example\nconfig/local.*\nlink\nnotes\nsub/*.key\n.parallel-agents/\nout\n"
    )
    project = make_project(
        tmp_path, monkeypatch, {".gitignore": ignored + ".parallel-agents/\n", ".worktreeinclude": included}
    )
    top = project.top
    write(top, {".env": "secret", ".env.example": "x", "config/local.yaml": "x", "config/other": "x", "notes": "x"})
    write(top, {"sub/a.key": "x", "b.key": "x", ".parallel-agents/events.db": "x", "sub/.env.é": "x", "out": "x"})
    (top / ".env").chmod(0o600)
    (top / "link").symlink_to("nowhere")
    user_git(top, "add", "-f", "out")
    user_git(top, "commit", "-qm", "an ignored file that is tracked")
    path = home(project) / "task"
    add(project, path, head(project))
    write(path, {".env.2": "mine"})
    write(top, {".env.2": "theirs"})
    assert sorted(copy_included(project, path)) == [".env", "config/local.yaml", "link", "sub/.env.é", "sub/a.key"]
    assert (path / ".env").read_text() == "secret"
    assert (path / ".env").stat().st_mode & 0o777 == 0o600
    assert os.readlink(path / "link") == "nowhere"
    assert (path / ".env.2").read_text() == "mine"
    assert not (path / ".parallel-agents").exists()
    assert user_git(path, "status", "--porcelain") == ""
    assert copy_included(project, path) == []


def test_no_copy_leaves_the_worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a commit has a link, and the user's tree a folder."""
    project = make_project(tmp_path, monkeypatch, {".worktreeinclude": "*.env\n", ".gitignore": "*.env\n"})
    (tmp_path / "outside").mkdir()
    path = home(project) / "task"
    add(project, path, head(project))
    (path / "conf").symlink_to(tmp_path / "outside")
    write(project.top, {"conf/a.env": "secret"})
    assert copy_included(project, path) == []
    assert os.listdir(tmp_path / "outside") == []


def test_nothing_is_copied_where_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the file, or with one that matches nothing."""
    project = make_project(tmp_path, monkeypatch, {".gitignore": "*.env\n"})
    write(project.top, {"a.env": "x"})
    path = home(project) / "task"
    add(project, path, head(project))
    assert copy_included(project, path) == []
    write(project.top, {".worktreeinclude": "nothing\n"})
    assert copy_included(project, path) == []
