"""A new project's store, begun from the words of a command line, before what the command needs is imported."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.location import find_project_root, store_path
from parallel_agents.eventstore.store_maker import StoreMaker as StoreMaker


def maker_for(words: Sequence[str]) -> StoreMaker | None:
    """Begin to make the store of a command line at once, if it is one of ``run`` in a project that has none yet."""
    named, verb, rest = os.environ.get("PARALLEL_AGENTS_STORE"), "", iter(words)
    for word in rest:
        if word == "--store":
            named = next(rest, None)
        elif word.startswith("--store="):
            named = word.partition("=")[2]
        elif word in ("--dry-run", "--help", "-h"):
            return None
        else:
            verb = verb or word
    if verb != "run":
        return None
    with contextlib.suppress(ParallelAgentsError, OSError):  # Whatever is wrong is said by who opens the store.
        if not store_path(find_project_root(Path.cwd()), named).exists():
            return StoreMaker()
    return None
