"""Every file of a working tree is kept exactly, or refused by name; and comes back exactly."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from gitrepos import AT_US, as_git_keeps, belongings, head, make_project, settings, shim, tree, user_git, write

from parallel_agents.checkpoint import snapshot as snapshots
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import (
    Change,
    ChangedMeanwhile,
    Snapshot,
    changed_paths,
    compared,
    snapshot,
    tree_of,
)
from parallel_agents.checkpoint.snapshot import restore as restore_files


def take(repository: Repository, folder: Path | None = None) -> Snapshot:
    """A snapshot on top of what the user stands on."""
    return snapshot(repository, folder or repository.top, message="m", parents=[head(repository)], at_us=AT_US)


def kept(repository: Repository, commit: str, fresh: Path) -> dict[bytes, tuple[int, bytes]]:
    """The files of a commit, restored into a new folder."""
    restore_files(repository, commit, fresh)
    return as_git_keeps(tree(fresh, without=()))


def test_a_snapshot_is_everything_but_what_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Staged or not, tracked or not, and the deletion of what was there."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {".gitignore": "*.log\n", "a.log": "x", "new": "x", "readme": "changed\n", "staged": "x"})
    user_git(project.top, "add", "staged")
    write(project.top, {"staged": "changed again"})
    (project.top / "src/one").unlink()
    made = take(project)
    assert changed_paths(project, head(project), made.commit) == [
        Change(".gitignore", "A"),
        Change("new", "A"),
        Change("readme", "M"),
        Change("src/one", "D"),
        Change("staged", "A"),
    ]
    expected = as_git_keeps(tree(project.top))
    del expected[b"a.log"]
    assert kept(project, made.commit, tmp_path / "fresh") == expected
    assert made.tree == tree_of(project, made.commit)


def test_every_kind_of_file_is_kept_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes, links that lead nowhere, empty files, bytes of any kind, names of any kind."""
    project = make_project(tmp_path, monkeypatch)
    top = os.fsencode(project.top)
    contents = [b"", b"\0\1\2\xff", b"a\r\nb\r\n", b"a\r\nb\n", b"no end", b"\n\n\n", "é\u2028".encode()]
    names = [b"\xff\xfe", b"new\nline", b"tab\t'\"\\", b"-dash", b":(top)", b" ", b"*", b"...", "é".encode()]
    for number, name in enumerate(names):
        for folder in (top, os.path.join(top, b"in " + name)):
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(contents[number % len(contents)])
    os.chmod(os.path.join(top, b"*"), 0o755)
    os.symlink(b"nowhere\xff", os.path.join(top, b"dangling"))
    os.symlink(b"src", os.path.join(top, b"folder"))
    os.symlink(b".", os.path.join(top, b"loop"))
    made = take(project)
    assert kept(project, made.commit, tmp_path / "fresh") == as_git_keeps(tree(project.top))
    assert len(changed_paths(project, head(project), made.commit)) == 2 * len(names) + 3
    assert {os.fsencode(change.path) for change in changed_paths(project, head(project), made.commit)} >= set(names)


def test_kinds_of_files_change_into_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file becomes a folder, a folder a file, a file a link, and all of it comes back in place."""
    project = make_project(
        tmp_path, monkeypatch, {"file": "x", "folder/in": "x", "link": "x", "mode": "x", "same": "x"}
    )
    top = project.top
    before = as_git_keeps(tree(top))
    for name in ("file", "folder/in", "link"):
        (top / name).unlink()
    (top / "folder").rmdir()
    write(top, {"file/in/deep": "y", "folder": "y"})
    (top / "link").symlink_to("same")
    (top / "mode").chmod(0o755)
    first, after = take(project), as_git_keeps(tree(top))
    assert {change.path: change.status for change in changed_paths(project, head(project), first.commit)} == {
        "file": "D",
        "file/in/deep": "A",
        "folder": "A",
        "folder/in": "D",
        "link": "T",
        "mode": "M",
    }
    assert restore_files(project, head(project), top, in_place=True) == 6
    assert as_git_keeps(tree(top)) == before
    assert restore_files(project, first.commit, top, in_place=True) == 6
    assert as_git_keeps(tree(top)) == after
    assert restore_files(project, first.commit, top, in_place=True) == 0


def test_the_same_files_make_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the user is called and whatever the clock says; another second makes another commit."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {"new": "x"})
    first = take(project)
    settings(
        monkeypatch,
        tmp_path / "settings",
        "[user]\nname = N\nemail = e\n[i18n]\ncommitEncoding = latin1\n[commit]\ngpgSign = true\n",
    )
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert take(project) == first
    said = project.git().text("cat-file", "commit", first.commit).splitlines()
    assert said[2:4] == [
        f"{role} parallel-agents <parallel-agents@localhost> 1700000000 +0000" for role in ("author", "committer")
    ]
    later = snapshot(project, project.top, message="m", parents=[head(project)], at_us=AT_US + 1_000_000)
    assert (later.tree, later.commit == first.commit) == (first.tree, False)


def test_a_message_is_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines like comments, and letters of any kind."""
    project = make_project(tmp_path, monkeypatch)
    message = "# über\n\n  indented\n"
    made = snapshot(project, project.top, message=message, parents=[], at_us=AT_US)
    assert project.git().run("cat-file", "commit", made.commit).out.decode().partition("\n\n")[2] == message


