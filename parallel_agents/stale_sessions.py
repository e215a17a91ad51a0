"""What clients of agents keep of their sessions in the folder that they have from us; it goes with the attempts it is of."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from parallel_agents.leftovers import delete
from parallel_agents.scheduler.agents.clients import CLIENTS
from parallel_agents.scheduler.runners.folder import SESSION, read_object

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def sessions_of(attempts: Iterable[str]) -> set[str]:
    """The sessions that attempts have had, by their folders. A name that is no UUID could be part of any other one."""
    told = (read_object(folder, SESSION) or {} for folder in attempts)
    return {one for known in told if isinstance(one := known.get("session"), str) and _UUID.fullmatch(one)}


def remove_sessions(home: Path, sessions: Collection[str]) -> None:
    """Remove whatever is named after one of these sessions, below the folder of clients."""
    if not sessions:
        return
    for folder, folders, names in os.walk(home / CLIENTS):
        for name in [*folders, *names]:
            if any(found in sessions for found in _UUID.findall(name)):
                with contextlib.suppress(OSError):
                    delete(Path(folder, name))
        folders[:] = [name for name in folders if os.path.isdir(f"{folder}/{name}")]
