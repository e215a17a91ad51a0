"""What the doctor finds of files, and that the command it names mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clearing import Yard, make_old
from gitrepos import no_settings, shim, user_git, write

from parallel_agents import checkpoints, doctor
from parallel_agents.checkpoint import refs, worktrees
from parallel_agents.checkpoint.entries import entries
from parallel_agents.doctor_files import examine_files
from parallel_agents.eventstore import events as ev
from parallel_agents.findings import Finding
from parallel_agents.project import Project
from parallel_agents.scheduler.daemon import lock_file
from parallel_agents.scheduler.process import own_identity


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """A project with a store."""
    made = Yard(tmp_path, monkeypatch)
    yield made
    made.close()


def wrong(yard: Yard, *, thorough: bool = False) -> list[Finding]:
    """What is not as it should be."""
    return [one for one in examine_files(yard.project, thorough=thorough) if one.level != "ok"]


def mend(finding: Finding, folder: Path) -> None:
    """Do what a finding's hint says."""
    subprocess.run(["sh", "-ec", finding.hint], cwd=folder, check=True, capture_output=True)


def found_by_doctor(project: Project, check: str, scratch: Path) -> Finding:
    """One finding of the whole examination, which goes no further."""
    return next(one for one in doctor.examine(project, scratch=scratch) if one.check == check)


def test_nothing_is_wrong_with_runs_that_go_on_and_runs_that_have_ended(yard: Yard) -> None:
    """Their checkouts, checkpoints and branches; every object is read where that is asked for."""
    yard.ended()
    run_id = yard.run()
    yard.keep(run_id, yard.checkout(run_id, files={"new": "x"}))
    user_git(yard.top, "branch", f"parallel-agents/{run_id}")
    for thorough in (False, True):
        assert wrong(yard, thorough=thorough) == []
        found = {one.check: one.detail for one in examine_files(yard.project, thorough=thorough)}
        assert found["repository"] == str(yard.top)
        assert found["checkouts"] == "1 in use"
        assert found["checkpoints"].startswith("3 refs")
        assert ("every object" in found["checkpoints"]) == thorough


def test_checkouts_that_nobody_needs_are_found(yard: Yard) -> None:
    """Those too of which only git's record is left; gc takes them away."""
    run_id = yard.ended("a", "b")
    yard.checkout(run_id, "a")
    shutil.rmtree(yard.checkout(run_id, "b"))
    (found,) = wrong(yard)
    assert found.check == "checkouts"
    assert f"{run_id}/a, {run_id}/b, 1 of them only on git's record" in found.detail
    assert "parallel-agents gc" in found.hint
    yard.clean()
    assert wrong(yard) == []


def test_a_record_of_a_worktree_that_is_gone_with_its_store_is_found(yard: Yard, tmp_path: Path) -> None:
    """Nobody but the user can know that it does not lie on a disk that comes back."""
    there = tmp_path / "it's far" / "here"
    worktrees.add(yard.repository, there, yard.head)
    assert wrong(yard) == []
    shutil.rmtree(there.parent)
    (found,) = wrong(yard)
    assert str(there) in found.detail
    mend(found, tmp_path)
    assert wrong(yard) == entries(yard.repository) == []


def test_half_of_a_record_is_found(yard: Yard, tmp_path: Path) -> None:
    """Of a git that was killed before it said where the worktree lies."""
    half = yard.repository.git_dir / "worktrees" / "half"
    write(half, {"locked": worktrees.REASON})
    (found,) = wrong(yard)
    mend(found, tmp_path)
    assert not half.exists()


@pytest.mark.parametrize("name", ["index.lock", "packed-refs.lock", "worktrees/a/index.lock"])
def test_locks_of_a_git_that_was_killed_are_found(yard: Yard, tmp_path: Path, name: str) -> None:
    """In the repository and in the checkout of an attempt; not those of one that may live."""
    yard.checkout(yard.run())
    lock = yard.repository.git_dir / name
    lock.touch()
    assert wrong(yard) == []
    make_old(lock, days=1)
    (found,) = wrong(yard)
    assert "24 h" in found.detail
    mend(found, tmp_path)
    assert not lock.exists()


