"""What attempts use over time: thinned, kept beside the log, and missed by nobody."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore import usage_samples
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.usage_samples import Busy, Point
from parallel_agents.scheduler import trouble, usage_series
from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.scheduler.usage_series import FLUSH_S, Series, SeriesKeeper

SECOND_US = 1_000_000


def usage(percent: float = 0.0, memory: int = 0, files: int = 0, written: int = 0) -> Usage:
    return Usage(samples=1, cpu_percent=percent, memory_bytes=memory, open_files=files, disk_written_bytes=written)


def points_of(series: Series, samples: Sequence[tuple[float, Usage]]) -> list[Point]:
    """All points of samples at so many seconds, that of the end included."""
    found = [series.add(one, round(at_s * SECOND_US)) for at_s, one in samples]
    return [point for point in (*found, series.end()) if point is not None]


def test_a_day_of_an_attempt_is_a_few_hundred_points() -> None:
    """Each second of its first minute, ten seconds of its first hour, then each minute."""
    day = points_of(Series(), [(float(second), usage(10.0, second)) for second in range(86_401)])
    assert len([point for point in day if point.at_us < 60 * SECOND_US]) == 60
    assert len([point for point in day if point.at_us < 3600 * SECOND_US]) == pytest.approx(60 + 354, abs=1)
    assert len(day) == pytest.approx(60 + 354 + 23 * 60, abs=3)
    assert day[-1].at_us == 86_400 * SECOND_US


def test_a_point_has_the_mean_of_its_span_and_its_peaks() -> None:
    """Of what only grows, the last."""
    series = Series()
    points_of(series, [(float(second), usage()) for second in range(60)])
    samples = [(60.0 + second, usage(10.0 * second, 100 - second, second % 4, second)) for second in range(10)]
    [point] = points_of(series, samples)
    assert point == Point(69 * SECOND_US, 10.0, 45.0, 100, 3, 9)
    [after] = points_of(series, [(70.0, usage(2.0, 50, 1, 9))])
    assert after == Point(70 * SECOND_US, 1.0, 2.0, 50, 1, 9), "what came before is not in it"


@given(st.lists(st.tuples(st.floats(0.1, 400), st.integers(0, 2**40), st.floats(0, 100)), max_size=80))
def test_no_peak_is_lost_and_time_goes_on(steps: list[tuple[float, int, float]]) -> None:
    """Whatever the samples are apart: a suspended machine, a slow one."""
    at_s, samples = 0.0, []
    for step_s, memory, percent in steps:
        at_s += step_s
        samples.append((at_s, usage(percent, memory)))
    found = points_of(Series(), samples)
    assert max((point.memory_bytes for point in found), default=0) == max((one for _, one, _ in steps), default=0)
    assert [point.at_us for point in found] == sorted({point.at_us for point in found})
    assert sum(point.span_s for point in found) == pytest.approx(
        samples[-1][0] - samples[0][0] if samples else 0, abs=0.1
    )
    assert len(found) <= len(samples)


class Kept:
    """A keeper with clocks of its own, and what it has written."""

    def __init__(self) -> None:
        self.now_us = 0
        self.written: list[list[str]] = []
        self.refuses: Exception | None = None
        self.runs = {"a1": "run", "b1": "run"}
        self.keeper = SeriesKeeper(self.write, lambda: self.runs, clock=self.clock, steady=self.clock)

    def clock(self) -> int:
        return self.now_us

    def write(self, points: Sequence[tuple[str, str, Point]]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.written.append([attempt_id for _, attempt_id, _ in points])

    def pass_(self, *attempts: str, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.keeper.look({name: usage(1.0) for name in attempts})
            self.now_us += SECOND_US


def test_points_are_written_together_every_few_seconds() -> None:
    """At once where an attempt begins, so that a look at it shows something, and where one ends."""
    kept = Kept()
    kept.pass_("a1", seconds=int(FLUSH_S) + 1)
    assert kept.written == [["a1"], ["a1"] * int(FLUSH_S)]
    kept.pass_("a1", "b1")
    assert kept.written[2:] == [["a1", "b1"]]
    kept.pass_("a1", "b1", seconds=2)
    kept.pass_("b1")
    assert kept.written[3:] == [["a1", "b1", "a1", "b1", "b1"]]
    kept.pass_("b1")
    kept.keeper.close()
    assert kept.written[4:] == [["b1"]]
    kept.keeper.close()
    assert len(kept.written) == 5


def test_an_attempt_that_ends_between_two_looks_is_left_out() -> None:
    """Nobody knows its run any more."""
    kept = Kept()
    kept.runs.clear()
    kept.pass_("a1", seconds=20)
    kept.keeper.close()
    assert kept.written == []


def test_what_cannot_be_written_is_told_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it can be; a locked store is not worth a word. What waits has an end."""
    said: list[str] = []
    monkeypatch.setattr(trouble, "warn", lambda text, *values: said.append(text.format(*values)))
    kept = Kept()
    kept.refuses = Busy()
    kept.pass_("a1", seconds=25)
    assert said == []
    kept.refuses = StoreError("the disk is full")
    kept.pass_("a1", seconds=25)
    assert said == ["what attempts use over time cannot be written down: the disk is full"]
    kept.refuses = None
    kept.pass_("a1", seconds=11)
    assert sum(map(len, kept.written)) == 60
    monkeypatch.setattr(usage_series, "_MOST_WAITING", 3)
    kept.refuses = StoreError("the disk is full")
    kept.pass_("b1", "a1", seconds=25)
    kept.keeper.flush()
    kept.refuses = None
    kept.keeper.flush()
    assert len(kept.written[-1]) == 3, "the newest"
    assert len(said) == 2


