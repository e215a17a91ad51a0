"""What the looking verbs say of one eventful run: shapes, every moment of the past, terminals, and nobody's cursor moved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from scratch import Scratch, in_state, shell, until_file
from terminal import quickly_on_terminal as on_terminal

COLOUR = "\x1b[31mred\x1b[0m\x07\rover"
TASKS = [
    shell(
        "quick",
        "echo done; printf '\\033]0;title\\007 \\033[31mred\\033[0m last\\n'",
        description=COLOUR,
        tags=["a", "b"],
    ),
    shell("flaky", "[ -e tried ] || { touch tried; exit 4; }", max_retries=2),
    shell("broken", "echo no such luck >&2; exit 3", "quick", max_retries=1),
    shell("never", "true", "broken"),
    shell("after-never", "true", "never"),
    shell("tolerated", "exit 5", allow_failure=True),
    shell("all-the-same", "true", "tolerated"),
    shell("slow", until_file("go"), "quick", priority="high"),
    shell("doomed", "sleep 300", "quick", priority="high"),
    shell("last", "printf 'caf\\303\\251 \\377\\n'", "slow"),
]
TASK_FIELDS = {
    "task_id": str, "agent_type": str, "status": str, "priority": str, "dependencies": list, "attempts": int,
    "started_at": str | None, "ended_at": str | None, "duration_s": float | None, "cost_usd": float, "model": str | None,
    "checkpoint_id": str | None, "error": str | None,
}  # fmt: skip


class Story:
    """A run with failures, retries, skips, a pause and a cancelled task, all of it told in its history."""

    def __init__(self, scratch: Scratch) -> None:
        self.cli = scratch
        plan = scratch.plan(*TASKS, name="story", max_parallel_agents=3)
        quick = "--set=execution.retryPolicy.retryDelay=0.05"
        process = scratch.begin("run", plan, quick, env={"LANG": "C"})
        scratch.until(lambda found: {"slow", "doomed"} <= in_state(found, "running"), "the slow ones to run")
        scratch.quick("pause", "--reason", f"lunch {COLOUR}")
        scratch.quick("cancel", "latest", "doomed", "--reason", f"no time {COLOUR}")
        scratch.until(lambda found: "doomed" in in_state(found, "cancelled"), "the doomed one to be cancelled")
        scratch.write("go", "")
        said = scratch.said_by(process)
        assert said.code == 5, said  # Paused: only a person can go on.
        self.paused = said
        self.resumed = scratch.quick("resume", "--json", code=1)
        self.events: list[dict[str, Any]] = scratch.events()
        self.run_id: str = self.events[0]["run_id"]


@pytest.fixture(scope="module")
def story(make_project: Callable[[str], Scratch]) -> Story:
    """Told once for all tests here."""
    return Story(make_project("story"))


def told(events: list[dict[str, Any]], upto: int) -> dict[str, Any]:
    """The status of the run as of an event, folded from its history without a line of ours."""
    run: dict[str, Any] = {"status": "", "started_at": None, "ended_at": None, "seq": 0}
    tasks = {
        task["task_id"]: {
            **dict.fromkeys(("started_at", "ended_at", "error", "because")),
            "status": "pending",
            "attempts": 0,
        }
        for task in TASKS
    }
    for event in events:
        if event["seq"] > upto:
            break
        data, at, kind = event["data"], event["at"], event["type"]
        task = tasks.get(data.get("task_id", ""), {})
        run["seq"] = event["seq"]
        match kind:
            case "RunSubmitted":
                run["status"] = "submitted"
            case "RunStarted" | "RunResumed":
                run["status"] = "running"
                run["started_at"] = run["started_at"] or at
            case "RunPaused":
                run["status"] = "paused"
            case "RunFailed":
                run |= {"status": "failed", "ended_at": at}
            case "TaskQueued":
                task["status"] = "queued"
            case "TaskRetryScheduled":
                task |= {"status": "queued", "ended_at": None}
            case "TaskStarted":
                task |= {"status": "running", "started_at": at, "ended_at": None, "attempts": task["attempts"] + 1}
            case "TaskCompleted":
                task |= {"status": "completed", "ended_at": at, "error": None}
            case "TaskFailed":
                task |= {"status": "failed", "ended_at": at, "error": data["error"]}
            case "TaskCancelled":
                task |= {"status": "cancelled", "ended_at": at}
            case "TaskSkipped":
                task |= {"status": "skipped", "ended_at": at, "because": data["because"]}
            case "RunClaimed" | "RunReleased" | "TaskCancelRequested" | "CheckpointCreated":
                pass
            case _:
                raise AssertionError(f"the story did not mean to hold {kind}")
    waiting = {task_id for task_id, task in tasks.items() if task["status"] == "queued"}
    return {**run, "tasks": tasks, "waiting": waiting}


def test_the_story_is_eventful(story: Story) -> None:
    """Or the tests below would show little."""
    kinds = {event["type"] for event in story.events}
    assert {"TaskRetryScheduled", "TaskSkipped", "RunPaused", "RunResumed", "TaskCancelled", "RunFailed"} <= kinds
    assert 60 <= len(story.events) <= 100


def test_status_at_every_event_is_what_the_events_until_then_say(story: Story) -> None:
    """So are the list of runs and the queue."""
    names = ("status", "attempts", "started_at", "ended_at", "error", "because")
    for event in story.events:
        seq = event["seq"]
        wanted = told(story.events, seq)
        found = story.cli.quick("status", story.run_id[:8], "--json", "--at", str(seq)).data
        tasks = {task["task_id"]: {name: task[name] for name in names} for task in found["tasks"]}
        assert tasks == wanted["tasks"], event
        assert {name: found[name] for name in ("status", "started_at", "ended_at", "seq")} == {
            name: wanted[name] for name in ("status", "started_at", "ended_at", "seq")
        }
        if event["type"].startswith("Checkpoint"):
            continue  # These two know nothing of it.
        (line,) = story.cli.quick("runs", "--json", "--at", str(seq)).data
        assert (line["run_id"], line["status"]) == (story.run_id, wanted["status"])
        queue = story.cli.quick("queue", "--json", "--at", str(seq)).data if wanted["ended_at"] is None else []
        assert {entry["task_id"] for entry in queue} == wanted["waiting"] if wanted["ended_at"] is None else not queue
        assert [entry["position"] for entry in queue] == list(range(1, len(queue) + 1))


def test_a_time_stands_for_the_last_event_until_then(story: Story) -> None:
    """To the microsecond; local where it names no zone."""
    for event in story.events[:: len(story.events) // 6]:
        at = datetime.fromisoformat(event["at"])
        last = max(other["seq"] for other in story.events if other["at"] <= event["at"])
        before = [other["seq"] for other in story.events if other["at"] < event["at"]]
        local = at.astimezone(ZoneInfo("America/New_York")).replace(tzinfo=None).isoformat()
        asked: list[tuple[str, int, dict[str, str]]] = [
            (event["at"], last, {}),
            (at.astimezone(ZoneInfo("Asia/Kolkata")).isoformat(), last, {}),
            (local, last, {"TZ": "America/New_York"}),
        ]
        if before:
            asked.append(((at - timedelta(microseconds=1)).isoformat(), before[-1], {}))
        for text, seq, env in asked:
            found = story.cli.quick("status", "--json", "--at", text, env=env).data
            assert found == story.cli.quick("status", "--json", "--at", str(seq)).data | {"seq": found["seq"]}
            assert found["seq"] == seq
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    said = story.cli.quick("status", "--json", "--at", tomorrow, code=3)
    assert (said.complaint["code"], "has not come yet" in said.complaint["message"]) == ("unknown_event", True)


def test_what_the_past_took_is_counted_to_that_moment(story: Story) -> None:
    """Not to the moment at which somebody looks back."""
    start = next(
        event for event in story.events if event["type"] == "TaskStarted" and event["data"]["task_id"] == "doomed"
    )
    pages = [story.cli.quick(verb, "--at", str(start["seq"])).out for verb in ("status", "runs", "timeline")]
    for page in pages:
        assert all(float(word) < 60 for line in page.splitlines() for word in line.split() if word.count(".") == 1
                   and word.replace(".", "").isdecimal())  # fmt: skip
    again = [story.cli.quick(verb, "--at", str(start["seq"])).out for verb in ("status", "runs", "timeline")]
    assert pages == again


def test_the_shapes_of_status_runs_and_queue(story: Story) -> None:
    """As they are promised; more fields may stand beside them."""
    found = story.cli("status", "--json").data
    assert {name: type(found[name]) for name in ("run_id", "name", "status", "seq", "strategy", "cost_usd")} == {
        "run_id": str, "name": str, "status": str, "seq": int, "strategy": str, "cost_usd": float
    }  # fmt: skip
    assert found["budget_usd"] is None
    assert [task["task_id"] for task in found["tasks"]] == [task["task_id"] for task in TASKS]
    for task in found["tasks"]:
        assert {name for name, kind in TASK_FIELDS.items() if not isinstance(task[name], kind)} == set()
        for name in ("started_at", "ended_at"):
            assert task[name] is None or (task[name].endswith("Z") and datetime.fromisoformat(task[name]).tzinfo)
    (line,) = story.cli.quick("runs", "--json").data
    assert {"run_id", "name", "status", "strategy", "tasks", "submitted_at", "started_at", "ended_at"} <= set(line)
    assert (line["status"], line["tasks"]) == ("failed", len(TASKS))
    assert story.cli.quick("queue", "--json").data == []


def test_history_is_a_line_an_event_oldest_first_and_never_changes(story: Story) -> None:
    """Each with its own hash, as it stands in the log; narrowed by type, task and moment."""
    said = story.cli("history", "--json")
    assert said.lines == story.events
    assert said.out == story.cli.quick("history", "--all", "--json").out
    for event in story.events:
        assert set(event) == {"seq", "run_id", "version", "type", "at", "actor", "data", "hash"}
        assert len(bytes.fromhex(event["hash"])) == 32
    assert [event["seq"] for event in story.events] == list(range(1, len(story.events) + 1))
    assert [event["version"] for event in story.events] == [event["seq"] for event in story.events]
    times = [event["at"] for event in story.events]
    assert times == sorted(times)
    narrowed = story.cli.quick("history", "--json", "--type", "TaskFailed", "--type", "TaskStarted", "--task", "broken")
    assert [event["type"] for event in narrowed.lines] == ["TaskStarted", "TaskFailed"] * 2
    assert story.cli.quick("history", "--json", "--at", "7").lines == story.events[:7]
    page = story.cli.quick("history").out.splitlines()
    assert len(page) == len(story.events) + 1
    assert [line.split()[0] for line in page[1:]] == [str(event["seq"]) for event in story.events]


def test_what_run_and_resume_summarise_is_what_the_log_says(story: Story) -> None:
    """And so does wait, with the same code."""
    end = next(event for event in story.events if event["type"] == "RunFailed")
    states = [task["status"] for task in told(story.events, end["seq"])["tasks"].values()]
    counts = {status: states.count(status) for status in set(states)}
    assert end["data"]["counts"] == counts == {"completed": 5, "failed": 2, "skipped": 2, "cancelled": 1}
    assert story.resumed.data["counts"] == counts
    assert story.resumed.data["status"] == "failed"
    assert f"run {story.run_id} paused" in story.paused.out
    waited = story.cli.quick("wait", code=1).out
    assert "failed: 5/10 completed" in waited
    assert all(
        part in waited for part in ("2 failed", "2 skipped", "1 cancelled", "  broken: exit code 3: no such luck")
    )
    assert story.cli.quick("wait", "--json", code=1).data["counts"] == counts


def test_show_tells_a_tasks_whole_life(story: Story) -> None:
    """What was asked, each attempt with its files, and what became of it."""
    found = story.cli.quick("show", "flaky", "--json").data
    first, second = found["attempt_list"]
    assert (first["outcome"], second["outcome"], found["attempts"]) == ("failed", "completed", 2)
    assert Path(second["folder"], "stdout.log").is_file()
    assert (found["max_retries"], found["runner"], found["stage"]) == (2, "shell", "all")
    assert story.cli.quick("show", "latest", "slow", "--json").data["dependents"] == ["last"]
    never = story.cli.quick("show", story.run_id, "after-never", "--json").data
    assert (never["status"], never["because"], never["attempt_list"]) == ("skipped", "broken", [])
    page = story.cli.quick("show", "broken").out
    assert all(part in page for part in ("exit code", "no such luck", "failed", "sh -c"))


def test_logs_are_what_an_attempt_wrote_byte_by_byte(story: Story) -> None:
    """Stdout, then stderr, of the last attempt or another; as JSON what is no text is replaced."""
    out = story.cli.start("logs", "last", encoding=None, errors=None).communicate()[0]
    assert out == b"caf\xc3\xa9 \xff\n"
    assert story.cli.quick("logs", "last", "--json").data["stdout"] == "café \ufffd\n"
    assert story.cli.quick("logs", "broken", "--attempt", "1").out == "no such luck\n"
    found = story.cli.quick("logs", "broken", "--json").data
    assert (found["stdout"], found["stderr"]) == ("", "no such luck\n")
    said = story.cli.quick("logs", "never")
    assert (said.out, said.err) == ("", f"task never of run {story.run_id} has not been started yet\n")


def test_timeline_cost_and_why(story: Story) -> None:
    """Every attempt as a span; nothing was paid; each reason is the scheduler's own."""
    spans = story.cli.quick("timeline", "--json").data
    assert [span["attempt_id"] for span in spans] == [
        event["data"]["attempt_id"] for event in story.events if event["type"] == "TaskStarted"
    ]
    assert all(span["started_at"] <= span["ended_at"] for span in spans)
    page = story.cli.quick("timeline").out.splitlines()
    assert len(page) == 2 + len(TASKS)
    cost = story.cli.quick("cost", "--by", "agent", "--json").data
    assert (cost["cost_usd"], cost["groups"]) == (0.0, [])
    whole = story.cli.quick("cost", "--all", "--json").data
    assert (whole["run_id"], whole["cost_usd"]) == (None, 0.0)
    assert story.cli.quick("cost", "--by", "run", "--json").data["run_id"] is None
    assert story.cli.quick("cost", story.run_id, "--by", "run", "--json").data["run_id"] == story.run_id
    assert story.cli.quick("cost").out == f"$0.00  run {story.run_id}\n"
    assert story.cli.quick("cost", "--csv").out.startswith("at,run_id,task_id,attempt_id,agent_type,")
    assert "--csv and --json exclude each other" in story.cli.quick("cost", "--csv", "--json", code=2).err
    assert story.cli.quick("cost", "--csv", "--by", "model").out.startswith("model,cost_usd,unknown_attempts,")
    found = story.cli.quick("why", "after-never", "--json").data
    assert "broken" in found["why"]
    assert story.cli.quick("why", "doomed").out.startswith("⊘ cancelled  doomed")
    paused = next(event["seq"] for event in story.events if event["type"] == "RunPaused")
    assert "waiting for slow" in story.cli.quick("why", "last", "--at", str(paused)).out


