"""Every crash point, reached by a real process that is killed there: whoever comes next loses nothing and does nothing twice.

A scene goes through the points that are listed with it; the referee of ``crashing`` looks at what has become of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from crashing import GATE, At, World, kill_group
from daemons import wait_until
from fakeagent.installing import install

from parallel_agents import schedules, steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.crash_points import POINTS
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.submission import Gate, Plan
from parallel_agents.project import Project
from parallel_agents.projections import status
from parallel_agents.projections.projector import Projector

DAY_US = 86_400_000_000
SECRET = "correct-horse-battery"
Scene = Callable[[World, At], None]


def working(world: World, at: At) -> None:
    """Two tasks in worktrees, of which one takes over the checkout of the other, and is tried again."""
    run_id = world.plan(
        world.task("a", "write:a:1"), world.task("b", "write:file:b", "once", "write:b:1", after="a", max_retries=1)
    )
    world.dies(at)
    assert world.run_to_end(run_id) == "completed"
    assert world.git("ls-tree", "--name-only", f"parallel-agents/{run_id}").split() == ["a", "b", "file"]
    assert world.git("show", f"parallel-agents/{run_id}:file") == "first\nb\n"


def supervised(world: World, at: At) -> None:
    """The supervisor dies, then its daemon. What it had started is lost, and tried again."""
    daemon = world.begin(at)
    supervisor = world.supervisor_of(daemon)
    run_id = world.plan(world.task("a", max_retries=5), world.task("b", after="a", max_retries=5), workspace="none")
    world.wait_dead(supervisor)
    world.kill(daemon)
    daemon = world.daemon()
    assert world.ended(run_id) == "completed"
    world.end_daemon(daemon)


def supervised_in_vain(world: World, at: At) -> None:
    """Every supervisor that the daemon starts dies at the same point: its attempts are lost until no retry is left."""
    run_id = world.plan(world.task("a", max_retries=1), workspace="none")
    daemon = world.begin(at)
    assert world.ended(run_id) == "failed"
    world.end_daemon(daemon)
    assert len(world.events(run_id, ev.AttemptLost)) == 2


def leaving(world: World, at: At) -> None:
    """A daemon dies while it lets go of a run of which an attempt lives."""
    run_id = world.plan(world.task("a", "wait:go"), workspace="none")
    daemon = world.begin(at)
    world.wait_for("begins", "a")
    daemon.terminate()
    world.died(daemon, at)
    world.go()
    assert world.run_to_end(run_id) == "completed"
    assert len(world.events(run_id, ev.TaskStarted)) == 1


def adopting(world: World, at: At) -> None:
    """A daemon dies while it takes over an attempt that lives."""
    run_id = world.plan(world.task("a", "wait:go"), workspace="none")
    first = world.daemon()
    world.wait_for("begins", "a")
    world.kill(first)
    world.dies(at)
    world.go()
    assert world.run_to_end(run_id) == "completed"
    assert len(world.events(run_id, ev.TaskStarted)) == 1


def losing(world: World, at: At) -> None:
    """A daemon dies while it sees to an attempt whose supervisor is gone and whose command lives on."""
    run_id = world.plan(world.task("a", "wait:go", max_retries=1), workspace="none")
    first = world.daemon()
    supervisor = world.supervisor_of(first)
    world.wait_for("begins", "a")
    world.kill(first)
    kill_group([supervisor.pid])
    world.dies(at)
    with world.dispatching():
        wait_until(lambda: [one.word for one in world.said()].count("begins") == 2, "another attempt")
        world.go()
        assert world.ended(run_id) == "completed"
    assert len(world.events(run_id, ev.AttemptLost)) == 1


def stopping(world: World, at: At) -> None:
    """A daemon dies while it stops an attempt that does not want to."""
    run_id = world.plan(world.task("a", "deaf", "wait:never"), workspace="none")
    daemon = world.begin(at)
    world.wait_for("begins", "a")
    steer.cancel(world.log, run_id, grace_s=0.05)
    world.died(daemon, at)
    assert world.run_to_end(run_id) == "cancelled"


def killing(world: World, at: At) -> None:
    """The supervisor dies while it ends an attempt that does not want to."""
    daemon = world.begin(at)
    supervisor = world.supervisor_of(daemon)
    run_id = world.plan(world.task("a", "deaf", "wait:never"), workspace="none")
    world.wait_for("begins", "a")
    steer.cancel(world.log, run_id, grace_s=0.05)
    world.wait_dead(supervisor)
    world.kill(daemon)
    assert world.run_to_end(run_id) == "cancelled"


def wishing(world: World, at: At) -> None:
    """A daemon dies while it has an attempt stopped that another one has started."""
    run_id = world.plan(world.task("a", "wait:never"), workspace="none")
    first = world.daemon()
    world.wait_for("begins", "a")
    world.kill(first)
    steer.cancel(world.log, run_id, grace_s=0.05)
    world.dies(at)
    assert world.run_to_end(run_id) == "cancelled"


def agent(world: World, at: At) -> None:
    """A daemon dies while it drives an agent: its work is done once, and paid once."""
    run_id = world.plan(world.agent("a"), world.task("b", after="a"), workspace="none")
    world.dies(at)
    daemon = world.daemon()
    assert world.ended(run_id) == "completed"
    world.end_daemon(daemon)


def skipping(world: World, at: At) -> None:
    """A run of so many events that its state is kept as a snapshot."""
    many = (world.task(f"t{number}", after="a") for number in range(10_001))
    run_id = world.plan(world.task("a", "once"), *many, workspace="none")
    world.dies(at)
    assert world.run_to_end(run_id) == "failed"
    projector = Projector(world.log)
    kept = status.dump(projector.state(run_id))
    with closing(sqlite3.connect(world.path)) as store, store:
        store.execute("DELETE FROM snapshots")
    assert status.dump(projector.state(run_id)) == kept


def submitting(world: World, at: At) -> None:
    """Somebody submits a plan: the run is there or is not, and where its id was printed it is."""
    tasks = [{"task_id": "a", "command": list(world.command("a", "write:a:1"))}]
    (world.folder / "plan.json").write_text(json.dumps({"name": "small", "tasks": tasks}))
    world.git("add", "-A")
    world.git("commit", "-q", "-m", "plan")
    assert world.cli("submit", "plan.json", at=at) == ""
    runs = list(Projector(world.log).runs())
    if at.point == "submit.before-append":
        assert runs == []
        runs = [world.cli("submit", "plan.json").strip()]
    [run_id] = runs
    assert world.run_to_end(run_id) == "completed"


def gated(world: World, at: At) -> None:
    """A daemon dies while gates check what an attempt has left: they are begun anew, and never twice at the same time."""
    after = "stage" if at.count > 1 else "task"
    gates = (Gate(command=world.command(GATE, "wait:go"), after=after),)
    run_id = world.plan(world.task("a", "write:a:1"), gates=gates)
    world.dies(At(at.point))
    world.wait_for("begins", GATE)
    with world.dispatching():
        wait_until(lambda: [one[:2] for one in world.said()].count(("begins", GATE)) == 2, "the gate to be run again")
        world.go()
        assert world.ended(run_id) == "completed"
    assert [one.word for one in world.said() if one.task_id == GATE] == ["begins", "begins", "ends"]


def undoing(world: World, at: At) -> None:
    """Somebody takes a run back of which an attempt lives, and dies: whoever dispatches next ends it, and starts it anew."""
    run_id = world.plan(world.task("a", "write:file:a"), world.task("b", "write:b:1", "wait:go", after="a"))
    first = world.daemon()
    world.wait_for("begins", "b")
    world.kill(first)
    seq = next(one.seq for one in world.records(run_id) if isinstance(one.event, ev.TaskCompleted))
    world.cli("rollback", run_id, "--to", str(seq), "--yes", at=at)
    with world.dispatching():
        wait_until(lambda: world.events(run_id, ev.ResultDiscarded), "what was undone to end")
    world.go()
    steer.resume(world.log, run_id)
    assert world.run_to_end(run_id) == "completed"
    assert [task for word, task, _ in world.said() if word == "ends"] == ["a", "b"]


def scheduled(world: World, at: At) -> None:
    """A daemon dies while it makes a run of a plan that was due: there is one, whoever sees to it."""
    plan = Plan(name="yearly", tasks=(world.task("a", "write:a:1"),), workspace="worktree")
    long_ago_us = wall_clock_us() - 400 * DAY_US
    with Log(world.path, clock=lambda: long_ago_us) as log:
        schedules.add(log, plan, Project.find(start=world.folder), cron="0 0 1 1 *", zone="UTC")
    daemon = ("daemon", "run")
    world.dies(at, *daemon)
    next_one = world.begin(None, *daemon)
    [run_id] = wait_until(lambda: list(Projector(world.log).runs()), "the run")
    assert world.ended(run_id) == "completed"
    world.end_daemon(next_one)
    assert [one.run_id for one in world.log.read() if isinstance(one.event, ev.ScheduleFired)] == ["store"]


def steering(world: World, at: At) -> None:
    """Somebody pauses a run: it is paused or is not."""
    run_id = world.plan(world.task("a"), workspace="none")
    world.cli("pause", run_id, at=at)
    paused = world.state(run_id).status == "paused"
    assert paused == (at.point == "steer.appended")
    if paused:
        steer.resume(world.log, run_id)
    assert world.run_to_end(run_id) == "completed"


def _ended_run(world: World, workspace: str = "worktree") -> tuple[str, int]:
    """A run that is over, and the event in which its first task ended."""
    run_id = world.plan(world.task("a", "write:file:a"), world.task("b", "write:b:1", after="a"), workspace=workspace)
    assert world.run_to_end(run_id) == "completed"
    return run_id, next(one.seq for one in world.records(run_id) if isinstance(one.event, ev.TaskCompleted))


def going_back(world: World, at: At) -> None:
    """Somebody takes a run back: that has happened or has not, and can be said again."""
    run_id, seq = _ended_run(world)
    words = ("rollback", run_id, "--to", str(seq), "--yes")
    world.cli(*words, at=at)
    happened = world.state(run_id).status == "paused"
    assert happened == (at.point != "rollback.drafted")
    if not happened:
        world.cli(*words)
    steer.resume(world.log, run_id)
    assert world.run_to_end(run_id) == "completed"
    assert [task for word, task, _ in world.said() if word == "ends"] == ["a", "b", "b"]


def going_back_in_place(world: World, at: At) -> None:
    """Somebody takes a run back that works in the project's directory: its files go back whole."""
    run_id, seq = _ended_run(world, "shared")
    world.cli("rollback", run_id, "--to", str(seq), "--yes", at=at)
    assert world.state(run_id).status == "paused"
    world.cli("resume", run_id)
    assert world.state(run_id).status == "completed"
    assert (world.folder / "file").read_text() == "first\na\n"
    assert (world.folder / "b").read_text() == "1\n"


