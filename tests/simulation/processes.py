"""The machine that attempts run on, which outlives dispatchers, and the runner that each dispatcher has there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from parallel_agents.scheduler.runners.protocol import Ended, Launch, Outcome

GRACE_S = 3.0
SECOND_US = 1_000_000


class Killed(BaseException):
    """The process of a dispatcher ends in the middle of what it does."""


class Machine:
    """What outlives dispatchers: attempts that run, and what the ended ones left in their folders."""

    def __init__(self) -> None:
        self.now_us = 0  # On a clock that nobody sets.
        self.running: dict[str, Launch] = {}
        self.began_us: dict[str, int] = {}
        self.hanging: set[str] = set()  # Those that never end by themselves, and hear nothing but what kills them.
        self.vanished: dict[str, Launch] = {}  # Gone without an exit file, and nobody has seen it yet.
        self.exit_files: dict[str, Ended] = {}
        self.revoked: set[str] = set()
        self.asked_to_stop: dict[str, tuple[int, bool]] = {}  # When it is killed; whether its time was up.
        self.objections: list[AssertionError] = []  # To starts; who starts takes an error for a start that failed.

    def check(self) -> None:
        """Nothing was started that must not be."""
        if self.objections:
            raise self.objections[0]

    def start(self, launch: Launch) -> None:
        """No attempt runs twice, and no two of one task at once."""
        assert launch.attempt_id not in self.running
        assert launch.attempt_id not in self.exit_files
        assert launch.attempt_id not in self.vanished
        self.running[launch.attempt_id] = launch
        self.began_us[launch.attempt_id] = self.now_us

    def end(self, attempt_id: str, outcome: Outcome, error: str | None, *, retryable: bool = True) -> None:
        """One ends, and leaves its exit file."""
        del self.running[attempt_id]
        self.exit_files[attempt_id] = Ended(
            attempt_id, outcome, error=error, retryable=retryable, started_at_us=self.began_us[attempt_id],
            ended_at_us=self.now_us,
        )  # fmt: skip

    def vanish(self, attempt_id: str) -> None:
        """One is gone, and so is who was to write its exit file."""
        self.vanished[attempt_id] = self.running.pop(attempt_id)

    def ask(self, attempt_id: str, grace_s: float, *, timed_out: bool = False) -> None:
        """To stop. Asked twice, the shorter grace counts and the first reason."""
        if attempt_id in self.running:
            kill_at_us = self.now_us + round(grace_s * SECOND_US)
            before = self.asked_to_stop.get(attempt_id, (kill_at_us, timed_out))
            self.asked_to_stop[attempt_id] = (min(kill_at_us, before[0]), before[1])

    def go_on(self, by_us: int) -> None:
        """Time passes: what has run for too long is asked to stop, and what was asked long enough ago is killed."""
        self.now_us += by_us
        for attempt_id, launch in list(self.running.items()):
            asked = attempt_id in self.asked_to_stop
            if not asked and self.now_us >= self.began_us[attempt_id] + round(launch.timeout_s * SECOND_US):
                self.ask(attempt_id, GRACE_S, timed_out=True)
            elif asked and self.asked_to_stop[attempt_id][0] <= self.now_us:
                self.stops(attempt_id)

    def stops(self, attempt_id: str) -> None:
        """One that was asked to."""
        timed_out = self.asked_to_stop[attempt_id][1]
        self.end(attempt_id, "timed_out" if timed_out else "stopped", "timed out" if timed_out else "stopped")

    def found_lost(self, attempt_id: str, *, began: bool) -> None:
        """Somebody sees that it neither runs nor has left an exit file. It must never start any more."""
        self.vanished.pop(attempt_id, None)
        self.revoked.add(attempt_id)
        self.exit_files[attempt_id] = Ended(attempt_id, "lost", began=began)


class MachineRunner:
    """The runner of one dispatcher: tells of the ends of what it started or adopted, each once."""

    name = "shell"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.mine: set[str] = set()
        self.dies_in: int | None = None  # So many starts from now.

    def start(self, launch: Launch) -> None:
        """Begin, if nobody objects."""
        try:
            self.begin(launch)
        except AssertionError as error:
            self.machine.objections.append(error)
            raise

    def begin(self, launch: Launch) -> None:
        """Unless somebody else has taken the run over meanwhile and found it lost."""
        if self.dies_in is not None:
            if self.dies_in == 0:
                raise Killed
            self.dies_in -= 1
        self.mine.add(launch.attempt_id)
        if launch.attempt_id not in self.machine.revoked:
            self.machine.start(launch)

    def adopt(self, launches: Iterable[Launch]) -> None:
        """What neither runs nor left an exit file is lost, and must never start any more."""
        machine = self.machine
        for launch in launches:
            self.mine.add(launch.attempt_id)
            if launch.attempt_id not in machine.running and launch.attempt_id not in machine.exit_files:
                machine.found_lost(launch.attempt_id, began=launch.attempt_id in machine.vanished)

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = GRACE_S) -> None:
        """Ask one that it started or adopted; when that listens is up to the machine."""
        if attempt_id in self.mine:
            self.machine.ask(attempt_id, grace_s, timed_out=timed_out)

    def poll(self) -> list[Ended]:
        """What has ended: read anew from its file each time, as a file is."""
        for attempt_id in [one for one in self.machine.vanished if one in self.mine]:
            self.machine.found_lost(attempt_id, began=True)
        found = [attempt_id for attempt_id in self.machine.exit_files if attempt_id in self.mine]
        self.mine -= set(found)
        return [replace(self.machine.exit_files[attempt_id]) for attempt_id in found]

    def close(self) -> None:
        """Nothing to let go of."""
