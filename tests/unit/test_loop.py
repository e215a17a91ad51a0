"""The loop as a job of APScheduler: it ticks when it shall, rests when it may, and ends at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED
from waiting import DEADLINE_S, wait_until

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.loop import Loop


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


@pytest.mark.parametrize("moment", ["in a tick", "at the end of the job"])
def test_no_wake_is_lost(ticker: Ticker, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes during a tick, or when the job has taken its last look, is followed by a tick all the same."""
    monkeypatch.setattr("parallel_agents.scheduler.loop.INTERVAL_S", 3600.0)
    monkeypatch.setattr("parallel_agents.scheduler.loop.LINGER_S", 0.0)
    loop = Loop(ticker)
    woken: list[int] = []

    def wake(*_: object) -> None:
        if len(woken) < 5:
            woken.append(ticker.ticks)
            loop.wake()

    if moment == "in a tick":
        ticker.at_tick = wake
    else:
        loop._scheduler._listeners.insert(0, (wake, EVENT_JOB_EXECUTED))  # Before the loop itself hears of the end.
    try:
        loop.start()
        wait_until(lambda: len(woken) == 5 and ticker.ticks > woken[-1], "a tick after each wake")
    finally:
        loop.stop()


def test_every_change_is_seen_by_a_tick_after_its_wake(ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of several threads makes it."""
    monkeypatch.setattr("parallel_agents.scheduler.loop.INTERVAL_S", 3600.0)
    changes, seen = [0] * 3, [0] * 3

    def at_tick() -> None:
        seen[:] = changes

    def change(number: int) -> None:
        for _ in range(100):
            changes[number] += 1
            loop.wake()
            if number:  # The first goes on without looking, the others change as soon as they were seen.
                wait_until(lambda: seen[number] == changes[number], "a tick that sees the change")

    ticker.at_tick = at_tick
    loop = Loop(ticker)
    loop.start()
    threads = [threading.Thread(target=change, args=(number,), daemon=True) for number in range(3)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        wait_until(lambda: seen == changes == [100] * 3, "the last tick")
    finally:
        loop.stop()


def test_a_tick_comes_when_something_is_due(ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, and however far off it is."""
    monkeypatch.setattr("parallel_agents.scheduler.loop.INTERVAL_S", 3600.0)
    due_us = time.time_ns() // 1000 + 150_000
    ticks: list[int] = []

    def at_tick() -> int:
        ticks.append(time.time_ns() // 1000)
        return due_us if len(ticks) == 1 else 10**18  # In 31,688 years, which no calendar knows.

    ticker.at_tick = at_tick
    loop = Loop(ticker)
    try:
        loop.start()
        wait_until(lambda: len(ticks) == 2, "the tick that is due")
        assert ticks[1] >= due_us
        loop.wake()
        wait_until(lambda: len(ticks) == 3, "a tick after that")
    finally:
        loop.stop()


def test_a_clock_that_was_set_back_does_not_stop_the_ticks(ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the next run of the job then lies an hour ahead."""
    monkeypatch.setattr("parallel_agents.scheduler.loop.INTERVAL_S", 0.05)
    loop = Loop(ticker)
    try:
        loop.start()
        wait_until(lambda: ticker.ticks > 1, "the first ticks")
        loop._scheduler.modify_job("dispatch", next_run_time=datetime.now(UTC) + timedelta(hours=1))
        before = ticker.ticks
        wait_until(lambda: ticker.ticks > before + 2, "more ticks")
    finally:
        loop.stop()


def test_who_waits_is_told_when_the_loop_is_stopped(ticker: Ticker) -> None:
    """Nobody waits for what cannot come any more."""
    loop = Loop(ticker)
    loop.start()
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(loop.wait(lambda: False)), daemon=True)
    waiter.start()
    wait_until(lambda: ticker.ticks, "the first tick")
    loop.stop()
    waiter.join(DEADLINE_S)
    assert answers == [False]


def test_a_loop_that_shall_survives_a_store_that_refuses(ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ticks again and again until it is mended. Any other error stops it too, and is told."""
    monkeypatch.setattr("parallel_agents.scheduler.loop.INTERVAL_S", 0.01)
    errors: list[Exception] = [StoreError("the disk is full"), StoreError("the disk is full")]

    def at_tick() -> None:
        if errors:
            raise errors.pop()

    ticker.at_tick = at_tick
    loop = Loop(ticker, retry_store_errors=True)
    try:
        loop.start()
        assert loop.wait(lambda: ticker.ticks > 3, DEADLINE_S)
        errors.append(ValueError("a bug"))
        with pytest.raises(ValueError, match="a bug"):
            loop.wait(lambda: False, DEADLINE_S)
    finally:
        loop.stop()


def test_between_ticks_nothing_is_under_way(ticker: Ticker) -> None:
    """Who wants to stop waits for the tick that runs, and no other begins until it is over."""
    begun, may_end, inside = threading.Event(), threading.Event(), threading.Event()

    def at_tick() -> None:
        begun.set()
        may_end.wait(DEADLINE_S)

    ticker.at_tick = at_tick
    loop = Loop(ticker)
    try:
        loop.start()
        assert begun.wait(DEADLINE_S)

        def stop() -> None:
            with loop.between_ticks():
                inside.set()
                ticks.append(ticker.ticks)
                over.wait(DEADLINE_S)
                ticks.append(ticker.ticks)

        ticks: list[int] = []
        over = threading.Event()
        stopping = threading.Thread(target=stop)
        stopping.start()
        assert not inside.wait(0.05)  # It may be slow to come; it must not come at all.
        may_end.set()
        assert inside.wait(DEADLINE_S)
        for _ in range(3):
            loop.wake()
        over.set()
        stopping.join(DEADLINE_S)
        assert ticks[0] == ticks[1]
        wait_until(lambda: ticker.ticks > ticks[1], "the tick that was asked for meanwhile")
    finally:
        may_end.set()
        loop.stop()
