"""Runs that lose their process, and daemons that are asked to end: who goes on with what, and what is said of it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import pytest
from scratch import Scratch, line_with, shell, until_file, wait_until


def run_of(cli: Scratch, name: str) -> str:
    """The id of the run of that name."""
    return next(str(line["run_id"]) for line in cli.quick("runs", "--json").data if line["name"] == name)


def claims(cli: Scratch, run: str) -> list[str]:
    """Which kinds of process have held a run, in their order."""
    found = cli.quick("history", run, "--json", "--type", "RunClaimed").lines
    return [event["data"]["holder"]["kind"] for event in found]


def killed_run(cli: Scratch, *tasks: Any, name: str = "first") -> str:
    """A run whose process was killed while its task ``slow`` was running."""
    process = cli.begin("run", cli.plan(*tasks, name=name))
    cli.until_running("slow")
    process.kill()
    process.communicate()
    return run_of(cli, name)


def test_a_second_run_goes_on_with_the_run_of_one_that_was_killed(cli: Scratch) -> None:
    """With the very attempt that ran, and with what comes after it; both are said in one line each."""
    first = killed_run(
        cli, shell("slow", f"echo x >> slow.txt; {until_file('go')}"), shell("then", "echo x >> then.txt", "slow")
    )
    second = cli.begin("run", cli.plan(shell("own", until_file("on")), name="second"))
    line = line_with(first, second.stderr)
    assert line == f"run {first} was left in the middle by a process that is gone; it goes on here as well\n"
    cli.write("go", "")
    found = cli.until(lambda found: found["status"] == "completed", "the first run's end", first)
    assert [task["attempts"] for task in found["tasks"]] == [1, 1]
    cli.write("on", "")
    said = cli.said_by(second)
    assert said.code == 0
    assert first not in said.err + said.out
    assert [(cli.root / f"{name}.txt").read_text() for name in ("slow", "then")] == ["x\n", "x\n"]
    assert claims(cli, first) == ["run", "run"]
    assert cli.ours() == {}


def test_what_a_second_run_took_over_is_let_go_of_at_its_own_end(cli: Scratch) -> None:
    """It does not wait for it. What runs goes on, the next run takes it over again, and so on to the end."""
    first = killed_run(cli, shell("slow", f"echo x >> slow.txt; {until_file('go')}"), shell("then", "true", "slow"))
    for number in range(2):
        said = cli.quick("run", cli.plan(shell("own", "true"), name=f"other-{number}"))
        hint = f"`parallel-agents resume {first}` or `parallel-agents daemon start` goes on"
        assert f"run {first} has not ended; {hint}\n" in said.err
        assert cli.quick("status", first, "--json").data["tasks"][0]["status"] == "running"
    assert cli.quick("runs", "--json").data[0]["holder"] is None
    cli.write("go", "")
    assert cli.quick("resume", first).out.startswith(f"run {first} completed: 2/2")
    assert (cli.root / "slow.txt").read_text() == "x\n"
    assert claims(cli, first) == ["run"] * 4
    assert cli.ours() == {}


@pytest.mark.slow
def test_a_run_leaves_alone_what_was_submitted_paused_or_left_to_a_daemon(cli: Scratch) -> None:
    """And a run that a living process dispatches. Of the paused ones only what still runs is looked after."""
    submitted = cli.quick("submit", cli.plan(shell("a", "true"), name="submitted")).out.strip()
    killed = killed_run(cli, shell("slow", until_file("go")), shell("then", "true", "slow"), name="paused")
    cli.quick("pause", killed)
    cli.quick("run", cli.plan(shell("own", "true"), name="one"))
    assert claims(cli, killed) == ["run", "run"]
    cli.write("go", "")
    wait_until(lambda: not any("until [ -e go ]" in words for words in cli.ours().values()), "its attempt to end")
    said = cli.quick("run", cli.plan(shell("own", "true"), name="two"))
    assert f"run {killed} was left in the middle" in said.err
    found = cli.quick("status", killed, "--json").data
    assert (found["status"], [task["status"] for task in found["tasks"]]) == ("paused", ["completed", "pending"])
    assert "left in the middle" not in cli.quick("run", cli.plan(shell("own", "true"), name="three")).err
    cli.quick("daemon", "start")
    stopped = cli.quick(
        "submit", cli.plan(shell("held", until_file("go-on")), shell("then", "true", "held"), name="stopped")
    )
    cli.until_running("held", run=stopped.out.strip())
    cli.quick("daemon", "stop")
    assert "left in the middle" not in cli.quick("run", cli.plan(shell("own", "true"), name="four")).err
    assert claims(cli, stopped.out.strip()) == ["daemon"]
    assert claims(cli, submitted) == ["daemon"]
    cli.quick("cancel", stopped.out.strip())
    assert cli.ours() == {}


def test_a_killed_run_is_the_daemons_where_there_is_one(cli: Scratch) -> None:
    """A run beside it keeps to its own."""
    cli.quick("daemon", "start")
    beside = cli.begin("run", cli.plan(shell("own", until_file("on")), name="beside"))
    cli.until_running("own")
    first = killed_run(cli, shell("slow", until_file("go")))
    cli.write("go", "")
    cli.until(lambda found: found["status"] == "completed", "the killed run's end", first)
    assert claims(cli, first) == ["run", "daemon"]
    cli.write("on", "")
    assert "left in the middle" not in cli.said_by(beside).err
    cli.quick("daemon", "stop")


def test_ctrl_c_hands_back_what_was_taken_over(cli: Scratch) -> None:
    """Nothing of it starts any more, although what runs of our own is waited for."""
    first = killed_run(cli, shell("slow", until_file("go")), shell("then", "true", "slow"))
    second = cli.begin("run", cli.plan(shell("own", until_file("on")), name="second"))
    line_with("left in the middle", second.stderr)
    cli.until_running("own", run=run_of(cli, "second"))
    second.send_signal(signal.SIGINT)
    handed_back = cli.sparing(lambda: cli.quick("runs", "--json").data[0]["holder"] is None)
    wait_until(handed_back, "the first run to be handed back")
    cli.write("go", "")
    cli.write("on", "")
    said = cli.said_by(second)
    assert said.code == 130
    assert f"`parallel-agents resume {first}`" in said.err
    assert cli.quick("status", first, "--json").data["tasks"][1]["status"] == "pending"
    assert cli.quick("resume", first).code == 0
    assert cli.ours() == {}


def test_a_daemon_that_drains_starts_nothing_and_ends_with_what_runs(cli: Scratch) -> None:
    """It says so when asked; what has ended is recorded, what has not begun is anybody's."""
    run = cli.quick("submit", cli.plan(shell("slow", until_file("go")), shell("then", "true", "slow"))).out.strip()
    pid = cli.quick("daemon", "start", "--json").data["pid"]
    cli.until_running("slow")
    draining = cli.begin("daemon", "stop", "--drain", "--json")
    assert line_with("waiting", draining.stderr) == f"waiting for 1 running: {run}/slow\n"
    found = wait_until(
        lambda: (d := cli.quick("daemon", "status", "--json").data)["draining_since"] and d, "the draining"
    )
    assert found["pid"] == pid
    assert "it drains since" in cli.quick("daemon", "status").out
    refused = cli.quick("daemon", "start", code=2).err
    assert f"daemon {pid} drains this store" in refused
    cli.quick("pause", run)
    assert "drains, and starts nothing more" in cli.quick("resume", run).err
    late = cli.quick("run", "--detach", cli.plan(shell("late", "true"), name="late"))
    assert "takes up nothing" in late.err
    cli.write("go", "")
    said = cli.said_by(draining)
    assert (said.code, said.data["pid"]) == (0, pid)
    assert said.err == "nothing runs any more\n"
    tasks = cli.quick("status", run, "--json").data["tasks"]
    assert [task["status"] for task in tasks] == ["completed", "queued"]
    assert cli.ours() == {}
    assert cli.quick("status", late.out.strip(), "--json").data["status"] == "submitted"
    assert cli.quick("resume", run).code == 0


