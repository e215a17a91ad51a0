"""Pause, resume, cancel, retry and stop, each from another process than the one that dispatches, and each in the log."""

from __future__ import annotations

from typing import Any

import pytest
from scratch import Scratch, in_state, shell, until_file
from terminal import quickly_on_terminal

DISPATCHERS = ("run", "daemon")
# What does it is the same in both, so that for most of it one is enough but in the long run.
RUN = ("run", pytest.param("daemon", marks=pytest.mark.slow))
DAEMON = (pytest.param("run", marks=pytest.mark.slow), "daemon")


def begin(cli: Scratch, dispatcher: str, plan: str, *more: str) -> Any:
    """Let a plan run, by the process of a kind; what follows it to its end."""
    if dispatcher == "run":
        return cli.begin("run", plan, *more, "--json")
    cli.quick("run", plan, *more, "--detach")
    return cli.begin("wait", "--json")


def kinds(cli: Scratch) -> list[str]:
    """The types of the latest run's events."""
    return [event["type"] for event in cli.quick("history", "--json").lines]


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_a_pause_starts_nothing_more_until_the_run_is_resumed(cli: Scratch, dispatcher: str) -> None:
    """What runs finishes; between the two events there is no start, and right after the second there is."""
    plan = cli.plan(shell("running", until_file("go")), shell("next", "true", "running"), shell("last", "true", "next"))
    process = begin(cli, dispatcher, plan)
    cli.until_running("running")
    assert "is paused; `parallel-agents resume" in cli.quick("pause", "--reason", "lunch").out
    assert "is paused already" in cli.quick("pause", code=2).err
    cli.write("go", "")
    said = cli.said_by(process)
    assert (said.code, said.data["status"], said.data["reason"]) == (5, "paused", "lunch")
    assert in_state(said.data, "completed") == {"running"}
    resumed = cli.quick("resume", "--json")
    if dispatcher == "daemon":
        assert resumed.data["status"] == "running"
        assert cli.quick("wait", "--json").data["status"] == "completed"
    else:
        assert resumed.data["status"] == "completed"
    seen = kinds(cli)
    paused, again = seen.index("RunPaused"), seen.index("RunResumed")
    assert "TaskStarted" not in seen[paused:again]
    assert seen[again:].count("TaskStarted") == 2
    assert seen[-2:] == ["CheckpointCreated", "RunCompleted"]


@pytest.mark.parametrize("dispatcher", RUN)
def test_a_cancelled_task_is_stopped_and_what_needs_it_is_skipped(cli: Scratch, dispatcher: str) -> None:
    """The others go on; retrying it opens the others again, also while the run still goes."""
    endless = "[ -e enough ] || sleep 300"
    plan = cli.plan(shell("doomed", endless), shell("heir", "true", "doomed"), shell("other", until_file("go")))
    process = begin(cli, dispatcher, plan)
    cli.until_running("doomed", "other")
    cli.quick("cancel", "latest", "doomed", "--reason", "no time")
    found = cli.until(lambda found: in_state(found, "skipped"), "the heir to be skipped")
    doomed, heir, other = found["tasks"]
    assert (doomed["status"], doomed["reason"], heir["status"], heir["because"]) == (
        "cancelled",
        "no time",
        "skipped",
        "doomed",
    )
    assert other["status"] == "running"
    assert "has ended already" in cli.quick("cancel", "latest", "doomed", code=2).err
    assert kinds(cli)[-4:] == ["TaskCancelRequested", "TaskCancelled", "CheckpointCreated", "TaskSkipped"]
    cli.write("enough", "")
    assert cli.quick("retry", "latest", "doomed", "--json").data["tasks"] == ["doomed", "heir"]
    cli.until(lambda found: in_state(found, "completed") == {"doomed", "heir"}, "both to be completed")
    cli.write("go", "")
    said = cli.said_by(process)
    assert (said.code, said.data["counts"]) == (0, {"completed": 3})
    assert [task["attempts"] for task in said.data["tasks"]] == [2, 1, 1]


@pytest.mark.parametrize("dispatcher", DAEMON)
def test_a_cancelled_run_ends_at_once_with_all_its_processes(cli: Scratch, dispatcher: str) -> None:
    """Deaf ones too, after their grace; what had not started never does."""
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    plan = cli.plan(shell("deaf", deaf), shell("polite", "sleep 300"), shell("next", "true", "deaf"))
    process = begin(cli, dispatcher, plan)
    cli.until_running("deaf", "polite")
    cli.quick("cancel", "--reason", "enough")
    said = cli.said_by(process)
    assert (said.code, said.data["status"], said.data["counts"]) == (1, "cancelled", {"cancelled": 3})
    seen = kinds(cli)
    after = seen[seen.index("RunCancelRequested") + 1 :]
    assert sorted(after) == [*["CheckpointCreated"] * 3, "RunCancelled", *["TaskCancelled"] * 3]
    assert not [command for command in cli.ours().values() if "sleep" in command]
    assert "cannot be cancelled: it is cancelled" in cli.quick("cancel", code=2).err
    assert "cannot be paused" in cli.quick("pause", code=2).err