def taking_back(world: World, at: At) -> None:
    """A run fails that works in the project's directory, which is to be as it was before: it is, and what was done is kept."""
    tasks = (world.task("a", "write:file:a"), world.task("b", "write:file:b", "once", after="a"))
    run_id = world.plan(*tasks, workspace="shared", preserve_successful=False)
    world.dies(at)
    assert world.run_to_end(run_id) == "failed"
    assert (world.folder / "file").read_text() == "first\n"
    assert world.state(run_id).restoring is None
    kept = [one for one in world.events(run_id, ev.CheckpointCreated) if one.kind == "before_restore"]
    assert world.git("show", f"{kept[0].commit}:file") == "first\na\nb\n"


def keeping(world: World, at: At) -> None:
    """Somebody makes a checkpoint by hand: it is there or is not."""
    _ended_run(world, "none")
    world.cli("checkpoint", "create", "mine", at=at)
    assert "mine" not in world.cli("checkpoints")
    world.cli("checkpoint", "create", "mine")


def restoring(world: World, at: At) -> None:
    """Somebody takes the project's files back to a checkpoint: what was there is held, whatever happens."""
    _ended_run(world, "none")
    world.cli("checkpoint", "create", "mine")
    (world.folder / "file").write_text("second\n")
    words = ("checkpoint", "restore", "mine", "--in-place", "--yes")
    world.cli(*words, at=at)
    kept = [one.event for one in world.log.read() if isinstance(one.event, ev.CheckpointCreated)][-1]
    assert kept.kind == "before_restore"
    assert world.git("show", f"{kept.commit}:file") == "second\n"
    assert (world.folder / "file").read_text() == ("second\n" if at.point == "restore.kept" else "first\na\n")
    world.cli(*words)
    assert (world.folder / "file").read_text() == "first\na\n"