def test_locks_on_refs_of_ours_are_left_to_gc(yard: Yard) -> None:
    """They would stop every later checkpoint of that run."""
    lock = yard.repository.git_dir / "refs" / "parallel-agents" / yard.run() / "x.lock"
    lock.touch()
    make_old(lock)
    (found,) = wrong(yard)
    assert (found.check, "parallel-agents gc" in found.hint) == ("locks", True)
    yard.clean()
    assert not lock.exists()


def test_refs_and_branches_of_unknown_runs_are_found(yard: Yard, tmp_path: Path) -> None:
    """Not the checkpoints made by hand."""
    refs.hold(yard.repository, {"refs/parallel-agents/store/x": yard.head})
    assert wrong(yard) == []
    refs.hold(yard.repository, {"refs/parallel-agents/aaaaaaaaaa/x": yard.head})
    user_git(yard.top, "branch", "parallel-agents/bbbbbbbbbb")
    held, branch = wrong(yard)
    assert held.detail.endswith("refs of runs that no log here knows: aaaaaaaaaa")
    assert "gc --dry-run" in held.hint
    mend(branch, tmp_path)
    assert wrong(yard) == [held]


def test_a_checkpoint_without_its_ref_is_found_and_gets_it_again(yard: Yard, tmp_path: Path) -> None:
    """Unless a living process dispatches its run, which makes it a moment after the event."""
    run_id = yard.run()
    checkpoint_id = yard.hold(run_id, yard.head)
    ref = refs.checkpoint_ref(run_id, checkpoint_id)
    refs.drop(yard.repository, [ref])
    (found,) = wrong(yard)
    assert (found.level, f"checkpoint {checkpoint_id} of run {run_id}" in found.detail) == ("warning", True)
    yard.append(run_id, ev.RunClaimed(holder={**own_identity().to_dict(), "kind": "run"}, epoch=1))
    assert wrong(yard) == []
    yard.append(run_id, ev.RunReleased(epoch=1))
    mend(found, tmp_path)
    assert refs.held(yard.repository)[ref] == yard.head
    assert wrong(yard) == []


def test_what_was_given_up_is_not_missed(yard: Yard) -> None:
    """But what was made since is."""
    run_id = yard.ended()
    refs.drop(yard.repository, refs.held(yard.repository, run_id))
    yard.append(run_id, ev.CheckpointsDropped(refs=1))
    assert wrong(yard) == []
    yard.append(run_id, ev.CheckpointCreated(checkpoint_id="later", kind="manual", commit=yard.head))
    assert len(wrong(yard)) == 1


def test_a_checkpoint_whose_files_are_gone_is_an_error(yard: Yard) -> None:
    """That of a run, and one made by hand; many are counted, not listed."""
    run_id = yard.ended()
    for number in range(8):
        made = ev.CheckpointCreated(checkpoint_id=f"c{number}", kind="manual", commit=f"{number}" * 40)
        yard.append(run_id, made)
    checkpoint = checkpoints.create(yard.log, yard.project, None, "by hand")
    refs.drop(yard.repository, [f"refs/parallel-agents/store/{checkpoint['checkpoint_id']}"])
    found = wrong(yard)
    assert [one.level for one in found] == ["error"] * 5 + ["warning"] * 2
    assert f"checkpoint c0 of run {run_id} are gone" in found[0].detail
    assert "3 more" in found[5].detail
    assert f"checkpoint {checkpoint['checkpoint_id']} made by hand has lost its ref" in found[6].detail


