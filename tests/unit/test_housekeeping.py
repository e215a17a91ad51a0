"""What may be cleared away: nothing that somebody needs, and nothing that is not kept elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clearing import Yard, make_old
from gitrepos import belongings, tree, user_git, write

from parallel_agents import housekeeping
from parallel_agents.checkpoint import refs, worktrees
from parallel_agents.checkpoint.entries import entries
from parallel_agents.checkpoint.snapshot import restore
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.log import Log
from parallel_agents.leftovers import Stays, size_of
from parallel_agents.scheduler.process import own_identity


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """A project with a store."""
    made = Yard(tmp_path, monkeypatch)
    yield made
    made.close()


def test_the_checkout_of_a_run_that_has_ended_goes(yard: Yard) -> None:
    """What it holds is in a checkpoint already, so no other one is made; nothing of the user's is touched."""
    run_id = yard.ended()
    path = yard.checkout(run_id, files={"new": "x", "readme": "changed"})
    yard.keep(run_id, path)
    before, held = belongings(yard.repository), refs.held(yard.repository)
    (item,) = yard.survey().items
    assert (item.kind, item.path, item.run_id, item.kept_first) == ("checkout", str(path), run_id, False)
    assert item.why == "its run has ended: cancelled"
    assert item.bytes == size_of(path) > 0
    done = yard.clean()
    assert [one["path"] for one in done["removed"]] == [str(path)]
    assert (done["left"], done["freed_bytes"]) == ([], item.bytes)
    assert not path.parent.exists()
    assert entries(yard.repository) == []
    assert belongings(yard.repository) == before
    assert refs.held(yard.repository) == held
    assert yard.clean()["removed"] == []


def test_what_no_ref_reaches_becomes_a_checkpoint_before_it_goes(yard: Yard, tmp_path: Path) -> None:
    """With its ref, and exactly."""
    run_id = yard.ended()
    path = yard.checkout(run_id, files={"new": "x", "deep/er": "y"})
    (path / "readme").unlink()
    (path / "link").symlink_to("new")
    there = tree(path)
    known = len(yard.checkpoints(run_id))
    (item,) = yard.survey().items
    assert item.kept_first
    assert len(yard.checkpoints(run_id)) == known
    yard.clean()
    assert not path.exists()
    made = yard.checkpoints(run_id)[known:]
    assert [(one.kind, one.label) for one in made] == [
        ("manual", "what the checkout of a held when it was cleared away")
    ]
    assert made[0].commit is not None
    assert refs.held(yard.repository)[refs.checkpoint_ref(run_id, made[0].checkpoint_id)] == made[0].commit
    restore(yard.repository, made[0].commit, tmp_path / "again")
    assert tree(tmp_path / "again") == there
    assert yard.status(run_id) == "cancelled"


def test_a_commit_of_the_agents_own_is_kept_too(yard: Yard) -> None:
    """Although the files are those of a checkpoint; also where only git's record of the checkout is left."""
    run_id = yard.ended("a", "b")
    for name in ("a", "b"):
        path = yard.checkout(run_id, name, {name: "x"})
        user_git(path, "add", "-A")
        user_git(path, "commit", "-qm", f"mine {name}")
    commits = [user_git(yard.place(run_id, name), "rev-parse", "HEAD") for name in ("a", "b")]
    shutil.rmtree(yard.place(run_id, "b"))
    assert all(item.kept_first for item in yard.survey().items)
    yard.clean()
    reached = user_git(yard.top, "rev-list", "--glob=refs/parallel-agents/*").split()
    assert set(commits) <= set(reached)
    assert entries(yard.repository) == []


def lock_attempt(yard: Yard, run_id: str) -> Callable[[], None]:
    """A supervisor holds an attempt."""
    folder = yard.attempt(run_id)
    (folder / "exit.json").unlink()
    file = open(folder / "lock", "rb")  # noqa: SIM115  Held until the test lets go.
    fcntl.flock(file, fcntl.LOCK_EX)
    return file.close


