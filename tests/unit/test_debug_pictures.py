"""Screens of the debugger as they are kept in ``tests/data/debug``; ``FREEZE=1`` in the environment keeps those of now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from debugged import STORY, Playing, in_greenwich, make_run, play
from pictured import KEPT, cells, check, plain, slim

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log

SMALL, LARGE = (80, 24), (120, 40)
BACK = (ev.RunRolledBack(to_seq=6, reason="try again"), ev.RunPaused(reason="rolled back to event 6"))
MOST_BYTES = 60_000
Scene = Callable[[Playing], Awaitable[None]]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The store of the run made by hand, which was rolled back at its end; we are in Greenwich."""
    with in_greenwich(monkeypatch), make_run(tmp_path, (*STORY, BACK)) as made:
        yield made


async def in_the_middle(on: Playing) -> None:
    """With a breakpoint, a watch expression and a mark; what is undone later is struck out."""
    on.session.break_at("TaskFailed")
    on.session.watch("cost")
    on.session.move_to(11)
    await on.press("m", "up")


async def at_a_conflict(on: Playing) -> None:
    """What it is about, below the events that led to it."""
    await on.press("g", ":15", "enter", "5")


async def asked(on: Playing) -> None:
    """What a rollback would change, before somebody agrees to it."""
    await on.press("g", ":4", "enter", "R")
    await on.until(lambda: type(on.app.screen).__name__ == "Confirm", "the question")


@pytest.mark.parametrize(
    ("name", "size", "scene"),
    [
        ("middle-80x24", SMALL, in_the_middle),
        ("middle-120x40", LARGE, in_the_middle),
        ("rollback-80x24", SMALL, asked),
        ("conflict-120x40", LARGE, at_a_conflict),
    ],
)
def test_a_screen_is_the_one_that_is_kept(
    log: Log, tmp_path: Path, name: str, size: tuple[int, int], scene: Scene
) -> None:
    """In every cell: its sign, its colours, and how it is written."""

    async def played(on: Playing) -> None:
        await scene(on)
        check(name, on.svg(), size, tmp_path)

    play(log, played, size=size)


def test_a_screen_without_colour_is_the_one_that_is_kept(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with NO_COLOR set: in greys of which none is too dark on what is beneath it."""
    monkeypatch.setenv("NO_COLOR", "1")

    async def played(on: Playing) -> None:
        await in_the_middle(on)
        check("grey-80x24", on.svg(), SMALL, tmp_path)
        told = [
            cell for row in cells(on.svg(), SMALL)[:-1] for cell in row if cell.sign not in " ▕─"
        ]  # But for the keys.
        greys = {cell: [int(colour[-2:], 16) for colour in (cell.look[:13], cell.ground)] for cell in told}
        assert [cell for cell, (sign, ground) in greys.items() if abs(sign - ground) < 0x60] == []

    play(log, played, size=SMALL)


def test_a_screen_that_differs_is_told_by_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which lines and columns, what stood there, and where the new screen was left; colours alone count too."""
    monkeypatch.delenv("FREEZE", raising=False)
    kept = (KEPT / "middle-80x24.svg").read_text(encoding="utf-8")
    check("middle-80x24", kept, SMALL, tmp_path)
    with pytest.raises(AssertionError) as found:
        check("middle-80x24", kept.replace("running&#160;1.0&#160;s", "running&#160;9.0&#160;s", 1), SMALL, tmp_path)
    said = str(found.value)
    assert "line 10, column 50:" in said
    assert "now  |" in said
    assert f"now:  {tmp_path / 'middle-80x24.svg'}" in said
    assert "running 9.0 s" in plain((tmp_path / "middle-80x24.svg").read_text(encoding="utf-8"), SMALL)
    with pytest.raises(AssertionError, match=r"'7' was .*line-through; on #121212\n +is .*underline; on #121212"):
        check("middle-80x24", kept.replace("line-through", "underline"), SMALL, tmp_path)
    with pytest.raises(AssertionError, match="there is no "):
        check("nowhere-80x24", kept, SMALL, tmp_path)


def test_kept_screens_are_small_and_whole() -> None:
    """They fetch nothing from elsewhere, and are as slim as they can be."""
    found = sorted(KEPT.glob("*.svg"))
    assert found
    for one in found:
        svg = one.read_text(encoding="utf-8")
        assert len(svg.encode()) < MOST_BYTES, one
        assert "url(http" not in svg, one
        assert slim(svg) == svg, one
        assert cells(svg, LARGE)[0][0].sign in "▶ ", one
