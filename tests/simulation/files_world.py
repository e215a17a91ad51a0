"""A repository, agents that edit in their checkouts, people who go back and forth, and dispatchers that die over it.

What is done about files waits in lanes until a story says that it happens; what comes of it must be what a model of plain
dicts says (``trees``), and nothing of the user's may change.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import trees
from lanes import SteppedLane
from moody_log import MoodyLog
from objects import Objects
from processes import Killed, Machine, MachineRunner
from trees import Merged, Tree
from world import START_US, plain

from parallel_agents import settling, steer, submit, travel
from parallel_agents.checkpoint import git as git_module
from parallel_agents.checkpoint.git import GitFailed, Output
from parallel_agents.checkpoint.repository import Repository, find_repository
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed, StoreError
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.record import Recorded, derived_id
from parallel_agents.eventstore.submission import FileSettings, Plan, RetryPolicy, RunSettings, Stage, Task
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler import checkouts as checkouts_module
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.runners.protocol import Launch, Outcome
from parallel_agents.versioning import Start

HERE: Final = str(Path(__file__).parent.parent / "unit")
if HERE not in sys.path:
    sys.path.append(HERE)  # Where repositories and what is the user's are described.
from gitrepos import belongings, user_git  # noqa: E402

_MARKS: Final = re.compile(rb"^[<>]{7,} ", re.MULTILINE)
ENDED = ("completed", "failed", "cancelled")


class Trouble:
    """Lets a git command fail or a process die at a moment to come."""

    def __init__(self) -> None:
        self.real = git_module.execute
        self.left: int | None = None
        self.fired = False
        self.what: type[BaseException] = Killed

    def after(self, commands: int, what: type[BaseException]) -> None:
        """So many commands go well before."""
        self.left, self.what = commands, what

    def execute(self, *args: Any, **words: Any) -> Output:
        """In place of the real one."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left, self.fired = None, True
                raise self.what("No space left on device")
        words["env"] = {**(words.get("env") or {}), "GIT_TEST_FSYNC": "0"}  # Nobody pulls a plug here.
        return self.real(*args, **words)


@dataclass
class Agent:
    """One attempt that runs in a checkout."""

    launch: Launch
    base: Tree  # The files that it began with.
    tree: Tree
    kept: bool = False  # Whether a commit of its files was seen.


@dataclass
class Line:
    """What one run's files should be, after each of its events."""

    plan: Plan
    base: Tree
    now: Tree
    after: dict[int, Tree] = field(default_factory=dict)


class AgentRunner(MachineRunner):
    """Starts agents, which edit when the story says so."""

    def __init__(self, machine: Machine, world: FilesWorld) -> None:
        super().__init__(machine)
        self.world = world

    def begin(self, launch: Launch) -> None:
        """Its checkout holds what the run's line held when it began, nothing else, and is nobody else's."""
        base = self.world.bases[launch.attempt_id]
        assert trees.read(launch.workdir) == base, "a checkout holds the files that the attempt starts from"
        ignored = list(launch.workdir.rglob("*.ignored"))
        assert not ignored, "nothing is left of who was there before"
        others = [self.world.agents[name].launch.workdir for name in self.machine.running]
        assert launch.workdir not in others, "two attempts work in one checkout"
        super().begin(launch)
        agent = self.world.agents[launch.attempt_id] = Agent(launch, base, base)
        self.world.edit(agent)