def live_process(yard: Yard, run_id: str) -> Callable[[], None]:
    """The process of an attempt lives."""
    folder = yard.attempt(run_id)
    write(folder, {"process.json": json.dumps({**own_identity().to_dict(), "state": "running"})})
    return lambda: write(folder, {"process.json": json.dumps({**own_identity().to_dict(), "start_time": 1})})


def undone_slot(yard: Yard, run_id: str) -> Callable[[], None]:
    """An attempt that was started and has not ended, in a run that was rolled back to its end."""
    start = ev.TaskStarted(task_id="a", attempt_id="x1", attempt=1, runner="shell", base_commit=yard.head)
    seq = yard.log.last_seq()
    yard.append(run_id, ev.RunResumed(), start, ev.RunRolledBack(to_seq=seq))
    return lambda: yard.append(run_id, ev.ResultDiscarded(task_id="a", attempt_id="x1", reason="undone"))


def living_holder(yard: Yard, run_id: str) -> Callable[[], None]:
    """A living process dispatches a run that was rolled back to its end."""
    yard.append(run_id, ev.RunClaimed(holder={**own_identity().to_dict(), "kind": "run"}, epoch=7))
    return lambda: yard.append(run_id, ev.RunReleased(epoch=7))


def run_again(yard: Yard, run_id: str) -> Callable[[], None]:
    """The run goes on."""
    yard.append(run_id, ev.RunResumed())
    return lambda: yard.append(run_id, ev.RunCancelled(counts={}))


NEEDED = [lock_attempt, live_process, undone_slot, living_holder, run_again]


@pytest.mark.parametrize("need", NEEDED, ids=lambda need: need.__name__)
def test_nothing_goes_of_a_run_that_something_lives_of(yard: Yard, need: Callable[..., Callable[[], None]]) -> None:
    """Neither its checkout nor what its attempts wrote; afterwards both do."""
    run_id = yard.ended()
    path = yard.checkout(run_id)
    no_more = need(yard, run_id)
    assert yard.found(older_than_s=0) == set()
    no_more()
    assert str(path) in yard.found(older_than_s=0)


@pytest.mark.parametrize("need", NEEDED, ids=lambda need: need.__name__)
def test_what_is_needed_again_after_the_look_stays(yard: Yard, need: Callable[..., Callable[[], None]]) -> None:
    """Everything is asked once more before it goes."""
    run_id = yard.ended()
    path, log_of = yard.checkout(run_id), yard.attempt(run_id, attempt="attempt000")
    release: list[Callable[[], None]] = []
    done = yard.clean(lambda: release.append(need(yard, run_id)), older_than_s=0)
    assert done["removed"] == []
    assert {one["path"] for one in done["left"]} == {str(path), str(log_of.parents[1])}
    assert not any(one["failed"] for one in done["left"])
    assert (path / "readme").exists()
    assert (log_of / "stdout.log").exists()
    release[0]()


def test_folders_that_an_attempt_is_about_to_use_stay(yard: Yard) -> None:
    """Empty as they are."""
    run_id = yard.ended()
    empty = yard.attempt(run_id).parents[1] / "b"

    def begin() -> None:
        run_again(yard, run_id)
        empty.mkdir()

    yard.clean(begin)
    assert empty.exists()


def test_what_is_written_after_the_look_is_kept(yard: Yard) -> None:
    """The checkout is looked at once more, just before it goes."""
    run_id = yard.ended()
    path = yard.checkout(run_id)
    yard.clean(lambda: write(path, {"late": "thought"}))
    assert not path.exists()
    commit = yard.checkpoints(run_id)[-1].commit
    assert user_git(yard.top, "show", f"{commit}:late") == "thought"


def test_a_checkout_that_somebody_has_locked_stays(yard: Yard) -> None:
    """And says for what reason; also where the lock comes after the look."""
    run_id = yard.ended("a", "b")
    for name in ("a", "b"):
        yard.checkout(run_id, name)

    def lock(name: str) -> None:
        user_git(yard.top, "worktree", "unlock", str(yard.place(run_id, name)))
        user_git(yard.top, "worktree", "lock", "--reason", "mine", str(yard.place(run_id, name)))

    lock("a")
    assert yard.stays() == {str(yard.place(run_id, "a")): "somebody has locked it: mine"}
    done = yard.clean(lambda: lock("b"))
    assert [one["why"] for one in done["left"]] == ["somebody has locked it: mine"]
    assert yard.place(run_id, "a").exists()
    assert yard.place(run_id, "b").exists()