def test_a_drain_survives_who_asked_for_it_and_a_second_stop_detaches(cli: Scratch) -> None:
    """Ctrl-C ends the waiting alone. Whoever waited is told what was still running."""
    run = cli.quick("submit", cli.plan(shell("slow", until_file("go")), shell("then", "true", "slow"))).out.strip()
    cli.quick("daemon", "start")
    cli.until_running("slow")
    asking = cli.begin("daemon", "stop", "--drain")
    line_with("waiting", asking.stderr)
    asking.send_signal(signal.SIGINT)
    said = cli.said_by(asking)
    assert said.code == 130
    assert "goes on draining; `parallel-agents daemon stop` has it detach at once" in said.err
    assert cli.quick("daemon", "status", "--json").data["draining_since"]
    again = cli.begin("daemon", "stop", "--drain")
    line_with("waiting", again.stderr)
    cli.quick("daemon", "stop")
    said = cli.said_by(again)
    assert said.code == 1
    assert f"ended before it had drained: {run}/slow still running" in said.err
    cli.write("go", "")
    cli.quick("daemon", "start")
    assert cli.quick("wait", run, "--json").data["counts"] == {"completed": 2}
    assert Counter(event["type"] for event in cli.events(run))["TaskStarted"] == 2
    cli.quick("daemon", "stop")
    assert cli.ours() == {}


def test_a_daemon_with_nothing_to_do_has_drained_at_once(cli: Scratch) -> None:
    """And is gone, whatever waits."""
    pid = cli.quick("daemon", "start", "--json").data["pid"]
    said = cli.quick("daemon", "stop", "--drain")
    assert (said.out, said.err) == (f"daemon {pid} has ended\n", "nothing runs any more\n")
    assert cli.ours() == {}
    cli.quick("daemon", "stop", "--drain", code=7)


def test_a_daemon_that_is_killed_while_it_drains_loses_nothing(cli: Scratch) -> None:
    """The next one adopts what runs, and does not drain."""
    run = cli.quick(
        "submit", cli.plan(shell("slow", f"echo x >> slow.txt; {until_file('go')}"), shell("b", "true", "slow"))
    )
    pid = cli.quick("daemon", "start", "--json").data["pid"]
    cli.until_running("slow")
    asking = cli.begin("daemon", "stop", "--drain")
    line_with("waiting", asking.stderr)
    os.kill(pid, signal.SIGKILL)
    assert cli.said_by(asking).code == 1
    assert cli.quick("daemon", "start", "--json").data["draining_since"] is None
    cli.write("go", "")
    assert cli.quick("wait", run.out.strip(), "--json").data["counts"] == {"completed": 2}
    assert (cli.root / "slow.txt").read_text() == "x\n"
    cli.quick("daemon", "stop")
