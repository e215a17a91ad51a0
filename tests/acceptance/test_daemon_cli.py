"""The daemon from the command line: one a store, and neither its end nor its death loses an attempt."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import psutil
from scratch import Scratch, shell, until_file, wait_until


def daemon_pid(cli: Scratch) -> int:
    """The process of the daemon that the command line knows of."""
    return int(cli.quick("daemon", "status", "--json").data["pid"])


def holder(cli: Scratch) -> int | None:
    """The process that dispatches the one run there is."""
    (line,) = cli.quick("runs", "--json").data
    return line["holder"] and line["holder"]["pid"]


def test_there_is_one_daemon_and_it_can_be_asked_after_and_ended(cli: Scratch) -> None:
    """With exit code 7 where there is none."""
    for verb in ("status", "stop"):
        assert cli.quick("daemon", verb, "--json", code=7).complaint["code"] == "no_daemon"
    started = cli.quick("daemon", "start", "--json").data
    assert {"pid", "start_time", "boot_id", "started_at", "log_file"} <= set(started)
    assert started == cli.quick("daemon", "status", "--json").data
    pid = started["pid"]
    assert psutil.Process(pid).cwd() == "/"  # It keeps no folder of anybody's from being removed.
    for verb in ("start", "run"):
        assert f"pid {pid}" in cli.quick("daemon", verb, code=2).err
    assert cli.quick("daemon", "start", "--json", code=2).complaint["code"] == "lease_held"
    assert daemon_pid(cli) == pid
    assert cli.quick("daemon", "stop").out == f"daemon {pid} has ended\n"
    assert cli.ours() == {}
    assert f"daemon {pid} detached" in Path(started["log_file"]).read_text()
    cli.quick("daemon", "status", code=7)


def test_of_daemons_started_at_once_one_wins_and_the_others_name_it(cli: Scratch) -> None:
    """None says that it was the one that somebody else started."""
    said = [cli.said_by(process) for process in [cli.start("daemon", "start") for _ in range(3)]]
    pid = daemon_pid(cli)
    assert sorted(one.code for one in said) == [0, 2, 2]
    assert [one.out for one in said if one.code == 0] == [f"daemon {pid} dispatches {cli.store}\n"]
    assert all(f"pid {pid}" in one.err for one in said if one.code == 2)
    cli.quick("daemon", "stop")


def test_a_daemon_in_the_foreground_ends_by_ctrl_c_or_sigterm(cli: Scratch) -> None:
    """Within moments, with code 0; what runs goes on, and the next one takes it over."""
    cli.quick("submit", cli.plan(shell("slow", f"echo x >> slow.txt; {until_file('go')}")))
    for number in (signal.SIGINT, signal.SIGTERM):
        daemon = cli.start("daemon", "run")
        attempt = cli.until_running("slow")["tasks"][0]["attempt_id"]
        wait_until(cli.sparing(lambda pid=daemon.pid: holder(cli) == pid), "the daemon to hold the run")
        daemon.send_signal(number)
        said = cli.said_by(daemon)
        assert said.code == 0
        assert "dispatches" in said.err
        assert any("until [ -e go ]" in command for command in cli.ours().values())
    cli.quick("daemon", "start")
    cli.write("go", "")
    found = cli.quick("wait", "--json").data
    assert (found["status"], found["tasks"][0]["attempt_id"]) == ("completed", attempt)
    assert (cli.root / "slow.txt").read_text() == "x\n"
    cli.quick("daemon", "stop")
    assert cli.ours() == {}


def test_a_daemon_that_is_killed_twice_runs_no_task_twice_and_leaves_none_out(cli: Scratch) -> None:
    """Twelve tasks, some of them under way each time; every attempt ends just once."""
    names = [f"task-{number:02}" for number in range(12)]
    tasks = [
        shell(
            name,
            f"echo {name} >> ran.txt; {until_file(f'go-{index // 4}')}",
            *names[max(0, index - 4) : index // 4 * 4],
        )
        for index, name in enumerate(names)
    ]
    cli.quick("submit", cli.plan(*tasks, name="twelve", max_parallel_agents=4))
    for third in range(3):
        cli.quick("daemon", "start")
        cli.until_running(*names[4 * third : 4 * third + 4])
        if third < 2:
            os.kill(daemon_pid(cli), signal.SIGKILL)
            wait_until(lambda: cli.quick("daemon", "status", code=None).code == 7, "its death to be seen")
        cli.write(f"go-{third}", "")
    assert cli.quick("wait", "--json").data["counts"] == {"completed": 12}
    assert sorted((cli.root / "ran.txt").read_text().split()) == names
    events = cli.events()
    for kind in ("TaskStarted", "TaskCompleted"):
        assert Counter(event["data"]["task_id"] for event in events if event["type"] == kind) == Counter(names)
    assert sum(event["type"] == "RunClaimed" for event in events) == 3
    assert cli.quick("verify", "--json").data["ok"]
    cli.quick("daemon", "stop")
    assert cli.ours() == {}


def test_a_daemon_takes_the_runs_that_nobody_holds_and_no_others(cli: Scratch) -> None:
    """The process that was started with a run keeps it."""
    mine = cli.begin("run", cli.plan(shell("a", until_file("go")), name="mine"), "--json")
    cli.until_running("a")
    cli.quick("daemon", "start")
    other = cli.quick("submit", cli.plan(shell("b", "true"), name="other")).out.strip()
    cli.quick("wait", other)
    cli.write("go", "")
    assert cli.said_by(mine).code == 0
    holders = {
        event["data"]["holder"]["kind"]: event["run_id"]
        for event in cli.quick("history", "--all", "--json", "--type", "RunClaimed").lines
    }
    assert holders["daemon"] == other
    assert set(holders) == {"run", "daemon"}
    assert len(holders) == 2


def test_a_daemon_that_cannot_start_says_why(cli: Scratch) -> None:
    """In its own words, with its log named; nothing is left of it."""
    cli.store.parent.mkdir()
    cli.store.write_text("Buy milk.\n" * 500)
    said = cli.quick("daemon", "start", code=1)
    assert "did not come up" in said.err
    assert "not an SQLite file" in said.err
    assert "events.daemon.log" in said.err
    assert cli.ours() == {}
    cli.quick("daemon", "status", code=7)
