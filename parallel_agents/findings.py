"""What an examination of a machine and a project finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str
    level: Level
    detail: str
    hint: str = ""  # The command that mends it.