def test_an_empty_tree_is_a_snapshot_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first commit, and after the last file has gone."""
    project = make_project(tmp_path, monkeypatch, {"only": "x"})
    (project.top / "only").unlink()
    assert changed_paths(project, head(project), take(project).commit) == [Change("only", "D")]
    user_git(project.top, "checkout", "-q", "--orphan", "unborn")
    user_git(project.top, "rm", "-q", "--cached", "only")
    made = snapshot(project, project.top, message="m", parents=[], at_us=AT_US)
    (project.git_dir / "index").unlink()
    assert snapshot(project, project.top, message="m", parents=[], at_us=AT_US) == made
    assert restore_files(project, made.commit, tmp_path / "fresh") == 0
    write(project.top, {"new": "x"})
    assert restore_files(project, made.commit, project.top, in_place=True) == 1
    assert tree(project.top) == {}


def test_without_an_index_a_tree_is_compared_with_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which gives the same tree, with ignored files that the parent has."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {".gitignore": "*.log\n", "kept.log": "x", "new.log": "x", "new": "x"})
    user_git(project.top, "add", "-f", "kept.log")
    user_git(project.top, "commit", "-qm", "ignored, and tracked")
    expected = take(project)
    assert changed_paths(project, head(project), expected.commit) == [Change(".gitignore", "A"), Change("new", "A")]
    (project.git_dir / "index").unlink()
    assert take(project) == expected
    assert not (project.git_dir / "index").exists()


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written in the same moment as the index cannot be told by its time, so the index keeps its own."""
    project = make_project(tmp_path, monkeypatch, {"a": "111\n"})
    moment = 1_600_000_000_000_000_000
    for path in (project.top / "a", project.git_dir / "index"):
        os.utime(path, ns=(moment, moment))
    user_git(project.top, "update-index", "--refresh")
    os.utime(project.git_dir / "index", ns=(moment, moment))
    (project.top / "a").write_bytes(b"222\n")
    os.utime(project.top / "a", ns=(moment, moment))
    user_git(project.top, "config", "core.trustctime", "false")
    assert changed_paths(project, head(project), take(project).commit) == [Change("a", "M")]


def test_files_that_the_user_told_git_to_pass_over_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assumed unchanged or skipped, they are part of what is there; what is not checked out stays as it was."""
    project = make_project(tmp_path, monkeypatch, {"assumed": "1\n", "skipped": "1\n", "absent": "1\n", "a": "1\n"})
    top = project.top
    user_git(top, "update-index", "--assume-unchanged", "assumed")
    user_git(top, "update-index", "--skip-worktree", "skipped", "absent")
    write(top, {"assumed": "local\n", "skipped": "local\n"})
    (top / "absent").unlink()
    assert user_git(top, "status", "--porcelain") == ""
    before = belongings(project)
    made = take(project)
    changes = changed_paths(project, head(project), made.commit)
    assert changes == [Change("assumed", "M"), Change("skipped", "M")]
    assert belongings(project) == before


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
def test_a_sparse_tree_of_the_user_keeps_what_is_not_checked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cone: str
) -> None:
    """And what was written where nothing is checked out is kept too."""
    project = make_project(tmp_path, monkeypatch, {"a/one": "1\n", "b/two": "2\n", "b/three": "3\n"})
    top = project.top
    user_git(top, "sparse-checkout", "set", cone, "/a" if cone == "--no-cone" else "a")
    assert not (top / "b").exists()
    write(top, {"a/one": "changed\n", "b/two": "written\n", "c/new": "new\n"})
    before = belongings(project)
    made = take(project)
    assert changed_paths(project, head(project), made.commit) == [
        Change("a/one", "M"),
        Change("b/two", "M"),
        Change("c/new", "A"),
    ]
    assert belongings(project) == before
    assert restore_files(project, made.commit, tmp_path / "fresh") == 4
    assert set(tree(tmp_path / "fresh", without=())) == {b"a/one", b"b/two", b"b/three", b"c/new"}


def test_nothing_of_the_store_is_ever_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where nobody ignores it, not below a folder, not even where git tracks it."""
    project = make_project(tmp_path, monkeypatch, {"a": "1\n", "b\nc/.parallel-agents/x": "x"})
    write(project.top, {".parallel-agents/events.db": "x", "sub/.parallel-agents/events.db": "x", "sub/b": "x"})
    restore_files(project, take(project).commit, tmp_path / "fresh")
    assert set(tree(tmp_path / "fresh", without=())) == {b"a", b"sub/b"}


