"""Where a client's program lies: on PATH, where the configuration says, or inside a Python package that bundles it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from parallel_agents.scheduler.agents.clients import Client


def find_client(client: Client, path: str | None) -> str | None:
    """The file that starts a client, or None where there is none.

    Args:
        path: of the attempt; None is the system's default.
    """
    name = client.command[0]
    if "/" in name:
        return name if os.access(name, os.X_OK) else None
    return shutil.which(name, path=path or os.defpath) or _bundled(client)


def _bundled(client: Client) -> str | None:
    if not client.package or client.command[0] != Path(client.bundled).name:
        return None
    spec = find_spec(client.package)
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        found = os.path.join(place, client.bundled)
        if os.access(found, os.X_OK):
            return found
    return None


def missing_hint(client: Client) -> str:
    """What somebody without the client can do."""
    name, row = client.command[0], f"agents.runners.{client.name}.command"
    bundled = f", or the package {client.package.replace('_', '-')} beside this one" if client.package else ""
    return f"install {name} so that it is on PATH{bundled}; name it in {row}; or give the tasks another runner"