def test_verify_doctor_and_config(story: Story) -> None:
    """They keep house, and look at it."""
    found = story.cli.quick("verify", "--json").data
    assert (found["ok"], found["events"], found["broken"], found["missing_plans"]) == (
        True,
        len(story.events),
        None,
        [],
    )
    assert found["head"] == story.events[-1]["hash"]
    findings = story.cli.quick("doctor", "--json").data
    assert {"check", "level", "detail", "hint"} == set(findings[0])
    assert {finding["level"] for finding in findings} <= {"ok", "warning"}
    assert any(finding["check"] == "runner shell" and finding["level"] == "ok" for finding in findings)
    assert story.cli.quick("config", "show", "--json").data["maxParallelAgents"] == 5
    schema = story.cli.quick("config", "schema").data
    assert {"name", "strategy", "tasks", "defaults"} <= set(schema["properties"])
    assert "maxParallelAgents" in story.cli.quick("config", "schema", "configuration").data["properties"]
    shown = story.cli.quick(
        "config", "show", "--json", "--origin", env={"PARALLEL_AGENTS_MAX_PARALLEL_AGENTS": "2"}
    ).data
    assert shown["maxParallelAgents"] == {
        "value": 2, "origin": "environment PARALLEL_AGENTS_MAX_PARALLEL_AGENTS", "in_force": True
    }  # fmt: skip


