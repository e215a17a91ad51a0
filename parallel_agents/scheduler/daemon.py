"""The daemon: one process a store that dispatches every run that nobody else holds."""

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

from loguru import logger

from parallel_agents.eventstore.errors import LeaseHeld
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.process import ProcessIdentity, is_alive, own_identity

_LOOK: Final = b"."  # Through the pipe of signals: look at what is due; anything else is a wish that we end.
DETACH_S: Final = 4.0  # From a signal to the end of the process, at most.


@dataclass(frozen=True, slots=True)
class DaemonInfo:
    """The daemon of a store, as it wrote itself down."""

    identity: ProcessIdentity
    started_at: str
    log_file: str


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
    return DaemonInfo(ProcessIdentity.from_dict(who), str(who["started_at"]), str(log_file(store)))


def find_holder(store: Path) -> ProcessIdentity | None:
    """The living daemon of a store, also while it still starts or already ends; or None."""
    who = _written(store)
    found = None if who is None else ProcessIdentity.from_dict(who)
    return found if found is not None and is_alive(found) else None


def _written(store: Path) -> dict[str, Any] | None:
    """What the lock file says: who holds it, in a second line since when it dispatches. None where that is nothing."""
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
) -> None:
    """Dispatch until SIGTERM or SIGINT. Then detach: attempts go on, and whoever comes next adopts them.

    Args:
        started_at: this moment, as it is told to those who ask.
        stop: ends it too, within half a second.
        timed: makes what fires scheduled plans, of the log and of a function that asks for a look at a time (microseconds
            since the epoch).
    Raises:
        LeaseHeld: another daemon has this store.
        StoreError: the store cannot be opened, or was removed.
    """
    # A handler must not touch a lock that the main thread may hold: it writes to a pipe.
    asked, ask = os.pipe()
    os.set_blocking(ask, False)
    with only_daemon(store) as file, Log(store, actor="daemon") as log:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: os.write(ask, b"!"))
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        engine = Engine(log, kind="daemon", takes_all=True)
        clock = None
        if timed is not None:
            clock = timed(log, lambda at_us: engine.loop.at("timed", at_us, lambda: _write(ask, _LOOK)))
            engine.dispatcher.listeners.append(clock.learn)
        engine.start()
        _write_line(file, {"started_at": started_at})
        logger.info("daemon {} dispatches {}", os.getpid(), store)
        try:
            while not (stop is not None and stop.is_set()):
                if clock is not None:
                    clock.look()
                if select.select([asked], [], [], 0.5)[0] and os.read(asked, 4096).strip(_LOOK):
                    _leave_in_time()
                    break
                if engine.loop.failure is not None:
                    raise engine.loop.failure
                log.check_in_place()
        finally:
            engine.close()
            logger.info("daemon {} detached", os.getpid())


def _write(pipe: int, what: bytes) -> None:
    with contextlib.suppress(OSError):  # It is full, or closed: then nobody needs one more.
        os.write(pipe, what)


def _leave_in_time() -> None:
    """Whatever holds us up (a store that somebody has locked), we are gone in time: nothing of ours needs a farewell."""
    timer = threading.Timer(DETACH_S, os._exit, [0])
    timer.daemon = True
    timer.start()
