"""What is done to files around an attempt: its checkout before, what it left after, the merge. Git runs on threads of its own.

Two lanes for each repository: one for worktrees, which git can only make one at a time and may take half a minute for,
and one for snapshots, merges and refs, so that finished work never waits behind a checkout. Nothing here touches the log;
each end is a result for the next tick.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

from parallel_agents.checkpoint import merging, refs, snapshot, worktrees
from parallel_agents.checkpoint.git import GitFailed, is_refused
from parallel_agents.checkpoint.merging import Take
from parallel_agents.checkpoint.repository import Repository, known_repository, linked_git_dir, shared_state
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.location import find_project_root
from parallel_agents.eventstore.record import derived_id
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.decide import storable_text
from parallel_agents.scheduler.ports import Ports
from parallel_agents.scheduler.probing import Meeting, Unfinished, probe
from parallel_agents.scheduler.runners.folder import PROCESS, make_folder, read_object, write_whole
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.runners.unfinished import end_unfinished
from parallel_agents.scheduler.work import PATHS_KEPT, Clash, Work, facts_of_conflict

SHADOW: Final = "shadow.git"
GATES: Final = ".gates"
"""In place of a task's name, where the gates of a stage have their checkout. No task id begins like that."""
UNKEPT: Final = ".unkept-"
"""How the folders are called in which work lies that could not be kept."""
_CLOSE_S: Final = 10.0
_AGAIN_S: Final = 1.0  # Between two tries to put work on a disk that refuses it.
_SHARED: Final = "shared.json"
_CONFLICT: Final = "conflict.txt"


@dataclass(frozen=True, slots=True)
class Order:
    """An attempt as far as its files go."""

    run_id: str
    task_id: str
    attempt_id: str
    attempt: int
    folder: str  # runs/<run>/<task>/<attempt>/
    repository: str  # As RunSubmitted names it.
    workdir: Path  # Where the run was submitted.
    workspace: Literal["worktree", "shared"]
    base: str  # The commit that it starts from.
    begin: str | None = None  # Whose files it begins with, where that is another one after it.
    description: str = ""
    outputs: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()
    merges: bool = True  # Whether its work is merged at its end; not in a shared directory, nor before an approval.
    fail_on_gates: bool = True
    before_id: str | None = None  # The checkpoint of its start, to be held by a ref.
    after_id: str = ""
    conflict: Mapping[str, Any] | None = field(default=None, hash=False)
    resolving: bool = False  # Whether it begins with the merge that the conflict broke off, markers and all.
    env: Mapping[str, str] = field(default_factory=dict, hash=False)  # Of its process, but for what its checkout adds.


class Prepared(NamedTuple):
    """A checkout is there, or is not to be had."""

    order: Order
    cwd: Path
    env: dict[str, str]
    error: str | None = None


class Kept(NamedTuple):
    """What an attempt left is held by a ref; ``ended`` carries the error where it could not be."""

    order: Order
    ended: Ended
    work: Work


class Merged(NamedTuple):
    """Work was merged with the integration line as it was, or clashes with it."""

    order: Order
    ended: Ended
    work: Work


class Followed(NamedTuple):
    """The branch of a run follows its log again; ``foreign`` is a commit of somebody else's that is in the way."""

    run_id: str
    commit: str | None = None  # Where the branch was to go.
    foreign: str | None = None
    error: str | None = None
    held: Mapping[str, str] = MappingProxyType({})  # What was to be held by refs.
    for_good: bool = False  # Whether it is of no use to try again soon: somebody stands on the branch.
    restored: bool = False  # It was not about refs, but about the files of a shared directory.


class Probed(NamedTuple):
    """Unfinished work of a run was compared."""

    run_id: str
    meetings: tuple[Meeting, ...]
    took_s: float


Result = Prepared | Kept | Merged | Followed | Probed
Step = Callable[[], Result | None]


class Lane(Protocol):
    """Where one thing about files is done after the other."""

    def put(self, work: Step) -> None:
        """Do it, after all that was put before."""

    def end(self) -> None:
        """Do nothing after that."""

    def join(self, timeout_s: float) -> None:
        """Wait until all is done, but not for ever."""


LaneMaker = Callable[[str, Callable[[Result], None]], Lane]


