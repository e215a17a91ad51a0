"""Plans that run to their end from the command line: order, limits, several at once, signals, terminals, and what is left."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from scratch import DEADLINE_S, Scratch, in_state, line_with, next_line, shell, until_file, wait_until
from terminal import on_terminal
from versioned import git, versioned

INPUTS = 7


def mosaic(inputs: int = INPUTS) -> dict[str, list[str]]:
    """A workflow of the shape in which sky mosaics are made, 50 tasks: project, compare neighbours, fit, correct, add, scale.

    Returns:
        Task -> what it needs.
    """
    pairs = [(one, two) for one in range(inputs) for two in range(one + 1, inputs)]
    needs: dict[str, list[str]] = {f"project-{one}": [] for one in range(inputs)}
    needs |= {f"difference-{one}-{two}": [f"project-{one}", f"project-{two}"] for one, two in pairs}
    needs["fit"] = [f"difference-{one}-{two}" for one, two in pairs]
    needs["model"] = ["fit"]
    needs |= {f"correct-{one}": ["model", f"project-{one}"] for one in range(inputs)}
    needs["table"] = [f"correct-{one}" for one in range(inputs)]
    needs["add"] = ["table", *(f"correct-{one}" for one in range(inputs))]
    needs |= {f"shrink-{colour}": ["add"] for colour in ("red", "green", "blue")}
    needs |= {f"tile-{row}-{column}": ["add"] for row in range(2) for column in range(3)}
    needs["picture"] = [name for name in needs if name.startswith("shrink")]
    needs["atlas"] = [name for name in needs if name.startswith("tile")]
    return needs


def check_order(events: Iterable[dict[str, Any]], needs: dict[str, list[str]], limit: int) -> int:
    """Each task ran once, after all that it needs, with never more at once than the limit; the most there were."""
    running: set[str] = set()
    done: set[str] = set()
    most = 0
    for event in events:
        task_id = event["data"].get("task_id")
        match event["type"]:
            case "TaskStarted":
                assert task_id not in running | done
                assert set(needs[task_id]) <= done, f"{task_id} was started too early"
                running.add(task_id)
                most = max(most, len(running))
            case "TaskCompleted":
                running.remove(task_id)
                done.add(task_id)
    assert most <= limit
    assert done == set(needs)
    return most


def plan_of(scratch: Scratch, needs: dict[str, list[str]], **head: Any) -> str:
    """A plan of these tasks, each the command ``true``."""
    tasks = [{"task_id": name, "command": ["true"], "dependencies": wanted} for name, wanted in needs.items()]
    return scratch.plan(*tasks, **head)


@pytest.mark.parametrize(
    ("strategy", "limit", "inputs", "tasks"), [("concurrent", 4, INPUTS, 50), ("pipeline", 3, 4, 29)]
)
def test_a_real_workflow_runs_in_order_and_under_its_limit(
    cli: Scratch, strategy: str, limit: int, inputs: int, tasks: int
) -> None:
    """According to the log; the summary says the same, and no process is left, the supervisor included."""
    needs = mosaic(inputs)
    assert len(needs) == tasks
    plan = plan_of(cli, needs, name="mosaic", max_parallel_agents=limit)
    said = cli("run", plan, "--strategy", strategy)
    assert cli.ours() == {}
    events = cli.events()
    assert check_order(events, needs, limit) == limit
    assert events[0]["data"]["strategy"] == strategy
    assert [event["type"] for event in events[-2:]] == ["CheckpointCreated", "RunCompleted"]
    assert events[-1]["data"]["counts"] == {"completed": tasks}
    assert re.fullmatch(rf"run {events[0]['run_id']} completed: {tasks}/{tasks} completed in [\d.]+ s\n", said.out)
    lines = said.err.splitlines()
    assert lines[0] == f"🚀 Parallel execution started: {tasks} tasks ({strategy})"
    assert lines[-1] == f"🎉 Parallel execution completed: {tasks}/{tasks} successful"
    assert (lines.count("▶️ Agent started: worker"), sum(line.startswith("✅") for line in lines)) == (tasks, tasks)
    found = cli.quick("status", "--json").data
    assert found["strategy"] == strategy
    assert in_state(found, "completed") == set(needs)


def test_a_dry_run_says_what_would_run_and_appends_nothing(cli: Scratch) -> None:
    """In waves that depend on nothing behind them; without a store none is made."""
    needs = mosaic()
    plan = plan_of(cli, needs, name="mosaic", max_parallel_agents=4)
    found = cli.quick("run", plan, "--dry-run", "--json").data
    waves = {task["task_id"]: task["wave"] for task in found["tasks"]}
    assert all(waves[task] > max((waves[other] for other in wanted), default=0) for task, wanted in needs.items())
    assert found["limits"]["max_parallel_agents"] == 4
    assert found["critical_path"][0].startswith("project-")
    page = cli.quick("run", plan, "--dry-run").out
    assert "50 tasks" in page
    assert "nothing was run" in page
    assert not cli.store.parent.exists()


@pytest.mark.parametrize(("submitters", "runs"), [(4, 2), pytest.param(8, 4, marks=pytest.mark.slow)])
def test_submitters_and_runs_at_once_lose_nothing(cli: Scratch, submitters: int, runs: int) -> None:
    """One store, made by whoever is first; each says the id of its own run."""
    plan = cli.plan(shell("a", "true"), shell("b", "true", "a"), name="small")
    submitting = [cli.start("submit", plan) for _ in range(submitters)]
    running = [cli.start("run", plan, "--json") for _ in range(runs)]
    submitted = [cli.said_by(process) for process in submitting]
    ran = [cli.said_by(process) for process in running]
    assert [said.code for said in submitted + ran] == [0] * (submitters + runs)
    names = [said.out.strip() for said in submitted] + [said.data["run_id"] for said in ran]
    assert len(set(names)) == submitters + runs
    states = {line["run_id"]: line["status"] for line in cli.quick("runs", "--json").data}
    assert states == {name: "submitted" if index < submitters else "completed" for index, name in enumerate(names)}
    assert cli.quick("verify", "--json").data["events"] == cli.event_count() == submitters * 2 + runs * 16
    assert cli.ours() == {}


def test_what_was_submitted_waits_until_somebody_dispatches(cli: Scratch) -> None:
    """Waiting says so; a daemon takes it up, and who waits ends with the run's code."""
    plan = cli.plan(shell("a", "true"), shell("b", "exit 3", "a"))
    run = cli.quick("submit", plan).out.strip()
    assert cli.quick("status", "--json").data["status"] == "submitted"
    assert "no process dispatches" in cli.quick("why", "a").out
    said = cli.quick("wait", run, "--timeout", "0.5", code=6)
    assert said.out == ""
    assert "has not ended after 0.5 s: it is submitted" in said.err
    waiting, following = cli.begin("wait", "--json"), cli.begin("attach", run[:6])
    assert "no process dispatches run" in next_line(waiting.stderr)
    cli.quick("daemon", "start")
    waited, followed = cli.said_by(waiting), cli.said_by(following)
    assert (waited.code, followed.code) == (1, 1)
    assert waited.data["run_id"] == run
    assert waited.data["counts"] == {"completed": 1, "failed": 1}
    assert "❌ Agent failed: worker - exit code 3" in followed.err
    assert f"run {run} failed: 1/2 completed, 1 failed" in followed.out
    cli.quick("daemon", "stop")
    assert cli.ours() == {}