def test_a_cancelled_run_that_nobody_dispatches_ends_too(cli: Scratch) -> None:
    """Who cancels does what is left to do, also where the process that held it was killed."""
    plan = cli.plan(shell("a", "sleep 300"), shell("b", "true", "a"))
    cli.quick("submit", plan)
    cli.quick("cancel")
    assert cli.quick("status", "--json").data["counts"] == {"cancelled": 2}
    process = cli.begin("run", plan)
    cli.until_running("a")
    process.kill()
    process.communicate()
    cli.quick("cancel")
    assert cli.quick("status", "--json").data["counts"] == {"cancelled": 2}
    assert cli.ours() == {}


def test_what_failed_is_retried_with_what_was_skipped_for_it(cli: Scratch) -> None:
    """In a run that has ended: it is open again, and whoever resumes it runs just these."""
    plan = cli.plan(
        shell("fine", "echo x >> fine.txt"), shell("flaky", "[ -e mended ]"), shell("heir", "true", "flaky", "fine"),
    )  # fmt: skip
    run = cli.quick("run", plan, "--json", code=1).data["run_id"]
    assert "cannot be retried: it is completed" in cli.quick("retry", run, "fine", code=2).err
    cli.write("mended", "")
    said = cli.quick("retry")
    assert said.out == f"run {run}: open again: flaky, heir\n"
    assert said.err == f"no process dispatches it; `parallel-agents resume {run}` does\n"
    assert cli.quick("status", "--json").data["status"] == "running"
    assert cli.quick("resume", run, "--json").data["counts"] == {"completed": 3}
    assert (cli.root / "fine.txt").read_text() == "x\n"
    assert "no failed task" in cli.quick("retry", code=2).err
    assert "cannot be resumed: it is completed" in cli.quick("resume", code=2).err


def test_an_emergency_stop_ends_every_run_of_the_store(cli: Scratch) -> None:
    """Whoever dispatches them, without grace; the daemon stays."""
    held = [cli.begin("run", cli.plan(shell("a", "trap '' TERM; sleep 300"), name="mine"))]
    cli.until_running("a")
    cli.quick("submit", cli.plan(shell("b", "sleep 300"), name="daemon's"))
    cli.quick("daemon", "start")
    cli.until_running("b")
    assert "--now" in cli.quick("stop", code=2).err
    found = cli.quick("stop", "--now", "--json").data
    assert (len(found["stopped"]), found["left"]) == (2, [])
    assert cli.said_by(held[0]).code == 1
    lines = cli.quick("runs", "--json").data
    assert {line["status"] for line in lines} == {"cancelled"}
    assert {
        event["data"]["grace_s"]
        for event in cli.quick("history", "--all", "--json", "--type", "RunCancelRequested").lines
    } == {0.0}
    assert not [command for command in cli.ours().values() if "sleep" in command]
    assert cli.quick("daemon", "status", "--json").data["pid"] in cli.ours()
    assert cli.quick("stop", "--now").out == "nothing was running\n"


def test_on_a_terminal_a_cancellation_that_stops_attempts_is_asked_about(cli: Scratch) -> None:
    """No is the answer that changes nothing; --yes asks nothing."""
    process = cli.begin("run", cli.plan(shell("a", "sleep 300")))
    cli.until_running("a")
    before = cli.event_count()

    def no(shown: str) -> bytes:
        return b"n\r" if "Go on?" in shown and "n\r\n" not in shown.split("Go on?")[1] else b""

    shown = quickly_on_terminal(cli, "cancel", typing=no)
    assert "1 running attempt" in shown.raw
    assert shown.code == 130
    assert cli.event_count() == before
    assert quickly_on_terminal(cli, "cancel", "--yes").code == 0
    assert cli.said_by(process).code == 1


def test_a_run_that_takes_longer_than_it_may_ends_with_a_code_of_its_own(cli: Scratch) -> None:
    """And so does who waits for it; a task that takes too long has simply failed."""
    plan = cli.plan(shell("slow", "sleep 300"))
    said = cli.quick("run", plan, "--set", "safetyFeatures.maxExecutionTime=1", "--json", code=6)
    assert (said.data["status"], said.data["reason"]) == ("failed", "max_execution_time")
    assert cli.quick("wait", code=6).out.startswith("run ")
    said = cli.quick("run", cli.plan(shell("slow", "sleep 300", timeout_s=0.3)), code=1)
    assert "slow: timed out after 0.3 s" in said.out
    assert cli.ours() == {}


def test_a_steering_verb_tells_scripts_what_it_did(cli: Scratch) -> None:
    """As JSON, with the run that was meant."""
    plan = cli.plan(shell("a", "true"), shell("b", "true"))
    run = cli.quick("submit", plan, "--json").data["run_id"]
    assert cli.quick("pause", "--json").data == {"run_id": run, "status": "paused"}
    assert cli.quick("cancel", run, "b", "--json").data == {"run_id": run, "task_id": "b", "cancelled": True}
    cli.until(lambda found: in_state(found, "cancelled") == {"b"}, "b to be cancelled")
    assert cli.quick("resume", run, "--json").data["counts"] == {"completed": 1, "cancelled": 1}
