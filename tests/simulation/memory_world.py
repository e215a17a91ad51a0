"""The world of the scheduler with files: agents edit in their checkouts, work is merged and clashes, people settle it.

Git is one in memory (``memory_git``), so that thousands of stories can be told; all of the product but git itself is real.
What is done about files waits in lanes until a story says that it happens.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

from lanes import SteppedLane
from memory_git import HEAD, MemoryGit, Tree, in_place_of_git, merged
from processes import SECOND_US, Killed, Machine, MachineRunner
from referee import RUN_ENDED, Referee, RunHistory
from world import World, one_story

from parallel_agents import settling, travel
from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import FileSettings, Plan
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler import checkouts as checkouts_module
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.submit import submit
from parallel_agents.versioning import Start

PATHS = ("a", "b", "c", "d", "e")


@dataclass
class Agent:
    """An attempt that was started: the files that it began with, and as it left them."""

    base: Tree
    tree: Tree


@dataclass
class Line:
    """What one run's files should be, and were after each of its events."""

    base: Tree
    now: Tree
    after: dict[int, Tree] = field(default_factory=dict)


class FilesReferee(Referee):
    """Knows what the files of each run have to be."""

    git: MemoryGit
    agents: dict[str, Agent]

    def __init__(self, *words: object) -> None:
        super().__init__(*words)  # type: ignore[arg-type]
        self.lines: dict[str, Line] = {}
        self.recorded: set[str] = set()

    def _check(self, record: Recorded, run: RunHistory) -> None:
        match record.event:
            case ev.TaskBlocked(task_id=name, attempt_id=str(attempt_id)):
                assert self.slots.pop(attempt_id, None) == (record.run_id, name) or run.now.tasks[name].waits
                task = run.now.tasks[name]
                task.status, task.waits, task.cancelling = "blocked", True, False
            case ev.CheckpointCreated() | ev.ConflictDetected() | ev.ConflictResolved() | ev.CheckpointRestored():
                pass
            case _:
                super()._check(record, run)

    def _end(self, event: ev.Event, run: RunHistory, run_id: str) -> None:
        task = run.now.tasks[getattr(event, "task_id", "")]
        if task.status == "blocked" and task.waits and task.attempt_id == getattr(event, "attempt_id", None):
            self.slots[str(task.attempt_id)] = (run_id, task.task.task_id)  # Its work was what waited.
            task.status = "running"
        task.waits = False
        super()._end(event, run, run_id)

    def learn(self, record: Recorded) -> None:
        """What it names has the files that it must have."""
        line, event, run_id = self.lines.get(record.run_id), record.event, record.run_id
        match event:
            case ev.RunSubmitted(base_commit=str(commit)):
                line = self.lines[run_id] = Line(self.git.tree(commit), self.git.tree(commit))
            case ev.RunForked(parent=parent, seq=seq, commit=commit):
                old = self.lines[parent]
                tree = old.after[max(at for at in old.after if at <= seq)]
                line = self.lines[run_id] = Line(tree, tree)
                self._is(commit, tree)
            case _:
                assert line is not None
                self._learn(event, line, run_id)
        line.after[record.seq] = line.now

    def _learn(self, event: ev.Event, line: Line, run_id: str) -> None:
        match event:
            case ev.RunRolledBack(to_seq=to_seq, commit=commit):
                line.now = line.after[max(at for at in line.after if at <= to_seq)]
                self._is(commit, line.now)
            case ev.CheckpointRestored(commit=commit):
                line.now = line.base
                self._is(commit, line.now)
            case ev.TaskStarted(attempt_id=attempt_id, base_commit=commit):
                self._is(commit, line.now)
                self.agents[attempt_id] = Agent(line.now, dict(line.now))
            case ev.TaskCompleted(attempt_id=attempt_id, commit=str(commit)):
                agent, found = self.agents[attempt_id], self.git.tree(commit)
                made, clashes = merged(agent.base, line.now, agent.tree)
                assert found.keys() - clashes == made.keys() - clashes
                assert all(found[path] == made[path] for path in made if path not in clashes), "all else is merged"
                sides = ({path: side.get(path) for path in clashes} for side in (line.now, agent.tree))
                assert {path: found.get(path) for path in clashes} in sides, "and of a conflict one side is taken"
                line.now = found
                self._is(commit, found)
            case ev.ConflictDetected(attempt_id=str(attempt_id), paths=paths, early=False):
                agent = self.agents[attempt_id]
                assert set(paths) == merged(agent.base, line.now, agent.tree)[1], "there is no such conflict"
            case ev.CheckpointCreated(kind="after_attempt", attempt_id=str(attempt_id), commit=commit):
                self._is(commit, self.agents[attempt_id].tree)
            case ev.CheckpointCreated(commit=commit):
                self._is(commit, line.now)
            case ev.TaskBlocked(attempt_id=str(attempt_id), commit=commit):
                self._is(commit, self.agents[attempt_id].tree)
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                stands = self.git.refs.get(refs.branch_ref(run_id))
                assert stands is not None, "its branch is made before a run ends"
                assert self.git.tree(stands) == line.now, "it follows before a run ends"
            case _:
                pass

    def _is(self, commit: str | None, tree: Tree) -> None:
        assert commit is not None
        assert self.git.tree(commit) == tree, "a commit holds what the run's files are"
        self.recorded.add(commit)


