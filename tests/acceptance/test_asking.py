"""What happened in one run, asked for in many ways: filters, ranges, the newest, and what comes next."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from scratch import Scratch, shell, until_file
from terminal import quickly_on_terminal as on_terminal
from waiting import next_line

TASKS = [
    shell("build", "echo Built the House"),
    shell("check", "echo no such luck >&2; exit 3", "build", max_retries=1),
    shell("paint", "echo painted", "build"),
]


class Told:
    """A run with a task that failed twice, taken back to where all waited, and done once more."""

    def __init__(self, scratch: Scratch) -> None:
        self.cli = scratch
        plan = scratch.plan(*TASKS, name="house", workspace="none")
        scratch.quick("run", plan, "--set=execution.retryPolicy.retryDelay=0.05", code=1)
        events = scratch.events()
        self.target = next(one["seq"] for one in events if one["type"] == "TaskCompleted")
        self.end = events[-1]["seq"]
        scratch.quick("rollback", "latest", "--to", str(self.target), "--yes")
        self.events: list[dict[str, Any]] = scratch.events()
        self.run_id: str = events[0]["run_id"]

    def seqs(self, *words: str) -> list[int]:
        """The events that fit, and the same by the page that people read."""
        found = [event["seq"] for event in self.cli.quick("history", *words, "--json").lines]
        page = self.cli.quick("history", *words).out.splitlines()
        assert [int(line.split()[0]) for line in page[1:]] == found
        return found

    def which(self, **wanted: Any) -> list[int]:
        """The events whose envelope or data has these values."""
        return [
            one["seq"]
            for one in self.events
            if all(one.get(name, one["data"].get(name)) == value for name, value in wanted.items())
        ]


@pytest.fixture(scope="module")
def told(make_project: Callable[[str], Scratch]) -> Told:
    """Once for all tests here."""
    return Told(make_project("history"))


def test_events_are_asked_for_by_what_they_are_about(told: Told) -> None:
    """Each filter alone, and some together."""
    first, second = [one["data"]["attempt_id"] for one in told.events
                     if (one["type"], one["data"].get("task_id")) == ("TaskStarted", "check")]  # fmt: skip
    assert told.seqs("--task", "check") == told.which(task_id="check")
    assert told.seqs("--attempt", second) == told.which(attempt_id=second)
    assert told.seqs("--task", "check", "--attempt", "1") == told.which(attempt_id=first)
    assert told.seqs("--actor", "run", "--type", "TaskFailed") == told.which(type="TaskFailed")
    assert told.seqs("--text", "NO SUCH LUCK") == told.which(type="TaskFailed")
    assert told.seqs("--limit", "2", "--type", "TaskFailed", "--all") == told.which(type="TaskFailed")[-2:]
    assert told.seqs("--since", "3", "--before", "6", "--after", "3") == [4, 5]
    assert told.seqs("--since", "1 hour ago") == [one["seq"] for one in told.events]
    assert told.seqs("--at", "5", "--since", "4") == [4, 5]


def test_what_fits_nothing_says_so_and_is_no_failure(told: Told) -> None:
    """On stderr: stdout is data."""
    said = told.cli.quick("history", "--task", "check", "--type", "TaskSkipped")
    assert (said.out, said.err) == ("", "no event fits\n")
    assert told.cli.quick("history", "--cost-over", "0.5", "--json").out == ""


def test_what_was_undone_is_shown_as_undone(told: Told) -> None:
    """Of one run, and of all; before it was undone it was not. Programs get the events as they stand in the log."""
    for words in ((), ("--all",)):
        lines = told.cli.quick("history", *words).out.splitlines()[1:]
        undone = [int(line.split()[0]) for line in lines if line.endswith("(undone)")]
        assert undone == list(range(told.target + 1, told.end + 1))
    assert "(undone)" not in told.cli.quick("history", "--at", str(told.end)).out
    assert all(set(event) == set(told.events[0]) for event in told.events)
    shown = on_terminal(told.cli, "history", size=(200, 50)).raw
    assert len(re.findall(r"\x1b\[2;9m", shown)) >= told.end - told.target


def test_each_line_says_in_words_what_happened(told: Told) -> None:
    """Who, what, why and how much."""
    lines = [line.split(maxsplit=2)[2] for line in told.cli.quick("history").out.splitlines()[1:]]
    said = " | ".join(lines)
    for words in (
        "house is submitted: 3 tasks, concurrent, in ", " dispatches it from here on", "it begins",
        "waits for a slot", "attempt 1 by shell", ": Built the House", "failed after", "exit code 3: no such luck",
        "failed once, is tried again in 0.", "it has failed: 2 completed, 1 failed; check failed (task failed)",
        f"back to event {told.target}; what came after is undone", "(by cli)",
    ):  # fmt: skip
        assert words in said, words


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--type", "TaskFaild"), 2, "did you mean 'TaskFailed'?"),
        (("--task", "chek"), 3, "did you mean 'check'?"),
        (("--all", "--task", "chek"), 3, "did you mean 'check'?"),
        (("--actor", "rum"), 2, "did you mean 'run'?"),
        (("--attempt", "7"), 2, "a number goes with --task and one run"),
        (("--task", "check", "--attempt", "7"), 3, "it has 2"),
        (("--since", "yesteday"), 2, "did you mean 'yesterday'?"),
        (("--until", "soon"), 2, "such as 412, 14:30"),
        (("--after", "99999"), 3, "the log holds events 1 to"),
        (("--since", "9", "--until", "2"), 2, "the wrong way round"),
        (("--cost-over", "much"), 2, "dollars, such as 0.50"),
        (("--cost-over", "-1"), 2, "dollars, such as 0.50"),
        (("--limit", "0"), 2, "--limit"),
        (("--follow", "--at", "3"), 2, "the past does not go on"),
    ],
)
def test_wrong_values_are_refused_with_what_to_say_instead(
    told: Told, words: tuple[str, ...], code: int, said: str
) -> None:
    """And nothing on stdout."""
    refused = told.cli.quick("history", *words, code=code)
    assert said in refused.err
    assert refused.out == ""


def test_who_follows_gets_what_fits_as_it_comes(cli: Scratch) -> None:
    """With a filter, from the newest that fits on, until the run has ended."""
    plan = cli.plan(shell("a", "true"), shell("b", until_file("go"), "a"), workspace="none")
    running = cli.begin("run", plan)
    cli.until_running("b")
    following = cli.start(
        "history", "--follow", "--json", "--type", "TaskStarted", "--type", "TaskCompleted", "--limit", "1"
    )
    first = json.loads(next_line(following.stdout))
    assert (first["type"], first["data"]["task_id"]) == ("TaskStarted", "b")
    cli.write("go", "")
    said = cli.said_by(following)
    assert (said.code, [(one["type"], one["data"]["task_id"]) for one in said.lines]) == (0, [("TaskCompleted", "b")])
    assert cli.said_by(running).code == 0


def test_show_tells_what_befell_a_task_and_who_waited_for_it(told: Told) -> None:
    """On a page and as data."""
    found = told.cli.quick("show", "build", "--json", "--at", str(told.end)).data
    assert {one["task_id"] for one in found["waited_for"]} == {"check", "paint"}
    assert [one["seq"] for one in found["events"]] == told.which(task_id="build")
    page = told.cli.quick("show", "build", "--at", str(told.end)).out
    assert "  waiting  check (failed) waited for it" in page
    page = told.cli.quick("show", "check", "--at", str(told.end)).out
    assert "what befell it\n  tried again: it failed: exit code 3: no such luck, and has failed once  [" in page


def test_why_names_its_events_on_a_page_and_as_data(told: Told) -> None:
    """Of what stands, of what was before, and of what was put before what."""
    failed = told.which(type="TaskFailed")
    found = told.cli.quick("why", "check", "--json", "--at", str(told.end)).data
    assert (found["code"], found["events"][-1]) == ("failed", {"seq": failed[-1], "type": "TaskFailed"})
    assert [one["what"] for one in found["past"]] == ["retried", "again"]
    page = told.cli.quick("why", "check", "--at", str(told.end)).out
    assert f"{failed[-1]} TaskFailed" in page
    assert "  ran again: attempt 1 failed: exit code 3: no such luck; it was to rest" in page
    before = told.cli.quick("why", "check", "--before", "paint", "--json", "--at", str(told.end)).data
    assert (before["first"], before["code"]) == ("check", "plan_order")
    assert "check was started before paint: both have priority medium" in (
        told.cli.quick("why", "check", "--before", "paint", "--at", str(told.end)).out
    )
    assert "did you mean 'paint'?" in told.cli.quick("why", "check", "--before", "pant", code=3).err
    assert "name two tasks" in told.cli.quick("why", "check", "--before", "check", code=2).err
