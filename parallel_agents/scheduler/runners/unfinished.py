"""Ends what a dispatcher that has gone had running and nobody takes over: quality gates, which are begun anew."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from parallel_agents.scheduler.process import ProcessIdentity, end_processes, family
from parallel_agents.scheduler.runners.folder import EXIT, PROCESS, REVOKED, LockHeld, read_object, take_lock

GRACE_S: Final = 1.0  # Between SIGTERM and SIGKILL; nobody waits for their results any more.
_GIVE_UP_S: Final = 10.0
_LOOK_S: Final = 0.01


def unfinished(folders: Iterable[Path]) -> list[Path]:
    """Those folders of supervised commands that hold no exit file."""
    return [folder for folder in folders if not (folder / EXIT).exists()]


def end_unfinished(folders: Iterable[Path]) -> None:
    """Make sure that supervised commands neither run nor ever start. Blocks until their processes are gone.

    Args:
        folders: of these commands, each called after the id that its processes carry.
    """
    left = list(folders)
    deadline = time.monotonic() + _GIVE_UP_S
    for folder in left:
        with contextlib.suppress(OSError):
            os.close(os.open(folder / REVOKED, os.O_WRONLY | os.O_CREAT, 0o600))
    while left:
        roots = []
        for folder in left:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                data = read_object(str(folder), PROCESS)
                if data is not None and data.get("state") == "running":
                    roots.append(ProcessIdentity.from_dict(data))
        names = [folder.name for folder in left]
        end_processes(partial(family, roots, names), grace_s=GRACE_S)
        # A supervisor that was about to start one when it was revoked holds its lock until that has come to its end.
        left = [folder for folder in left if _is_held(folder)]
        if left and time.monotonic() > deadline:
            return
        if left:
            time.sleep(_LOOK_S)


def _is_held(folder: Path) -> bool:
    try:
        os.close(take_lock(str(folder)))
    except LockHeld:
        return True
    except OSError:
        return False
    return False