def forking(world: World, at: At) -> None:
    """Somebody branches off from a run: the fork is there or is not, and its parent is as before."""
    parent, seq = _ended_run(world)
    before = world.state(parent)
    words = ("fork", parent, "--at", str(seq))
    world.cli(*words, at=at)
    forks = [name for name in Projector(world.log).runs() if name != parent]
    assert len(forks) == (at.point == "fork.appended")
    if not forks:
        world.cli(*words)
    [child] = [name for name in Projector(world.log).runs() if name != parent]
    if world.state(child).status == "paused":
        steer.resume(world.log, child)
    assert world.run_to_end(child) == "completed"
    assert world.state(parent) == before


def carrying(world: World, at: At) -> None:
    """Somebody exports a run and imports it into another store: the file, and the run, are there whole or not at all."""
    run_id, _ = _ended_run(world)
    file, other = world.outside / "run.tar.gz", str(world.outside / "other" / "events.db")
    out, into = ("export", run_id, "-o", str(file)), ("import", str(file), "--store", other)
    if at.point.startswith("export"):
        world.cli(*out, at=at)
        assert not file.exists()
        world.cli(*out)
        world.cli(*into)
    else:
        world.cli(*out)
        world.cli(*into, at=at)
        came = json.loads(world.cli("runs", "--imported", "--json", "--store", other))
        assert [line["run_id"] for line in came] == [run_id] * (at.point == "import.placed")
        if not came:
            world.cli(*into)
    assert json.loads(world.cli("verify", run_id, "--deep", "--json", "--store", other))["ok"]


