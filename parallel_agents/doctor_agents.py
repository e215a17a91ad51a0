"""Which agents could be driven from here: where their programs lie, what they tell, and whether they are logged in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from parallel_agents.agent_settings import found_clients
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.findings import Finding
from parallel_agents.project import Project
from parallel_agents.scheduler.agents.clients import Client
from parallel_agents.scheduler.agents.finding import missing_hint
from parallel_agents.scheduler.runners import plugged_in

_VERSION_S = 5.0  # After which a program that is asked for its version is left alone.
_VERSION_CHARS = 40


def examine_agents(project: Project, *, scratch: Path, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """One finding for each row of the table of clients, and for each runner that a package brings along.

    Nothing is asked of a provider. A client that is missing is a warning only where it is the one for tasks that name none.

    Args:
        scratch: a folder that is home to programs that are asked for their version: some write there whatever they do.
    """
    environ = os.environ if environ is None else environ
    try:
        configuration = project.configuration()
        default, found = configuration.get("agents.defaultRunner"), found_clients(configuration, environ)
    except ParallelAgentsError:  # Told elsewhere.
        return
    for name, (client, program) in found.items():
        yield _client(client, program, environ, scratch, default=name == default)
    for name in plugged_in.names():
        yield Finding(f"runner {name}", "ok", "brought along by an installed package; what it tells, it has to know")


def _client(
    client: Client, program: str | None, environ: Mapping[str, str], scratch: Path, *, default: bool
) -> Finding:
    check = f"runner {client.name}"
    if program is None:
        used = "not found; it is the one for tasks that name none" if default else "not found"
        return Finding(check, "warning" if default else "ok", used, missing_hint(client) if default else "")
    tells = f"tells {', '.join(client.tells)}" if client.tells else "tells neither cost nor tokens"
    tested = "tested by us" if client.tested else "not tested by us"
    logged_in = login_of(client, environ)
    parts = [
        f"{_version(program, environ, scratch)} at {program}",
        tells,
        tested,
        logged_in or "no key set and no login file found",
    ]
    if logged_in or not client.keys or not default or sys.platform == "darwin":  # There it lies in a keychain.
        return Finding(check, "ok", "; ".join(parts))
    return Finding(check, "warning", "; ".join(parts), f"log in with `{client.command[0]}`, or set {client.keys[0]}")


def login_of(client: Client, environ: Mapping[str, str]) -> str:
    """How a client is logged in, as far as that can be told without asking its provider; empty where it seems not to be."""
    keys = [name for name in client.keys if environ.get(name)]
    if keys:
        return f"logged in by {keys[0]}"
    if not client.keys:
        return "its login is not looked at"
    home = environ.get(client.config_variable) if client.config_variable else None
    if not home and client.home and environ.get("HOME"):
        home = str(Path(environ["HOME"], client.home))
    if home and client.login and Path(home, client.login).is_file():
        return f"logged in by {Path(home, client.login)}"
    return ""


def _version(program: str, environ: Mapping[str, str], scratch: Path) -> str:
    """What a program says of its version, in a few words; an unknown one where it says nothing soon."""
    passed = {name: environ[name] for name in ("PATH", "LANG") if name in environ}
    env = {**passed, "HOME": str(scratch), "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1"}
    try:
        said = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_VERSION_S, env=env, check=False
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    lines = said.stdout.decode("utf-8", "replace").strip().splitlines()
    text = "".join(char for char in lines[0] if char.isprintable()) if lines and said.returncode == 0 else ""
    return text[:_VERSION_CHARS] or "unknown version"