class AgentRunner(MachineRunner):
    """Starts agents in checkouts."""

    def __init__(self, machine: Machine, world: MemoryWorld) -> None:
        super().__init__(machine)
        self.world = world

    def begin(self, launch: Launch) -> None:
        """It finds what the run's line held when it began, and nobody else works there."""
        world, folder = self.world, Path(launch.workdir)
        if launch.attempt_id not in self.machine.revoked:
            agent = world.agents[launch.attempt_id]
            assert world.git.checkouts[folder] == agent.base, "a checkout holds the files that the attempt starts from"
            assert folder not in [Path(one.workdir) for one in self.machine.running.values()], "two in one checkout"
        super().begin(launch)


class MemoryWorld(World):
    """All of it."""

    def __init__(self, random: Random, folder: Path, git: MemoryGit, repository: Repository) -> None:
        self.git, self.repository = git, repository
        self.agents: dict[str, Agent] = {}
        self._well = 0  # So many more steps of git go well.
        git.refs[HEAD] = git.commit(dict.fromkeys(PATHS[:3], "first"), (), "first")
        super().__init__(random, folder)
        self.project = Project(folder, folder / "events.db", folder)

    def new_referee(self) -> Referee:
        """One that knows files."""
        made = FilesReferee(self.log, self.lives, lambda: self.machine.now_us)
        made.git, made.agents = self.git, self.agents
        return made

    def new_dispatcher(self) -> None:
        """With agents in place of commands."""
        self.begin_process({"shell": AgentRunner(self.machine, self)})

    def _submits(self) -> None:
        if len(self.referee.runs) < 2 and not self.calm:
            plan = self.random_plan()
            submit(self.log, plan, workdir=self.folder, environ={}, start=Start("worktree", self.repository))
            self.referee.look()

    def random_plan(self) -> Plan:
        """As elsewhere, with work that waits for a person now and then, and any way with conflicts."""
        random, plan = self.random, super().random_plan()
        tasks = tuple(
            one.model_copy(update={"approval": random.choice((one.approval, one.approval, "result"))})
            for one in plan.tasks
        )
        files = FileSettings(
            conflicts=random.choice(("interactive", "interactive", "ours", "theirs", "abort")),
            pause_on_conflict=random.random() < 0.3, rollback_on_failure=random.random() < 0.5,
            preserve_successful=random.random() < 0.6, per_agent=random.random() < 0.5, detect_early=False,
            between_stages=random.random() < 0.5, after_run=random.random() < 0.5,
        )  # fmt: skip
        settings = plan.settings.model_copy(update={"min_free_mb": 0})
        update = {"workspace": "worktree", "tasks": tasks, "files": files, "settings": settings}
        return plan.model_copy(update=update)

    def step(self) -> None:
        """Agents edit, git goes on, or anything else happens."""
        what = self.random.random()
        if what < 0.25:
            self._edits()
        elif what < 0.5:
            self._lane_goes_on()
        if what >= 0.5 or self.calm:
            super().step()
        while self.calm and self._lanes():
            self._lane_goes_on()
        self._check_held()

    def _edits(self) -> None:
        for attempt_id, launch in self.machine.running.items():
            tree, folder = self.agents[attempt_id].tree, Path(launch.workdir)
            for path in self.random.sample(PATHS, self.random.randint(0, 2)):
                if self.random.random() < 0.2:
                    tree.pop(path, None)
                else:
                    tree[path] = f"{attempt_id} {self.random.randrange(3)}"
            self.git.checkouts[folder] = dict(tree)

    def _lanes(self) -> list[tuple[Dispatcher, SteppedLane]]:
        found = []
        for one in self.dispatchers:
            if one.attempts.files is not None:
                lanes: list[SteppedLane] = list(one.attempts.files.checkouts._lanes.values())  # type: ignore[arg-type]
                found += [(one, lane) for lane in lanes if lane.queue]
        return found

    def _lane_goes_on(self) -> None:
        """What is next on one of them is done; git fails in it, or its process dies in it or right after it."""
        lanes = self._lanes()
        if not lanes:
            return
        dispatcher, lane = self.random.choice(lanes)
        what, untold = self.random.random(), not self.calm and self.random.random() < 0.05
        self._well -= 1
        if not self.calm and what < 0.1 and self._well < 0:
            self._well = 3  # Of a branch that fails again and again a run does not wait.
            self.git.trouble = (self.random.randrange(6), Killed if what < 0.05 else GitFailed)
        try:
            lane.step(told=not untold)
        except Killed:
            self.kill(dispatcher)
        else:
            if untold:
                self.kill(dispatcher)
        finally:
            self.git.trouble = None

    def _check_held(self) -> None:
        """No commit that an event names is lost, wherever the run went since."""
        self.referee.look()
        assert isinstance(self.referee, FilesReferee)
        missing = self.referee.recorded - self.git.ancestors(self.git.refs.values())
        assert not missing, f"no ref holds {missing}"

    def should_have_ended(self, run_id: str) -> bool:
        """Its branch comes first."""
        return not self._lanes() and self.calm and super().should_have_ended(run_id)

    def _answers(self, run_id: str, name: str) -> None:
        """Somebody lets an attempt start or its work be merged, or takes a side."""
        task = Projector(self.log).state(run_id).tasks[name]
        with contextlib.suppress(NotAllowed):
            if task.work_commit is None:
                super()._answers(run_id, name)
            elif "conflict" in task.reason:
                settling.resolve(self.log, run_id, name, take=self.random.choice(("ours", "theirs")))
            else:
                settling.approve(self.log, run_id, name)

    def _blocks(self, run_id: str, name: str) -> None:
        now = self.referee.runs[run_id].now
        if now.of("blocked") and now.status not in RUN_ENDED and not now.cancelling:
            self._answers(run_id, self.random.choice(now.of("blocked")))

    def _rolls_back(self, run_id: str) -> None:
        target = str(self.random.choice(list(self.referee.runs[run_id].after)))
        travel.rollback(self.log, self.project, run_id, travel.target_of(self.log, run_id, target))

    def sleeps(self, dispatcher: Dispatcher) -> None:
        """None is taken for dead that lives: what it still does to a checkout would meet who has taken over."""

    def others_go_on(self) -> None:
        """For the same reason nobody is overtaken here."""

    def finish(self) -> Counter[str]:
        """Every branch stands where its log says."""
        happened = super().finish()
        for _ in range(3):
            self.time_passes(2 * SECOND_US)
            for one in self.dispatchers:
                self.tick(one)
            while self._lanes():
                self._lane_goes_on()
        for run_id in self.referee.runs:
            expected = Projector(self.log).state(run_id).integration
            assert self.git.refs.get(refs.branch_ref(run_id)) == expected, "the branch follows the log"
        return happened


@contextmanager
def simulated(random: Random, folder: Path) -> Iterator[MemoryWorld]:
    """A world of its own: no git, no threads, ids that count up."""
    git = MemoryGit()
    with in_place_of_git(git, folder) as repository:
        world = MemoryWorld(random, folder, git, repository)
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                one_story(world.holder_alive, ("versioning", "scheduler.run_files", "scheduler.harvest"))
            )
            stack.enter_context(patch.object(checkouts_module, "_Lane", SteppedLane))
            clock = SimpleNamespace(monotonic=lambda: world.machine.now_us / 1e6)
            stack.enter_context(patch("parallel_agents.scheduler.run_files.time", clock))
            stack.enter_context(patch("parallel_agents.settling.wall_clock_us", lambda: world.now_us))
            stack.enter_context(patch("parallel_agents.follow.holder_alive", world.holder_alive))
            stack.enter_context(patch("parallel_agents.travel.settle_undone", lambda log, run_id, timeout_s: []))
            yield world
        world.log.close()