def open_repository(named: str, workdir: Path) -> Repository:
    """The repository that ``RunSubmitted`` names.

    Raises:
        GitFailed: it is not there any more.
    """
    path = Path(named)
    if path.name == SHADOW:
        return Repository(top=find_project_root(Path(workdir)), git_dir=path, shadow=True)
    found = known_repository(path)
    if found is None:
        raise GitFailed(f"{path} is no git repository any more", hint="put it back, or cancel the run")
    return found


class Checkouts:
    """The files of the attempts that one process dispatches.

    Args:
        home: the store's folder, which holds the worktrees.
        on_done: called from a thread of ours when ``poll`` has something to give.
        lane: makes a lane of a name that hands its results on, and is not to wait for a disk; left out: one with a thread,
            which does.
    """

    def __init__(self, home: Path, on_done: Callable[[], None], lane: LaneMaker | None = None) -> None:
        self.home = home
        self._on_done = on_done
        self._new_lane = lane or _Lane
        self._waits = lane is None
        self._results: deque[Result] = deque()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._repositories: dict[str, Repository] = {}
        self._free: dict[str, list[Path]] = {}  # Run id -> worktrees of attempts whose work is held.
        self._ports = Ports()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def poll(self) -> list[Result]:
        """What was done since the last call. Never blocks."""
        done: list[Result] = []
        with contextlib.suppress(IndexError):
            while True:
                done.append(self._results.popleft())
        return done

    def worktree(self, run_id: str, task_id: str) -> Path:
        """Where the attempts of a task have their checkout."""
        return self.home / "worktrees" / run_id / task_id

    def cwd(self, order: Order) -> Path:
        """The folder that an attempt runs in: that of the submission, inside of its checkout."""
        if order.workspace == "shared":
            return order.workdir
        top = self._repository(order).top
        return self.worktree(order.run_id, order.task_id) / os.path.relpath(order.workdir, top)

    def prepare(self, order: Order) -> None:
        """Make the checkout of an attempt. Gives ``Prepared``."""
        self._do(order.repository, "worktrees", lambda: self._prepare(order))

    def keep(self, order: Order, ended: Ended) -> None:
        """Hold what an attempt left, however it ended. Gives ``Kept``."""
        self._do(order.repository, "objects", lambda: self._patiently(order, lambda: self._keep(order, ended)))

    def merge(self, order: Order, ended: Ended, work: Work, onto: str, how: str) -> None:
        """Merge kept work with an integration line. Gives ``Merged``.

        Args:
            how: the plan's way with conflicts; ours and theirs are carried out here.
        """
        step = partial(self._merge, order, ended, work, onto, how)
        self._do(order.repository, "objects", lambda: self._patiently(order, step))

    def set_to(self, order: Order, commit: str) -> None:
        """Set the checkout of an attempt whose work is held to another commit. Gives ``Prepared``."""

        def work() -> Prepared:
            path = self.worktree(order.run_id, order.task_id)
            try:
                worktrees.reuse(self._repository(order), path, path, commit, sparse=order.sparse)
                return Prepared(order, self.cwd(order), {})
            except Exception as error:
                return Prepared(order, order.workdir, {}, f"no checkout for its gates: {error}")

        self._do(order.repository, "worktrees", work)

    def release(self, order: Order, *, free: bool) -> None:
        """An attempt's end is in the log. Its checkout may be used again where ``free``; else it stays to be looked at."""
        self._ports.give_back(order.attempt_id)
        if free and order.workspace == "worktree":
            with self._lock:
                self._free.setdefault(order.run_id, []).append(self.worktree(order.run_id, order.task_id))

    def end_gates(self, repository: str, folders: Sequence[Path]) -> None:
        """End gates that another dispatcher has left running, before anything else is done about files."""

        def work() -> None:
            end_unfinished(folders)

        for kind in ("worktrees", "objects"):  # Either lane may lead to a gate; the second finds nothing to do.
            self._do(repository, kind, work)

    def end_run(
        self, run_id: str, repository: str, workdir: Path, completed: Collection[str], if_still: Callable[[], bool]
    ) -> None:
        """Take the checkouts away whose work is held: also of attempts that a dispatcher before us has seen to.

        Args:
            if_still: whether the run is as it ended, asked while no checkout can be made. Else it has been taken up again,
                maybe by another process, whose attempts work there.
        """
        with self._lock:
            self._free.pop(run_id, None)
        paths = [path for path in (self.worktree(run_id, name) for name in (*completed, GATES)) if path.exists()]

        def work() -> None:
            for path in paths:
                with contextlib.suppress(ParallelAgentsError, OSError):  # It stays, and `gc` finds it.
                    worktrees.remove(self._open(repository, workdir), path, if_still=if_still)
            with contextlib.suppress(OSError):
                os.rmdir(self.home / "worktrees" / run_id)

        if paths:
            self._do(repository, "worktrees", work)

    def follow(
        self, run_id: str, repository: str, workdir: Path, commit: str | None, held: Mapping[str, str], known: set[str]
    ) -> None:
        """Make the branch of a run and its refs what the log says. Gives ``Followed``.

        Args:
            commit: the integration line; None leaves the branch alone.
            held: checkpoint ids and their commits.
            known: where the branch may stand now: commits that the log has named.
        """
        known = set(known)

        def work() -> Followed:
            try:
                found = self._open(repository, workdir)
                refs.hold(found, {refs.checkpoint_ref(run_id, name): one for name, one in held.items()})
                foreign = None
                if commit is not None:
                    stands = refs.branch_commit(found, run_id)
                    if stands is not None and stands not in known:
                        foreign = stands
                    else:
                        foreign = refs.move_branch(found, run_id, commit, stands)
                return Followed(run_id, commit, foreign, held=held)
            except Exception as error:
                for_good = isinstance(error, refs.BranchInUse)
                return Followed(run_id, commit, error=str(error), held=held, for_good=for_good)

        self._do(repository, "objects", work)

    def restore(
        self,
        run_id: str,
        repository: str,
        workdir: Path,
        commit: str,
        checkpoint_id: str,
        keep: Callable[[str], None],
        record: Callable[[], None],
    ) -> None:
        """Make a shared directory equal to a commit, after what is there is a checkpoint. Gives ``Followed``.

        Args:
            checkpoint_id: of what is there now.
            keep: appends that checkpoint, given its commit, which a ref holds.
            record: appends that it was done.
        """

        def work() -> Followed:
            try:
                found = self._open(repository, workdir)
                message, at_us = f"Before the files of run {run_id} were taken back\n", time.time_ns() // 1000
                with snapshot.compared(found, commit, found.top) as seen:
                    if seen.changes:
                        now = snapshot.commit_tree(found, seen.tree, message=message, parents=(commit,), at_us=at_us)
                        refs.hold(found, {refs.checkpoint_ref(run_id, checkpoint_id): now})
                        reach("failure.held")
                        keep(now)
                        reach("failure.kept")
                        seen.replace()
                reach("failure.replaced")
                record()
                return Followed(run_id, restored=True)
            except Exception as error:
                return Followed(run_id, error=f"its files are not taken back: {error}", restored=True)

        self._do(repository, "objects", work)

    def probe(self, run_id: str, orders: Sequence[Order], line: str) -> None:
        """Compare the unfinished work of a run. Gives ``Probed``."""
        running = [Unfinished(o.task_id, o.attempt_id, self.worktree(run_id, o.task_id), o.base) for o in orders]

        def work() -> Probed:
            begin = time.monotonic()
            meetings: tuple[Meeting, ...] = ()
            with contextlib.suppress(Exception):  # A warning that fails to come is none.
                meetings = tuple(probe(self._repository(orders[0]), running, line))
            return Probed(run_id, meetings, time.monotonic() - begin)

        self._do(orders[0].repository, "objects", work)

    def close(self) -> None:
        """Finish what is under way, and nothing else. What waits for a disk is left to whoever comes next."""
        self._closing.set()
        for lane in self._lanes.values():
            lane.end()
        for lane in self._lanes.values():
            lane.join(_CLOSE_S)

    def _do(self, repository: str, kind: str, work: Step) -> None:
        lane = self._lanes.get((repository, kind))
        if lane is None:
            lane = self._lanes[repository, kind] = self._new_lane(f"git {kind}", self._take)
        lane.put(work)

    def _take(self, result: Result) -> None:
        self._results.append(result)
        self._on_done()

    def _open(self, repository: str, workdir: Path) -> Repository:
        found = self._repositories.get(repository)
        if found is None:
            found = self._repositories[repository] = open_repository(repository, workdir)
        return found

    def _repository(self, order: Order) -> Repository:
        return self._open(order.repository, order.workdir)

    def _prepare(self, order: Order) -> Prepared:
        reach("checkout.before")
        try:
            repository = self._repository(order)
            make_folder(order.folder)
            if order.workspace == "worktree":
                self._check_out(repository, order)
            if order.before_id is not None:
                before = {refs.checkpoint_ref(order.run_id, order.before_id): order.begin or order.base}
                refs.hold(repository, before)
            write_whole(order.folder, _SHARED, json.dumps(shared_state(repository)).encode())
            cwd = self.cwd(order)
            cwd.mkdir(parents=True, exist_ok=True)  # Git keeps no empty folders.
            reach("checkout.ready")
            return Prepared(order, cwd, self._environment(repository, order))
        except Exception as error:  # Of whatever kind: an attempt that nobody tells of waits for ever.
            return Prepared(order, order.workdir, {}, f"no checkout for it: {error}")

    def _check_out(self, repository: Repository, order: Order) -> None:
        path = self.worktree(order.run_id, order.task_id)
        self._set_aside_earlier(repository, order)
        begin = _begun_merge(repository, order) if order.resolving else order.begin or order.base
        with self._lock:
            free = self._free.get(order.run_id, [])
            if path in free:
                free.remove(path)
            old = path if linked_git_dir(path) else free.pop() if free else None
        if old is not None:  # Ready in half the time of a new one, and nothing is left to be taken away at the end.
            worktrees.reuse(repository, old, path, begin, sparse=order.sparse)
        else:
            worktrees.add(repository, path, begin, sparse=order.sparse)
        worktrees.copy_included(repository, path)

    def _environment(self, repository: Repository, order: Order) -> dict[str, str]:
        env = {"PARALLEL_AGENTS_PORT": str(self._ports.take(order.attempt_id)), "PARALLEL_AGENTS_BASE": order.base}
        if order.workspace == "worktree":  # Or an agent's own `git checkout` would write other line ends than ours.
            env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.autocrlf", "GIT_CONFIG_VALUE_0": "false"}
        if order.conflict is not None:
            text = facts_of_conflict(dict(order.conflict))
            onto, commit = order.conflict["onto"], order.conflict["commit"]
            for path in order.conflict["paths"]:
                with contextlib.suppress(ParallelAgentsError):
                    text += f"\n{path}:\n{merging.hunks(repository, onto, commit, path)}\n"
            write_whole(order.folder, _CONFLICT, text.encode("utf-8", "surrogateescape"))
            env["PARALLEL_AGENTS_CONFLICT"] = f"{order.folder}/{_CONFLICT}"
        return env

    def _patiently(self, order: Order, work: Callable[[], Result]) -> Result | None:
        """Do something about work that is done, once more for as long as the disk would not take it.

        To call it failed would have it done, and paid for, a second time.
        """
        told = False
        while True:
            try:
                return work()
            except Exception as error:
                if not self._waits:
                    raise
                if not told:
                    trouble.warn("the work of task {} waits: {}", order.task_id, error)
                    told = True
            if self._closing.wait(_AGAIN_S):
                return None

    def _keep(self, order: Order, ended: Ended) -> Kept:
        work = Work(order.after_id)
        reach("keep.before")
        try:
            repository = self._repository(order)
            shared = order.workspace == "shared"
            folder = repository.top if shared else self.worktree(order.run_id, order.task_id)
            if not folder.exists() and not self._aside(order).exists():
                raise FileNotFoundError(f"its checkout {folder} is gone")
            work = replace(work, shared=_changed_state(order, shared_state(repository)))
            if ended.outcome == "exited" and ended.error is None:
                ended = _checked(order, self.cwd(order), ended)
                if order.resolving:
                    ended = _resolved(order, folder, ended)
            # Who died after this left it changed by gates, or half way to another commit.
            held = refs.held_commit(repository, order.run_id, order.after_id)
            commit = held or self._commit_of(repository, order, ended, folder)
            changed = snapshot.changed_paths(repository, order.base, commit) if commit != order.base else []
            if held is None:
                _refuse_repositories(folder, changed)
                refs.hold(repository, {refs.checkpoint_ref(order.run_id, order.after_id): commit})
                reach("keep.held")
            paths = tuple(storable_text(one.path) for one in changed[:PATHS_KEPT])
            work = replace(work, commit=commit, changed=len(changed), paths=paths)
        except Exception as error:
            if is_refused(error):
                raise
            said = f"its work could not be kept: {_told(error)}{self._set_aside(order)}"
            ended = replace(ended, error=said if ended.error is None else f"{ended.error}; {said}")
        return Kept(order, ended, work)

    def _commit_of(self, repository: Repository, order: Order, ended: Ended, folder: Path) -> str:
        parent = order.base if order.workspace == "shared" else _parent(repository, folder, order.base)
        made = snapshot.snapshot(
            repository, folder, message=_message(order, ended), parents=(parent,), at_us=ended.ended_at_us
        )
        return parent if made.tree == snapshot.tree_of(repository, parent) else made.commit

    def _aside(self, order: Order, attempt_id: str = "") -> Path:
        """Where the checkout of an attempt goes that could not be kept. No task id begins like that."""
        return self.home / "worktrees" / order.run_id / f"{UNKEPT}{order.task_id}-{attempt_id or order.attempt_id}"

    def _set_aside_earlier(self, repository: Repository, order: Order) -> None:
        """Move what an attempt before this one left, where nobody could keep it: the project was somewhere else."""
        path, attempts = self.worktree(order.run_id, order.task_id), Path(order.folder).parent
        if not path.exists():
            return
        for name in sorted(os.listdir(attempts)):
            if name == order.attempt_id or not (attempts / name / PROCESS).exists():
                continue
            aside = self._aside(order, name)
            kept = refs.held_commit(repository, order.run_id, derived_id("after", name)) is not None
            if not kept and not aside.exists():
                os.rename(path, aside)
                return

    def _set_aside(self, order: Order) -> str:
        """Move a checkout out of the way of the next attempt, which would take its place; says where it is."""
        path, aside = self.worktree(order.run_id, order.task_id), self._aside(order)
        if order.workspace == "worktree" and path.exists() and not aside.exists():
            with contextlib.suppress(OSError):
                os.rename(path, aside)
            with contextlib.suppress(ParallelAgentsError, OSError):
                self._repository(order).git().run("worktree", "repair", str(aside))
        return f"; it lies in {aside}" if aside.exists() else ""

    def _merge(self, order: Order, ended: Ended, work: Work, onto: str, how: str) -> Merged:
        assert work.commit is not None, "only what is kept is merged"
        reach("merge.before")
        try:
            repository = self._repository(order)
            message = f"Merge {order.task_id}\n\n{_trailers(order)}"
            made = merging.merge(
                repository, onto, work.commit, message=message, at_us=ended.ended_at_us, base=order.base
            )
            clashes = tuple(Clash(storable_text(one.path), one.kind) for one in made.conflicts)
            other = ""
            if clashes:
                other = other_task(repository, order.base, onto, made.conflicts[0].path)
                if how in ("ours", "theirs"):
                    made = merging.merge(
                        repository, onto, work.commit, message=message, at_us=ended.ended_at_us, take=cast("Take", how)
                    )
            if made.commit is not None:
                reach("merge.made")
                refs.hold(repository, {refs.checkpoint_ref(order.run_id, order.attempt_id): made.commit})
                reach("merge.held")
            done = replace(work, onto=onto, merged=made.commit, clashes=clashes, other_task_id=other)
            return Merged(order, ended, done)
        except Exception as error:
            if is_refused(error):
                raise
            failed = replace(ended, error=f"its work could not be merged: {error}")
            return Merged(order, failed, replace(work, onto=onto))