def test_a_checkout_that_cannot_be_kept_stays(yard: Yard) -> None:
    """One that has become a repository of its own, holds one, or belongs to none."""
    run_id = yard.ended("own", "nested", "cut")
    for name in ("own", "nested", "cut"):
        yard.checkout(run_id, name, {"sub/file": name})
    (yard.place(run_id, "own") / ".git").unlink()
    user_git(yard.place(run_id, "own"), "init", "-q")
    user_git(yard.place(run_id, "nested") / "sub", "init", "-q")
    shutil.rmtree(next(one.admin for one in entries(yard.repository) if one.path == yard.place(run_id, "cut")))
    stays = yard.stays()
    assert yard.found() == set()
    assert stays[str(yard.place(run_id, "own"))] == "it holds a repository of its own"
    assert "cannot be kept" in stays[str(yard.place(run_id, "nested"))]
    assert "cannot be kept" in stays[str(yard.place(run_id, "cut"))]


def test_a_checkout_without_its_git_file_is_kept_and_goes(yard: Yard) -> None:
    """An agent may have removed that."""
    run_id = yard.ended()
    path = yard.checkout(run_id, files={"new": "x"})
    (path / ".git").unlink()
    yard.clean()
    assert not path.exists()
    assert user_git(yard.top, "show", f"{yard.checkpoints(run_id)[-1].commit}:new") == "x"


def test_half_of_a_checkout_is_worth_no_checkpoint(yard: Yard) -> None:
    """Its making was killed: what is missing of it was never there."""
    run_id = yard.ended()
    path = yard.place(run_id)
    user_git(
        yard.top, "worktree", "add", "-q", "--no-checkout", "--detach", "--lock", "--reason", worktrees.REASON,
        str(path), "HEAD",
    )  # fmt: skip
    write(path, {"readme": "hello\n"})
    known = len(yard.checkpoints(run_id))
    (item,) = yard.survey().items
    assert not item.kept_first
    yard.clean()
    assert (len(yard.checkpoints(run_id)), path.exists(), entries(yard.repository)) == (known, False, [])


def test_files_that_an_agent_has_only_deleted_are_work_too(yard: Yard) -> None:
    """That they are gone is in no commit yet."""
    run_id = yard.ended()
    (yard.checkout(run_id) / "readme").unlink()
    yard.clean()
    commit = yard.checkpoints(run_id)[-1].commit
    assert user_git(yard.top, "ls-tree", "-r", "--name-only", str(commit)).split() == ["src/one", "src/two"]


def test_of_a_run_that_no_log_knows_nothing_goes_that_is_written_after_the_look(yard: Yard) -> None:
    """No log could name its checkpoint."""
    path = yard.checkout("aaaaaaaaaa")
    done = yard.clean(lambda: write(path, {"late": "thought"}))
    assert [(one["path"], one["why"]) for one in done["left"]] == [(str(path), "it holds what no ref reaches")]
    assert (path / "late").exists()


def test_of_a_run_that_no_log_knows_only_what_is_kept_goes(yard: Yard) -> None:
    """There is no log that could name a checkpoint of the rest, so that stays, with the command that keeps it."""
    yard.checkout("aaaaaaaaaa", "clean")
    dirty = yard.checkout("aaaaaaaaaa", "dirty", {"new": "x"})
    foreign = yard.checkout("not-a-run", "x")
    assert yard.found() == {str(yard.place("aaaaaaaaaa", "clean"))}
    (stays, _) = sorted(yard.survey().stays)
    assert stays.path == str(dirty)
    assert stays.hint.startswith(f"`git -C {yard.top} branch kept-dirty ")
    yard.clean()
    assert dirty.exists()
    assert foreign.exists()
    user_git(yard.top, *stays.hint.split("`")[1].split()[3:])
    yard.clean()
    assert not dirty.exists()


