"""A text is looked for beside the screen of the debugger, which goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debugged import RUN, Playing, in_greenwich, make_run, play

from parallel_agents.debugger import text_search
from parallel_agents.debugger.debugging import Debugging
from parallel_agents.debugger.text_search import TextSearch
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.selecting import Wanted

PATIENCE_S = 60


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The store of the run made by hand; we are in Greenwich."""
    with in_greenwich(monkeypatch), make_run(tmp_path) as made:
        yield made


class Held:
    """Searches for one text wait at a stretch until they are let go; the threads that looked are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str, at: int) -> None:
        self.reached, self.go, self.over = threading.Event(), threading.Event(), threading.Event()
        self.threads: set[threading.Thread] = set()
        really, stretches = text_search.select, iter(range(1000))

        def select(log: Log, wanted: Wanted, upto: int, **more: Any) -> Iterator[Any]:
            self.threads.add(threading.current_thread())
            if wanted.text == text and next(stretches) == at:
                self.reached.set()
                assert self.go.wait(PATIENCE_S)
            yield from really(log, wanted, upto, **more)
            if wanted.text == text and self.go.is_set():
                self.over.set()

        monkeypatch.setattr(text_search, "select", select)
        monkeypatch.setattr(TextSearch.__init__, "__defaults__", (5,))


def test_the_screen_goes_on_while_a_text_is_looked_for(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far it is is told; once it is found, the cursor goes on from where it is by then."""
    held = Held(monkeypatch, "one page", at=2)

    async def scene(on: Playing) -> None:
        await on.press("home", "slash")
        await on.tap(":one page", "enter")
        await on.until(held.reached.is_set, "the third stretch")
        await on.until(lambda: "looking for 'one page', 53% of all events; Esc stops" in on.screen(), "how far it is")
        for _ in range(8):
            on.app.action_step(1)
        await on.until(lambda: "event 9 " in on.screen(), "the cursor")
        held.go.set()
        await on.settle()
        assert on.seq == 17
        assert "2 of 2 events with 'one page'; n and N go on" in on.screen()
        assert threading.main_thread() not in held.threads

    play(log, scene)


def test_escape_stops_looking_for_a_text(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before it still counts, and what comes of the search that was stopped does not."""
    held = Held(monkeypatch, "built", at=1)

    async def scene(on: Playing) -> None:
        await on.press("home", "slash", ":one page", "enter")
        assert on.seq == 6
        await on.press("slash")
        await on.tap(":built", "enter")
        await on.until(held.reached.is_set, "the second stretch")
        await on.press("escape")
        assert "stopped looking for 'built'" in on.screen()
        held.go.set()
        await on.until(held.over.is_set, "the end of that stretch")
        await on.press("n")
        assert on.seq == 17
        assert "2 of 2 events with 'one page'" in on.screen()

    play(log, scene)


def test_a_newer_search_takes_the_place_of_an_older_one(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the older one ends."""
    held = Held(monkeypatch, "built", at=0)

    async def scene(on: Playing) -> None:
        await on.press("home", "slash")
        await on.tap(":built", "enter")
        await on.until(held.reached.is_set, "its beginning")
        await on.press("slash", ":one page", "enter")
        assert on.seq == 6
        held.go.set()
        await on.until(held.over.is_set, "the end of that stretch")
        await on.press("n")
        assert on.seq == 17
        assert on.session.sought == "one page"

    play(log, scene)


def test_a_text_that_no_event_holds_is_told_above_the_keys(log: Log) -> None:
    """And the cursor stays."""

    async def scene(on: Playing) -> None:
        await on.press("home", "down", "slash", ":nowhere", "enter")
        assert on.seq == 2
        assert "no event holds 'nowhere'" in on.screen()

    play(log, scene)


def test_events_that_come_while_it_is_looked_for_are_found_too(log: Log, tmp_path: Path) -> None:
    """The search ends at the event that was the last one when it began; what came since is looked through after it."""
    session = Debugging(log, RUN)
    search = session.searching("one page")
    steps = search.beside(log)
    assert next(steps) == 1
    with Log(tmp_path / "events.db", environ={}) as other:
        other.append(RUN, other.version(RUN), [ev.RunPaused(reason="one page too many")])
    assert session.catch_up() == 1
    assert next(steps, None) is None
    assert session.take(search) == 3
    assert session.search("one page") == 3


@pytest.mark.parametrize("stretch", [1, 2, 3, 18, 19, 20, 1000])
def test_a_search_in_stretches_finds_what_one_in_one_piece_finds(log: Log, stretch: int) -> None:
    """Each event once, wherever the stretches end; the last word is that all was looked through."""
    session = Debugging(log, RUN)
    for text in ("task", "api", "one page", "e"):
        search = TextSearch(RUN, text, session.tape.seqs[:], stretch)
        shares = list(search.steps(log))
        assert shares == sorted(shares)
        assert shares[-1] == 1
        whole = TextSearch(RUN, text, session.tape.seqs[:])
        assert list(whole.steps(log)) == [1]
        assert search.found == whole.found == sorted(set(whole.found))