@pytest.mark.parametrize("autocrlf", ["true", "input"])
def test_line_ends_are_kept_whatever_the_user_has_them_converted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autocrlf: str
) -> None:
    """Those of files that git holds for unchanged too."""
    project = make_project(tmp_path, monkeypatch, {"unchanged": "a\nb\n", "lf": "a\nb\n", "b": "\0\r\n"})
    settings(monkeypatch, tmp_path / "settings", f"[core]\nautocrlf = {autocrlf}\neol = crlf\n")
    top = project.top
    write(top, {"unchanged": "a\r\nb\r\n", "crlf": "a\r\n", "mixed": "a\r\nb\n", "staged": "a\r\n", "lf": "c\n"})
    for name in ("unchanged", "staged"):
        os.utime(top / name, (1, 1))  # Older than the index, which then tells by the time alone that nothing changed.
    user_git(top, "add", "unchanged", "staged")
    assert "unchanged" not in user_git(top, "status", "--porcelain")
    made = take(project)
    assert kept(project, made.commit, tmp_path / "fresh") == as_git_keeps(tree(top))
    before = as_git_keeps(tree(top))
    write(top, {"unchanged": "a\n", "mixed": "a\n"})
    restore_files(project, made.commit, top, in_place=True)
    assert as_git_keeps(tree(top)) == before


def test_line_ends_can_be_those_of_the_users_own_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then only what the user changed differs from their branch."""
    project = make_project(tmp_path, monkeypatch, {"a": "a\n", "b": "b\n"})
    settings(monkeypatch, tmp_path / "settings", "[core]\nautocrlf = true\n")
    write(project.top, {"a": "a\r\n", "b": "changed\r\n"})
    parents = [head(project)]
    made = snapshot(project, project.top, message="m", parents=parents, at_us=AT_US, as_committed=True)
    assert changed_paths(project, head(project), made.commit) == [Change("b", "M")]
    assert project.git().run("show", f"{made.commit}:b").out == b"changed\n"


def test_what_a_project_says_of_its_files_stays_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters and line ends of ``.gitattributes``: files look as a checkout makes them."""
    project = make_project(tmp_path, monkeypatch, {".gitattributes": "*.up filter=up\n*.bat eol=crlf\n"})
    settings(monkeypatch, tmp_path / "settings", '[filter "up"]\nclean = tr a-z A-Z\nsmudge = tr A-Z a-z\n')
    write(project.top, {"a.up": "word\n", "a.bat": "x\r\ny\r\n"})
    made = take(project)
    assert project.git().run("show", f"{made.commit}:a.up").out == b"WORD\n"
    assert kept(project, made.commit, tmp_path / "fresh") == as_git_keeps(tree(project.top))


def test_a_filter_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a file would be kept as something else."""
    project = make_project(tmp_path, monkeypatch, {".gitattributes": "*.up filter=up\n"})
    settings(monkeypatch, tmp_path / "settings", '[filter "up"]\nclean = false\nrequired = true\n')
    write(project.top, {"a.up": "word\n"})
    with pytest.raises(GitFailed, match=r"a\.up"):
        take(project)


def test_a_large_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, and only once."""
    project = make_project(tmp_path, monkeypatch)
    user_git(project.top, "config", "core.bigFileThreshold", "1m")
    size = 64 * 1024 * 1024
    with open(project.top / "large", "wb") as file:
        file.write(b"begin")
        file.seek(size - 3)
        file.write(b"end")
    made = take(project)
    restore_files(project, made.commit, tmp_path / "fresh")
    with open(tmp_path / "fresh" / "large", "rb") as file:
        assert file.read(6) == b"begin\0"
        assert file.seek(0, os.SEEK_END) == size
        file.seek(size - 4)
        assert file.read() == b"\0end"