class FilesWorld:
    """All of it, driven by one source of randomness."""

    def __init__(self, random: Random, folder: Path, trouble: Trouble) -> None:
        self.random = random
        self.trouble = trouble
        self.now_us = START_US
        self.top = folder / "project"
        self.first = trees.random_tree(random)
        self._make_repository()
        self.repository = _found(self.top)
        self.objects = Objects(self.top)
        store = self.top / ".parallel-agents" / "events.db"
        make_home(store)
        self.log = MoodyLog(store, clock=lambda: self.now_us, environ={})
        self.log._writer.execute("PRAGMA synchronous = OFF")
        self.project = Project(self.top, store, self.top)
        self.mine = belongings(self.repository)
        self.machine = Machine()
        self.agents: dict[str, Agent] = {}
        self.bases: dict[str, Tree] = {}  # Attempt id -> the files that it begins with.
        self.lines: dict[str, Line] = {}
        self.recorded: dict[str, Tree] = {}  # Every commit that an event names.
        self.seen = 0
        self.foretold: Counter[str] = Counter()  # How often the model knew, and how often it did not.
        self.conflicts: dict[tuple[str, str], Merged] = {}  # Run and attempt -> the last that was told.
        self.alive: set[int] = set()
        self.calm = False
        self._pids = 0
        self.dispatcher = self._new_dispatcher()

    def _make_repository(self) -> None:
        self.top.mkdir()
        user_git(self.top, "init", "-q", "--template=")
        self.first[b".gitignore"] = (trees.FILE, b"*.ignored\n")
        for path, entry in self.first.items():
            trees.write(self.top, path, entry)
        user_git(self.top, "add", "-A")
        user_git(self.top, "commit", "-q", "-m", "first")
        trees.write(self.top, b"uncommitted", (trees.FILE, b"of the user\n"))

    def close(self) -> None:
        """Let go of the processes and the store."""
        self.objects.close()
        self.log.close()

    def holder_alive(self, holder: dict[str, Any]) -> bool:
        """What the process table says."""
        return holder["pid"] in self.alive

    def _new_dispatcher(self) -> Dispatcher:
        self._pids += 1
        made = Dispatcher(
            self.log, {"shell": AgentRunner(self.machine, self)}, kind=f"process {self._pids}", takes_all=True,
            clock=lambda: self.now_us, draw=lambda: self.random.random(), environ={}, steady=lambda: self.machine.now_us,
        )  # fmt: skip
        made._me = {"pid": self._pids, "start_time": 1, "boot_id": "b", "kind": f"process {self._pids}"}
        self.alive.add(self._pids)
        return made

    @property
    def lanes(self) -> list[SteppedLane]:
        """Of the dispatcher that lives, those that have something to do."""
        files = self.dispatcher.attempts.files
        if files is None:
            return []
        found: list[Any] = list(files.checkouts._lanes.values())
        return [lane for lane in found if lane.queue]

    def time_passes(self, by_us: int) -> None:
        """For everybody."""
        self.now_us += by_us
        self.machine.go_on(by_us)

    # What can happen.

    def step(self) -> None:
        """One thing happens."""
        random = self.random
        self.time_passes(random.choice((0, 100_000, 1_000_000, 3_000_000)))
        happens: list[tuple[Callable[[], None], int]] = [
            (self._edits, 6), (self._ends, 4), (self._lane_goes_on, 9), (self.tick, 6), (self._goes_back, 2 - self.calm),
            (self._settles, 2), (self._steers, 1), (self._forks, 1), (self._breaks, 2), (self._submits, 1),
        ]  # fmt: skip
        what, weights = zip(*happens, strict=True)
        try:
            random.choices(what, weights)[0]()
        except GitFailed:
            assert self.trouble.fired, "git does what a person asks for"
        self.trouble.fired = False
        self.look()

    def begin(self) -> None:
        """There is one run at least."""
        self._submits()
        self.look()

    def _submits(self) -> None:
        if len(self.lines) >= 2 or self.calm:
            return
        start = Start("worktree", self.repository)
        submit.submit(self.log, self.random_plan(), workdir=self.top, environ={}, start=start)

    def random_plan(self) -> Plan:
        """Two to four tasks that know little of each other."""
        random = self.random
        tasks: list[Task] = []
        stages = random.choice((1, 1, 2))
        for index in range(random.randint(2, 4)):
            needed = random.sample(tasks, random.randint(0, min(1, len(tasks))))
            stage = max([random.randrange(stages), *(one.stage for one in needed)])
            tasks.append(
                Task(
                    task_id=f"t{index}", command=("true",), dependencies=tuple(one.task_id for one in needed),
                    stage=stage, max_retries=2, approval=random.choice((None, None, None, None, "required", "result")),
                )
            )  # fmt: skip
        files = FileSettings(
            conflicts=random.choice(("interactive", "interactive", "ours", "theirs", "rebase", "abort")),
            pause_on_conflict=random.random() < 0.5, rollback_on_failure=random.random() < 0.7,
            preserve_successful=random.random() < 0.6, per_agent=random.random() < 0.8,
        )  # fmt: skip
        settings = RunSettings(
            max_parallel_agents=random.randint(2, 4), store_limit=6, max_execution_s=31_536_000.0,
            retry=RetryPolicy(delay_s=0.0),
        )  # fmt: skip
        named = tuple(Stage(name=f"s{number}") for number in range(stages))
        return Plan(
            name="files", workspace="worktree", tasks=tuple(tasks), stages=named, files=files, settings=settings
        )

    def _edits(self) -> None:
        """An agent goes on with its work."""
        running = [self.agents[name] for name in self.machine.running if self.agents[name].launch.workdir.is_dir()]
        if not running:
            return
        self.edit(self.random.choice(running))

    def edit(self, agent: Agent) -> None:
        """Some changes, and now and then a commit of its own."""
        folder = agent.launch.workdir
        for _ in range(self.random.randint(0, 3)):
            edit = trees.random_edit(self.random, agent.base, agent.tree)
            for path, entry in edit.items():
                trees.write(folder, path, entry)
            agent.tree = trees.changed(agent.tree, edit)
        if self.random.random() < 0.2:
            (folder / "build.ignored").write_text("not to be kept")
        if self.random.random() < 0.05:
            user_git(folder, "add", "-A")
            user_git(folder, "commit", "-q", "--allow-empty", "-m", "by the agent")

    def _ends(self) -> None:
        for attempt_id in list(self.machine.running):
            asked = attempt_id in self.machine.asked_to_stop
            if self.random.random() < (0.7 if asked or self.calm else 0.4):
                outcome: Outcome = "stopped" if asked else "exited"
                fails = not self.calm and self.random.random() < 0.2
                if fails and not asked:
                    outcome = self.random.choice(("exited", "timed_out", "lost"))
                self.machine.end(attempt_id, outcome, "trouble" if fails or asked else None)

    def _lane_goes_on(self) -> None:
        lanes = self.lanes
        if lanes:
            self._one(self.random.choice(lanes))

    def _one(self, lane: SteppedLane, *, told: bool = True) -> None:
        try:
            lane.step(told=told)
        except Killed:
            self._dies()

    def tick(self) -> None:
        """The dispatcher looks, decides and hands out."""
        try:
            self.dispatcher.tick()
        except StoreError:
            return
        for run_id, held in self.dispatcher.held.items():
            read = Projector(self.log, use_snapshots=False).state(run_id)
            assert plain(held.state) == plain(read), "what is held is what the log says"

    def _state(self) -> Any:
        return Projector(self.log).state(self.random.choice(sorted(self.lines))) if self.lines else None

    def _goes_back(self) -> None:
        """To anywhere, also to what was undone, or to a checkpoint."""
        state = self._state()
        if state is None:
            return
        target = str(self.random.choice(sorted(self.lines[state.run_id].after)))
        made = [
            r.event.checkpoint_id for r in self.log.read_run(state.run_id) if isinstance(r.event, ev.CheckpointCreated)
        ]
        if made and self.random.random() < 0.4:
            target = self.random.choice(made)
        with contextlib.suppress(NotAllowed):
            found = travel.target_of(self.log, state.run_id, target)
            travel.rollback(self.log, self.project, state.run_id, found)

    def _forks(self) -> None:
        state = self._state()
        if state is not None and len(self.lines) < 4 and not self.calm:
            travel.fork(self.log, state.run_id, self.random.choice(sorted(self.lines[state.run_id].after)), {})

    def _settles(self) -> None:
        """A person answers whatever waits for one."""
        for run_id in sorted(self.lines):
            state = Projector(self.log).state(run_id)
            for name, task in state.tasks.items():
                if task.status != "blocked" or (self.random.random() < 0.5 and not self.calm):
                    continue
                with contextlib.suppress(NotAllowed):
                    if "conflict" in task.reason:
                        self._resolves(run_id, name)
                    else:
                        settling.approve(self.log, run_id, name)
            if state.status == "paused" and (self.calm or self.random.random() < 0.6):
                with contextlib.suppress(NotAllowed):
                    steer.resume(self.log, run_id)

    def _resolves(self, run_id: str, task_id: str) -> None:
        take = self.random.choice(("ours", "theirs", "both"))
        try:
            settling.resolve(self.log, run_id, task_id, take=take)
        except GitFailed:
            assert take == "both", "only what has no lines cannot be taken from both sides"

    def _steers(self) -> None:
        state = self._state()
        if state is None or self.calm:
            return
        choices: list[Callable[[], object]] = [
            lambda: steer.pause(self.log, state.run_id),
            lambda: steer.retry(self.log, state.run_id),
            lambda: steer.cancel(self.log, state.run_id, self.random.choice(sorted(state.tasks))),
            lambda: steer.cancel(self.log, state.run_id) if self.random.random() < 0.2 else None,
        ]
        with contextlib.suppress(NotAllowed):
            self.random.choice(choices)()

    def _breaks(self) -> None:
        """A dispatcher dies, at rest or in the middle of what git does or right after that; or a disk is full."""
        if self.calm:
            return
        lanes, random = self.lanes, self.random
        match random.randrange(6):
            case 0:
                self.log.mood = "refuses"
            case 1:
                self.trouble.after(random.randrange(12), GitFailed)
            case 2 if lanes:
                self._one(random.choice(lanes), told=False)
                self._dies()
            case 3 | 4 if lanes:
                self.trouble.after(random.randrange(12), Killed)
                for _ in range(3):
                    if self.trouble.left is not None and self.lanes:
                        self._one(random.choice(self.lanes))
                if self.trouble.left is not None and self.trouble.what is Killed:
                    self.trouble.left = None
            case _:
                self._dies()

    def _dies(self) -> None:
        """And another one comes. Agents go on."""
        self.alive.discard(self.dispatcher._me["pid"])
        self.dispatcher = self._new_dispatcher()

    # What must hold.

    def look(self) -> None:
        """Check every new event, then that all that was ever recorded is held and nothing of the user's has changed."""
        self.machine.check()
        for record in self.log.read(self.seen):
            self.seen = record.seq
            self._check(record)
            line = self.lines[record.run_id]
            line.after[record.seq] = line.now
        kept = self.objects.ancestors(self.objects.refs("refs/parallel-agents").values())
        missing = self.recorded.keys() - kept
        assert not missing, f"no ref holds {missing}"
        assert belongings(self.repository) == self.mine, "nothing of the user's has changed"

    def _check(self, record: Recorded) -> None:
        event, run_id = record.event, record.run_id
        line = self.lines.get(run_id)
        match event:
            case ev.RunSubmitted(base_commit=commit):
                plan = Projector(self.log).state(run_id).plan
                assert commit is not None
                line = self.lines[run_id] = Line(plan, dict(self.first), dict(self.first))
                self._recorded(commit, line.now)
            case ev.RunForked(parent=parent, seq=seq, commit=commit):
                old = self.lines[parent]
                now = old.after[max(at for at in old.after if at <= seq)]
                line = self.lines[run_id] = Line(Projector(self.log).state(run_id).plan, now, now)
                self._recorded(commit, now)
            case ev.RunRolledBack(to_seq=to_seq, commit=commit):
                assert line is not None
                line.now = line.after[max(at for at in line.after if at <= to_seq)]
                self._recorded(commit, line.now)
            case ev.CheckpointRestored(commit=str(commit)):
                assert line is not None
                line.now = line.base
                self._recorded(commit, line.now)
            case ev.TaskStarted(attempt_id=attempt_id, base_commit=commit):
                assert line is not None
                self.bases[attempt_id] = line.now
                self._recorded(commit, line.now)
            case ev.TaskCompleted():
                assert line is not None
                self._check_completed(event, run_id, line)
            case ev.ConflictDetected(early=False):
                assert line is not None
                self._check_conflict(event, run_id, line)
            case ev.CheckpointCreated(commit=str(commit)):
                assert line is not None
                if event.kind != "after_attempt":
                    self._recorded(commit, line.now)
                else:
                    assert event.attempt_id is not None
                    self._recorded(commit, self.agents[event.attempt_id].tree)
            case ev.TaskBlocked(attempt_id=str(attempt_id), commit=commit):
                self._recorded(commit, self.agents[attempt_id].tree)
            case _:
                pass

    def _recorded(self, commit: str | None, tree: Tree) -> None:
        assert commit is not None
        found = self.objects.tree(commit)
        assert found == tree, _difference(found, tree)
        self.recorded[commit] = tree

    def _merged(self, attempt_id: str, line: Line) -> Merged:
        agent = self.agents[attempt_id]
        merged = trees.merge(agent.base, line.now, agent.tree)
        self.foretold["sure" if merged.sure else "unsure"] += 1
        return merged

    def _check_conflict(self, event: ev.ConflictDetected, run_id: str, line: Line) -> None:
        assert event.attempt_id is not None
        merged = self._merged(event.attempt_id, line)
        assert merged.conflicts or not merged.sure, f"{event} is none"
        if merged.sure:
            assert set(event.paths) == {_shown(path) for path in merged.conflicts}
        self.foretold["conflicts"] += 1

    def _check_completed(self, event: ev.TaskCompleted, run_id: str, line: Line) -> None:
        """Its work is in the line: by itself, or as a conflict was resolved."""
        assert event.commit is not None
        merged, found = self._merged(event.attempt_id, line), self.objects.tree(event.commit)
        self.foretold["completed"] += 1
        if merged.sure and not merged.conflicts:
            assert found == merged.tree, _difference(found, merged.tree)
        else:
            how = self._how(run_id, event.attempt_id)
            assert how or not merged.sure, f"{event.task_id} is completed although {merged.conflicts} do not merge"
            if merged.sure and how in ("ours", "theirs"):
                side: Any = how
                expected = trees.taken(merged, side)
                assert found == expected, _difference(found, expected)
            assert merged.tree.items() <= found.items(), "what does not conflict is merged"
            assert found.keys() - merged.tree.keys() <= merged.conflicts
            left = [path for path, (_, content) in found.items() if _MARKS.search(content)]
            assert not left, f"{left} of {event.task_id}, which is completed, hold the marks of a conflict"
        line.now = found
        self._recorded(event.commit, found)
        work = self.objects.refs(f"refs/parallel-agents/{run_id}")
        kept = work.get(f"refs/parallel-agents/{run_id}/{derived_id('after', event.attempt_id)}")
        if kept is not None:  # A fork took it over under another name.
            assert kept in self.objects.ancestors([event.commit]), "its own commit is among those of the line"

    def _how(self, run_id: str, attempt_id: str) -> str | None:
        for record in reversed(self.log.read_run(run_id)):
            if isinstance(record.event, ev.ConflictResolved) and record.event.attempt_id == attempt_id:
                return record.event.how
        return None

    # The end.

    def finish(self) -> Counter[str]:
        """Every run comes to its end, and then nothing changes any more. Gives how much of it was foretold."""
        self.settle()
        self.check_at_rest()
        return self.foretold

    def settle(self, steps: int = 300) -> None:
        """From here on nothing goes wrong, every person answers, and every run comes to its end with its branch."""
        self.calm, self.log.mood, self.trouble.left = True, "", None
        for _ in range(steps):
            self._settles()
            self._ends()
            self.time_passes(5_000_000)
            self.tick()
            while self.lanes:
                self._lane_goes_on()
            self.look()
            states = [Projector(self.log).state(run_id) for run_id in self.lines]
            if all(state.ended for state in states) and not self.machine.running and not self.dispatcher.busy:
                break
        else:
            raise AssertionError(f"not settled: {[(s.status, s.reason, s.running) for s in states]}")
        for state in states:
            stands = self.objects.refs("refs/heads/parallel-agents").get(f"refs/heads/parallel-agents/{state.run_id}")
            assert stands == state.integration, "the branch follows the log"

    def check_at_rest(self) -> None:
        """Nothing changes any more; and what git throws away as nobody's is nothing of what was recorded."""
        before = (self.log.last_seq(), self.objects.refs("refs"))
        self._dies()
        self.tick()
        while self.lanes:
            self._lane_goes_on()
        self.tick()
        assert (self.log.last_seq(), self.objects.refs("refs")) == before, "a second look changes nothing"
        user_git(self.top, "prune", "--expire=now")
        user_git(self.top, "fsck", "--strict", "--no-dangling")
        fresh = Objects(self.top)
        try:
            for commit, tree in self.recorded.items():
                assert fresh.tree(commit) == tree
        finally:
            fresh.close()


