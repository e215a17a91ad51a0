"""Which workspace a plan gets where it does not say, and what is refused where there is no such thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gitrepos import make_project, no_settings, shim, user_git, write

from parallel_agents import versioning
from parallel_agents.checkpoint import repository as repositories
from parallel_agents.configuration import Configuration
from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.planfile import parse_plan
from parallel_agents.project import Project
from parallel_agents.versioning import Start, look_at_files

RESULT: dict[str, Any] = {"tasks": [{"task_id": "a", "command": ["true"], "approval": "result"}]}


def look(folder: Path, **head: Any) -> Start:
    """Where a plan's files are that is run in a folder."""
    plan = {"tasks": [{"task_id": "a", "command": ["true"]}], **head}
    return look_at_files(parse_plan(plan, "plan", Configuration({}, {})), Project.find(start=folder, root=folder))


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in no repository."""
    no_settings(monkeypatch)
    (tmp_path / "plain").mkdir()
    return tmp_path / "plain"


@pytest.fixture
def unborn(plain: Path) -> Path:
    """A repository without a commit."""
    user_git(plain, "init", "-q")
    return plain


def test_a_repository_with_a_commit_gives_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a warning that names what is not committed, and would be missing there."""
    project = make_project(tmp_path, monkeypatch)
    start = look(project.top)
    assert (start.workspace, start.named, start.warnings) == ("worktree", str(project.top), ())
    write(project.top, {f"new/{number}": "" for number in range(7)})
    (warning,) = look(project.top / "src").warnings
    assert "without uncommitted changes: new/0, new/1, new/2, new/3, new/4 and 2 more" in warning
    assert look(project.top, include_uncommitted=True).warnings == ()
    assert look(project.top, workspace="shared").warnings == ()
    assert look(project.top, workspace="none") == Start("none")


def test_without_a_commit_or_a_repository_the_directory_is_shared(unborn: Path, tmp_path: Path) -> None:
    """Kept in the repository that is there, else in one beside the store; nothing is made yet."""
    start = look(unborn)
    assert (start.workspace, start.named) == ("shared", str(unborn))
    (tmp_path / "other").mkdir()
    start = look(tmp_path / "other")
    assert (start.workspace, start.named) == ("shared", str(tmp_path / "other/.parallel-agents/shadow.git"))
    assert list((tmp_path / "other").iterdir()) == []


def test_where_nobody_has_git_nothing_is_versioned_and_that_is_said(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that asks for it is refused."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look(plain) == Start("none", warnings=("there is no git on PATH, so no files are kept: workspace is none",))
    for workspace in ("worktree", "shared"):
        with pytest.raises(InvalidPlan, match=f"workspace is '{workspace}', and there is no git on PATH"):
            look(plain, workspace=workspace)


@pytest.mark.parametrize("limit", ["SHADOW_FILES", "SHADOW_BYTES"])
def test_a_vast_directory_is_not_versioned_unasked(plain: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """A home directory, say. What lies in our own folder does not count."""
    write(plain, {"a": "abc", "b/c": "def", ".parallel-agents/big": "x" * 100, ".parallel-agents/more": ""})
    monkeypatch.setattr(versioning, limit, {"SHADOW_FILES": 2, "SHADOW_BYTES": 6}[limit])
    assert look(plain).workspace == "shared"
    monkeypatch.setattr(versioning, limit, {"SHADOW_FILES": 1, "SHADOW_BYTES": 5}[limit])
    start = look(plain)
    assert start.workspace == "none"
    assert "too large to be versioned unasked: workspace is none" in start.warnings[0]
    assert look(plain, workspace="shared").workspace == "shared"
    with pytest.raises(InvalidPlan, match=r"approval is result \(task 'a'\), .* too large to be versioned unasked"):
        look(plain, **RESULT)


def test_what_needs_checkouts_is_refused_where_there_are_none(unborn: Path, tmp_path: Path) -> None:
    """The plan does not say its workspace, so only the place can tell; being ignored would be worse."""
    with pytest.raises(InvalidPlan, match="sparse is about checkouts, and the git repository has no commit yet") as why:
        look(unborn, sparse=["src"])
    assert why.value.hint == "make the first one, or leave sparse out"
    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidPlan, match=r"sparse is about checkouts, and .*other is in no git repository") as why:
        look(tmp_path / "other", sparse=["src"])
    assert why.value.hint == "git init and make a commit, or leave sparse out"


@pytest.mark.parametrize(
    ("head", "what"),
    [
        ({"sparse": ["src"]}, "sparse is about checkouts"),
        ({"include_uncommitted": True}, "include_uncommitted is true"),
        (RESULT, r"approval is result \(task 'a'\)"),
    ],
)
def test_what_needs_files_is_refused_where_none_are_kept(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any], what: str
) -> None:
    """Nobody would be asked for the approval."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidPlan, match=f"{what}, and there is no git on PATH") as why:
        look(plain, **head)
    assert why.value.hint.startswith("install git, or ")


def test_a_git_that_is_too_old_is_named_with_the_way_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that keeps no files does not need it."""
    project = make_project(tmp_path, monkeypatch)
    shim(tmp_path, monkeypatch, 'case "$*" in version) echo git version 2.34.1; exit;; esac')
    repositories.git_version.cache_clear()
    try:
        with pytest.raises(InvalidPlan, match=r"git 2\.34\.1 is too old") as why:
            look(project.top)
    finally:
        repositories.git_version.cache_clear()
    assert why.value.hint == "install git >= 2.38, or say workspace: none"
    assert look(project.top, workspace="none") == Start("none")