def taking_away(world: World, at: At) -> None:
    """Somebody takes an imported run away: until its folder is moved it is here, and can be taken away again."""
    run_id, _ = _ended_run(world)
    file, other = world.outside / "run.tar.gz", str(world.outside / "other" / "events.db")
    world.cli("export", run_id, "-o", str(file))
    world.cli("import", str(file), "--store", other)
    world.cli("import", "--remove", run_id, "--yes", "--store", other, at=at)
    left = json.loads(world.cli("runs", "--imported", "--json", "--store", other))
    assert [line["run_id"] for line in left] == [run_id] * (at.point == "import.unheld")
    if left:
        world.cli("import", "--remove", run_id, "--yes", "--store", other)
    world.cli("import", str(file), "--store", other)
    assert json.loads(world.cli("verify", run_id, "--deep", "--json", "--store", other))["ok"]


def approving(world: World, at: At) -> None:
    """Somebody lets a task start: they have said it, although they were not told so."""
    run_id = world.plan(world.task("a", approval="required"), workspace="none")
    with world.dispatching():
        wait_until(lambda: world.state(run_id).tasks["a"].status == "blocked", "the task to wait")
        world.cli("approve", run_id, "a", at=at)
        assert world.ended(run_id) == "completed"


def resolving(world: World, at: At) -> None:
    """Somebody settles a conflict: it is settled or is not, and can be settled again."""
    run_id = world.plan(
        world.task("a", "write:file:a", "wait:go"), world.task("b", "write:file:b", "wait:go"), at_once=2
    )
    with world.dispatching():
        for name in ("a", "b"):
            world.wait_for("begins", name)
        world.go()

        def blocked() -> list[str]:
            return [name for name, task in world.state(run_id).tasks.items() if task.status == "blocked"]

        [name] = wait_until(blocked, "the conflict")
    words = ("resolve", run_id, name, "--take", "both")
    world.cli(*words, at=at)
    if at.point != "answer.appended":
        assert blocked() == [name]
        world.cli(*words)
    assert world.run_to_end(run_id) == "completed"
    assert sorted(world.git("show", f"parallel-agents/{run_id}:file").split()) == ["a", "b", "first"]