def test_a_detached_run_prints_its_id_and_starts_a_daemon_where_there_is_none(cli: Scratch) -> None:
    """Only one, however many are detached."""
    plan = cli.plan(shell("a", "true"))
    first = cli.quick("run", "--detach", plan)
    second = cli.quick("run", plan, "--detach", "--json")
    assert re.fullmatch(r"[a-z][a-z2-7]{9}\n", first.out)
    assert re.fullmatch(r"daemon \d+ started\n", first.err)
    assert second.err == ""
    for run in (first.out.strip(), second.data["run_id"]):
        cli.quick("wait", run)
    cli.quick("daemon", "stop")


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_finishes_what_runs_and_twice_stops_it(cli: Scratch, times: int) -> None:
    """Either way the code is 130, nothing is left running, and the run can be gone on with."""
    plan = cli.plan(shell("running", until_file("go")), shell("next", "true", "running"), name="interrupted")
    process = cli.start("run", plan)
    cli.until_running("running")
    process.send_signal(signal.SIGINT)
    cli.until(lambda found: found["status"] == "paused", "the run to be paused")
    if times == 2:
        process.send_signal(signal.SIGINT)
    else:
        cli.write("go", "")
    said = cli.said_by(process)
    assert said.code == 130
    assert cli.ours() == {}
    kinds = [event["type"] for event in cli.events()]
    status = cli.quick("status", "--json").data
    run = status["run_id"]
    if times == 1:
        assert kinds[-4:] == ["RunPaused", "TaskCompleted", "CheckpointCreated", "RunReleased"]
        assert (status["status"], status["tasks"][1]["status"]) == ("paused", "pending")
        assert f"`parallel-agents resume {run}` goes on" in said.err
        assert cli.quick("wait", code=5).out.startswith(f"run {run} paused")
        assert cli.quick("resume").out.startswith(f"run {run} completed: 2/2")
    else:
        assert kinds[kinds.index("RunCancelRequested") :].count("TaskCancelled") == 2
        assert (status["status"], kinds[-2:]) == ("cancelled", ["CheckpointCreated", "RunCancelled"])
        assert f"`parallel-agents retry {run}` opens" in said.err
        cli.write("go", "")
        assert "open again: running, next" in cli.quick("retry").out
        assert cli.quick("resume").out.startswith(f"run {run} completed: 2/2")
    assert cli.ours() == {}