def _refuse_repositories(folder: Path, changes: Sequence[snapshot.Change]) -> None:
    """Of a repository in a repository a commit keeps a number, and the rest would go with the checkout."""
    made = [
        one.path
        for one in changes
        if one.status != "D" and (path := folder / one.path).is_dir() and not path.is_symlink()
    ]
    if made:
        raise GitFailed(
            f"{folder} holds repositories whose files no commit of ours keeps: {', '.join(map(storable_text, made[:5]))}",
            hint="add them to .gitignore, move them out, or take their .git away",
        )


def _told(error: Exception) -> str:
    hint = error.hint if isinstance(error, ParallelAgentsError) else ""
    return f"{error} ({hint})" if hint else str(error)


def trailers(run_id: str, task_id: str, attempt_id: str | None) -> str:
    """What the message of a commit ends with that was made of an attempt's work."""
    return f"Parallel-Agents-Run: {run_id}\nParallel-Agents-Task: {task_id}\n{attempt_trailer(attempt_id)}"


def attempt_trailer(attempt_id: str | None) -> str:
    """The line of them that names the attempt."""
    return f"Parallel-Agents-Attempt: {attempt_id}\n"


def _trailers(order: Order) -> str:
    return trailers(order.run_id, order.task_id, order.attempt_id)