def bringing_home(world: World, at: At) -> None:
    """Somebody merges a result into their branch, which has moved: said again, it is there once."""
    run_id, _ = _ended_run(world)
    (world.folder / "mine").write_text("mine\n")
    world.git("add", "-A")
    world.git("commit", "-q", "-m", "mine")
    world.cli("merge", run_id, "--yes", at=at)
    world.cli("merge", run_id, "--yes")
    assert world.state(run_id).merged_into == "main"
    assert len(world.git("log", "--merges", "--format=%h", "--first-parent", "main").split()) == 1
    assert (world.folder / "file").read_text() == "first\na\n"
    assert world.git("status", "--porcelain") == ""


def clearing_away(world: World, at: At) -> None:
    """Somebody cleans: the checkout of a failed attempt, in which they had gone on, becomes a checkpoint first."""
    run_id = world.plan(world.task("a", "write:a:1", "once"))
    assert world.run_to_end(run_id) == "failed"
    (world.path.parent / "worktrees" / run_id / "a" / "later").write_text("later\n")
    world.cli("gc", "--yes", at=at)
    world.cli("gc", "--yes")
    [kept] = [one for one in world.events(run_id, ev.CheckpointCreated) if one.kind == "manual"]
    assert world.git("show", f"{kept.commit}:later") == "later\n"


def giving_up(world: World, at: At) -> None:
    """Somebody gives up the checkpoints of a run whose result is theirs."""
    run_id, _ = _ended_run(world)
    world.cli("merge", run_id, "--yes")
    assert world.run_to_end(world.plan(world.task("c"), workspace="none")) == "completed"
    words = ("gc", "--checkpoints", "--older-than", "0", "--yes")
    world.cli(*words, at=at)
    world.cli(*words)
    left = world.git("for-each-ref", "--format=%(objectname)", f"refs/parallel-agents/{run_id}").split()
    assert set(left) == {world.state(run_id).integration}


def scrubbing(world: World, at: At) -> None:
    """Somebody removes a secret from two runs, one of them archived: said again, no byte of it is left."""
    runs = [world.plan(world.task(name, description=f"say {SECRET}"), workspace="none") for name in ("a", "b")]
    for run_id in runs:
        assert world.run_to_end(run_id) == "completed"
    for printed in world.path.parent.glob("runs/*/*/*/stdout.log"):
        printed.write_text(f"{SECRET}\n")
    world.cli("archive", runs[0])
    world.cli("seal", "--out", str(world.outside / "seal"))
    (world.outside / "secret").write_text(SECRET)
    words = ("scrub", "--text-from", str(world.outside / "secret"), "--yes")
    world.cli(*words, at=at)
    if at.point not in ("scrub.files-overwritten", "scrub.rewritten"):
        assert held_secret(world)
    world.cli(*words)
    assert held_secret(world) == []
    assert not list(world.path.parent.rglob("*scrub*"))
    world.cli("verify", "--against", str(world.outside / "seal"))


def held_secret(world: World) -> list[str]:
    """The files in which its bytes stand; another process looks, because to close a store's file gives up SQLite's locks."""
    done = subprocess.run(["grep", "-rlaF", SECRET, world.path.parent], capture_output=True, text=True)
    with closing(sqlite3.connect(world.path)) as store:
        pages = store.execute("PRAGMA freelist_count").fetchone()[0]
    return done.stdout.splitlines() + ["free pages"] * (pages > 0)


