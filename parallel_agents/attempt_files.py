"""What the files of an attempt hold, for those who look at them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.scheduler.runners.folder import STDERR, STDOUT
from parallel_agents.scheduler.runners.output_cap import CUT as CUT
from parallel_agents.scheduler.runners.output_cap import kept_pieces as kept_pieces
from parallel_agents.scheduler.runners.output_cap import read_cut


def cut_bytes(folder: Path) -> dict[str, int]:
    """How many bytes are gone of what an attempt has printed, by output; nothing of an output that is whole."""
    cuts = {name: read_cut(str(folder), name) for name in (STDOUT, STDERR)}
    return {name.removesuffix(".log"): cut.bytes for name, cut in cuts.items() if cut is not None}


def check_printed_by_then(folder: Path, attempt: Mapping[str, Any], upto: int, then_us: int) -> None:
    """Refuse to give what an attempt has printed since for what it had printed at a moment at which it was running.

    No event says how much that was; but where nothing was written to the files since, it is all of it.

    Args:
        attempt: as ``show`` lists it as of that moment.
        upto: the event that is looked at, appended at ``then_us``.
    Raises:
        NotAllowed: it cannot be told.
    """
    if attempt["ended_at"] is not None:
        return
    for name in (STDOUT, STDERR):
        try:
            found = (folder / name).stat()
        except FileNotFoundError:
            continue
        if found.st_size and found.st_mtime_ns // 1000 > then_us:
            raise NotAllowed(
                f"attempt {attempt['attempt_id']} was running at event {upto}, and how much it had printed by then "
                "is recorded nowhere",
                hint="without --at all that it has printed is shown, as it is with --at from the event of its end on",
            )