def test_runs_of_another_store_are_left_alone(yard: Yard) -> None:
    """Their checkouts, what their attempts wrote, and their refs; also where it cannot be read."""
    other = yard.project.store.with_name("other.db")
    run_id = yard.ended()
    paths = [yard.checkout(run_id), yard.attempt(run_id)]
    make_old(yard.repository.git_dir / "refs" / "parallel-agents" / run_id)
    make_old(paths[1].parents[1])
    yard.close()
    os.rename(yard.project.store, other)
    with Log(yard.project.store, environ={}) as log:
        for _ in range(2):
            found = housekeeping.survey(log, yard.project, older_than_s=0, lost_refs=True)
            assert found.items == []
            assert sorted(Path(one.path).name for one in found.stays) == sorted(["a", run_id, run_id])
            assert all("another store" in one.why for one in found.stays)
            other.write_bytes(other.read_bytes()[:5000])
    assert all(path.exists() for path in paths)


def test_the_checkout_of_a_settled_conflict_goes_while_its_run_goes_on(yard: Yard) -> None:
    """One that somebody may be working in stays."""
    run_id = yard.run("a", "b")
    settled, open_ = yard.checkout(run_id, ".resolve-a"), yard.checkout(run_id, ".resolve-b", {"mine": "x"})
    task = yard.checkout(run_id, "a")
    yard.append(run_id, ev.TaskBlocked(task_id="b", reason="conflict: readme", attempt_id=None))
    assert yard.found() == {str(settled)}
    yard.clean()
    assert (settled.exists(), open_.exists(), task.exists()) == (False, True, True)
    yard.append(run_id, ev.TaskUnblocked(task_id="b"))
    yard.clean()
    assert not open_.exists()
    assert user_git(yard.top, "show", f"{yard.checkpoints(run_id)[-1].commit}:mine") == "x"


def test_what_attempts_wrote_goes_once_their_run_has_ended_long_ago(yard: Yard) -> None:
    """A week, unless another age is named; the folders above go with the last of them."""
    yard.days = 6
    run_id = yard.ended()
    folder = yard.attempt(run_id)
    check = yard.attempt(run_id, ".gates/0", "check11111")
    assert yard.found() == set()
    (item,) = yard.survey(older_than_s=5 * 86_400).items
    assert (item.kind, item.path, len(item.parts)) == ("attempts", str(folder.parents[1]), 2)
    assert yard.found(older_than_s=0) == {item.path}
    yard.clean(older_than_s=0)
    assert not folder.parents[1].exists()
    assert not check.exists()


def test_what_attempts_of_unknown_runs_wrote_goes_only_in_a_folder_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a store of somebody's own choice, a folder that is called runs may be theirs."""
    (tmp_path / "mine").mkdir()
    yard = Yard(tmp_path, monkeypatch, store=str(tmp_path / "mine" / "events.db"))
    theirs, known = yard.attempt("aaaaaaaaaa"), yard.attempt(yard.ended())
    make_old(tmp_path / "mine" / "runs")
    assert yard.found() == {str(known.parents[1])}
    yard.clean(older_than_s=0)
    assert (theirs.exists(), known.exists()) == (True, False)
    yard.close()


def test_what_attempts_of_unknown_runs_wrote_goes_in_our_own_folder(yard: Yard) -> None:
    """By the age of the files."""
    folder = yard.attempt("aaaaaaaaaa")
    odd = yard.attempt("somebody-elses")
    assert yard.found(older_than_s=0) == set()
    make_old(folder.parents[1])
    make_old(odd.parents[1])
    assert yard.found() == {str(folder.parents[1])}
    yard.clean()
    assert (folder.exists(), odd.exists()) == (False, True)


