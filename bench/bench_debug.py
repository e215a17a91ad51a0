"""The debugger on a run of 100,000 events: opening it, steps, jumps, searches; against states folded from nothing each time.

Two runs: one of 14,000 tasks, and one of 400 tasks each of which was opened again and again. Neither has snapshots, as none has
that was imported. A step is all that a key leads to: the state, and the screen drawn anew at 120x40 in Textual's own harness.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

from bench.bench_past import a_plan
from bench.long_history import Calendar, add_run
from bench.measure import Goal, ratio, scratch, tell
from parallel_agents.debugger.breakpoints import Search
from parallel_agents.debugger.debugging import Debugging
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector

EVENTS = 100_000
STEPS = 300
STEP_MS = Goal(50.0, 20.0, more_is_better=False)
JUMP_MS = Goal(100.0, 50.0, more_is_better=False)  # After which every line in sight is another one.


def store(folder: Path, tasks: int, again: int) -> Path:
    """A store of one run."""
    path = folder / ".parallel-agents" / "events.db"
    make_home(path)
    task_ids = [f"task-{number}" for number in range(tasks)]
    with Log(path, clock=Calendar(), environ={}) as log:
        log._writer.execute("PRAGMA synchronous = OFF")
        add_run(log, "abcdefghij", a_plan("long", task_ids), task_ids, random.Random(1), again=again)
    return path


def timed(moves: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each."""
    found = []
    for move in moves:
        begun = time.perf_counter()
        move()
        found.append((time.perf_counter() - begun) * 1e3)
    return found


def p95(figures: Sequence[float]) -> float:
    """What nineteen of twenty do not exceed."""
    return quantiles(figures, n=20)[-1]


def states(log: Log, what: str) -> None:
    """States alone: forwards, backwards, anywhere."""
    projector = Projector(log, use_snapshots=False)
    figures: dict[str, list[float]] = {"opening": [], "nothing": []}
    for _ in range(3):
        begun = time.process_time()
        projector.view("abcdefghij")
        folded = time.process_time()
        session = Debugging(log, "abcdefghij")
        state = session.frame.state
        figures["nothing"].append(folded - begun)
        figures["opening"].append(time.process_time() - folded)
    detail = f"processor, {median(figures['opening']):.2f} s for {len(session.tape):,} events"
    goal = Goal(4.0, 2.0, more_is_better=False)
    tell(f"debug: opening {what}, to one fold of all", ratio(figures["opening"], figures["nothing"]), goal, detail)
    chance = random.Random(2)
    last = session.last

    def at(position: int) -> Callable[[], object]:
        return lambda: session.frames.at(position)

    gc.collect()
    gc.freeze()
    nothing = median(timed([lambda: projector.state("abcdefghij", session.tape.seqs[last // 2])] * 5))
    middle = [chance.randrange(last // 4, last * 3 // 4) for _ in range(3)]
    moves = {
        "forwards": [at(start + step) for start in middle for step in range(STEPS // 3)],
        "backwards": [at(start - step) for start in middle for step in range(STEPS // 3)],
        "anywhere": [at(chance.randrange(last)) for _ in range(STEPS)],
    }
    for way, steps in moves.items():
        took = timed(steps)
        detail = (
            f"p50 {median(took):.2f} ms, most {max(took):.1f} ms; a state of the middle from nothing {nothing:.0f} ms"
        )
        tell(f"debug: a state {way}, {what}, p95", p95(took), STEP_MS, detail, unit="ms")
        tell(f"debug: a state {way}, {what}", nothing / median(took), Goal(5, 50), "times as fast as from nothing")
    search(session, what, len(state.tasks))
    text(session, what)


def search(session: Debugging, what: str, tasks: int) -> None:
    """How fast an expression is looked for over all events."""
    session.break_at(f"completed > {tasks * 100}")
    looking = Search(session.tape, session.frames, session.breakpoints)
    for forward, place in ((True, 0), (False, session.last)):
        begun = time.perf_counter()
        list(looking.steps(place, forward=forward))
        assert looking.found is None
        took_us = (time.perf_counter() - begun) / len(session.tape) * 1e6
        way = "on" if forward else "back"
        tell(f"debug: an expression looked for {way}, {what}", took_us, None, "microseconds an event", unit="us")


def text(session: Debugging, what: str) -> None:
    """How long a text is looked for that no event holds, and one that many do."""
    for sought, how in (("no event holds this", "that no event holds"), ("task-39", "that many events hold")):
        took = timed([lambda sought=sought: list(session.searching(sought).beside(session.log))] * 3)
        detail = f"of {len(session.tape):,} events, by connections of its own; most {max(took):.0f} ms"
        tell(f"debug: a text {how}, {what}", min(took), None, detail, unit="ms")


async def screens(log: Log, what: str) -> None:
    """Whole steps: a key, the state, the screen."""
    from textual.events import Key

    from parallel_agents.cli.debug_app import Debugger

    app = Debugger(Debugging(log, "abcdefghij"))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        gc.collect()
        gc.freeze()  # As the verb does.
        chance = random.Random(3)
        for way, key in (("back", "up"), ("on", "down"), ("by screens", "pageup"), ("at random", "")):
            figures, used = [], []
            for _ in range(STEPS // 3):
                drawn = asyncio.Event()
                begun, spent = time.perf_counter(), time.process_time()
                if key:
                    app.post_message(Key(key, None))
                else:
                    app.moved(lambda: app.session.move_to(chance.randrange(len(app.session.tape))))
                await pilot.pause(0)
                app.call_after_refresh(drawn.set)
                await drawn.wait()
                figures.append((time.perf_counter() - begun) * 1e3)
                used.append((time.process_time() - spent) * 1e3)
            clock = f"by the clock p50 {median(figures):.1f}, p95 {p95(figures):.1f}"
            detail = f"processor, p50 {median(used):.1f} ms; {clock} ms; at 120x40"
            goal = STEP_MS if way in ("back", "on") else JUMP_MS
            tell(f"debug: a step {way} with its screen, {what}, p95", p95(used), goal, detail, unit="ms")


def main() -> None:
    """Print the figures."""
    gc.set_threshold(20_000)  # As the command does.
    with scratch() as folder:
        for name, tasks, again in (("14,000 tasks", EVENTS // 7, 0), ("400 tasks", 400, EVENTS // 3000)):
            with Log(store(folder / name, tasks, again), environ={}) as log:
                states(log, name)
                asyncio.run(screens(log, name))


if __name__ == "__main__":
    main()
