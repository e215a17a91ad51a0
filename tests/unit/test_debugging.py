"""The cursor of the debugger, and what is set beside it, without a screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from debugged import BEGAN_US, EVIL, RUN, SECOND_US, STORY, make_run

from parallel_agents.debugger.debugging import Debugging
from parallel_agents.debugger.printed import printed_by
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import ParallelAgentsError, UnknownRun
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.location import attempts_folder


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Debugging]:
    """The run made by hand, with an event of the store in its midst."""
    with make_run(tmp_path, STORY[:5]) as log:
        log.append(STORE_RUN, 0, [ev.ProviderFreed(provider="anthropic")])
        for events in STORY[5:]:
            log.append(RUN, log.version(RUN), events)
        yield Debugging(log, RUN)


@pytest.mark.parametrize(
    ("text", "seq"),
    [
        ("4", 4), ("11", 10), ("20", 20), ("-3", 17), ("+3", 20), ("-3s", 14), ("- 2 s", 16), ("0%", 1),
        ("50%", 10), ("100%", 20), ("2026-03-01T12:00:03Z", 6), ("now", 20), ("-1 event", 19),
    ],
)  # fmt: skip
def test_a_text_leads_to_an_event(session: Debugging, text: str, seq: int) -> None:
    """From the last one; of an event of another run to the one before it."""
    session.go_to(text)
    assert session.seq == seq


@pytest.mark.parametrize(
    ("text", "hint"), [("", "such as"), ("999", "1 to 20"), ("+3 parsecs", "min"), ("no such words", ""), ("200%", "")]
)
def test_a_text_that_leads_nowhere_moves_nothing(session: Debugging, text: str, hint: str) -> None:
    """It is told, with what would lead somewhere."""
    session.move_to(7)
    with pytest.raises(ParallelAgentsError) as raised:
        session.go_to(text)
    assert hint in raised.value.hint
    assert session.position == 7


def test_a_step_in_time_leads_to_another_event_at_least(session: Debugging) -> None:
    """However short it is; and never past an end."""
    session.move_to(0)
    assert session.by_time(0.1) == 1
    assert session.tape.at_us[session.by_time(2.5)] == BEGAN_US + 4 * SECOND_US
    assert session.by_time(3600) == session.last
    with pytest.raises(ParallelAgentsError, match="last event"):
        session.by_time(1)
    assert session.by_time(-0.1) == session.last - 2
    assert session.by_time(-3600) == 0
    with pytest.raises(ParallelAgentsError, match="first event"):
        session.by_time(-1)


def test_what_is_appended_is_found_as_well(session: Debugging) -> None:
    """By a search that began before it, and by the tasks' own events."""
    assert session.search("ONE page") == 2
    assert session.next_hit(forward=True)[1:] == (1, 2)
    position = session.position
    session.log.append(
        RUN, session.log.version(RUN), [ev.RunPaused(reason="one page is enough"), ev.TaskQueued(task_id="ship")]
    )
    assert session.catch_up() == 2
    assert session.position == position
    assert session.next_hit(forward=False)[1:] == (3, 3)
    assert session.by_task("ship", forward=True) == session.last
    assert session.frame.state.tasks["ship"].status == "queued"
    with pytest.raises(ParallelAgentsError, match="nothing happens to task ship after"):
        session.by_task("ship", forward=True)
    session.search("no such text")
    with pytest.raises(ParallelAgentsError, match="no event holds"):
        session.next_hit(forward=True)


def test_marks_watches_and_breakpoints_are_taken_away_by_what_they_are_called(session: Debugging) -> None:
    """And whatever is called by another name is an error that says what there is."""
    session.break_at("TaskFailed")
    session.break_at("TaskFailed")
    session.watch("cost")
    assert [session.mark(), session.mark()] == ["a", "a"]
    session.move_to(5)
    assert session.mark() == "b"
    assert (session.marked("a"), session.marked(".")) == (session.last, 5)
    assert [(one.text, one.value, one.before) for one in session.watched()] == [("cost", 0.5, 0.5)]
    with pytest.raises(ParallelAgentsError) as raised:
        session.take_away("3")
    assert "numbers to 2, marks: a, b" in raised.value.hint
    assert [session.take_away(one) for one in ("a", "2", "1")] == ["mark a at event 20", "cost", "TaskFailed"]
    assert (session.marks, session.watches, session.breakpoints) == ({"b": 5}, [], [])
    assert session.task_named("des") == "design"
    with pytest.raises(ParallelAgentsError, match="no task"):
        session.task_named("")


def test_a_run_that_is_not_there_is_told(session: Debugging) -> None:
    """As every verb tells it."""
    with pytest.raises(UnknownRun):
        Debugging(session.log, "zzzzzzzzz2")


def test_what_was_printed_by_then_is_told_where_it_is_known(session: Debugging) -> None:
    """Of an attempt that had ended all; of one that ran then, only where nothing came since."""
    folder = attempts_folder(session.log.path) / RUN / "api" / "api2"
    folder.mkdir(parents=True)
    (folder / "stdout.log").write_text('{"type":"assistant","message":{"content":[{"type":"text","text":"I look"}]}}\n')
    (folder / "stderr.log").write_text(f"{EVIL}\n")
    ended, running = session.frames.at(session.last), session.frames.at(session.last - 2)
    then_us = session.tape.at_us[running.position]

    def said(frame: object, **more: bool) -> tuple[list[str], bool]:
        found = printed_by(session.log, frame.state, "api", then_us, **more)  # type: ignore[attr-defined]
        return found.lines, bool(found.unsure)

    assert said(ended) == (["I look", EVIL], False)
    assert said(running) == (["I look", EVIL], True)
    assert said(running, now=True) == (["I look", EVIL], False)
    for name in ("stdout.log", "stderr.log"):
        os.utime(folder / name, (then_us / 1e6 - 1, then_us / 1e6 - 1))
    assert said(running) == (["I look", EVIL], False)
    assert printed_by(session.log, ended.state, "ship", then_us).attempt_id is None