def _found(top: Path) -> Repository:
    repository = find_repository(top)
    assert repository is not None
    return repository


def _shown(path: bytes) -> str:
    """A path as an event has it, which is text."""
    return path.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()


def _difference(found: Tree, expected: Tree) -> str:
    paths = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
    return f"{ {path: (found.get(path), expected.get(path)) for path in paths} }"


@contextlib.contextmanager
def simulated(random: Random, folder: Path) -> Iterator[FilesWorld]:
    """A world of its own: its process table, its lanes without threads, ids that count up, so that a seed tells one story."""
    trouble = Trouble()
    count = 0

    def new_ids(number: int) -> list[str]:
        nonlocal count
        count += number
        return [f"id{at:08}" for at in range(count - number + 1, count + 1)]

    def new_id() -> str:
        return new_ids(1)[0]

    where = "parallel_agents"
    patches = [
        patch(f"{where}.scheduler.dispatcher.new_ids", new_ids),
        *(patch(f"{where}.{name}.new_id", new_id) for name in _MAKE_IDS),
        patch.object(checkouts_module, "_Lane", SteppedLane),
        patch.object(git_module, "execute", trouble.execute),
        patch(f"{where}.travel.settle_undone", lambda log, run_id, timeout_s: []),
        patch.dict(os.environ, {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}),
    ]
    with contextlib.ExitStack() as stack:
        for one in patches:
            stack.enter_context(one)
        world = FilesWorld(random, folder, trouble)
        stack.callback(world.close)
        clock = SimpleNamespace(monotonic=lambda: world.now_us / 1e6)
        stack.enter_context(patch(f"{where}.scheduler.run_files.time", clock))
        stack.enter_context(patch(f"{where}.settling.wall_clock_us", lambda: world.now_us))
        for name in ("scheduler.dispatcher", "follow"):
            stack.enter_context(patch(f"{where}.{name}.holder_alive", world.holder_alive))
        yield world


_MAKE_IDS = ("submit", "versioning", "travel", "scheduler.run_files", "scheduler.harvest")