# Where each point lies, as scenes with the times at which it is reached there.
CASES: dict[Scene, dict[str, tuple[int, ...]]] = {
    working: {
        "log.before-append": (2,), "log.in-transaction": (2,), "log.committed": (1, 3), "claim.drafted": (1,),
        "claim.committed": (1,), "ends.drafted": (1,), "ends.committed": (2,), "starts.drafted": (1,),
        "starts.committed": (1,), "finish.drafted": (1,), "finish.committed": (1,), "attempt.before-start": (1,),
        "attempt.given": (1,), "checkout.before": (1,), "checkout.ready": (1,), "worktree.before-add": (1,),
        "worktree.registered": (1,), "worktree.filled": (1,), "worktree.moved": (1,), "worktree.before-set": (2,),
        "worktree.set": (1,), "worktree.put-aside": (1,), "worktree.forgotten": (1,), "keep.before": (1,),
        "keep.held": (2,), "files.tree": (1,), "files.commit": (1,), "merge.before": (1,), "merge.made": (1,),
        "merge.held": (2,), "refs.before-hold": (1,), "refs.held": (1,), "branch.before-move": (2,),
        "branch.moved": (1,), "daemon.locked": (1,), "daemon.dispatching": (1,),
    },
    supervised: {
        "supervisor.before-lock": (1,), "supervisor.locked": (1,), "supervisor.claimed": (1,),
        "supervisor.spawned": (1,), "supervisor.recorded": (1,), "supervisor.reaped": (1,),
        "supervisor.before-exit-file": (1,), "file.before-rename": (1,), "supervisor.exit-file": (1,),
        "supervisor.unlocked": (1,),
    },
    supervised_in_vain: {"supervisor.spawned": (1,)},
    leaving: {"daemon.leaving": (1,), "release.drafted": (1,), "release.committed": (1,)},
    adopting: {"claim.committed": (1,), "attempt.before-adopt": (1,), "attempt.adopted": (1,)},
    losing: {"lost.revoked": (1,), "lost.ended": (1,)},
    stopping: {"attempt.before-stop": (1,), "attempt.stop-asked": (1,)},
    killing: {"supervisor.term-sent": (1,), "supervisor.kill-sent": (1,)},
    wishing: {"attempt.stop-left": (1,)},
    agent: {
        "agent.told": (1,), "agent.folder-made": (1,), "agent.ready": (1,), "agent.before-judging": (1,),
        "agent.judged": (1,), "costs.drafted": (1,), "ends.committed": (1,),
    },
    gated: {"gate.given": (1, 2)},
    undoing: {"rollback.appended": (1,)},
    scheduled: {"schedule.prepared": (1,), "schedule.fired": (1,)},
    submitting: {"submit.before-append": (1,), "submit.appended": (1,)},
    steering: {"steer.decided": (1,), "steer.appended": (1,)},
    going_back: {"rollback.drafted": (1,), "rollback.appended": (1,)},
    going_back_in_place: {"restore.kept": (1,), "rollback.replaced": (1,)},
    taking_back: {"failure.held": (1,), "failure.kept": (1,), "failure.replaced": (1,), "finish.committed": (1,)},
    keeping: {"checkpoint.held": (1,)},
    restoring: {"restore.kept": (1,), "restore.replaced": (1,)},
    forking: {"fork.held": (1,), "fork.appended": (1,)},
    carrying: {"export.written": (1,), "import.checked": (1,), "import.held": (1,), "import.placed": (1,)},
    taking_away: {"import.unheld": (1,), "import.taken-away": (1,)},
    approving: {"answer.appended": (1,)},
    resolving: {"resolve.held": (1,), "answer.appended": (1,)},
    bringing_home: {"home.made": (1,), "home.moved": (1,), "home.recorded": (1,)},
    clearing_away: {"gc.before-removal": (1,), "gc.kept": (1,), "gc.removed": (1,)},
    giving_up: {"gc.dropping": (1,), "refs.before-drop": (1,), "refs.dropped": (1,)},
    scrubbing: {
        "scrub.prepared": (1,), "log.in-transaction": (1,), "scrub.recorded": (1,), "scrub.archives-replaced": (1,),
        "scrub.files-overwritten": (1,), "scrub.rewritten": (1,),
    },
}  # fmt: skip
# The same points, each time that they are reached there, and those that take a while to come to.
SLOW: dict[Scene, dict[str, tuple[int, ...]]] = {
    skipping: {"snapshot.in-transaction": (1,), "snapshot.committed": (1,)},
    working: {
        "log.before-append": (1, 3, 4, 5, 6, 7, 8), "log.in-transaction": (1, 3, 4, 5, 6), "log.committed": (2, 4, 5, 6),
        "ends.drafted": (2, 3), "ends.committed": (1, 3), "starts.drafted": (2, 3), "starts.committed": (2, 3),
        "attempt.before-start": (2, 3), "attempt.given": (2, 3), "file.before-rename": (1, 2, 3),
        "checkout.before": (2, 3), "checkout.ready": (2, 3), "worktree.before-set": (1,), "worktree.set": (2,),
        "keep.before": (2, 3), "keep.held": (1, 3), "files.tree": (2, 3), "files.commit": (2, 3), "merge.before": (2,),
        "merge.made": (2,), "merge.held": (1,), "refs.before-hold": tuple(range(2, 13)), "refs.held": tuple(range(2, 13)),
        "branch.before-move": (1, 3), "branch.moved": (2, 3),
    },
    supervised: dict.fromkeys(("supervisor.before-lock", "supervisor.spawned", "supervisor.unlocked"), (2,)),
    supervised_in_vain: dict.fromkeys(("supervisor.before-lock", "supervisor.claimed", "supervisor.reaped"), (1,)),
    adopting: {"claim.drafted": (1,), "log.committed": (1,)},
    wishing: {"file.before-rename": (1,), "claim.committed": (1,), "ends.committed": (1,), "finish.committed": (1,)},
    agent: {
        "log.in-transaction": (1, 2, 3), "log.committed": (1, 2, 3), "ends.drafted": (1, 2), "ends.committed": (2,),
        "starts.committed": (1, 2), "attempt.given": (1,), "file.before-rename": (1, 2, 3, 4, 5, 6),
    },
    taking_back: {
        "log.in-transaction": tuple(range(1, 8)), "log.committed": tuple(range(1, 8)), "refs.held": tuple(range(1, 10)),
        "finish.drafted": (1, 2), "keep.held": (1, 2), "files.commit": (1, 2),
    },
    going_back: {"branch.before-move": (1,), "branch.moved": (1,)},
    going_back_in_place: {"restore.replaced": (1,), "log.committed": (2,)},
    clearing_away: {"worktree.put-aside": (1,), "worktree.forgotten": (1,)},
}  # fmt: skip