def test_ctrl_c_does_not_reach_the_git_that_keeps_finished_work(cli: Scratch) -> None:
    """A terminal sends it to every process in sight; what had been done by then is kept and merged all the same."""
    versioned(cli, {"a": "1\n"})
    flags = cli.root / "flags"
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    held = f"if [ -e {flags}/hold ]; then : > {flags}/held; {until_file(f'{flags}/on')}; fi"
    cli.write("flags/git", f'#!/bin/sh\ncase "$*" in *" add "*) {held};; esac\nexec {real} "$@"\n').chmod(0o755)
    cli.environment["PATH"] = f"{flags}{os.pathsep}{cli.environment['PATH']}"
    plan = cli.plan(shell("a", f"echo 2 > a; {until_file(f'{flags}/go')}"), shell("b", "true", "a"))
    process = cli.start("run", plan, start_new_session=True)
    cli.until_running("a")
    cli.write("flags/hold", "")
    cli.write("flags/go", "")
    wait_until((flags / "held").exists, "the work to be kept")
    os.killpg(process.pid, signal.SIGINT)
    cli.until(lambda found: found["status"] == "paused", "the run to be paused")
    cli.write("flags/on", "")
    assert cli.said_by(process).code == 130
    status = cli.quick("status", "--json").data
    assert in_state(status, "completed") == {"a"}, status["tasks"][0]["error"]
    assert git(cli, "show", f"parallel-agents/{status['run_id']}:a") == "2"
    assert cli.ours() == {}


def test_a_run_that_is_told_to_end_stops_its_tasks_first(cli: Scratch) -> None:
    """SIGTERM, as machines that shut down send it: descendants of all kinds are gone with it."""
    deaf = "trap '' TERM; (setsid sleep 300 &) ; sleep 300"
    process = cli.start("run", cli.plan(shell("polite", "sleep 300"), shell("deaf", deaf)))
    cli.until_running("polite", "deaf")
    wait_until(lambda: sum("sleep 300" in command for command in cli.ours().values()) >= 3, "the sleepers")
    process.send_signal(signal.SIGTERM)
    assert cli.said_by(process).code == 130
    assert cli.ours() == {}
    assert cli.quick("status", "--json").data["counts"] == {"cancelled": 2}


