"""The debugger as somebody uses it who has a keyboard, a mouse and a terminal of some size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from debugged import EVIL, RUN, STORY, Playing, in_greenwich, make_run, play
from handmade import Make
from paper import task

from parallel_agents.cli.debug_picture import event_line
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The store of the run made by hand; we are in Greenwich."""
    with in_greenwich(monkeypatch), make_run(tmp_path) as made:
        yield made


def test_the_arrows_step_and_every_pane_follows(log: Log) -> None:
    """What each of them says is what the verbs say of that event."""

    async def scene(on: Playing) -> None:
        await on.press("home", "down", "down", "down")
        assert on.seq == 4
        assert "design running" in on.screen()
        for number, said in (
            ("2", "api  waits for design"), ("3", "$0.00 of $4.00"), ("4", "1 running, at most 100"),
            ("5", "no conflict by then"), ("6", "are not versioned"), ("7", "it had printed nothing"),
            ("8", "it runs: attempt 1"), ("9", '"runner": "claude"'), ("0", "breakpoints"),
        ):  # fmt: skip
            await on.press(number)
            assert said in on.screen(), number
        await on.press("end", "3")
        assert "$2.50 of $4.00" in on.screen()
        assert re.search(r"api +\$1\.00", on.screen())
        await on.press("5")
        assert "early web with api" in on.screen()

    play(log, scene)


def test_breakpoints_are_run_to_both_ways(log: Log) -> None:
    """And one that makes no sense is told in the place where it was typed."""

    async def scene(on: Playing) -> None:
        await on.press("c")
        assert "there is no breakpoint" in on.screen()
        await on.press("b", ":faild > 1", "enter")
        assert "column 1: there is no name 'faild'" in on.screen()
        await on.press(":TaskFailed", "enter", "home")
        on.session.break_at("cost > 2")
        await on.press("c")
        assert (on.seq, on.session.row.type) == (12, "TaskFailed")
        await on.press("c")
        assert (on.seq, on.session.frame.cost.usd_micros) == (16, 2_250_000)
        await on.press("c")
        assert on.seq == 16
        assert "no breakpoint is met after this event" in on.screen()
        await on.press("C")
        assert on.seq == 12
        await on.press("x", ":1", "enter", "end", "C", "C")
        assert on.seq == 16

    play(log, scene)


def test_a_click_goes_to_an_event_and_chooses_a_task_or_a_pane(log: Log) -> None:
    """Where the mouse points, however far the list is scrolled."""

    async def scene(on: Playing) -> None:
        await on.pilot.click("#events", offset=(10, 2))
        await on.settle()
        assert on.session.position == on.app.query_one("#events").scroll_offset.y + 2
        row = on.screen().split("\n").index(next(line for line in on.screen().split("\n") if "ship pending" in line))
        await on.pilot.click(offset=(60, row))
        await on.settle()
        assert on.app.task_id == "ship"
        line = next(line for line in on.screen().split("\n") if "9 event" in line)
        await on.pilot.click(offset=(line.index("9 event") + 3, on.screen().split("\n").index(line)))
        await on.settle()
        assert on.app.tab == "event"

    play(log, scene)


def test_tasks_times_texts_and_marks_are_gone_to(log: Log) -> None:
    """By their keys; a step that leads nowhere says so and moves nothing."""

    async def scene(on: Playing) -> None:
        await on.press("home", "s", ":ap", "enter", "t")
        assert (on.seq, on.session.row.type) == (7, "TaskQueued")
        await on.press("t", "t", "T")
        assert (on.seq, on.session.row.type) == (9, "TaskStarted")
        await on.press("home", "right")
        assert on.seq == 2
        await on.press("plus", "right")
        assert on.seq == on.session.tape.seqs[-1]
        await on.press("right")
        assert "this is the last event" in on.screen()
        await on.press("slash", ":ONE PAGE", "enter")
        assert "1 of 2 events with 'ONE PAGE'" in on.screen()
        await on.press("m", "n", "m", "home", "apostrophe", ":b", "enter")
        assert on.seq == 17
        await on.press("D", ":a b", "enter")
        await on.until(lambda: len(on.app.screen_stack) > 1, "the page")
        await on.settle()
        assert "task web: status pending -> completed" in on.screen()
        await on.press("escape", "question_mark")
        assert "find events that hold a text" in on.screen()

    play(log, scene)


def test_what_agents_wrote_does_nothing_to_the_terminal(log: Log) -> None:
    """Neither as markup nor as codes: it is shown."""
    folder = attempts_folder(log.path) / RUN / "web" / "web1"
    folder.mkdir(parents=True)
    (folder / "stderr.log").write_text(f"{EVIL}\n\x1b[31mred\x1b[0m [bold]\n")

    async def scene(on: Playing) -> None:
        on.session.move_to(11)
        await on.press("9")
        assert "[red]not red[/red]" in on.screen()
        await on.press("1")
        assert "[red]not red[/red]" in on.screen()
        on.session.break_at("TaskCompleted")
        await on.press("c", "7")
        assert on.session.tape.task_of(on.session.position) == "web"
        assert "[red]not red[/red] \\x1b[2J\\x1b]0;owned\\x07 end" in on.screen()
        assert "red [bold]" in on.screen()

    play(log, scene, size=(160, 40))


