"""The daemon: one process a store that dispatches every run that nobody else holds.

It is asked by signals, because a store that somebody has locked must not keep it from hearing: SIGTERM, SIGINT and SIGQUIT
have it detach, SIGUSR1 has it drain. Where it stands, it says in its lock file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import LeaseHeld
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.scheduler.daemon_log import rotate
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.job_control import stop_between_ticks
from parallel_agents.scheduler.process import ProcessIdentity, is_alive, own_identity

DETACH_S: Final = 4.0  # From a signal to the end of the process, at most.
DRAIN: Final = signal.SIGUSR1
_DETACH: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class DaemonInfo:
    """The daemon of a store, as it wrote itself down."""

    identity: ProcessIdentity
    started_at: str
    log_file: str
    draining_since: str | None = None  # Since then it starts nothing; it ends when what runs has ended.
    drains: bool = False  # Whether it understands SIGUSR1; that would kill one of a release before.


def lock_file(store: Path) -> Path:
    """Beside the store: held by the daemon for its life, and telling who it is."""
    return store.with_name(store.stem + ".daemon.lock")


def log_file(store: Path) -> Path:
    """Where a daemon in the background writes what it has to say."""
    return store.with_name(store.stem + ".daemon.log")


def find_daemon(store: Path) -> DaemonInfo | None:
    """The living daemon of a store, once it dispatches, or None."""
    who = _written(store)
    if who is None or "started_at" not in who or not is_alive(ProcessIdentity.from_dict(who)):
        return None
    return DaemonInfo(
        ProcessIdentity.from_dict(who),
        str(who["started_at"]),
        str(log_file(store)),
        draining_since=who.get("draining_since"),
        drains=bool(who.get("drains")),
    )


def find_holder(store: Path) -> ProcessIdentity | None:
    """The living daemon of a store, also while it still starts or already ends; or None."""
    who = _written(store)
    found = None if who is None else ProcessIdentity.from_dict(who)
    return found if found is not None and is_alive(found) else None


def _written(store: Path) -> dict[str, Any] | None:
    """What the lock file says, a line each: who holds it, since when it dispatches, since when it drains. Or None."""
    try:
        who: dict[str, Any] = {}
        for line in lock_file(store).read_text().splitlines():
            who.update(json.loads(line))
        ProcessIdentity.from_dict(who)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return who


@contextlib.contextmanager
def only_daemon(store: Path) -> Iterator[TextIO]:
    """Hold the lock of a store's daemon, saying who we are. Gives the file.

    Raises:
        LeaseHeld: somebody else has it.
    """
    make_home(store)
    with open(lock_file(store), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = (_written(store) or {"pid": "unknown"})["pid"]
            raise LeaseHeld(
                f"a daemon dispatches this store already: pid {pid}", hint="`parallel-agents daemon stop` ends it"
            ) from None
        os.fchmod(file.fileno(), 0o600)
        file.truncate(0)
        _write_line(file, own_identity().to_dict())
        reach("daemon.locked")
        try:
            yield file
        finally:
            file.truncate(0)


def _write_line(file: TextIO, values: dict[str, Any]) -> None:
    file.write(json.dumps(values) + "\n")
    file.flush()


class Timed(Protocol):
    """What the daemon does by a timetable besides dispatching."""

    def learn(self, records: list[Recorded]) -> None:
        """What was appended. Called on the dispatcher's thread."""

    def look(self) -> None:
        """Do what is due; cheap where nothing is. Called on the main thread about twice a second, and when asked for."""


def run_daemon(
    store: Path,
    *,
    started_at: str,
    stop: threading.Event | None = None,
    timed: Callable[[Log, Callable[[int], None]], Timed] | None = None,
    now_text: Callable[[], str] = lambda: "",
) -> None:
    """Dispatch until somebody asks for an end.

    SIGTERM, SIGINT or SIGQUIT: detach. Attempts go on, and whoever comes next adopts them. SIGUSR1: drain. Nothing starts any
    more; when what runs has ended and is recorded, it is the end. Who hangs up wants it to detach as well, where there is a
    terminal that could. SIGTSTP stops it between two commits.

    Args:
        started_at: this moment, as it is told to those who ask.
        stop: has it detach too, within half a second.
        timed: makes what fires scheduled plans, of the log and of a function that asks for a look at a time (microseconds
            since the epoch). Nothing is fired while it drains: the next daemon sees to what was due.
        now_text: what tells such moments as ``started_at``.
    Raises:
        LeaseHeld: another daemon has this store.
        StoreError: the store cannot be opened, or was removed.
    """
    from loguru import logger  # Other commands look for a daemon, and have no use for it.

    asked = _Asked()
    with only_daemon(store) as file, Log(store, actor="daemon") as log:
        asked.listen()
        engine = Engine(log, kind="daemon", takes_all=True)
        clock = None
        if timed is not None:
            clock = timed(log, lambda at_us: engine.loop.at("timed", at_us, asked.wake))
            engine.dispatcher.listeners.append(clock.learn)
        engine.start()
        reach("daemon.dispatching")
        _write_line(file, {"started_at": started_at, "drains": True})
        logger.info("daemon {} dispatches {}", os.getpid(), store)
        drains = False
        try:
            while not (stop is not None and stop.is_set()):
                if clock is not None and not drains:
                    clock.look()
                for number in asked.since(_LOOK_S):
                    if number == signal.SIGTSTP:
                        stop_between_ticks(engine.loop)
                    elif number == DRAIN and not drains:
                        drains = True
                        _write_line(file, {"draining_since": now_text()})
                        logger.info("daemon {} drains: it starts nothing more", os.getpid())
                        engine.dispatcher.drain()
                        engine.loop.wake()
                    elif number != DRAIN:
                        _leave_in_time()
                        reach("daemon.leaving")
                        return
                if drains and engine.dispatcher.drained:
                    return
                if engine.loop.failure is not None:
                    raise engine.loop.failure
                log.check_in_place()
                with contextlib.suppress(OSError):  # There is no place to say it but that file.
                    rotate(log_file(store))
        finally:
            engine.close()
            how = "has drained" if drains and engine.dispatcher.drained else "detached"
            logger.info("daemon {} {}", os.getpid(), how)


class _Asked:
    """The signals that have come, through a pipe: a handler must not touch a lock that the main thread may hold."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    def listen(self) -> None:
        """Catch what is meant for a daemon, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [*_DETACH, DRAIN]
        if not _has_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        else:  # nohup has a say in this.
            of_terminal = (signal.SIGHUP, signal.SIGTSTP)
            numbers += [number for number in of_terminal if signal.getsignal(number) is not signal.SIG_IGN]
        for number in numbers:
            signal.signal(number, lambda number, _frame: self._put(number))

    def since(self, timeout_s: float) -> list[int]:
        """Those that have come since the last call; where none has, wait for one that long, or until ``wake``."""
        if not select.select([self._read_end], [], [], timeout_s)[0]:
            return []
        return [number for number in os.read(self._read_end, 4096) if number]

    def wake(self) -> None:
        """End the wait for signals. Any thread."""
        self._put(0)

    def _put(self, number: int) -> None:
        with contextlib.suppress(OSError):  # It is full: then one more tells nothing new.
            os.write(self._write_end, bytes([number]))


def _has_terminal() -> bool:
    """Whether a terminal controls this process, and can so be hung up."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _leave_in_time() -> None:
    """Whatever holds us up (a store that somebody has locked), we are gone in time: nothing of ours needs a farewell."""
    timer = threading.Timer(DETACH_S, os._exit, [0])
    timer.daemon = True
    timer.start()
