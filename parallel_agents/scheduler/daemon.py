"""The daemon: one process a store that dispatches every run that nobody else holds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from parallel_agents.eventstore.errors import LeaseHeld
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.process import ProcessIdentity, is_alive, own_identity


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
    """The living daemon of a store, or None."""
    try:
        written = json.loads(lock_file(store).read_text())
        identity = ProcessIdentity.from_dict(written)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not is_alive(identity):
        return None
    return DaemonInfo(identity, str(written.get("started_at", "")), str(log_file(store)))


@contextlib.contextmanager
def _only_daemon(store: Path, started_at: str) -> Iterator[None]:
    make_home(store)
    with open(lock_file(store), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            written = file.read()
            pid = json.loads(written).get("pid") if written.strip() else "unknown"
            raise LeaseHeld(
                f"a daemon dispatches this store already: pid {pid}", hint="`parallel-agents daemon stop` ends it"
            ) from None
        os.fchmod(file.fileno(), 0o600)
        file.truncate(0)
        file.write(json.dumps({**own_identity().to_dict(), "started_at": started_at}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def run_daemon(store: Path, *, started_at: str, stop: threading.Event | None = None) -> None:
    """Dispatch until SIGTERM or SIGINT. Then detach: attempts go on, and whoever comes next adopts them.

    Raises:
        LeaseHeld: another daemon has this store.
        StoreError: the store cannot be opened.
    """
    stop = stop or threading.Event()
    with _only_daemon(store, started_at), Log(store, actor="daemon") as log:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        engine = Engine(log, kind="daemon", takes_all=True)
        engine.start()
        logger.info("daemon {} dispatches {}", os.getpid(), store)
        try:
            while not stop.wait(0.5):
                if engine.loop.failure is not None:
                    raise engine.loop.failure
        finally:
            engine.close()
            logger.info("daemon {} detached", os.getpid())
