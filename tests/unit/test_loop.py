"""The loop as a job of APScheduler: it ticks when it shall, rests when it may, and ends at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.loop import Loop

DEADLINE_S = 30.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition and give what it gave; fail after a deadline that only a hang reaches."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
    return found


class Ticker:
    """A dispatcher that only counts."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.held: dict[str, Any] = {}
        self.busy = False
        self.ticks = 0
        self.at_tick: Callable[[], int | None] = lambda: None

    def tick(self) -> int | None:
        self.ticks += 1
        return self.at_tick()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A store of its own."""
    with Log(tmp_path / "events.db") as opened:
        yield opened


@pytest.fixture
def ticker(log: Log) -> Ticker:
    """What is ticked."""
    return Ticker(log)


def ring(log: Log) -> None:
    """What another process does after its commit."""
    other = Log(log.path)
    other.doorbell.ring()
    other.close()


@pytest.mark.parametrize("rests", [False, True])
def test_a_bell_is_a_tick(ticker: Ticker, rests: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when the interval is over."""
    monkeypatch.setattr("parallel_agents.scheduler.loop.INTERVAL_S", 3600.0)
    loop = Loop(ticker, rests=rests)
    try:
        loop.start()
        wait_until(lambda: ticker.ticks, "the first tick")
        before = ticker.ticks
        ring(ticker.log)
        wait_until(lambda: ticker.ticks > before, "the tick")
    finally:
        loop.stop()


def test_a_loop_with_nothing_to_dispatch_rests_until_it_is_woken(
    ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the clock nor a bell makes it tick; a wake does, and then the clock goes on."""
    monkeypatch.setattr("parallel_agents.scheduler.loop.INTERVAL_S", 0.05)
    with Log(ticker.log.path) as log:
        restless = Ticker(log)
        other, loop = Loop(restless), Loop(ticker, rests=True)
        try:
            other.start()
            loop.start()
            wait_until(lambda: loop.resting, "it to rest")
            ticks, others = ticker.ticks, restless.ticks
            ring(log)
            wait_until(lambda: restless.ticks > others + 3, "a loop that does not rest")
            assert (loop.resting, ticker.ticks) == (True, ticks)
            ticker.busy = True
            loop.wake()
            wait_until(lambda: ticker.ticks > ticks + 2, "the ticks of one that is awake")
            assert not loop.resting
            ticker.busy = False
            wait_until(lambda: loop.resting, "it to rest again")
        finally:
            loop.stop()
            other.stop()


def test_a_loop_can_be_stopped_in_the_middle_of_a_tick(ticker: Ticker) -> None:
    """One that sets a timer meanwhile, which wants a lock of APScheduler's; stopping twice is once."""
    begun, go = threading.Event(), threading.Event()

    def at_tick() -> int:
        begun.set()
        go.wait(DEADLINE_S)
        return time.time_ns() // 1000 + 3_600_000_000

    ticker.at_tick = at_tick
    loop = Loop(ticker)
    loop.start()
    assert begun.wait(DEADLINE_S)
    stopping = threading.Thread(target=loop.stop)
    stopping.start()
    wait_until(lambda: loop._closing, "it to begin")
    go.set()
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
    loop.stop()
    assert not {"dispatch", "doorbell", "APScheduler"} & {thread.name for thread in threading.enumerate()}


def test_what_stops_a_loop_reaches_who_waits(ticker: Ticker) -> None:
    """An error of the store, unless that shall be tried again; any other in every case."""

    def refuse() -> None:
        raise StoreError("the disk is full")

    ticker.at_tick = refuse
    loop = Loop(ticker)
    try:
        loop.start()
        with pytest.raises(StoreError, match="the disk is full"):
            loop.wait(lambda: False, DEADLINE_S)
    finally:
        loop.stop()
