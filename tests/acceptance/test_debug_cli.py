"""The verb debug on a terminal, as somebody opens it."""

from __future__ import annotations

from pathlib import Path

from keyboard import Keyboard
from scratch import Scratch, shell, wait_until


def test_it_opens_on_a_terminal_and_leaves_it_as_it_was(cli: Scratch) -> None:
    """At the moment that was named; q leaves, with exit code 0 and nothing appended."""
    cli.quick("run", cli.plan(shell("one", "echo hello")))
    events = cli.event_count()
    seq = next(event["seq"] for event in cli.events() if event["type"] == "TaskCompleted")
    keyboard = Keyboard(cli.root, {**cli.environment, "COLUMNS": "100", "LINES": "30"})
    try:
        keyboard.type(f"parallel-agents debug --at {seq}; echo code=$?\n")
        keyboard.until(f"event {seq}")
        keyboard.until("Keys q Quit")
        keyboard.type("q")
        keyboard.until("code=0")
    finally:
        keyboard.close()
    assert cli.event_count() == events


def test_a_terminal_that_can_only_print_is_refused(cli: Scratch) -> None:
    """With what to use instead; so is a moment that is not there, before anything is drawn."""
    cli.quick("run", cli.plan(shell("one", "true")))
    keyboard = Keyboard(cli.root, cli.environment)
    try:
        keyboard.type("TERM=dumb parallel-agents debug; echo code=$?\n")
        keyboard.until("TERM is dumb")
        keyboard.until("code=2")
        keyboard.type("parallel-agents debug --at 999; echo again=$?\n")
        keyboard.until("there is no event 999")
        keyboard.until("again=3")
    finally:
        keyboard.close()
    assert "q Quit" not in keyboard.shown


def test_an_imported_run_is_opened_and_forked_but_not_rolled_back(cli: Scratch, tmp_path: Path) -> None:
    """The fork is a run of one's own store."""
    cli.quick("run", cli.plan(shell("one", "echo hello")))
    (line,) = cli.quick("runs", "--json").data
    run = line["run_id"]
    file = tmp_path / "run.export.tar.gz"
    cli.quick("export", run, "-o", str(file))
    cli.store.parent.rename(tmp_path / "gone")
    cli.quick("import", str(file))
    keyboard = Keyboard(cli.root, {**cli.environment, "COLUMNS": "120", "LINES": "30"})
    try:
        keyboard.type(f"parallel-agents debug {run}; echo code=$?\n")
        keyboard.until("q Quit")
        keyboard.type("R")
        keyboard.until("is only looked at")
        keyboard.type("F")
        keyboard.until("Fork from event")
        keyboard.type("\r")
        keyboard.until("Make the new run?")
        keyboard.type("y")
        wait_until(lambda: cli.event_count(), "the fork")
        keyboard.type("q")
        keyboard.until("code=0")
    finally:
        keyboard.close()
    (forked,) = cli.quick("runs", "--json").data
    assert forked["run_id"] != run