def test_nothing_that_a_task_or_a_user_wrote_moves_a_cursor(story: Story) -> None:
    """On a terminal, where colours of our own are the only codes; the log itself keeps what was written."""
    for words in (("status",), ("history",), ("show", "quick"), ("show", "doomed"), ("why", "doomed"), ("timeline",),
                  ("status", "--at", str(max(e["seq"] for e in story.events if e["type"] == "RunPaused")))):  # fmt: skip
        shown = on_terminal(story.cli, *words, size=(200, 50))
        assert (shown.code, shown.screen.odd) == (0, []), words
        assert "\x1b[0m\x07" not in shown.raw
    description = next(task for task in TASKS if task["task_id"] == "quick")["description"]
    assert story.cli.quick("show", "quick", "--json").data["description"] == description


@pytest.mark.parametrize("size", [(80, 24), (40, 10)])
def test_no_line_is_longer_than_the_terminal(story: Story, size: tuple[int, int]) -> None:
    """What says most stands on the left, and is still there."""
    for words, wanted in (
        (("status",), [task["task_id"][:3] for task in TASKS]),
        (("runs",), [story.run_id[:4]]),
        (("history",), [f" {event['seq']} " for event in story.events]),
        (("timeline",), [task["task_id"] for task in TASKS]),
        (("show", "flaky"), ["failed", "completed"]),
    ):
        shown = on_terminal(story.cli, *words, size=size)
        text = "\n".join(shown.screen.lines)
        assert shown.code == 0
        assert [part for part in wanted if part not in text] == [], (words, text)
    page = on_terminal(story.cli, "show", "flaky", size=size).screen
    folder = story.cli.quick("show", "flaky", "--json").data["attempt_list"][-1]["folder"]
    assert folder in "".join("".join(page.lines).split())