def test_a_run_that_was_killed_is_adopted_by_who_resumes_it(cli: Scratch) -> None:
    """With the very attempt that was running, and nothing twice."""
    slow = f"echo x >> second.txt; {until_file('go')}; echo end"
    plan = cli.plan(shell("first", "echo x >> first.txt"), shell("second", slow, "first"))
    process = cli.begin("run", plan)
    attempt = cli.until_running("second")["tasks"][1]["attempt_id"]
    process.kill()
    process.communicate()
    assert "no process dispatches" in cli.quick("why", "second").out
    resuming = cli.begin("resume", "--json")
    claims = ("history", "--json", "--type", "RunClaimed")
    wait_until(cli.sparing(lambda: len(cli.quick(*claims).lines) == 2), "a new holder")
    cli.write("go", "")
    said = cli.said_by(resuming)
    assert (said.code, said.data["status"]) == (0, "completed")
    second = said.data["tasks"][1]
    assert (second["attempts"], second["attempt_id"], second["output"]) == (1, attempt, "end")
    assert [(cli.root / f"{name}.txt").read_text() for name in ("first", "second")] == ["x\n", "x\n"]
    assert cli.ours() == {}


def test_a_run_that_waits_for_slots_says_who_has_them(cli: Scratch) -> None:
    """Slots of a run whose daemon was made to detach are held until somebody goes on with it, or ends it."""
    hog = cli.plan(*(shell(f"t{number}", "sleep 300") for number in range(5)), name="hog")
    held = cli.quick("run", "--detach", hog).out.strip()
    cli.until_running(*(f"t{number}" for number in range(5)))
    cli.quick("daemon", "stop")
    waiting = cli.begin("run", cli.plan(shell("patient", "true"), name="patient"))
    line = line_with("5 of them", waiting.stderr)
    assert f"by run {held}, which no process dispatches: `parallel-agents resume {held}`" in line
    assert "no slot: 5 of 5" in cli.quick("why", "patient").out
    cli.quick("cancel", held)
    assert cli.said_by(waiting).code == 0


def test_a_task_may_use_the_command_line_of_its_own_project(cli: Scratch) -> None:
    """Run a plan, look, submit: with what an attempt is told of itself in its environment."""
    cli.plan(shell("inside", "env | grep ^PARALLEL_AGENTS_ | sort"), name="inner")
    tasks = {
        "runs": ["parallel-agents", "run", "inner.json"],
        "looks": ["parallel-agents", "status", "latest", "--json"],
        "submits": ["parallel-agents", "submit", "inner.json"],
    }
    cli.quick("run", cli.plan(*({"task_id": name, "command": words} for name, words in tasks.items()), name="outer"))
    lines = cli.quick("runs", "--json").data
    assert sorted((line["name"], line["status"]) for line in lines) == [
        ("inner", "completed"), ("inner", "submitted"), ("outer", "completed")
    ]  # fmt: skip
    inner = next(line["run_id"] for line in lines if (line["name"], line["status"]) == ("inner", "completed"))
    told = dict(line.split("=", 1) for line in cli.quick("logs", inner, "inside").out.splitlines())
    assert told["PARALLEL_AGENTS_RUN"] == inner
    assert told["PARALLEL_AGENTS_TASK"] == "inside"
    assert told["PARALLEL_AGENTS_ATTEMPT"] == cli.quick("show", inner, "inside", "--json").data["attempt_id"]
    assert cli.ours() == {}


def test_a_run_whose_reader_is_gone_goes_on_to_its_end(cli: Scratch) -> None:
    """A pipe that is closed early, a full disk behind stderr, or no stderr at all, is no reason to leave it."""
    plan = cli.plan(shell("a", until_file("go")), shell("b", "true", "a"))
    for number, script in enumerate(
        ('"$@" 2>&1 | { head -1; exec <&-; : > go; }', 'exec "$@" 2>/dev/full', 'exec "$@" 2>&-'), start=1
    ):
        cli("run", plan, script=script, code=None)
        lines = cli.quick("runs", "--json").data
        assert len(lines) == number
        cli.until(lambda found: found["status"] == "completed", "the run's end")
        wait_until(lambda: cli.ours() == {}, "its process to end")


