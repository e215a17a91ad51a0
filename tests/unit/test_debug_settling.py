"""A conflict is settled from inside the debugger, in a real repository."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from debugged import RUN, Playing, play
from handmade import HandmadeRun, Make
from paper import task

from parallel_agents.cli.debug_settling import words_of
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Gate


def clashing(make: Make, **more: Any) -> HandmadeRun:
    """Work of b that does not merge with that of a, over one line of one file; c waits for it, and d for nothing."""
    run = make(task("a"), task("b"), task("c", "b"), task("d"), **more)
    run.start("a", "b")
    run.end("a", {"f": "A\n"})
    run.end("b", {"f": "B\n", "new": "b\n"}, other="a")
    return run


def play_on(run: HandmadeRun, scene: Callable[[Playing], Awaitable[None]]) -> None:
    """The debugger on that run, on a wide terminal."""
    play(run.log, scene, size=(120, 40), run_id=run.run_id, project=run.project)


async def asked(on: Playing, side: str) -> None:
    """Ask for a side; the question is there then."""
    await on.press("S", f":{side}", "enter")
    await on.until(lambda: type(on.app.screen).__name__ == "Confirm", "the question")


def test_a_side_is_taken_once_what_it_changes_was_agreed_to(make: Make) -> None:
    """A no changes nothing; the conflicts pane says which key it is."""
    run = clashing(make)
    last = run.log.last_seq()

    async def scene(on: Playing) -> None:
        await on.press("5")
        assert "S settles it from here" in on.screen()
        await asked(on, "theirs")
        for said in (
            "task b: blocked -> completed, by theirs of f",
            "M f",
            "A new",
            "-A",
            "+B",
            "task c may start then",
        ):
            assert said in on.screen(), said
        await on.press("n")
        assert run.log.last_seq() == last
        await asked(on, "theirs")
        await on.press("y")
        await on.until(lambda: "the conflict of task b is resolved by theirs" in on.screen(), "its end")
        assert "no process dispatches run" in on.screen()
        assert (run.read("f"), run.read("new")) == ("B\n", "b\n")
        assert run.state.tasks["b"].status == "completed"
        assert on.session.position == on.session.last
        await on.press("S")
        assert f"no conflict of run {run.run_id} waits to be settled" in on.screen()

    play_on(run, scene)


def test_what_was_shown_is_what_is_merged(make: Make) -> None:
    """On top of what was merged between the question and the answer."""
    run = clashing(make)

    async def scene(on: Playing) -> None:
        await asked(on, "both")
        run.start("d")
        run.end("d", {"g": "D\n"})
        await on.press("y")
        await on.until(lambda: "is resolved by both" in on.screen(), "its end")
        assert (run.read("f"), run.read("g")) == ("A\nB\n", "D\n")

    play_on(run, scene)


def test_nothing_is_settled_in_the_past(make: Make) -> None:
    """It says where it is settled."""
    run = clashing(make)

    async def scene(on: Playing) -> None:
        await on.press("up", "S")
        assert "is not the last one, and what is settled is what waits now" in on.screen()
        assert len(on.app.screen_stack) == 1

    play_on(run, scene)


def test_a_cursor_at_the_end_goes_along_with_what_came_since(make: Make) -> None:
    """Of a run that goes on something comes between a look and a key, and it is no past that somebody stands in."""
    run = clashing(make)

    async def scene(on: Playing) -> None:
        run.add(ev.TaskQueued(task_id="d"))
        await asked(on, "ours")
        assert on.session.position == on.session.last == len(run.types()) - 1

    play_on(run, scene)


def test_of_several_conflicts_the_chosen_task_says_which(make: Make) -> None:
    """And where none of them is chosen, they are named."""
    run = make(task("a"), task("b"), task("c"), content={"f": "one\n", "g": "one\n"})
    run.start("a", "b", "c")
    run.end("a", {"f": "A\n", "g": "A\n"})
    run.end("b", {"f": "B\n"}, other="a")
    run.end("c", {"g": "C\n"}, other="a")

    async def scene(on: Playing) -> None:
        await on.press("s", ":a", "enter", "S")
        assert "2 conflicts wait: b, c" in on.screen()
        await on.press("s", ":b", "enter")
        await asked(on, "ours")
        assert "no file of the run changes: the work of the task is left out" in on.screen()
        await on.press("y")
        await on.until(lambda: "still waiting for a person: c" in on.screen(), "its end")
        assert run.state.tasks["b"].status == "completed"

    play_on(run, scene)


def test_a_gate_that_does_not_pass_is_told_and_can_be_left_out(make: Make) -> None:
    """What has to pass is shown before."""
    run = clashing(make, gates=(Gate(command=("false",), after="task"),))

    async def scene(on: Playing) -> None:
        await on.press("f")  # What came of the gate is an event too.
        await asked(on, "both")
        assert "first this has to pass: false" in on.screen()
        await on.press("y")
        await on.until(lambda: "gate `false` does not pass" in on.screen(), "the refusal")
        assert run.state.tasks["b"].status == "blocked"
        await asked(on, "both no-gates")
        assert "has to pass" not in on.screen()
        await on.press("y")
        await on.until(lambda: "is resolved by both" in on.screen(), "its end")

    play_on(run, scene)


def test_an_imported_run_is_not_settled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is not rolled back."""
    run = clashing(make)

    class Elsewhere:
        run_id, workdir, repository = RUN, "/elsewhere", None

    async def scene(on: Playing) -> None:
        await on.press("S")
        assert f"run {run.run_id} was imported, and is only looked at" in on.screen()

    monkeypatch.setattr(Log, "carried", Elsewhere())
    play_on(run, scene)


@pytest.mark.parametrize("text", ["", "mine", "both", "ours theirs", "ours no-gates no-gates"])
def test_words_that_take_no_side_are_refused(text: str) -> None:
    """With those that do."""
    with pytest.raises(InvalidUsage) as found:
        words_of(text, ["ours", "theirs"])
    assert found.value.hint == "ours, theirs; no-gates may stand behind it"
    assert words_of(" ours  no-gates ", ["ours", "theirs"]) == ["ours", "no-gates"]
