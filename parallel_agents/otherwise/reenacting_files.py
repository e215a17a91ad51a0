"""The files of a run that is executed again: attempts leave what they left, and merges, conflicts and gates come of that.

All of it happens in a repository of its own. The ids of attempts, the times of commits and what they say are those of the
recording, so the commits are the same ones, to the last bit, where the files are. What a gate said of the files is taken from
the recording: its command would run for real, with effects that nobody asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from parallel_agents.checkpoint.contents import Commit, read_commits
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.scratch import ScratchRepository
from parallel_agents.checkpoint.snapshot import tree_of
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.location import files_home
from parallel_agents.eventstore.submission import Plan
from parallel_agents.otherwise.recording import BLOCKED, COMPLETED, DISCARDED, Attempt, Recording
from parallel_agents.otherwise.same_events import OF_COMMITS
from parallel_agents.otherwise.virtual_run import LanesAtOnce, Place
from parallel_agents.scheduler.checkouts import GATES, attempt_trailer
from parallel_agents.scheduler.harvest import OUTPUT_CHARS
from parallel_agents.scheduler.runners.folder import STDOUT, make_folder, write_whole
from parallel_agents.scheduler.runners.protocol import Ended, Launch, Outcome
from parallel_agents.scheduler.runners.recorded import Part

_GATE_FOLDER: Final = "gates"
_AT_ONCE: Final = -1  # Before every end that is recorded.


class FilesAgain:
    """The files of one run. Made by ``files_again``.

    Attributes:
        same, alike: commits that came out the same, and those that only hold the same files.
        place: where they are.
        moved: paths at which what an attempt had changed did not fit to the files that it began with here, by attempt.
    """

    def __init__(self, source: Repository, recording: Recording, commits: Mapping[str, Commit], workdir: str) -> None:
        self.scratch = ScratchRepository(source)
        self.same = self.alike = 0
        self.moved: dict[str, tuple[str, ...]] = {}
        self._commits = commits
        self._here: dict[str, str] = {}  # Commits that are others here: recorded -> here.
        self._outputs: dict[str, tuple[str, ...]] = {}
        self._gates = {one.start.attempt_id: deque(one.gates) for one in recording.attempts.values()}
        self._stage_gates = deque(recording.stage_gates)
        below = os.path.relpath(workdir, source.top)
        top = self.scratch.repository.top
        workdir = str(top if below.startswith("..") else top / below)
        self.place = Place(self.scratch.store, str(top), workdir, LanesAtOnce())

    def close(self) -> None:
        """Take all of them away."""
        self.scratch.close()

    def follow(self, plan: Plan) -> None:
        """Attempts are those of this plan."""
        self._outputs = {task.task_id: task.outputs for task in plan.tasks}

    def is_same(self, there: str | None, here: str | None) -> bool:
        """Whether a commit holds the files of the recorded one. From then on it stands for it."""
        if there == here:
            self.same += there is not None
            return True
        if there is None or here is None or there not in self._commits:
            return False
        if self._commits[there].tree != tree_of(self.scratch.repository, here):
            return False
        self.alike += 1
        self._here[there] = here
        return True

    def as_here(self, commit: str | None) -> str | None:
        """The commit that stands for a recorded one."""
        return commit if commit is None else self._here.get(commit, commit)

    def part(self, launch: Launch, attempt: Attempt | None, part: Part, *, per_agent: bool) -> Part:
        """What an attempt does, and what it leaves.

        Args:
            attempt: the recorded one that it stands for.
            part: what it would do without files.
            per_agent: whether its files were kept in any case.
        """
        if attempt is None or attempt.ended is None:
            return part
        if attempt.outcome == BLOCKED and part.takes_us is None:
            part = Part(attempt.took_us, attempt.ended, attempt.place)
        ended = part.ended
        if (ended.outcome, ended.error) != (attempt.ended.outcome, attempt.ended.error):
            return part  # It does something else here, of which nobody knows what it would have left.
        if attempt.well:
            ended = replace(ended, outcome="exited", error=None, kind="", free=False)
        elif attempt.gave_up is not None:
            ended = replace(ended, error=attempt.gave_up, kind="agent")
        if attempt.commit is None and per_agent and attempt.outcome not in (COMPLETED, DISCARDED):
            return replace(part, ended=replace(ended, began=False))  # Nobody has looked at its files then.
        date_us = self._date_us(attempt)
        if date_us is not None:
            took_us = max(0, ended.ended_at_us - ended.started_at_us)
            ended = replace(ended, started_at_us=date_us - took_us, ended_at_us=date_us)
        leaves = partial(self._leave, launch, attempt)
        return replace(part, ended=ended, leaves=leaves, dated=date_us is not None)

    def _date_us(self, attempt: Attempt) -> int | None:
        """The time that its commits have."""
        for name in (attempt.merged, attempt.commit):
            found = self._commits.get(name or "")
            if found is not None and attempt_trailer(attempt.start.attempt_id) in found.message:
                return found.at_us
        return None

    def _leave(self, launch: Launch, attempt: Attempt) -> None:
        """Make the files of its checkout what it left."""
        folder = files_home(self.scratch.store) / "worktrees" / launch.run_id / launch.task_id
        if attempt.commit is not None:
            there, here = attempt.start.base_commit, launch.env.get("PARALLEL_AGENTS_BASE")
            assert there is not None, "its files are in a checkout"
            assert here is not None
            if self.as_here(there) == here:
                self.scratch.lay(folder, attempt.commit, self._head(attempt))
            else:
                tree, clashes = self.scratch.moved(there, attempt.commit, here)
                self.scratch.lay(folder, tree)
                if clashes:
                    self.moved[launch.attempt_id] = clashes
        if attempt.outcome == COMPLETED or not (attempt.ended and attempt.ended.error):
            for name in self._outputs.get(launch.task_id, ()):
                if not os.path.exists(launch.workdir / name):  # In no commit: it is ignored.
                    with contextlib.suppress(OSError):
                        (launch.workdir / name).mkdir(parents=True)

    def _head(self, attempt: Attempt) -> str | None:
        """Where its own commits had led; where it made none, the commit that it began with."""
        found = self._commits[attempt.commit or ""]
        if attempt_trailer(attempt.start.attempt_id) not in found.message:
            return attempt.commit
        return found.parents[0] if found.parents else None

    def gate(self, launch: Launch, now_us: int | None) -> Part | None:
        """What a gate says, as it was recorded; None where this is none. One that is not recorded passes.

        Args:
            now_us: the time, where one of a stage is to end when it ended then; None: after as long as it took.
        """
        parts = Path(launch.folder).parts
        if parts[-2] != _GATE_FOLDER:
            return None
        at_us, found = self._recorded_gate(launch, parts[-3])
        if found is None:
            return Part(0, Ended(launch.attempt_id, "exited", exit_code=0), _AT_ONCE)
        folder = str(launch.folder)
        make_folder(folder)
        write_whole(folder, STDOUT, found.output.encode("utf-8", "surrogateescape")[-OUTPUT_CHARS:])
        outcome: Outcome = "timed_out" if found.exit_code is None else "exited"
        error = None if found.passed else f"exit code {found.exit_code}"
        took_us = round(found.duration_s * 1e6)
        ended = Ended(launch.attempt_id, outcome, exit_code=found.exit_code, error=error, ended_at_us=took_us)
        takes_us = 0 if at_us is None else took_us if now_us is None else max(0, at_us - now_us)
        return Part(takes_us, ended, _AT_ONCE, dated=True)

    def _recorded_gate(self, launch: Launch, attempt_id: str) -> tuple[int | None, ev.GateChecked | None]:
        said = " ".join(launch.command)
        if launch.task_id == GATES:
            at_us, found = self._stage_gates.popleft() if self._stage_gates else (None, None)
            return (at_us, found) if found is not None and found.command == said else (None, None)
        left = self._gates.get(attempt_id, deque())
        while left:
            found = left.popleft()
            if found.command == said:
                return None, found
        return None, None


def commits_named(events: Iterable[Event]) -> Iterator[str]:
    """The commits that events name, but for those of unfinished work, which nobody has held."""
    for event in events:
        if isinstance(event, ev.ConflictDetected) and event.early:
            continue
        for name in OF_COMMITS & type(event).model_fields.keys():
            if (commit := getattr(event, name)) is not None:
                yield commit


def files_again(source: Repository, recording: Recording, workdir: str) -> tuple[FilesAgain | None, str]:
    """The files of a run.

    Args:
        source: the repository that holds them.
        workdir: of the run, where it was submitted.
    Returns:
        Them, or None and why they cannot be had.
    Raises:
        GitFailed: git failed.
    """
    own = (one.event for look in recording.looks for one in look.records if one.run_id == recording.run_id)
    wanted = set(commits_named(own))
    commits = read_commits(source, wanted)
    if gone := sorted(wanted - commits.keys()):
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        return None, f"commit {gone[0][:12]}{more} is not in {source.git_dir} any more"
    return FilesAgain(source, recording, commits, workdir), ""