def _message(order: Order, ended: Ended) -> str:
    what = order.description.strip().splitlines()
    said = f"{order.task_id}: {what[0][:100]}" if what else order.task_id
    return f"{said}{'' if ended.error is None else ' (failed)'}\n\n{_trailers(order)}"


def other_task(repository: Repository, base: str, onto: str, path: str) -> str:
    """The task whose merged work changed a path last, or an empty text."""
    wanted = "--format=%(trailers:key=Parallel-Agents-Task,valueonly,separator=%x2C)"
    said = repository.git().text("log", "--no-merges", "-1", wanted, f"{base}..{onto}", "--", f":(literal){path}")
    return said.strip()


def _changed_state(order: Order, now: Mapping[str, str]) -> tuple[str, ...]:
    before = read_object(order.folder, _SHARED)
    if before is None:
        return ()
    return tuple(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))


def _checked(order: Order, cwd: Path, ended: Ended) -> Ended:
    """An attempt that ended well has failed all the same if a declared output is not there."""
    missing = [name for name in order.outputs if not os.path.exists(cwd / name)]
    return replace(ended, error=f"declared output is missing: {', '.join(missing)}") if missing else ended


def _begun_merge(repository: Repository, order: Order) -> str:
    """A commit of the merge that a conflict broke off, with the line as it is now: markers stand where it got no further."""
    assert order.conflict is not None
    work, message = order.conflict["commit"], f"Merge {order.task_id}, with conflicts\n\n{_trailers(order)}"
    at_us = time.time_ns() // 1000
    made = merging.merge(repository, order.base, work, message=message, at_us=at_us)
    if made.commit is not None:
        return made.commit
    return snapshot.commit_tree(repository, made.tree, message=message, parents=(order.base, work), at_us=at_us)


