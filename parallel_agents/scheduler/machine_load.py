"""What attempts use and what the machine has left, as one pass of the sampler saw it. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Usage:
    """What the process tree of one attempt has used so far, by samples about a second apart."""

    samples: int = 0
    cpu_s: float = 0.0  # Of processes that have ended too, as far as a sample saw them or their parent waited for them.
    cpu_percent: float = 0.0  # Of all processors together (100 is the whole machine), between the last two samples.
    peak_cpu_percent: float = 0.0
    memory_bytes: int = 0  # Resident, at the last sample.
    peak_memory_bytes: int = 0
    open_files: int = 0
    peak_open_files: int = 0
    disk_written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """The machine at one moment. None stands for what is not known (yet)."""

    at_us: int = 0  # By the steady clock.
    cpu_percent: float | None = None  # Of all processors together, the mean of the last five seconds.
    available_bytes: int | None = None  # Memory that could still be given out without swapping.
    attempts: Mapping[str, Usage] = field(default_factory=dict)  # By attempt id: those of this process that live.


UNKNOWN = MachineLoad()
"""Before the first sample, and where nothing is sampled."""
