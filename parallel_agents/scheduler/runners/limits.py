"""What one attempt may use of the machine, and what is said where it uses more. Data only; a supervisor starts with it."""

from __future__ import annotations

from typing import Final, NamedTuple

MEMORY: Final = "memory"
"""The kind of the failure of an attempt that has used more memory than it may."""
OUTPUT: Final = "output"
"""The same where it has printed more than there may be, and none of that could be given back to the disk."""

_MEGABYTE: Final = 1_000_000


class Limits(NamedTuple):
    """None is no limit."""

    cpu_percent: float | None = None  # Of all processors together.
    memory_bytes: int | None = None

    def __bool__(self) -> bool:
        """Whether there is a limit at all."""
        return self.cpu_percent is not None or self.memory_bytes is not None


NO_LIMITS: Final = Limits()


def too_much(limit_bytes: int, used_bytes: int | None = None) -> str:
    """Why an attempt was ended, in words.

    Args:
        used_bytes: None where only the kernel has seen it.
    """
    used = "more memory" if used_bytes is None else f"{_megabytes(used_bytes)} of memory, more"
    return f"used {used} than the {_megabytes(limit_bytes)} that resourceManagement.memory.perAgentLimitMB allows"


def _megabytes(size: int) -> str:
    return f"{size // _MEGABYTE:,} MB"