POINT = Point(5 * SECOND_US, 1.0, 12.5, 4096, 7, 512)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store as releases before the table made it."""
    path = tmp_path / "events.db"
    Log(path).close()
    return path


def test_a_store_without_the_table_has_no_points_and_gets_it_with_the_first(store: Path) -> None:
    """The log beside it is the same with it and without."""
    assert usage_samples.read(store, "run", "a1") == []
    assert usage_samples.remove(store, "run") == 0
    usage_samples.write(store, [("run", "a1", POINT), ("run", "a2", POINT._replace(at_us=1))])
    first = POINT._replace(at_us=1, memory_bytes=10**9)
    usage_samples.write(store, [("run", "a1", first), ("other", "a1", POINT)])
    assert usage_samples.read(store, "run", "a1") == [first, POINT]
    assert usage_samples.remove(store, "run") == 3
    assert usage_samples.read(store, "run", "a1") == []
    assert usage_samples.read(store, "other", "a1") == [POINT]
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("DROP TABLE usage_samples")
    assert usage_samples.read(store, "other", "a1") == []
    with Log(store, create=False) as log:
        assert list(log.rows()) == []


def test_the_peaks_of_an_attempt_outlive_whoever_sampled_it(store: Path) -> None:
    """Each measure's own, whenever that was."""
    assert usage_samples.peaks(store, "run", "a1") is None
    usage_samples.write(store, [("run", "a1", POINT), ("run", "a1", Point(SECOND_US, 1.0, 99.0, 5, 300, 2))])
    found = usage_samples.peaks(store, "run", "a1")
    assert found == Point(5 * SECOND_US, 1.0, 99.0, 4096, 300, 512)


def test_whoever_writes_to_the_log_goes_first(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write of points gives up soon, and says that it can be tried again."""
    monkeypatch.setattr(usage_samples, "_WRITE_WAIT_S", 0.01)
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy):
            usage_samples.write(store, [("run", "a1", POINT)])
        connection.execute("ROLLBACK")
    usage_samples.write(store, [("run", "a1", POINT)])
    assert usage_samples.read(store, "run", "a1") == [POINT]


def test_a_store_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """An empty file in its place would be taken for one."""
    with pytest.raises(StoreError):
        usage_samples.write(tmp_path / "events.db", [("run", "a1", POINT)])
    with pytest.raises(StoreError):
        usage_samples.read(tmp_path / "events.db", "run", "a1")
    assert list(tmp_path.iterdir()) == []