@pytest.fixture(scope="module")
def crowd(make_project: Callable[[str], Scratch]) -> tuple[Scratch, str]:
    """A project and a plan of 200 tasks, of which every fiftieth fails, loudly."""
    scratch = make_project("crowd")
    shout = "printf 'no \\033[31mluck\\033]0;title\\007 %200s\\n' x; exit 7"
    tasks = [shell(f"task-{number:03}", shout if number % 50 == 7 else "echo done") for number in range(200)]
    return scratch, scratch.plan(*tasks, name="crowd", max_parallel_agents=8, workspace="none")


@pytest.mark.parametrize("size", [(80, 24), (40, 10)])
def test_the_live_view_of_two_hundred_tasks_fits_its_terminal(
    crowd: tuple[Scratch, str], size: tuple[int, int]
) -> None:
    """While it runs and when it has ended: what failed is in sight, and nothing that a task wrote moved the cursor."""
    scratch, plan = crowd
    shown = on_terminal(scratch, "run", plan, size=size)
    assert (shown.code, shown.screen.odd) == (1, [])
    text = "\n".join(shown.screen.lines)
    assert text.count("196/200 completed, 4 failed") >= 1
    head = text[: text.index("run ", text.index("196/200"))]
    assert head.count("✗ failed") == 1, "the view was drawn more than once"
    assert re.findall(r"✗ +task-(\d+)", head) == ["007", "057", "107", "157"]
    assert "… 1" in head
    assert f"run {scratch.quick('runs', '--json').data[-1]['run_id']} failed" in "".join(shown.screen.lines)
    assert all(len(line) <= size[0] for line in shown.screen.lines)


def test_the_live_view_fits_the_terminal_that_it_is_drawn_on(crowd: tuple[Scratch, str]) -> None:
    """Also where stdout is a file, which gets the summary alone."""
    scratch, plan = crowd
    out = scratch.root / "out.txt"
    shown = on_terminal(scratch, "run", plan, size=(60, 12), stdout=out)
    text = "\n".join(shown.screen.lines)
    assert text.count("✗ failed") == 1
    assert len(shown.screen.lines) <= 12
    lines = out.read_text().splitlines()
    assert lines[0].startswith("run ")
    assert [line.split(":")[0] for line in lines[1:]] == ["  task-007", "  task-057", "  task-107", "  task-157"]