def _resolved(order: Order, folder: Path, ended: Ended) -> Ended:
    """An attempt that was to resolve a conflict has failed all the same if a file of it still holds markers."""
    assert order.conflict is not None
    left = []
    for name in order.conflict["paths"]:
        with contextlib.suppress(OSError):
            if merging.leftover_markers((folder / name).read_bytes()):
                left.append(name)
    if not left or ended.error is not None:
        return ended
    return replace(ended, error=f"conflict markers are left in {', '.join(left)}", kind="agent")


def _parent(repository: Repository, folder: Path, base: str) -> str:
    """Where an attempt's own commits have led, if they go on from where it began; else that."""
    if linked_git_dir(folder) is None:
        return base  # Its .git is gone; git would answer for the user's own tree.
    git = repository.git(folder)
    head = git.run("rev-parse", "--verify", "--quiet", "HEAD", ok=(0, 1)).out.decode().strip()
    if head and head != base and git.run("merge-base", "--is-ancestor", base, head, ok=(0, 1)).code == 0:
        return head
    return base


class _Lane:
    """One thread that does one thing after the other. Its thread begins with the first."""

    def __init__(self, name: str, take: Callable[[Result], None]) -> None:
        self._take = take
        self._queue: SimpleQueue[Step | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def put(self, work: Step) -> None:
        self._queue.put(work)

    def end(self) -> None:
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            result = work()
            if result is not None:
                self._take(result)
