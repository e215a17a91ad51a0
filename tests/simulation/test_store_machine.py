"""One store with several writers that append, refuse, are refused, are locked out and killed, against plain lists."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from in_memory import TEMPROOT
from waiting import next_line

from examples import examples
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.errors import StaleRun, StoreError, UnknownEvent
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Draft, Log

RUNS = ("alpha", "beta", "gamma")
RUN = st.sampled_from(RUNS)
WHO = st.integers(0, 2)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
USER = Path(__file__).with_name("store_user.py")


class Refused(Exception):
    """Of whoever decides, in the middle of it."""


class StoreMachine(RuleBasedStateMachine):
    """What three connections do to one file. The model is a list of what was acknowledged."""

    @initialize()
    def opens(self) -> None:
        """Three that know nothing of each other."""
        self.folder = Path(tempfile.mkdtemp(dir=os.environ.get(TEMPROOT)))
        self.path = self.folder / "events.db"
        self.now_us = 10**15
        self.logs = [self.opened() for _ in range(3)]
        self.events: list[tuple[str, int, int, str]] = []  # Run, version, time and task.
        self.blobs: dict[str, bytes] = {}
        self.snapshots: dict[tuple[str, int], bytes] = {}
        self.kills = 0

    def teardown(self) -> None:
        """The whole log is what was written, and its chain holds."""
        if not hasattr(self, "logs"):
            return
        try:
            assert self.read(self.logs[0]) == self.events
            found = verify_rows(self.logs[1].rows())
            assert (found.broken, found.events) == (None, len(self.events))
        finally:
            for log in self.logs:
                log.close()
            shutil.rmtree(self.folder)

    def opened(self) -> Log:
        """One more connection to the file."""
        log = Log(self.path, clock=lambda: self.now_us, environ={})
        log._writer.execute("PRAGMA synchronous = OFF")
        return log

    def read(self, log: Log, after: int = 0, upto: int | None = None, run_id: str | None = None) -> list[object]:
        """As the model has it."""
        return [
            (one.run_id, one.version, one.at_us, getattr(one.event, "task_id", ""))
            for one in log.read(after, upto, run_id=run_id)
        ]

    def version(self, run_id: str) -> int:
        """By the model."""
        return sum(of == run_id for of, *_ in self.events)

    def learn(self, run_id: str, events: list[Event]) -> None:
        """What was acknowledged."""
        at_us = max([self.now_us, *(at for _, _, at, _ in self.events[-1:])])
        for event in events:
            self.events.append((run_id, self.version(run_id) + 1, at_us, getattr(event, "task_id", "")))

    @rule(seconds=st.sampled_from([0, 1, 5, -3, -86_400]))
    def time_passes(self, seconds: int) -> None:
        """Or is set back."""
        self.now_us += seconds * 1_000_000

    @rule(who=WHO, run_id=RUN, tasks=st.lists(WORDS, min_size=1, max_size=3), blob=st.none() | st.binary(max_size=5))
    def appends(self, who: int, run_id: str, tasks: list[str], blob: bytes | None) -> None:
        """On the version that the run is at."""
        events: list[Event] = [ev.TaskQueued(task_id=name) for name in tasks]
        blobs = {} if blob is None else {sha256(blob).hexdigest(): blob}
        made = self.logs[who].append(run_id, self.version(run_id), events, blobs=blobs)
        assert [one.seq for one in made] == list(range(len(self.events) + 1, len(self.events) + 1 + len(tasks)))
        self.learn(run_id, events)
        self.blobs |= blobs

    @rule(who=WHO, run_id=RUN, off_by=st.sampled_from([-2, -1, 1, 2]))
    def appends_on_what_is_not(self, who: int, run_id: str, off_by: int) -> None:
        """Whoever decided on another version is refused, and nothing is appended."""
        with pytest.raises(StaleRun):
            self.logs[who].append(run_id, self.version(run_id) + off_by, [ev.TaskQueued(task_id="stale")])

    @rule(who=WHO, runs=st.lists(RUN, min_size=1, max_size=4), gives_up=st.booleans())
    def transacts(self, who: int, runs: list[str], gives_up: bool) -> None:
        """Events of several runs in one commit, each numbered on what stands there, or none of them."""
        log, events = self.logs[who], [ev.TaskQueued(task_id=f"of {run_id}") for run_id in runs]

        def decide(draft: Draft) -> None:
            assert draft.seq == len(self.events)
            for place, (run_id, event) in enumerate(zip(runs, events, strict=True)):
                assert draft.version(run_id) == self.version(run_id) + runs[:place].count(run_id)
                draft.add(run_id, event)
            assert log.last_seq() == len(self.events), "nobody sees it before it is committed"
            if gives_up:
                raise Refused

        with pytest.raises(Refused) if gives_up else contextlib.nullcontext():
            log.transact(decide)
        if not gives_up:
            for run_id, event in zip(runs, events, strict=True):
                self.learn(run_id, [event])

    @rule(who=WHO, run_id=RUN)
    def meets_a_full_disk(self, who: int, run_id: str) -> None:
        """A real one, for SQLite: the file may not grow. Nothing is appended, and all goes on when there is room."""
        log, writer = self.logs[who], self.logs[who]._writer
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        try:
            with pytest.raises(StoreError, match="is full"):
                log.append(run_id, self.version(run_id), [ev.TaskQueued(task_id="x" * 100_000)])
        finally:
            writer.execute("PRAGMA max_page_count = 1073741823")

    @rule(who=WHO, run_id=RUN)
    def is_locked_out(self, who: int, run_id: str) -> None:
        """By somebody who holds a transaction for longer than is waited for."""
        log = self.logs[who]
        with self.locked():
            log._writer.execute("PRAGMA busy_timeout = 0")
            try:
                with pytest.raises(StoreError, match="locked"):
                    log.append(run_id, self.version(run_id), [ev.TaskQueued(task_id="locked out")])
                assert self.read(log) == self.events, "readers are not"
            finally:
                log._writer.execute("PRAGMA busy_timeout = 30000")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else writes."""
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()

    @rule(who=WHO, after=st.integers(0, 60), length=st.integers(0, 60), run_id=st.none() | RUN)
    def reads(self, who: int, after: int, length: int, run_id: str | None) -> None:
        """What stood there, of all runs or of one."""
        upto, log = min(after + length, len(self.events)), self.logs[who]
        expected = [one for one in self.events[after:upto] if run_id in (None, one[0])]
        assert self.read(log, after, upto, run_id) == expected
        if run_id is not None:
            own = [one[1] for one in self.events[:upto] if one[0] == run_id]
            assert [one.version for one in log.read_run(run_id, 0, upto)] == own
            assert [one[1] for one in log.briefs(run_id, 1, upto)] == own[1:]

    @rule(who=WHO, back_s=st.integers(-2, 10))
    def reads_at_a_time(self, who: int, back_s: int) -> None:
        """The last event at or before it: any time, and that of each event."""
        times = [at for _, _, at, _ in self.events]
        for at_us in (self.now_us - back_s * 1_000_000, *times):
            if bisect_right(times, at_us) == 0:
                with pytest.raises(UnknownEvent):
                    self.logs[who].seq_at(at_us)
            else:
                assert self.logs[who].seq_at(at_us) == bisect_right(times, at_us)

    @rule(who=WHO, run_id=RUN, seqs=st.lists(st.integers(0, 6), min_size=1, max_size=3), state=st.binary(max_size=4))
    def takes_snapshots(self, who: int, run_id: str, seqs: list[int], state: bytes) -> None:
        """Of any events; the newest of one counts."""
        for seq in seqs:
            self.logs[who].save_snapshot(run_id, "status", 1, seq, state)
            self.snapshots[run_id, seq] = state
        self.loads_snapshots(who, run_id)

    @rule(who=WHO, seq=st.integers(0, 6))
    def loses_snapshots(self, who: int, seq: int) -> None:
        """Some or all: a cache."""
        self.logs[who]._writer.execute("DELETE FROM snapshots WHERE seq >= ?", (seq,))
        self.snapshots = {key: state for key, state in self.snapshots.items() if key[1] < seq}

    @rule(who=WHO, run_id=RUN)
    def loads_snapshots(self, who: int, run_id: str) -> None:
        """The newest at or before an event, of that version of the fold alone."""
        for upto in range(8):
            seqs = [seq for of, seq in self.snapshots if of == run_id and seq <= upto]
            expected = (max(seqs), self.snapshots[run_id, max(seqs)]) if seqs else None
            assert self.logs[who].load_snapshot(run_id, "status", 1, upto) == expected
            assert self.logs[who].load_snapshot(run_id, "status", 2, upto) is None

    @rule(who=WHO)
    def opens_anew(self, who: int) -> None:
        """Closed and opened, it knows the same."""
        self.logs[who].close()
        self.logs[who] = self.opened()

    @precondition(lambda self: self.kills < 1)
    @rule(run_id=RUN, commits=st.integers(0, 3))
    def is_killed(self, run_id: str, commits: int) -> None:
        """Another process, in the middle of a commit: what it was told stands there, and nothing of the rest."""
        self.kills += 1
        words = [sys.executable, str(USER), str(self.path), run_id, str(self.version(run_id)), str(commits)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as user:
            said = [next_line(user.stdout).strip() for _ in range(commits + 1)]
            user.send_signal(signal.SIGKILL)
        before = self.version(run_id)
        assert said == [*(str(before + number + 1) for number in range(commits)), "half"]
        for record in self.logs[0].read(len(self.events)):  # Its clock is its own.
            self.events.append((record.run_id, record.version, record.at_us, getattr(record.event, "task_id", "")))
        assert [one[3] for one in self.events[len(self.events) - commits :]] == [f"k{at}" for at in range(commits)]
        assert self.version(run_id) == before + commits

    @invariant()
    def all_of_them_see_the_same(self) -> None:
        """Whoever asks, at any time."""
        for log in getattr(self, "logs", ()):
            assert log.last_seq() == len(self.events)
            for digest, content in self.blobs.items():
                assert log.blob(digest) == content
            with pytest.raises(UnknownEvent):
                log.blob("half")


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=examples(25), stateful_step_count=30, deadline=None)
