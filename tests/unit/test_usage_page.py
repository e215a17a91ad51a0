"""What an attempt has used, drawn."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agents.cli.usage_page import drawn, resampled, usage_page

SECOND_US = 1_000_000


def point(at_s: float, span_s: float, memory: int, **more: Any) -> dict[str, Any]:
    return {
        "at_us": round(at_s * SECOND_US), "span_s": span_s, "memory_bytes": memory, "cpu_percent": 0.0, "open_files": 0,
        "disk_written_bytes": 0, **more,
    }  # fmt: skip


def test_each_column_has_the_most_of_its_span() -> None:
    """Of a point that spans several, in each of them; nothing where nothing was sampled."""
    points = [point(1, 1, 10), point(2, 1, 70), point(3, 1, 20), point(8, 2, 40)]
    assert resampled(points, "memory_bytes", 0, 8.0, 8) == [10, 70, 20, None, None, None, 40, 40]
    assert resampled(points, "memory_bytes", 0, 8.0, 4) == [70, 20, None, 40]
    assert resampled([point(1, 0, 5)], "memory_bytes", SECOND_US, 1.0, 3) == [5, None, None]


def test_heights_are_shares_of_the_peak() -> None:
    """The lowest is not nothing."""
    assert drawn([0, 50, 100, None, 100], 100) == "▁▅█ █"
    assert drawn([0, 0, None], 0) == "▁▁"


def test_a_page_has_a_line_for_each_measure_with_its_peak(capsys: pytest.CaptureFixture[str]) -> None:
    """Below a ruler."""
    points = [
        point(second, 1, second * 1_000_000, cpu_percent=50.0, open_files=1200, disk_written_bytes=5_000)
        for second in range(1, 11)
    ]
    usage_page({"run_id": "r1", "task_id": "a", "attempt_id": "x", "attempt": 2, "points": points})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a  attempt 2  r1"
    assert "╵0s" in lines[1]
    assert "╵4s" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["cpu", "memory", "open", "written"]
    assert lines[2].endswith("█  up to 50 % of the machine")
    assert {"▂", "▅", "█"} <= set(lines[3])
    assert lines[3].endswith("█  up to 10.0 MB")
    assert lines[4].endswith("up to 1,200")
    assert lines[5].endswith("up to 5 kB")


def test_a_task_without_samples_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """It has not begun, or was too short."""
    found: dict[str, Any] = {"run_id": "r1", "task_id": "a", "attempt_id": None, "attempt": None, "points": []}
    usage_page(found)
    assert capsys.readouterr().out == "task a has not been started yet\n"
    usage_page({**found, "attempt_id": "x", "attempt": 1})
    assert capsys.readouterr().out.endswith("nothing was sampled: it was too short, or its samples are gone\n")
