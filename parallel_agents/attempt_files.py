"""What the files of an attempt hold, for those who look at them."""

from __future__ import annotations

from pathlib import Path

from parallel_agents.scheduler.runners.folder import STDERR, STDOUT
from parallel_agents.scheduler.runners.output_cap import CUT as CUT
from parallel_agents.scheduler.runners.output_cap import kept_pieces as kept_pieces
from parallel_agents.scheduler.runners.output_cap import read_cut


def cut_bytes(folder: Path) -> dict[str, int]:
    """How many bytes are gone of what an attempt has printed, by output; nothing of an output that is whole."""
    cuts = {name: read_cut(str(folder), name) for name in (STDOUT, STDERR)}
    return {name.removesuffix(".log"): cut.bytes for name, cut in cuts.items() if cut is not None}