@pytest.mark.parametrize("commits", [True, False])
def test_a_repository_in_the_tree_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commits: bool
) -> None:
    """A commit would hold nothing of it but a number; one that is ignored is none of ours."""
    project = make_project(tmp_path, monkeypatch)
    nested = project.top / "vendor" / "né sted"
    write(nested, {"a": "x"})
    user_git(nested, "init", "-q")
    if commits:
        user_git(nested, "add", "-A")
        user_git(nested, "commit", "-qm", "x")
    with pytest.raises(GitFailed, match="repositories that a snapshot cannot keep: vendor/né sted") as caught:
        take(project)
    assert ".gitignore" in caught.value.hint
    write(project.top, {".gitignore": "vendor/\n"})
    assert changed_paths(project, head(project), take(project).commit) == [Change(".gitignore", "A")]


def test_a_submodule_is_kept_as_long_as_it_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes in it would be lost, so they are refused by name."""
    project = make_project(tmp_path, monkeypatch)
    module = tmp_path / "module"
    write(module, {"a": "x"})
    user_git(module, "init", "-q")
    user_git(module, "add", "-A")
    user_git(module, "commit", "-qm", "x")
    user_git(project.top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(module), "libs/m od")
    user_git(project.top, "commit", "-qm", "module")
    write(project.top, {"new": "x"})
    assert changed_paths(project, head(project), take(project).commit) == [Change("new", "A")]
    for name in ("a", "untracked"):
        write(project.top / "libs/m od", {name: "changed"})
        with pytest.raises(GitFailed, match=r"submodules in .* hold changes that a snapshot cannot keep: libs/m od"):
            take(project)
        user_git(project.top / "libs/m od", "checkout", "-q", ".")


@pytest.mark.parametrize("name", [".GIT", "git~1", ".git "])
def test_a_name_that_git_does_not_keep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Rather than left out."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {f"src/{name}": "x"})
    with pytest.raises(GitFailed, match=f"holds names that git does not keep: src/{name}"):
        take(project)


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git only warns, and would take its files for deleted."""
    project = make_project(tmp_path, monkeypatch)
    said = "warning: could not open directory 'src/': Permission denied"
    shim(tmp_path, monkeypatch, f"""case "$*" in *' add '*) echo "{said}" >&2;; esac""")
    with pytest.raises(GitFailed, match=r"not every file .* can be read: .*src/.*Permission denied"):
        take(project)


def test_a_file_that_goes_away_meanwhile_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may write in the same folder: git is asked again."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {"new": "x"})
    fails = """case "$*" in *' add '*) echo x >> $here/tries; if [ $(wc -l < $here/tries) -lt 3 ]; then
        echo 'error: open("tmp"): No such file or directory' >&2; exit 128; fi;; esac"""
    folder = shim(tmp_path, monkeypatch, fails)
    assert changed_paths(project, head(project), take(project).commit) == [Change("new", "A")]
    assert (folder / "tries").read_text().count("x") == 3


def test_a_failure_that_stays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few tries, with what git said; nothing is left of them."""
    project = make_project(tmp_path, monkeypatch)
    shim(
        tmp_path,
        monkeypatch,
        """case "$*" in *' add '*) echo 'error: short read while indexing x' >&2; exit 1;; esac""",
    )
    with pytest.raises(GitFailed, match="short read while indexing x"):
        take(project)
    assert not list((project.git_dir / "parallel-agents").iterdir())


def test_a_full_disk_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether git meets it or we do; nothing is left of what was tried."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {"new": "x"})

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as full:
        full.setattr(shutil, "copy2", refuse)
        with pytest.raises(GitFailed, match=f"the disk that holds {project.git_dir} is full") as ours:
            take(project)
    for command in ("add", "commit-tree"):
        with monkeypatch.context() as full:
            said = "echo 'fatal: unable to write: No space left on device' >&2; exit 128"
            shim(tmp_path / command, full, f"""case "$*" in *' {command} '*) {said};; esac""")
            with pytest.raises(GitFailed, match=f"the disk that holds {project.git_dir} is full") as theirs:
                take(project)
        assert theirs.value.hint == ours.value.hint == "free some space, then repeat"
    assert not list((project.git_dir / "parallel-agents").iterdir())


def test_what_the_system_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file that it was about."""
    project = make_project(tmp_path, monkeypatch)
    index = project.git_dir / "index"
    index.unlink()
    index.mkdir()
    with pytest.raises(GitFailed, match=f"{index}: Is a directory"):
        take(project)