def _cases(table: dict[Scene, dict[str, tuple[int, ...]]], *, one_in: int = 1) -> list[object]:
    """A case for each line of a table. All but one in so many are left to the long run of all tests."""
    lines = [
        (scene, At(point, count))
        for scene, points in table.items()
        for point, counts in points.items()
        for count in counts
    ]
    return [
        pytest.param(
            scene, at, id=f"{scene.__name__}-{at.point}:{at.count}", marks=[pytest.mark.slow] if number % one_in else []
        )
        for number, (scene, at) in enumerate(lines)
    ]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A project, and the fake agent on PATH."""
    outside = Path(tempfile.mkdtemp(prefix="crash-"))  # A short name: there are sockets below.
    (outside / "tmp").mkdir()
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("PATH", f"{install(outside / 'programs')}:{os.environ['PATH']}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "-".join(("key", "of", "nobody")))
    monkeypatch.setenv("TMPDIR", str(outside / "tmp"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(outside / "tmp"))
    folder = tmp_path / "project"
    folder.mkdir()
    made = World(folder, outside)
    yield made
    made.close()
    shutil.rmtree(outside, ignore_errors=True)


@pytest.mark.parametrize(("scene", "at"), _cases(CASES, one_in=3))
def test_nothing_is_lost_and_nothing_is_done_twice_wherever_a_process_is_killed(
    world: World, scene: Scene, at: At
) -> None:
    """The scene says who dies, and who goes on."""
    scene(world, at)
    world.check(removes_checkpoints=scene is giving_up)


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "at"), _cases(SLOW))
def test_nothing_is_lost_although_that_takes_longer(world: World, scene: Scene, at: At) -> None:
    """The same."""
    scene(world, at)
    world.check()


def test_every_crash_point_is_reached() -> None:
    """By a scene of these."""
    reached = {point for table in (CASES, SLOW) for points in table.values() for point in points}
    assert reached == POINTS.keys()
