"""The daemon of a store, from outside: start it in the background, ask after it, end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parallel_agents.eventstore.errors import LeaseHeld, ParallelAgentsError
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.daemon import DRAIN, DaemonInfo, find_daemon, find_holder, log_file
from parallel_agents.scheduler.process import is_alive, send_signal

START_S = 20.0  # A daemon that does not hold its lock by then is not coming.
STOP_S = 10.0
_LOOK_S = 0.02
_DRAIN_LOOK_S = 0.2


class NoDaemon(ParallelAgentsError):
    """No daemon dispatches this store."""

    code = "no_daemon"
    exit_code = 7


class DaemonFailed(ParallelAgentsError):
    """The daemon did not come up, or does not end."""

    code = "daemon_failed"
    exit_code = 1


def start(store: Path, command: Sequence[str]) -> DaemonInfo:
    """Start a daemon that outlives this process, and wait until it dispatches.

    Args:
        store: its file.
        command: what runs a daemon in the foreground.
    Raises:
        LeaseHeld: there is one already; the message names it.
        DaemonFailed: it ended at once; the message says with what words.
    """
    found = find_daemon(store)
    if found is not None:
        raise _held(found.identity.pid, found.draining_since)
    make_home(store)
    log = log_file(store)
    began = log.stat().st_size if log.exists() else 0
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", start_new_session=True
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = find_daemon(store)
        if found is not None and found.identity.pid == process.pid:
            return found
        if process.poll() is not None:
            holder = find_holder(store)
            if holder is not None:  # Started at the same moment as ours, and first.
                raise _held(holder.pid)
            break
        time.sleep(_LOOK_S)
    said = _tail(log, began)
    raise DaemonFailed(f"the daemon did not come up: {said}", hint=f"its log is {log}")


def _held(pid: int, draining_since: str | None = None) -> LeaseHeld:
    if draining_since is not None:
        hint = "wait for it with `parallel-agents daemon stop --drain`, or end it at once with `parallel-agents daemon stop`"
        return LeaseHeld(f"daemon {pid} drains this store and has not ended yet", hint=hint)
    return LeaseHeld(f"a daemon dispatches this store already: pid {pid}", hint="`parallel-agents daemon stop` ends it")


def _tail(log: Path, began: int) -> str:
    with open(log, "rb") as file:
        file.seek(began if began <= log.stat().st_size else 0)  # It has begun a new one.
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    wanted = [line for line in lines if line.startswith("error")]
    return (wanted or lines or ["it said nothing"])[-1]


def is_there(store: Path) -> bool:
    """Whether a daemon dispatches this store, and takes up what comes. One that drains does not."""
    found = find_daemon(store)
    return found is not None and found.draining_since is None


def status(store: Path) -> DaemonInfo:
    """The living daemon.

    Raises:
        NoDaemon: there is none.
    """
    found = find_daemon(store)
    if found is None:
        raise NoDaemon("no daemon dispatches this store", hint="`parallel-agents daemon start` starts one")
    return found


def stop(store: Path) -> DaemonInfo:
    """Have the daemon detach and wait until it has ended. Attempts go on, and whoever comes next adopts them.

    Raises:
        NoDaemon: there is none.
        DaemonFailed: it does not end.
    """
    found = status(store)
    send_signal(found.identity, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while is_alive(found.identity):
        if time.monotonic() > deadline:
            raise DaemonFailed(
                f"daemon {found.identity.pid} did not end within {STOP_S:g} s", hint=f"its log is {found.log_file}"
            )
        time.sleep(_LOOK_S)
    return found


def drain(store: Path, tell: Callable[[list[str]], None]) -> DaemonInfo:
    """Have the daemon start nothing more, and wait until what runs has ended and it with that.

    Whoever breaks the wait off leaves it draining.

    Args:
        tell: called with the tasks that still run, as ``RUN/TASK``, at first and whenever they are others.
    Raises:
        NoDaemon: there is none.
        DaemonFailed: it cannot drain, or was made to detach before it had.
    """
    found = status(store)
    pid = found.identity.pid
    if not found.drains:
        raise DaemonFailed(
            f"daemon {pid} is of a release that cannot drain", hint="`parallel-agents daemon stop` has it detach"
        )
    with Log(store, create=False) as log:
        if found.draining_since is None:
            send_signal(found.identity, DRAIN)
        seen = -1
        told: list[str] | None = None
        while True:
            alive = is_alive(found.identity)
            if (end := log.last_seq()) != seen:
                seen, running = end, running_of(log, found)
                if alive and running != told:
                    told = running
                    tell(running)
            if not alive:
                break
            time.sleep(_DRAIN_LOOK_S)
        left = [name for name in told or () if name in _running(log)]
        if told != [] and not left:
            tell([])
    if left:
        raise DaemonFailed(
            f"daemon {pid} ended before it had drained: {', '.join(left)} still running",
            hint="`parallel-agents daemon start` goes on with that",
        )
    return found


def is_draining(log: Log, store: Path, run_id: str) -> bool:
    """Whether a run is held by a daemon that drains: nothing of it starts until somebody else goes on with it."""
    found = find_daemon(store)
    if found is None or found.draining_since is None:
        return False
    return _holds(found, Projector(log).runs()[run_id].holder)


def _holds(daemon: DaemonInfo, holder: dict[str, Any] | None) -> bool:
    return holder is not None and daemon.identity.to_dict().items() <= holder.items()


def running_of(log: Log, daemon: DaemonInfo) -> list[str]:
    """What runs of the runs that a daemon holds, as ``RUN/TASK``."""
    held = {name for name, run in Projector(log).runs().items() if _holds(daemon, run.holder)}
    return [name for name in _running(log) if name.partition("/")[0] in held]


def _running(log: Log) -> list[str]:
    projector = Projector(log)
    runs = [run_id for run_id, attempts in projector.occupancy().by_run.items() if attempts]
    return [f"{run_id}/{task_id}" for run_id in runs for task_id in projector.state(run_id).running.values()]


def command(store: Path) -> list[str]:
    """What runs the daemon of a store in the foreground."""
    return [sys.executable, "-m", "parallel_agents.cli.main", "--store", str(store.resolve()), "daemon", "run"]


def now_text() -> str:
    """This moment, as a daemon writes down when it started."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def as_json(info: DaemonInfo) -> dict[str, object]:
    """A daemon as scripts read it."""
    return {
        **info.identity.to_dict(),
        "started_at": info.started_at,
        "log_file": info.log_file,
        "draining_since": info.draining_since,
    }
