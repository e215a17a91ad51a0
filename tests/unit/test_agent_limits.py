"""What one attempt may use, as the configuration and the machine have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parallel_agents.agent_limits import agent_limits
from parallel_agents.configuration import load_configuration
from parallel_agents.submit import run_settings


def configured(folder: Path, **limits: Any) -> Any:
    """The configuration of a project that sets these."""
    file = folder / ".claude" / "config" / "parallel-agents-config.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"resourceManagement": limits}))
    return load_configuration(folder, environ={})


@pytest.mark.parametrize(
    ("processors", "memory_mb", "expected"),
    [
        (1, 1000, (100.0, 1024)),  # The whole of a small machine, and no less than the default.
        (2, 8000, (50.0, 2000)),
        (4, 16_000, (25.0, 4000)),
        (64, 256_000, (25.0, 64_000)),
    ],
)
def test_limits_that_nobody_set_give_way_to_the_machine(
    tmp_path: Path, processors: int, memory_mb: int, expected: tuple[float, int]
) -> None:
    """One whole processor, and a quarter of the memory."""
    configuration = configured(tmp_path)
    assert agent_limits(configuration, processors=processors, memory_mb=memory_mb) == expected


def test_limits_that_somebody_set_hold_as_they_are(tmp_path: Path) -> None:
    """Each by itself, on any machine, and they are those of a run."""
    configuration = configured(tmp_path, cpu={"perAgentLimit": 10})
    assert agent_limits(configuration, processors=2, memory_mb=8000) == (10.0, 2000)
    configuration = configured(tmp_path / "other", memory={"perAgentLimitMB": 1024})
    assert agent_limits(configuration, processors=2, memory_mb=8000) == (50.0, 1024)
    found = run_settings(configuration, None)
    assert (found.agent_cpu_percent, found.agent_memory_mb) == agent_limits(configuration)
