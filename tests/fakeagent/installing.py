"""Puts the fake agent where a test wants it, under the names of real clients."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "fake_agent.py"


def command_of(dialect: str) -> list[str]:
    """The command that is that client. Neither site packages nor the environment change what it does."""
    return [sys.executable, "-S", "-I", str(SCRIPT), dialect]


def install(folder: Path, *dialects: str) -> Path:
    """Make commands of those names in a folder, ``claude`` and ``codex`` if none is named; give the folder for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for dialect in dialects or ("claude", "codex"):
        file = folder / dialect
        file.write_text(f'#!/bin/sh\nexec {shlex.join(command_of(dialect))} "$@"\n')
        file.chmod(0o755)
    return folder
