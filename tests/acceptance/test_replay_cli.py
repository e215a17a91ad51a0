"""A past run as it went: the live view on a terminal, a line for each event elsewhere, a moment a line for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from scratch import Scratch, shell
from terminal import quickly_on_terminal


@pytest.fixture(scope="module")
def with_a_run(make_project: Callable[[str], Scratch]) -> Scratch:
    """A run that has ended: a task after another one, and one that failed."""
    cli = make_project("project")
    cli.quick("run", cli.plan(shell("a", "echo said"), shell("b", "true", "a"), shell("c", "exit 3")), code=1)
    return cli.keep()


@pytest.fixture
def cli(with_a_run: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_a_run.anew()


@pytest.fixture
def run_id(cli: Scratch) -> str:
    """The run's id."""
    return str(cli.quick("runs", "--json").data[0]["run_id"])


def test_a_script_reads_every_moment_with_the_state_that_was_seen_then(cli: Scratch, run_id: str) -> None:
    """All events of the run in their order; the last moment is what status says."""
    lines = [json.loads(line) for line in cli.quick("replay", run_id, "--json").out.splitlines()]
    assert [name for line in lines for name in line["events"]] == [event["type"] for event in cli.events(run_id)]
    assert lines[0]["elapsed_s"] == 0
    assert (lines[0]["status"], lines[0]["counts"]) == ("submitted", {"pending": 3})
    running = [line["running"] for line in lines]
    assert ["a", "c"] in running
    assert ["b"] in running or ["b", "c"] in running
    last = cli.quick("status", run_id, "--json").data
    assert (lines[-1]["status"], lines[-1]["counts"]) == (last["status"], last["counts"])
    assert [line["elapsed_s"] for line in lines] == sorted(line["elapsed_s"] for line in lines)


def test_a_person_reads_a_line_for_each_event(cli: Scratch, run_id: str) -> None:
    """At once where nobody asks for another speed, and up to a moment where one is named."""
    lines = cli.quick("replay").out.splitlines()
    assert len(lines) == 1 + len(cli.events(run_id))
    assert lines[1].split()[2] == "RunSubmitted"
    assert "exit code 3" in next(line for line in lines if "TaskFailed" in line)
    first = cli.events(run_id)[0]["seq"]
    assert len(cli.quick("replay", "--at", str(first + 2)).out.splitlines()) == 1 + 3


def test_on_a_terminal_it_is_the_live_view_as_it_was(cli: Scratch, run_id: str) -> None:
    """Its last picture stays."""
    seen = quickly_on_terminal(cli, "replay", run_id, "--speed", "max")
    assert seen.code == 0
    for words in ("failed", "2/3 completed", f"run {run_id}", "exit code 3"):
        assert words in seen.raw


def test_the_time_of_a_run_passes_as_fast_as_is_asked_for(cli: Scratch) -> None:
    """The state of the moment before is in sight until the next one has come."""
    from parallel_agents.eventstore.log import Log
    from parallel_agents.retelling import moments

    with Log(cli.store, create=False) as log:
        waited: list[tuple[int, str]] = []
        seen = [""]
        run_id = cli.events()[0]["run_id"]
        for moment in moments(log, run_id, None, lambda at_us: waited.append((at_us, seen[0]))):
            seen[0] = moment.state.status
    assert [at_us for at_us, _ in waited] == sorted({at_us for at_us, _ in waited})
    assert [standing for _, standing in waited][:2] == ["", "submitted"]
    assert waited[-1][1] == "running"


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf"])
def test_what_is_no_speed_is_refused(cli: Scratch, run_id: str, speed: str) -> None:
    """In words that say what is one."""
    assert "neither a number above 0 nor 'max'" in cli.quick("replay", run_id, "--speed", speed, code=2).err


def test_what_makes_no_sense_together_is_refused(cli: Scratch, run_id: str) -> None:
    """A proof is of all of a run."""
    assert "--speed is of no use with --verify" in cli.quick("replay", "--verify", "--speed", "2", code=2).err
    assert "--at is of no use with --verify" in cli.quick("replay", "--verify", "--at", "3", code=2).err
    assert "there is no run" in cli.quick("replay", "nope", code=3).err