def test_colours_are_for_terminals_that_have_them(story: Story) -> None:
    """Not for pipes, NO_COLOR or a dumb terminal."""
    assert "\x1b" not in story.cli.quick("status").out
    assert "\x1b[32m" in on_terminal(story.cli, "status").raw
    assert "\x1b[32m" not in on_terminal(story.cli, "status", env={"NO_COLOR": "1"}).raw
    assert "\x1b" not in on_terminal(story.cli, "status", env={"TERM": "dumb"}).raw


def test_where_letters_are_missing_the_rest_is_shown(story: Story) -> None:
    """In the locale of machines that nobody set up, and without one."""
    bare = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for verb, env in (("status", bare), ("history", bare), ("timeline", {"LANG": None, "HOME": None})):
        assert "broken" in story.cli(verb, env=env).out
    assert json.loads(story.cli("status", "--json", env=bare).out)["run_id"] == story.run_id


def test_who_reads_only_the_beginning_is_no_trouble(story: Story) -> None:
    """A pipe that is closed early, a full disk behind stdout, or none of the three streams."""
    for words in (("history", "--all", "--json"), ("status",)):
        said = story.cli(*words, script='"$@" | head -1')
        assert (said.err, len(said.out.splitlines())) == ("", 1)
        said = story.cli(*words, script='exec "$@" > /dev/full', code=2)
        assert "No space left" in said.err
        said = story.cli(*words, script='exec "$@" <&- >&- 2>&-')
        assert (said.out, said.err) == ("", "")
    assert story.cli("status", "nosuchrun", script='exec "$@" 2>&-', code=3).err == ""


