"""Which commit made each line: of files as they come, whatever a user has configured, with parents that git does not know."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from gitrepos import head, make_project, settings, user_git, write

from parallel_agents.authorship import Authorship
from parallel_agents.checkpoint import blaming
from parallel_agents.checkpoint.blaming import BINARY, is_acyclic, is_uncommitted
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore.log import Log


def commit(repository: Repository, files: dict[str, str], *words: str) -> str:
    """A commit of the user's that writes files."""
    write(repository.top, files)
    user_git(repository.top, "add", "-A")
    user_git(repository.top, "commit", "-qm", "next", *words)
    return head(repository)


@pytest.mark.parametrize("name", ["plain", "two words", "ümlaut", "a:3", "-dash", 'quo"te', ":(top)magic"])
@pytest.mark.parametrize(
    "text",
    ["", "\n", "one", "one\ntwo", "one\n\n\ntwo\n", "a\r\nb\r\n", "\ta\n\tb\n", "a\x0bb\x85c\n", "author x\n\nd\n"],
)
def test_files_of_any_name_and_content_have_as_many_lines_as_git_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """At a commit and in the working tree, where one line more is not committed."""
    project = make_project(tmp_path, monkeypatch, {name: text})
    count = text.count("\n") + (not text.endswith("\n") and text != "")
    assert blaming.blame(project, name, head(project)) == [head(project)] * count
    (project.top / name).write_bytes((text if text.endswith("\n") or not text else f"{text}\n").encode() + b"more\n")
    now = blaming.blame(project, name)
    assert now is not None
    assert is_uncommitted(now[-1])
    assert len(now) == count + 1


def test_what_is_not_there_is_none_and_nothing_of_a_users_settings_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository without a commit too. Revisions to ignore are not ignored, converters of text not asked."""
    project = make_project(tmp_path, monkeypatch, {"f": "one\ntwo\n", ".gitattributes": "f diff=odd\n"})
    second = commit(project, {"f": "one\n  two\n"})
    write(tmp_path, {"ignored": f"{second}\n"})
    settings(
        monkeypatch, tmp_path / "settings",
        f"[blame]\n\tignoreRevsFile = {tmp_path}/ignored\n[diff \"odd\"]\n\ttextconv = false\n[core]\n\tcommitGraph = true\n",
    )  # fmt: skip
    user_git(project.top, "commit-graph", "write", "--reachable")
    expected = [user_git(project.top, "rev-parse", "HEAD^"), second]
    assert blaming.blame(project, "f", "HEAD") == expected == blaming.blame(project, "f")
    assert blaming.blame(project, "f", "HEAD", grafts={second: []}) == [second, second]
    for rev in ("HEAD", None):
        assert blaming.blame(project, "nothing", rev) is None
    empty = tmp_path / "empty"
    empty.mkdir()
    user_git(empty, "init", "-q")
    write(empty, {"f": "x\n"})
    assert blaming.blame(Repository(empty, empty / ".git"), "f") is None


@pytest.mark.parametrize("seed", range(6))
def test_lines_of_the_working_tree_are_found_in_a_commit(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of unlike lines just those that are in both, each with its number there."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    old = [f"line {number}" for number in range(dice.randint(0, 12))]
    project = make_project(tmp_path, monkeypatch, {"f": "".join(f"{line}\n" for line in old), "pic": "\0"})
    new = [line for line in old if dice.random() < 0.7]
    for number in range(dice.randint(0, 4)):
        new.insert(dice.randint(0, len(new)), f"fresh {number}")
    write(project.top, {"f": "".join(f"{line}\n" for line in new), "pic": "\0more"})
    same = {at: old.index(line) + 1 for at, line in enumerate(new, 1) if line in old}
    assert blaming.unchanged_lines(project, head(project), "f", len(new)) == same
    assert blaming.unchanged_lines(project, head(project), "pic", 1) == {}
    assert blaming.unchanged_lines(project, head(project), "none", 1) == {}


def test_added_lines_are_counted_and_a_file_without_lines_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many commits at once; a commit without a change has none, and one that is gone is not listed."""
    project = make_project(tmp_path, monkeypatch, {"f": "1\n2\n", "gone": "x\n"})
    first = head(project)
    (project.top / "gone").unlink()
    second = commit(project, {"f": "1\n2\n3\n4\n", "bin": "\0", "two words": "a\n"})
    third = commit(project, {}, "--allow-empty")
    assert blaming.added_lines(project, {second: first, third: second}) == {
        second: {"f": 2, "bin": BINARY, "two words": 1, "gone": 0},
        third: {},
    }
    assert list(blaming.written(project, [second, "1" * 40])) == [second]
    assert set(blaming.between(project, [third, "1" * 40], [first])) == {second, third}
    assert blaming.blobs(project, [(first, "gone"), (second, "gone"), (second, "a\nb"), (second, "f")])[1:3] == [
        None,
        None,
    ]


def test_no_circle_of_parents_is_ever_given_to_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git would go round in it for ever; whoever forges dates of commits could make one."""
    assert is_acyclic({"a": ["b"], "b": ["c"]})
    assert not is_acyclic({"a": ["b"], "b": ["a"]})
    project = make_project(tmp_path, monkeypatch)
    first = head(project)
    second = commit(project, {"readme": "second\n"})
    with Log(tmp_path / "events.db", create=True) as log:
        known = Authorship(log)
    assert known.grafts(project, {first: second}) == {}
    assert known.grafts(project, {second: first}) == {}  # It is its parent as it is.
