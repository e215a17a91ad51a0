"""How soon the next daemon knows what became of 50 attempts whose dispatchers were killed by -9 while they ran.

Some have ended meanwhile, some have vanished with their supervisor, some lost only that and are to be ended, some live on.
The clock runs from the start of the daemon's process, its imports included, to the event that tells of the last of a kind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from bench.dispatching import plan_of
from bench.measure import Goal, scratch, tell
from parallel_agents.daemons import command
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Task
from parallel_agents.scheduler.process import ProcessIdentity, carriers, identity_of, send_signal
from parallel_agents.scheduler.runners.folder import EXIT, PROCESS, read_object
from parallel_agents.submit import submit

ROUNDS = 7
DEADLINE_S = 60.0
KINDS = {"ended": 17, "vanished": 8, "orphaned": 8, "live": 17}
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


def wait(condition: Callable[[], Any], what: str) -> None:
    """Until a condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


class Killed:
    """A store with a run of each kind, all of whose dispatchers have been killed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir()
        self.log = Log(path)
        self.runs = {kind: self._run(kind, count) for kind, count in KINDS.items()}
        dispatchers = [
            subprocess.Popen([sys.executable, "-c", DISPATCHER, str(path), run_id]) for run_id in self.runs.values()
        ]
        for kind, count in KINDS.items():
            wait(lambda kind=kind, count=count: self._running(kind) == count, f"{count} attempts that run")
        for dispatcher in dispatchers:
            dispatcher.kill()
            dispatcher.wait()
        wait(lambda: self.let_end("ended") or len(list(self._files("ended", EXIT))) == KINDS["ended"], "exit files")
        for kind in ("vanished", "orphaned"):
            _kill(self._identities(kind, "supervisor"))
        _kill(self._identities("vanished", ""))
        self.at_us = time.time_ns() // 1000
        self.daemon = subprocess.Popen(command(path), stderr=subprocess.DEVNULL)

    def _run(self, kind: str, count: int) -> str:
        fifo = self.log.path.with_name(kind)
        os.mkfifo(fifo)
        tasks = [Task(task_id=f"t{number}", command=("cat", str(fifo)), max_retries=0) for number in range(count)]
        return submit(self.log, plan_of(tasks, sum(KINDS.values())), workdir=self.log.path.parent)

    def _files(self, kind: str, name: str) -> Iterable[Path]:
        return self.log.path.parent.glob(f"runs/{self.runs[kind]}/*/*/{name}")

    def _running(self, kind: str) -> int:
        found = (read_object(str(file.parent), PROCESS) for file in self._files(kind, PROCESS))
        return sum(one is not None and one.get("state") == "running" for one in found)

    def _identities(self, kind: str, part: str) -> set[ProcessIdentity]:
        found = (read_object(str(file.parent), PROCESS) or {} for file in self._files(kind, PROCESS))
        return {ProcessIdentity.from_dict(one[part] if part else one) for one in found}

    def let_end(self, kind: str) -> None:
        """Let those commands of a kind go on to their end that wait by now."""
        with contextlib.suppress(OSError):  # None of them does.
            os.close(os.open(self.log.path.with_name(kind), os.O_WRONLY | os.O_NONBLOCK))

    def told(self, kind: str, event_type: type[ev.Event]) -> list[Recorded]:
        """What the log has of a kind."""
        return [one for one in self.log.read_run(self.runs[kind]) if isinstance(one.event, event_type)]

    def until(self, kind: str, event_type: type[ev.Event], count: int) -> float:
        """Seconds until so many events of a kind are in the log."""
        wait(lambda: len(self.told(kind, event_type)) >= count, f"{count} {event_type.__name__} of {kind}")
        return (self.told(kind, event_type)[count - 1].at_us - self.at_us) / 1e6

    def close(self) -> None:
        """End what is left."""
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait()
        started = [one.event.attempt_id for one in self.log.read() if isinstance(one.event, ev.TaskStarted)]
        _kill({who for pid in carriers(started) if (who := identity_of(pid)) is not None})
        self.log.close()


def _kill(them: Iterable[ProcessIdentity]) -> None:
    for one in them:
        send_signal(one, signal.SIGKILL)


def recover(path: Path) -> dict[str, float]:
    """Seconds, by what became known."""
    killed = Killed(path)
    try:
        found = {
            "all four runs are claimed": max(killed.until(kind, ev.RunClaimed, 2) for kind in KINDS),
            "17 that ended are completed": killed.until("ended", ev.TaskCompleted, KINDS["ended"]),
            "8 that vanished are lost": killed.until("vanished", ev.AttemptLost, KINDS["vanished"]),
            "8 without a supervisor are ended and lost": killed.until("orphaned", ev.AttemptLost, KINDS["orphaned"]),
        }
        claimed, *known = found.values()
        found["of that, from the claim to the last of these"] = max(known) - claimed
        killed.at_us = time.time_ns() // 1000
        killed.let_end("live")
        found["17 that live, from their end on"] = killed.until("live", ev.TaskCompleted, KINDS["live"])
        return found
    finally:
        killed.close()


def main() -> None:
    """Print the medians."""
    figures: dict[str, list[float]] = {}
    with scratch() as folder:
        for number in range(ROUNDS):
            for what, seconds in recover(folder / str(number) / "events.db").items():
                figures.setdefault(what, []).append(seconds)
    for what, found in figures.items():
        detail = f"{min(found):.2f} to {max(found):.2f} s in {ROUNDS} rounds"
        tell(f"recovery of 50: {what}", median(found), Goal(2.0, 1.0, more_is_better=False), detail, unit="s")


if __name__ == "__main__":
    main()