def test_what_killed_commands_have_left_goes_once_none_can_be_under_way(yard: Yard) -> None:
    """Temporary indexes, half-made shadow repositories, half-removed checkouts, locks on refs of ours; nothing else."""
    run_id = yard.run()
    home, git_dir = yard.project.store.parent, yard.repository.git_dir
    left = [
        git_dir / "parallel-agents" / "index-x1",
        home / "shadow.12.ab",
        git_dir / "refs/heads/parallel-agents/x.lock",
    ]
    for folder in left[:2]:
        folder.mkdir(parents=True)
        (folder / "index").write_text("x")
    left[2].parent.mkdir(parents=True, exist_ok=True)
    left[2].write_text("")
    trash = yard.place(run_id, ".removed-1-2")
    write(trash, {"file": "x"})
    assert yard.found() == {str(trash)}
    for path in left:
        make_old(path)
    kept = [git_dir / "parallel-agents" / "worktrees.lock", git_dir / "index.lock", home / "shadow.git"]
    kept[0].touch()
    kept[1].touch()
    kept[2].mkdir()
    for path in kept:
        make_old(path)
    assert yard.found() == {str(path) for path in (trash, *left)}
    done = yard.clean(left[2].touch)
    assert [one["why"] for one in done["left"]] == ["it is in use again"]
    assert [path.exists() for path in (trash, *left)] == [False, False, False, True]
    make_old(left[2])
    yard.clean()
    assert not left[2].exists()
    assert all(path.exists() for path in kept)


def test_without_a_store_what_lies_about_is_of_unknown_runs(yard: Yard) -> None:
    """Somebody has removed the folder of the store; git's record of the checkouts goes."""
    run_id = yard.ended()
    yard.checkout(run_id)
    make_old(yard.repository.git_dir / "refs" / "parallel-agents")
    yard.close()
    shutil.rmtree(yard.project.store.parent)
    found = housekeeping.survey(None, yard.project)
    assert {item.kind for item in found.items} == {"checkout", "ref"}
    assert housekeeping.clean(None, yard.project, found)["left"] == []
    assert (entries(yard.repository), refs.held(yard.repository)) == ([], {})


def test_only_one_cleans_at_a_time(yard: Yard) -> None:
    """The second one is told so, and changes nothing."""
    path = yard.checkout(yard.ended())
    found = yard.survey()
    with open(yard.project.store.parent / "gc.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotAllowed, match="somebody else"):
            housekeeping.clean(yard.log, yard.project, found)
    assert path.exists()
    housekeeping.clean(yard.log, yard.project, found)
    assert not path.exists()


def test_killed_at_any_moment_it_loses_nothing(yard: Yard) -> None:
    """At each of its commands of git in turn, by kill -9: then every file is in its checkout, or reached by a ref."""
    run_id = yard.ended()
    yard.close()
    moment, killed = 0, True
    while killed:
        moment += 1
        path = yard.place(run_id)
        if not path.exists():
            worktrees.add(yard.repository, path, yard.head)
        write(path, {"new": f"{moment}\n"})
        child = os.fork()
        if child == 0:
            _clean_until(yard, moment)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        lies = (path / "new").exists() and (path / "new").read_text() == f"{moment}\n"
        reached = user_git(yard.top, "log", "--glob=refs/parallel-agents/*", "--format=", "-p", "--", "new")
        assert lies or f"+{moment}\n" in f"{reached}\n", moment
    assert moment > 10
    assert not yard.place(run_id).exists()
    with Log(yard.project.store, environ={}) as log:
        named = {one.event.commit for one in log.read_run(run_id) if isinstance(one.event, ev.CheckpointCreated)}
    assert named <= set(refs.held(yard.repository).values())


def _clean_until(yard: Yard, moment: int) -> None:
    """In a child: clean, and die before the command of that number. Never returns."""
    from parallel_agents.checkpoint import git as module

    calls, real = 0, module.execute

    def counted(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)

    try:
        module.execute = counted
        with Log(yard.project.store, environ={}) as log:
            housekeeping.clean(log, yard.project, housekeeping.survey(log, yard.project))
    finally:
        os._exit(0)


def test_what_goes_while_it_is_looked_into_is_nothing_to_be_told(tmp_path: Path) -> None:
    """Somebody else may clean here too; what stays and cannot be read is named."""

    def vanishes() -> None:
        raise FileNotFoundError(2, "No such file or directory")

    assert housekeeping._judged(tmp_path / "gone", vanishes) is None
    stays = housekeeping._judged(tmp_path, vanishes)
    assert isinstance(stays, Stays)
    assert (stays.path, stays.why) == (str(tmp_path), "it cannot be looked into: No such file or directory")