def test_a_terminal_that_takes_nothing_back_gets_plain_lines(cli: Scratch) -> None:
    """With TERM=dumb; with NO_COLOR the view is drawn, without colours."""
    plan = cli.plan(shell("a", "true"))
    dumb = on_terminal(cli, "run", plan, env={"TERM": "dumb"})
    assert "\x1b" not in dumb.raw
    told = [line for line in dumb.screen.lines if "Agent" in line]
    assert [line.split(" (")[0] for line in told] == ["▶ Agent started: worker", "✅ Agent completed: worker"]
    plain = on_terminal(cli, "run", plan, env={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3\dm", plain.raw)
    assert "✓  a  worker" in "\n".join(plain.screen.lines)


def test_ctrl_c_on_a_terminal_is_heard_and_answered(cli: Scratch) -> None:
    """The view says what the next one would do."""
    pressed: list[str] = []

    def typing(shown: str) -> bytes:
        for wanted, name in (("Ctrl-C: start nothing more", "once"), ("Ctrl-C again stops them", "twice")):
            if name not in pressed and wanted in shown and "● running" in shown:
                pressed.append(name)
                return b"\x03"
        return b""

    shown = on_terminal(cli, "run", cli.plan(shell("endless", "sleep 300")), typing=typing)
    assert (shown.code, pressed) == (130, ["once", "twice"])
    assert "cancelled" in "\n".join(shown.screen.lines)
    assert shown.raw.rstrip().endswith("opens what did not run")
    assert "\x1b[?25h" in shown.raw  # The cursor is back.
    assert cli.ours() == {}


def test_much_output_and_output_that_is_no_text_are_kept_and_shown_as_well_as_they_can(cli: Scratch) -> None:
    """Two hundred megabytes on one line, and bytes that mean nothing, on a terminal and in the log."""
    cli.write("parallel-agents.toml", "[monitoring]\nmax_output_mb = 0\n")  # All of it.
    big = 200_000_000
    plan = cli.plan(
        shell("big", f"head -c {big} /dev/zero | tr '\\0' x"), shell("binary", "head -c 300000 /dev/urandom")
    )
    shown = on_terminal(cli, "run", plan)
    assert (shown.code, shown.screen.odd) == (0, [])
    assert any(line.startswith("✓  big     worker") and line.endswith("…") for line in shown.screen.lines)
    counted = cli("logs", "latest", "big", script='"$@" | wc -c')
    assert int(counted.out) == big
    out = cli.start("logs", "binary", encoding=None, errors=None).communicate()[0]
    attempt = cli.quick("show", "binary", "--json").data["attempt_list"][0]
    with open(os.path.join(attempt["folder"], "stdout.log"), "rb") as file:
        assert out == file.read()
    assert sum(len(str(event)) for event in cli.quick("history", "--json").lines) < 20_000


def test_following_goes_on_until_the_end_and_no_longer(cli: Scratch) -> None:
    """The history of a run, and what a task writes."""
    plan = cli.plan(shell("a", f"echo one; {until_file('go')}; echo two >&2"), shell("b", "true", "a"))
    running = cli.begin("run", plan)
    cli.until_running("a")
    history, logs = cli.begin("history", "--follow", "--json"), cli.begin("logs", "a", "--follow")
    assert "RunSubmitted" in next_line(history.stdout)
    assert next_line(logs.stdout) == "one\n"
    cli.write("go", "")
    assert cli.said_by(running).code == 0
    assert logs.stdout.read() == "two\n"
    assert len(history.stdout.readlines()) + 1 == len(cli.events())
    assert (logs.wait(), history.wait()) == (0, 0)


def test_following_what_a_task_writes_waits_for_its_start(cli: Scratch) -> None:
    """And says so; a task that never starts ends the wait."""
    plan = cli.plan(
        shell("a", until_file("go")), shell("b", "echo at last", "a"), shell("c", "true", "d"), shell("d", "false")
    )
    running = cli.begin("run", plan)
    cli.until(lambda found: in_state(found, "skipped") == {"c"}, "c to be skipped")
    logs = cli.begin("logs", "b", "--follow")
    assert "waiting" in next_line(logs.stderr)
    cli.write("go", "")
    assert cli.said_by(logs).out == "at last\n"
    assert cli.said_by(running).code == 1
    assert "not been started" in cli.quick("logs", "c", "--follow").err


def test_a_terminal_that_goes_away_leaves_its_run_to_others(cli: Scratch) -> None:
    """What runs goes on; the exit code says what it was, though nobody sees a word of it. The next run goes on with it."""
    plan = cli.plan(shell("a", until_file("go")))
    terminal, other_end = pty.openpty()

    def become_its_own() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    running = cli.start(
        "run",
        plan,
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        start_new_session=True,
        preexec_fn=become_its_own,
    )
    os.close(other_end)
    cli.until_running("a")
    os.close(terminal)
    assert running.wait(DEADLINE_S) == 130
    left = cli.quick("status", "--json").data
    assert left["status"] == "running"
    assert cli.quick("runs", "--json").data[0]["holder"] is None
    cli.write("go", "")
    other = cli.begin("run", cli.plan(shell("b", until_file("on")), name="other"))
    found = cli.until(lambda found: found["status"] == "completed", "its end", left["run_id"])
    assert found["tasks"][0]["attempts"] == 1
    cli.write("on", "")
    assert cli.said_by(other).code == 0
    assert cli.ours() == {}
