"""What this machine and this project offer a run, and what is wrong with them. Everything said here was just tried."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from parallel_agents import look
from parallel_agents.agent_types import examine_agent_types
from parallel_agents.configuration_keys import BY_PATH
from parallel_agents.doctor_agents import examine_agents
from parallel_agents.doctor_files import examine_files
from parallel_agents.eventstore.doorbell import doorbell_folder
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.location import files_home
from parallel_agents.eventstore.write_ahead import readers, wal_bytes, wal_file
from parallel_agents.findings import Finding, Level
from parallel_agents.held_back import limits
from parallel_agents.project import Project
from parallel_agents.projections import status as st
from parallel_agents.scheduler.daemon import find_daemon, lock_file
from parallel_agents.scheduler.process import boot_id, holder_alive, start_time_now
from parallel_agents.scheduler.resources import free_bytes
from parallel_agents.scheduler.runners.control_groups import control_group_home
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.scheduler.runners.shell import ShellRunner
from parallel_agents.scheduler.sandbox import PRESETS, problem
from parallel_agents.scheduler.throttle import MEGABYTE
from parallel_agents.submit import sandbox_words
from parallel_agents.version import RELEASE

_TRY_S = 20.0
_OLDEST_GIT = (2, 38)
LARGE_WAL_BYTES = 67_108_864


def examine(project: Project, *, scratch: Path, thorough: bool = False) -> Iterator[Finding]:
    """Look at everything, one finding after the other.

    Args:
        scratch: an empty folder for an attempt that is made to see whether attempts can be.
        thorough: read every object of checkpoints too, which may take minutes.
    """
    yield Finding("parallel-agents", "ok", RELEASE)
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    yield Finding("sqlite", "ok", sqlite3.sqlite_version)
    yield _git()
    yield Finding("project", "ok", str(project.root))
    yield from _store(project)
    yield _disk(project)
    yield from examine_files(project, thorough=thorough)
    yield _configuration(project)
    yield from examine_agent_types(project.root)
    yield _daemon(project)
    yield _doorbell()
    yield _identity()
    yield _shell_runner(scratch)
    yield _sandboxes(project, scratch)
    yield _limits()
    yield Finding("runner python", "ok", "runs callables in threads of the submitting process, in the Python API")
    yield from examine_agents(project, scratch=scratch)
    yield from _circuits(project)


def _git() -> Finding:
    path = shutil.which("git")
    if path is None:
        return Finding("git", "warning", "not found on PATH", "install git; runs work without it")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    version = said.stdout.strip().removeprefix("git version ")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST_GIT:
        return Finding(
            "git", "warning", f"{version} at {path} merges nothing without a checkout", "install git >= 2.38"
        )
    return Finding("git", "ok", f"{version} at {path}")


def _store(project: Project) -> Iterator[Finding]:
    if not project.store.exists():
        yield Finding("store", "ok", f"none yet; the first run makes {project.store}")
        return
    try:
        with project.open() as log:
            lines = look.runs(log)
            runs = "1 run" if len(lines) == 1 else f"{len(lines)} runs"
            yield Finding("store", "ok", f"{project.store}: {log.last_seq()} events of {runs}")
    except ParallelAgentsError as error:
        yield Finding("store", "error", error.message, error.hint)
        return
    mode = project.store.stat().st_mode & 0o777
    if mode & 0o077:
        yield Finding("store's mode", "warning", f"{mode:04o}: others can read it", f"chmod 600 {project.store}")
    yield from _write_ahead(project.store)
    open_runs = [line for line in lines if line["status"] not in st.ENDED]
    lonely = [line["run_id"] for line in open_runs if line["holder"] is None or not holder_alive(line["holder"])]
    if lonely:
        named = ", ".join(lonely[:5]) + (", ..." if len(lonely) > 5 else "")
        hint = f"`parallel-agents resume {lonely[0]}` or `parallel-agents daemon start` goes on"
        yield Finding("runs", "warning", f"nobody dispatches {named}", hint)
    else:
        yield Finding(
            "runs", "ok", f"{len(open_runs)} open, each dispatched by a living process" if open_runs else "none open"
        )


def _write_ahead(store: Path) -> Iterator[Finding]:
    """A write-ahead log that has grown, with who keeps it from being folded."""
    size = wal_bytes(store)
    if size <= LARGE_WAL_BYTES:
        return
    reading = readers(store)
    if reading:
        named = ", ".join(f"{pid} ({_name_of(pid)})" for pid in reading)
        why, hint = f"process {named} reads an old moment of it", "end that transaction; the next quiet moment folds it"
    elif reading is None:
        why, hint = "nobody can tell who reads it", f"find who has it open with `lsof {store}`"
    else:
        why, hint = "nobody reads it just now", "the next daemon or run folds it at a quiet moment"
    yield Finding("store's journal", "warning", f"{size / 1e6:,.0f} MB in {wal_file(store).name}: {why}", hint)


def _name_of(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "of somebody else"


def _disk(project: Project) -> Finding:
    folder = files_home(project.store)
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding(
            "disk", "error", f"{folder} cannot be written", "check its owner and mode, or name another --store"
        )
    free, limit = free_bytes(folder), _least_free(project)
    if free is None:
        return Finding("disk", "ok", f"nobody can tell how much is free under {folder}")
    level: Level = "ok" if free >= limit * MEGABYTE else "warning"
    detail = f"{free / 1e9:.1f} GB free under {folder}; below {limit:,} MB no task with files starts"
    hint = "`parallel-agents gc` shows what can go; resourceManagement.disk.minFreeMB is the limit"
    return Finding("disk", level, detail, "" if level == "ok" else hint)


def _least_free(project: Project) -> int:
    """The configured limit in megabytes; the default one where the configuration cannot be read."""
    key = "resourceManagement.disk.minFreeMB"
    try:
        return int(project.configuration().get(key))
    except ParallelAgentsError:
        return int(BY_PATH[key].default)


def _configuration(project: Project) -> Finding:
    try:
        configuration = project.configuration()
    except ParallelAgentsError as error:
        return Finding("configuration", "error", error.message, error.hint)
    origins = sorted(set(configuration.origins.values()))
    return Finding("configuration", "ok", "; ".join(origins) if origins else "all defaults")


def _daemon(project: Project) -> Finding:
    found = find_daemon(project.store)
    if found is None and lock_file(project.store).is_file() and lock_file(project.store).stat().st_size:
        return Finding("daemon", "ok", "the last one was killed; `parallel-agents daemon start` takes its place")
    if found is None:
        return Finding("daemon", "ok", "none; `run` and `resume` dispatch by themselves, `daemon start` starts one")
    return Finding("daemon", "ok", f"pid {found.identity.pid}, since {found.started_at}")


def _circuits(project: Project) -> Iterator[Finding]:
    """The runners that this store leaves alone for a while."""
    if not project.store.exists():
        return
    try:
        with project.open() as log:
            lines = [line for line in limits(log) if line["runner"] is not None]
    except ParallelAgentsError:  # Told elsewhere.
        return
    for line in lines:
        detail = f"failed {line['failures']} times in a row, left alone until {line['until']}: {line['reason']}"
        yield Finding(f"circuit {line['runner']}", "warning", detail, f"mend it; `{line['lift']}` does not wait")
    if not lines:
        yield Finding("circuits", "ok", "closed: no runner is left alone")


def _doorbell() -> Finding:
    folder = doorbell_folder()
    if folder is None:
        hint = "set XDG_RUNTIME_DIR to a private folder of yours"
        return Finding(
            "doorbell", "warning", "no private folder for sockets: other processes are heard a second late", hint
        )
    return Finding("doorbell", "ok", str(folder))


def _identity() -> Finding:
    return Finding("process identity", "ok", f"boot {boot_id()[:8]}, start times to {_resolution()}")


def _resolution() -> str:
    return f"{1000 // os.sysconf('SC_CLK_TCK')} ms" if start_time_now() else "unknown"


def _shell_runner(scratch: Path) -> Finding:
    """Run a command as an attempt, supervised, and see it end."""
    ended = threading.Event()
    runner = ShellRunner(ended.set)
    try:
        runner.start(
            Launch(
                run_id="doctor", task_id="doctor", attempt_id="doctor", folder=scratch / "attempt", workdir=scratch,
                command=("sh", "-c", "exit 7"), env={"PATH": os.environ.get("PATH", os.defpath)}, timeout_s=_TRY_S,
            )
        )  # fmt: skip
        if not ended.wait(_TRY_S):
            return Finding("runner shell", "error", f"a command did not end within {_TRY_S:g} s")
        found = runner.poll()[0]
    finally:
        runner.close()
    if found.exit_code != 7:
        return Finding("runner shell", "error", f"a command could not be run: {found.error or found.outcome}")
    took_ms = (found.ended_at_us - found.started_at_us) / 1000
    return Finding("runner shell", "ok", f"a supervised command ran and ended as it should, in {took_ms:.0f} ms")


def _sandboxes(project: Project, scratch: Path) -> Finding:
    """Which sandboxes this machine has, and whether the one that is asked for is among them."""
    folder = scratch / "sandbox"
    folder.mkdir()
    found = {name: problem((name,), str(folder)) for name in PRESETS}
    there = [name for name, why in found.items() if not why]
    detail = "; ".join([f"{', '.join(there) or 'none'} can be had here", *(f"{n}: {w}" for n, w in found.items() if w)])
    try:
        words = sandbox_words(project.configuration())
    except ParallelAgentsError:
        return Finding("sandbox", "ok", detail)  # Told by the line about the configuration.
    if words and (why := problem(words, str(folder))):
        hint = "install it, or change safetyFeatures.sandbox"
        return Finding("sandbox", "error", f"{words[0]} is asked for: {why}", hint)
    in_force = f"attempts run behind {words[0]}" if words else "attempts run as you, without one"
    return Finding("sandbox", "ok", f"{in_force}; {detail}")


def _limits() -> Finding:
    """What holds attempts to their limits here."""
    home = control_group_home()
    if home.path is not None:
        return Finding("limits of agents", "ok", f"cgroup v2 and a watchdog: groups in {home.path}")
    return Finding("limits of agents", "ok", f"nice and a watchdog; no cgroup v2: {home.reason}")


def as_json(findings: Iterator[Finding]) -> list[dict[str, Any]]:
    """The findings as scripts read them."""
    return [finding._asdict() for finding in findings]
