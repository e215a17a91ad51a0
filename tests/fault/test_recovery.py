"""Fifty attempts at once whose dispatchers are killed: what lives is adopted, what ended is completed, what vanished is lost."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Store, task, wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.scheduler.process import ProcessIdentity, is_alive, send_signal
from parallel_agents.scheduler.runners.folder import EXIT, PROCESS, read_object

DISPATCHER = """
import sys, time
from pathlib import Path
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.engine import Engine
with Log(Path(sys.argv[1])) as log:
    engine = Engine(log, kind="run", shell=True)
    engine.hold(sys.argv[2])
    engine.start()
    time.sleep(600)
"""
KINDS = {"ended": 17, "vanished": 8, "orphaned": 8, "live": 17}
LOST = ("vanished", "orphaned")


class Fifty(Store):
    """A store with a run of each kind, whose attempts wait on a pipe of that name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runs: dict[str, str] = {}

    def begin(self) -> None:
        """Have all of them run, each run under a dispatcher and a supervisor of its own; then kill the dispatchers."""
        for kind, count in KINDS.items():
            os.mkfifo(self.folder / kind)
            script = f"echo {kind} >> begun; cat {kind} && echo {kind} >> done"
            tasks = [task(f"t{number}", script, max_retries=1) for number in range(count)]
            self.runs[kind] = self.submit(*tasks, max_parallel_agents=50, store_limit=50)
        dispatchers = [self.start(DISPATCHER, run_id) for run_id in self.runs.values()]
        wait_until(lambda: Counter(self.lines("begun")) == KINDS, "fifty attempts to run")
        for kind, count in KINDS.items():
            wait_until(lambda kind=kind, count=count: len(self.who(kind, "")) == count, "all to be on record")
        for one in dispatchers:
            self.kill(one)

    def files(self, kind: str, name: str) -> list[Path]:
        """Files of that name of all attempts of a kind."""
        return list(self.path.parent.glob(f"runs/{self.runs[kind]}/*/*/{name}"))

    def who(self, kind: str, part: str) -> set[ProcessIdentity]:
        """The processes of a kind, or their supervisor."""
        found = [read_object(str(file.parent), PROCESS) for file in self.files(kind, PROCESS)]
        return {
            ProcessIdentity.from_dict(one[part] if part else one) for one in found if one and one["state"] == "running"
        }

    def let_end(self, kind: str) -> None:
        """Let those go on to their end that wait by now."""
        with contextlib.suppress(OSError):  # None of them does.
            os.close(os.open(self.folder / kind, os.O_WRONLY | os.O_NONBLOCK))

    def completed(self, kind: str) -> bool:
        """Let all of a kind end, and wait for the end of their run."""

        def ended() -> bool:
            self.let_end(kind)
            return self.state(self.runs[kind]).ended

        wait_until(ended, f"the end of what {kind}", every_s=0.02)
        return self.state(self.runs[kind]).status == "completed"

    def count(self, kind: str, event_type: type[ev.Event]) -> int:
        """How many events of a kind there are."""
        return len(self.events(self.runs[kind], event_type))


@pytest.fixture
def fifty(tmp_path: Path) -> Iterator[Fifty]:
    """Nothing runs yet."""
    made = Fifty(tmp_path)
    yield made
    made.close()


def test_fifty_attempts_are_adopted_completed_or_lost(fifty: Fifty) -> None:
    """Each by what became of it while nobody dispatched, and none begins again that need not. How long: `bench recovery`."""
    fifty.begin()

    def all_ended() -> bool:
        fifty.let_end("ended")
        return len(fifty.files("ended", EXIT)) == KINDS["ended"]

    wait_until(all_ended, "some to end while nobody dispatches")
    orphans = fifty.who("orphaned", "")
    for kind in LOST:
        [supervisor] = fifty.who(kind, "supervisor")
        send_signal(supervisor, signal.SIGKILL)
    for one in fifty.who("vanished", ""):
        send_signal(one, signal.SIGKILL)
    fifty.daemon()
    assert fifty.ended(fifty.runs["ended"]) == "completed"
    for kind in LOST:
        wait_until(lambda kind=kind: fifty.count(kind, ev.AttemptLost) == KINDS[kind], f"all that {kind} to be lost")
    assert [one for one in orphans if is_alive(one)] == [], "what is lost has been ended"
    for kind in LOST:
        wait_until(
            lambda kind=kind: fifty.lines("begun").count(kind) == 2 * KINDS[kind], f"all that {kind} to be tried again"
        )
        assert fifty.completed(kind)
    assert all(map(is_alive, fifty.who("live", "")))
    assert fifty.completed("live")
    assert {kind: fifty.count(kind, ev.TaskStarted) for kind in KINDS} == {
        "ended": 17,
        "vanished": 16,
        "orphaned": 16,
        "live": 17,
    }
    assert {kind: fifty.count(kind, ev.AttemptLost) for kind in KINDS} == {
        "ended": 0,
        "vanished": 8,
        "orphaned": 8,
        "live": 0,
    }
    assert Counter(fifty.lines("done")) == KINDS
    assert verify_rows(fifty.log.rows()).broken is None
