"""What one attempt may use of this machine, by the configuration. Limits that nobody set give way where they would be absurd."""

from __future__ import annotations

import os

from parallel_agents.configuration import Configuration

_CPU, _MEMORY = "resourceManagement.cpu.perAgentLimit", "resourceManagement.memory.perAgentLimitMB"
_SHARE_OF_MEMORY = 4
"""Four attempts that use all that they may by default leave a machine nothing: more than that nobody means unasked."""


def agent_limits(
    configuration: Configuration, *, processors: int | None = None, memory_mb: int | None = None
) -> tuple[float, int]:
    """Percent of all processors together, and megabytes.

    The default share is never less than one whole processor, and the default memory never less than a quarter of the
    machine's: what nobody asked for shall not slow or end an agent that the machine has room for.

    Args:
        processors, memory_mb: of the machine; None is this one.
    """
    cpu_percent, memory = float(configuration.get(_CPU)), int(configuration.get(_MEMORY))
    if not configuration.is_explicit(_CPU):
        cpu_percent = min(100.0, max(cpu_percent, 100 / (processors or os.cpu_count() or 1)))
    if not configuration.is_explicit(_MEMORY):
        memory = max(memory, (memory_mb or _memory_mb()) // _SHARE_OF_MEMORY)
    return cpu_percent, memory


def _memory_mb() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    except (OSError, ValueError):
        return 0