def test_a_terminal_that_shrinks_keeps_the_cursor_in_sight(log: Log) -> None:
    """And one that grows uses the room."""

    async def scene(on: Playing) -> None:
        await on.pilot.resize_terminal(120, 40)
        for size in ((80, 24), (140, 45), (60, 12)):
            await on.pilot.resize_terminal(*size)
            await on.settle()
            assert re.search(r"^▶ +\d+", on.screen(), re.MULTILINE), size
            assert "event 19 (19 of 19)" in on.screen(), size
            if size[0] >= 80:  # Nothing is broken at the width that was before.
                assert "shop" in on.screen()
                assert "6 files" in on.screen()

    play(log, scene)


def test_without_colour_all_is_still_told(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves grey, and signs that say what colours would."""
    monkeypatch.setenv("NO_COLOR", "1")

    async def scene(on: Playing) -> None:
        on.session.move_to(11)
        await on.press("1")
        inside = on.svg().split("</defs>")[0].split("-title")[-1]
        colours = {colour.lower() for colour in re.findall(r"fill: #([0-9a-fA-F]{6})", inside)}
        assert colours
        assert {colour for colour in colours if len({colour[:2], colour[2:4], colour[4:]}) > 1} == {"c5c8c6"}
        assert "✗ api failed" in on.screen()

    play(log, scene)


def test_a_run_that_goes_on_is_followed(log: Log, tmp_path: Path) -> None:
    """By a cursor that stands at its end; any other stays where it is, and the list grows."""

    async def scene(on: Playing) -> None:
        await on.press("f")
        assert "following" in on.screen()
        with Log(tmp_path / "events.db", environ={}) as other:
            other.append(RUN, other.version(RUN), [ev.TaskQueued(task_id="ship")])
            await on.until(lambda: on.seq == 20, "the new event")
            assert "ship queued" in on.screen()
            await on.press("up")
            assert not on.app.follows
            other.append(RUN, other.version(RUN), [ev.RunPaused(reason="asked")])
            await on.until(lambda: len(on.session.tape) == 21, "the event after it")
        assert on.seq == 19

    play(log, scene)


def test_an_event_that_cannot_be_read_ends_it_with_its_error(log: Log) -> None:
    """As where a later release goes on with the run: whoever opened it passes the error on."""

    async def scene(on: Playing) -> None:
        last = log.row(log.last_seq())
        assert last is not None
        row = (last.seq + 1, RUN, last.version + 1, "TaskDreamt", last.at_us, "run", "{}", b"", b"", b"")
        log._writer.execute(f"INSERT INTO events VALUES ({', '.join('?' * len(row))})", row)
        await on.press("f")
        await on.until(lambda: on.app.failure is not None, "its end")
        assert "TaskDreamt" in str(on.app.failure)
        drawn = event_line(on.session, len(on.session.tape.seqs) - 1, 120)  # The list may be drawn before that.
        assert "an event that this release does not know" in drawn.plain

    play(log, scene)


def test_what_a_rollback_has_undone_is_struck_out(tmp_path: Path) -> None:
    """And is shown as it was before that, all the same."""
    back = (ev.RunRolledBack(to_seq=6, reason="try again"), ev.RunPaused(reason="rolled back to event 6"))

    async def scene(on: Playing) -> None:
        assert "‖ paused" in on.screen()
        assert "· api pending" in on.screen()
        assert [on.session.is_undone(position) for position in (5, 6, 18, 19)] == [False, True, True, False]
        on.session.move_to(18)
        await on.press("1")
        assert "✓ api completed" in on.screen()
        assert "line-through" in on.svg()

    with make_run(tmp_path, (*STORY, back)) as log:
        play(log, scene)


def test_a_run_is_rolled_back_and_forked_once_that_was_agreed_to(make: Make) -> None:
    """What changes is shown first; a no changes nothing."""
    run = make(task("a"), task("b", "a"))
    run.start("a")
    run.end("a", {"f": "two\n"})
    seq = run.state.seq
    run.start("b")
    run.end("b", {"g": "two\n"})
    run.finish()
    last = run.log.last_seq()

    async def asked(on: Playing, *keys: str) -> None:
        await on.press(*keys)
        await on.until(lambda: type(on.app.screen).__name__ == "Confirm", "the question")

    async def scene(on: Playing) -> None:
        await on.press("6")
        assert "+two" in on.screen()
        await on.press("R")
        assert "changes nothing" in on.screen()
        await asked(on, "g", f":{seq}", "enter", "R")
        assert "task b: completed -> pending" in on.screen()
        assert "M g" in on.screen()
        await on.press("n")
        assert run.log.last_seq() == last
        await asked(on, "F", "enter")
        assert "its files begin as commit" in on.screen()
        await on.press("y")
        await on.until(lambda: len(Projector(run.log).runs()) == 2, "the fork")
        forked = run.log.last_seq()
        await asked(on, "R")
        await on.press("y")
        await on.until(lambda: run.log.last_seq() > forked and "stands where it stood" in on.screen(), "the rollback")
        assert run.state.tasks["b"].status == "pending"
        assert on.session.position == on.session.last

    play(run.log, scene, size=(120, 40), run_id=run.run_id, project=run.project)


def test_an_imported_run_is_only_looked_at(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rolling it back is refused by name, as the verb refuses it."""

    class Elsewhere:
        run_id, workdir, repository = RUN, "/elsewhere", None

    monkeypatch.setattr(Log, "carried", Elsewhere())

    async def scene(on: Playing) -> None:
        await on.press("home", "R")
        assert f"run {RUN} was imported, and is only looked at" in on.screen()
        assert "fork" in on.screen()

    play(log, scene, size=(160, 30))
