"""A run made by hand for the debugger, the same to the last byte each time, and its screen as a person sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paper import SECOND_US, plan_of, task
from pictured import plain
from textual.events import Key
from textual.widgets import Input

from parallel_agents.cli.debug_app import Debugger
from parallel_agents.debugger.debugging import Debugging
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Log, digest_of

RUN = "abcdefghi2"
BEGAN_US = 1_772_366_400 * SECOND_US  # 2026-03-01 12:00 in Greenwich.
EVIL = "[red]not red[/red] \x1b[2J\x1b]0;owned\x07 end"


def charge(task_id: str, attempt_id: str, usd: float) -> Event:
    """What an attempt cost."""
    return ev.CostCharged(
        task_id=task_id, attempt_id=attempt_id, usd_micros=round(usd * 1e6), model="sonnet", agent_type="worker",
        input_tokens=1000, output_tokens=100, calls=2, runner="claude", duration_s=2.0, at_once=1,
    )  # fmt: skip


def started(task_id: str, attempt: int) -> Event:
    """An attempt begins."""
    return ev.TaskStarted(
        task_id=task_id, attempt_id=f"{task_id}{attempt}", attempt=attempt, runner="claude", model="sonnet"
    )


def completed(task_id: str, attempt: int, duration_s: float) -> Event:
    """One ends well."""
    return ev.TaskCompleted(
        task_id=task_id,
        attempt_id=f"{task_id}{attempt}",
        duration_s=duration_s,
        output="one page" if attempt == 1 else "built",
    )


STORY: tuple[Sequence[Event], ...] = (
    (ev.RunStarted(), ev.TaskQueued(task_id="design")),
    (started("design", 1),),
    (charge("design", "design1", 0.5), completed("design", 1, 2.0)),
    (ev.TaskQueued(task_id="api"), ev.TaskQueued(task_id="web")),
    (started("api", 1), started("web", 1)),
    (charge("api", "api1", 0.75), ev.TaskFailed(task_id="api", attempt_id="api1", duration_s=1.0, exit_code=1, error=EVIL)),
    (
        ev.TaskRetryScheduled(
            task_id="api", attempt_id="api1", failures=1, not_before="2026-03-01T12:00:08Z", wait_s=1.0, jitter_s=0.0
        ),
    ),
    (started("api", 2), ev.ConflictDetected(task_id="web", other_task_id="api", paths=["a.py"], kinds=["content"], early=True)),
    (charge("web", "web1", 1.0), completed("web", 1, 5.0)),
    (charge("api", "api2", 0.25), completed("api", 2, 3.0)),
)  # fmt: skip
"""What happened, a commit a second. Twenty events after the first; the run stands before its end."""


def make_run(folder: Path, story: Sequence[Sequence[Event]] = STORY) -> Log:
    """A store with that run, and its log."""
    clock = iter(range(BEGAN_US, BEGAN_US + 10_000 * SECOND_US, SECOND_US))
    log = Log(folder / "events.db", clock=lambda: next(clock), environ={})
    plan = plan_of(task("design"), task("api", "design"), task("web", "design"), task("ship", "api", "web"))
    content = plan.model_copy(update={"name": "shop"}).to_bytes()
    submitted = ev.RunSubmitted(
        name="shop", plan_digest=digest_of(content), task_count=4, strategy="concurrent", workspace="shared", workdir="/shop",
        budget_usd_micros=4_000_000,
    )  # fmt: skip
    log.append(RUN, 0, [submitted], blobs={digest_of(content): content})
    for events in story:
        log.append(RUN, log.version(RUN), events)
    return log


@contextmanager
def in_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are shown as they are there, and colours are shown, whatever the machine is set to."""
    with monkeypatch.context() as here:
        here.setenv("TZ", "UTC")
        here.delenv("NO_COLOR", raising=False)
        time.tzset()
        yield
    time.tzset()


class Playing:
    """The debugger on a run, played by keys."""

    def __init__(self, app: Debugger, pilot: Any) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def session(self) -> Debugging:
        """What it shows."""
        return self.app.session

    @property
    def seq(self) -> int:
        """The event at the cursor."""
        return self.session.seq

    async def press(self, *keys: str) -> None:
        """Press keys, and wait until all that comes of them is shown."""
        await self.tap(*keys)
        await self.settle()

    async def tap(self, *keys: str) -> None:
        """Press keys; what begins with a colon stands in the line that is asked for, as if it had been pasted."""
        for key in keys:
            if key.startswith(":"):
                await self.until(lambda: self.app.screen.query(Input), "a line to type in")
                self.app.screen.query_one(Input).value = key[1:]
            else:
                self.app.post_message(Key(key, key if len(key) == 1 else None))
                await self.handled()

    async def handled(self) -> None:
        """Wait until what was pressed has gone from the terminal to whoever takes it, and back to whoever draws.

        (Textual's own way to press a key waits for a process that does nothing, which takes a busy machine a second.)
        """
        for _ in range(2):
            await self.pilot.pause(0)

    async def settle(self) -> None:
        """Wait until all that belongs to the cursor is shown."""
        await self.until(lambda: self.app.is_idle and not any(not one.is_finished for one in self.app.workers), "rest")

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition; fail after a deadline that only a hang reaches."""
        deadline = time.monotonic() + 60
        await self.handled()
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.screen()}"
            await asyncio.sleep(0.02)
        await self.handled()

    def svg(self) -> str:
        """The screen as a picture."""
        return self.app.export_screenshot(simplify=True)

    def screen(self) -> str:
        """The screen as text, a line a row."""
        return plain(self.svg(), self.app.size)


def play(
    log: Log,
    scene: Callable[[Playing], Awaitable[None]],
    *,
    size: tuple[int, int] = (100, 30),
    run_id: str = RUN,
    **more: Any,
) -> None:
    """Open the debugger on a run, and let a test play it."""

    async def go() -> None:
        app = Debugger(Debugging(log, run_id), **more)
        async with app.run_test(size=size) as pilot:
            playing = Playing(app, pilot)
            await playing.settle()
            await scene(playing)

    asyncio.run(go())