def test_a_fresh_folder_must_be_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or something would be lost in it."""
    project = make_project(tmp_path, monkeypatch)
    (tmp_path / "empty").mkdir()
    assert restore_files(project, head(project), tmp_path / "empty") == 3
    for path in (tmp_path / "empty", tmp_path / "empty" / "readme"):
        with pytest.raises(GitFailed, match="is not empty"):
            restore_files(project, head(project), path)


def test_restoring_in_place_leaves_index_and_head_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only files change: what is not ignored becomes what the commit holds, what is ignored stays."""
    project = make_project(tmp_path, monkeypatch)
    top = project.top
    write(top, {".gitignore": "*.log\n", "src/a.log": "mine", "new/deep": "x", "readme": "staged\n"})
    user_git(top, "add", "readme")
    made, wanted = take(project), as_git_keeps(tree(top))
    before = {path: entry for path, entry in belongings(project).items() if path.startswith(b".git/")}
    write(top, {"readme": "changed\n", "another": "x"})
    (top / "new/deep").unlink()
    (top / "new").rmdir()
    assert restore_files(project, made.commit, top, in_place=True) == 3
    assert as_git_keeps(tree(top)) == wanted
    assert {path: entry for path, entry in belongings(project).items() if path.startswith(b".git/")} == before


@pytest.mark.parametrize(
    ("ignored", "named"),
    [("out", "out"), ("out/deep/file", "out/deep/file"), ("dir", "dir")],
    ids=["a file", "a folder with files", "a file on the way"],
)
def test_ignored_files_are_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: str, named: str
) -> None:
    """Git would, without a word: they are in no snapshot and could not be had again."""
    project = make_project(tmp_path, monkeypatch, {"a": "x", "out": "x", "dir/file": "x"})
    top, wanted = project.top, head(project)
    user_git(top, "rm", "-q", "-r", "out", "dir")
    write(top, {".gitignore": f"/{ignored.split('/')[0]}\n", ignored: "mine", "a": "changed"})
    before = tree(top)
    with pytest.raises(GitFailed, match=f"ignored files in .* would be overwritten: {named}") as caught:
        restore_files(project, wanted, top, in_place=True)
    assert "new folder" in caught.value.hint
    assert tree(top) == before


def test_restoring_writes_permissions_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a checkout would."""
    project = make_project(tmp_path, monkeypatch)
    (project.top / "readme").chmod(0o700)
    made = take(project)
    restore_files(project, made.commit, tmp_path / "fresh")
    mode = (tmp_path / "fresh" / "readme").stat().st_mode
    assert mode & stat.S_IXUSR
    assert not (tmp_path / "fresh" / "src/one").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("wrote", ["readme", "gone"])
def test_nothing_is_replaced_that_was_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrote: str
) -> None:
    """Somebody else may write between a look and a restoration: a file that is there, or one that is to come back."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {"gone": "to come back\n"})
    wanted = take(project).commit
    (project.top / "gone").unlink()
    write(project.top, {"readme": "mine\n"})
    with compared(project, wanted, project.top) as seen:
        assert {one.path for one in seen.changes} == {"readme", "gone"}
        write(project.top, {wrote: "meanwhile\n"})
        with pytest.raises(ChangedMeanwhile):
            seen.replace()
    assert (project.top / wrote).read_text() == "meanwhile\n"
    assert (project.top / "gone").exists() == (wrote == "gone")
    with compared(project, wanted, project.top) as seen:
        assert seen.replace() == 2
    assert (project.top / "gone").read_text() == "to come back\n"


def test_what_is_written_meanwhile_beside_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a restoration does not touch are nobody's business."""
    project = make_project(tmp_path, monkeypatch)
    write(project.top, {"readme": "mine\n"})
    with compared(project, head(project), project.top) as seen:
        write(project.top, {"src/one": "meanwhile\n", "new": "meanwhile\n"})
        assert seen.replace() == 1
    assert (project.top / "readme").read_text() != "mine\n"
    assert (project.top / "src/one").read_text() == (project.top / "new").read_text() == "meanwhile\n"


def test_a_number_of_a_file_is_taken_for_no_submodule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look through submodules takes as long as all the rest, so it is done only where there is one."""
    project = make_project(tmp_path, monkeypatch)
    os.utime(
        project.top / "readme", ns=(0, 1_700_000_000_000_000_000 + 0xE000)
    )  # As an index writes down a submodule's mode.
    looked: list[Path] = []
    monkeypatch.setattr(snapshots, "_refuse_dirty_submodules", lambda _, folder: looked.append(folder))
    read: list[bytes] = []
    holds = snapshots._holds_submodules
    monkeypatch.setattr(
        snapshots, "_holds_submodules", lambda git, index: read.append(index.read_bytes()) or holds(git, index)
    )
    take(project)
    assert b"\0\0\xe0\0" in read[0]
    assert looked == []