def test_a_branch_in_the_way_is_found(yard: Yard, tmp_path: Path) -> None:
    """Where there are none of ours yet."""
    refs.drop(yard.repository, refs.held(yard.repository))
    user_git(yard.top, "branch", "parallel-agents")
    found = [one for one in wrong(yard) if one.check == "repository"]
    assert "a branch named parallel-agents" in found[0].detail
    mend(Finding("", "ok", "", found[0].hint.partition(": ")[2]), yard.top)
    assert [one for one in wrong(yard) if one.check == "repository"] == []


def test_a_shadow_repository_that_has_lost_something_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is read where that is asked for."""
    no_settings(monkeypatch)
    project = Project.find(root=tmp_path, start=tmp_path)
    write(tmp_path, {"file": "content\n"})
    with project.open(create=True) as log:
        checkpoints.create(log, project, None, "by hand")
    found = {one.check: one for one in examine_files(project, thorough=True)}
    assert found["repository"].detail.startswith("none; files are kept in")
    assert found["checkpoints"].detail == "1 ref, and each checkpoint of the log has its commit, every object read"
    shadow = tmp_path / ".parallel-agents" / "shadow.git"
    blob = user_git(tmp_path, "hash-object", "file")
    (shadow / "objects" / blob[:2] / blob[2:]).unlink()
    assert [one for one in examine_files(project) if one.level != "ok"] == []
    (damaged,) = [one for one in examine_files(project, thorough=True) if one.level != "ok"]
    assert (damaged.check, damaged.level) == ("shadow repository", "error")
    assert damaged.hint == f"git --git-dir {shadow} fsck --full"


def test_a_repository_that_has_lost_something_is_found(yard: Yard) -> None:
    """What only a checkpoint of ours needs is missing."""
    run_id = yard.run()
    made = yard.keep(run_id, yard.checkout(run_id, files={"new": "only here"}))
    blob = user_git(yard.top, "rev-parse", f"{made}:new")
    (yard.repository.git_dir / "objects" / blob[:2] / blob[2:]).unlink()
    assert wrong(yard) == []
    (damaged,) = wrong(yard, thorough=True)
    assert (damaged.check, damaged.level) == ("repository", "error")


def test_a_git_that_is_too_old_is_found(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it cannot do."""
    assert found_by_doctor(yard.project, "git", tmp_path).level == "ok"
    shim(tmp_path, monkeypatch, 'if [ "$1" = --version ]; then echo git version 2.30.2; exit; fi')
    found = found_by_doctor(yard.project, "git", tmp_path)
    assert (found.level, found.hint) == ("warning", "install git >= 2.38")


def test_a_disk_with_less_than_the_limit_is_found(yard: Yard, tmp_path: Path) -> None:
    """The limit is that of the configuration."""
    path = yard.top / ".claude" / "config" / "parallel-agents-config.json"
    path.parent.mkdir(parents=True)
    for limit, level in ((0, "ok"), (1 << 30, "warning")):
        path.write_text(json.dumps({"resourceManagement": {"disk": {"minFreeMB": limit}}}))
        found = found_by_doctor(yard.project, "disk", tmp_path)
        assert (found.level, f"below {limit:,} MB" in found.detail) == (level, True)
    assert "parallel-agents gc" in found.hint


def test_a_daemon_that_was_killed_is_told_of(yard: Yard, tmp_path: Path) -> None:
    """It stands in nobody's way."""
    assert found_by_doctor(yard.project, "daemon", tmp_path).detail.startswith("none")
    dead = {**own_identity().to_dict(), "start_time": 1}
    lock_file(yard.project.store).write_text(json.dumps(dead) + "\n" + json.dumps({"started_at": "x"}) + "\n")
    found = found_by_doctor(yard.project, "daemon", tmp_path)
    assert (found.level, "was killed" in found.detail) == ("ok", True)


def test_without_git_nothing_is_said_of_files(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is missing is a finding of its own."""
    monkeypatch.setenv("PATH", os.devnull)
    assert list(examine_files(yard.project)) == []