def test_completion_knows_verbs_runs_and_tasks(story: Story) -> None:
    """For the shells that there are."""
    for name in ("bash", "zsh", "fish"):
        assert "_PARALLEL_AGENTS_COMPLETE" in story.cli.quick("completion", name).out

    def completed(*words: str) -> list[str]:
        env = {"_PARALLEL_AGENTS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("parallel-agents", *words)),
               "COMP_CWORD": str(len(words))}  # fmt: skip
        return [line.partition(",")[2] for line in story.cli.quick(env=env).out.splitlines()]

    assert {"status", "stop"} <= set(completed("st"))
    assert completed("status", story.run_id[:3]) == [story.run_id]
    assert completed("show", "latest", "aft") == ["after-never"]


def test_the_page_of_help_names_every_verb_and_code(story: Story) -> None:
    """And the version is said."""
    said = story.cli("--help")
    for verb in ("run", "submit", "wait", "attach", "daemon", "runs", "status", "queue", "history", "logs", "show", "timeline",
                 "cost", "pause", "resume", "cancel", "retry", "stop", "why", "verify", "doctor", "config"):  # fmt: skip
        assert f"\n  {verb} " in said.out
        assert "Usage: parallel-agents" in story.cli.quick(verb, "--help").out
    codes = " ".join(said.out.partition("Exit codes: ")[2].split())
    assert [code for code in (0, 1, 2, 3, 5, 6, 7, 8, 130) if not re.search(rf"\b{code} [a-z]", codes)] == []
