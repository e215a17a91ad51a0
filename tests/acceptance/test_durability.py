"""What happens to the log and the disk: a byte that was changed, a disk that is full or read-only, plans of thousands."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scratch import Scratch, in_state, shell, until_file, wait_until

MANY = 2000
# Or nothing would start on a disk that small.
NO_LIMIT = {"PARALLEL_AGENTS_RESOURCE_MANAGEMENT__DISK__MIN_FREE_MB": "0"}


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """Put a small disk of its own on a folder, or skip the test where mounting is not permitted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("mounting a small disk is tried on Linux only")
    if (made := subprocess.run(command, capture_output=True, text=True, check=False)).returncode != 0:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_one_changed_byte_in_the_log_is_found_with_its_seq(cli: Scratch) -> None:
    """By its exit code too; the events before it are vouched for, and reading goes on."""
    cli.quick("run", cli.plan(shell("a", "echo honest"), shell("b", "true", "a")))
    count = cli.event_count()
    assert cli.quick("verify").out.startswith(f"ok: {count} events, the chain holds")
    connection = sqlite3.connect(cli.store)
    (seq,) = connection.execute("SELECT seq FROM events WHERE type = 'TaskCompleted' ORDER BY seq LIMIT 1").fetchone()
    with connection:
        connection.execute("UPDATE events SET body = replace(body, 'honest', 'honesT') WHERE seq = ?", (seq,))
    connection.close()
    said = cli.quick("verify", code=8)
    assert f"event {seq} was changed" in said.err
    assert f"the {seq - 1} events before it" in said.err
    found = cli.quick("verify", "--json", code=8)
    assert (found.data["ok"], found.data["broken"]["seq"]) == (False, seq)
    assert found.complaint["code"] == "chain_broken"
    assert cli.quick("status", "--json").data["status"] == "completed"


@pytest.fixture(scope="module")
def with_plans(make_project: Callable[[str], Scratch]) -> Scratch:
    """A project with six runs that nobody has begun."""
    cli = make_project("plans")
    plan = cli.plan(shell("a", "true"))
    for _ in range(6):
        cli.quick("submit", plan)
    return cli.keep()


@pytest.fixture
def plans(with_plans: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_plans.anew()


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ("DELETE FROM events WHERE seq = 4", 4),
        ("UPDATE events SET actor = 'nobody' WHERE seq = 3", 3),
        ("UPDATE events SET at = at + 1 WHERE seq = 5", 5),
        ("UPDATE events SET hash = prev_hash WHERE seq = 2", 2),
        ("DELETE FROM blobs", None),
    ],
)
def test_whatever_is_changed_in_the_store_is_found(plans: Scratch, damage: str, where: int | None) -> None:
    """An event that is gone, one that was moved in time or given to somebody else, a plan that is gone."""
    connection = sqlite3.connect(plans.store)
    with connection:
        connection.execute(damage)
    connection.close()
    said = plans.quick("verify", code=8)
    assert re.search(rf"event {where} " if where else "plans are gone", said.err), said.err


def _fill_up(other: Path) -> None:
    """Take what room there is, that of a write that was taken back included."""
    with other.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def test_on_a_full_disk_a_run_says_so_and_goes_on_when_there_is_room(cli: Scratch) -> None:
    """Nothing is half written, and the work that the disk did not take is waited for, not done again."""
    cli.environment |= NO_LIMIT
    cli.store.parent.mkdir()
    said_by_run = cli.root / "home" / "said.txt"
    with mounted(cli.store.parent, "1m"), said_by_run.open("w") as stderr:
        wait = f"echo x >> first.txt; {until_file('go')}"
        process = cli.start("run", cli.plan(shell("first", wait), shell("second", "true", "first")), stderr=stderr)
        cli.until_running("first")
        other = cli.store.parent / "other"
        reader = sqlite3.connect(cli.store, isolation_level=None)  # As long as it reads, no old pages are written anew.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        for words in (("pause",), ("submit", str(cli.root / "plan.json"))):
            _fill_up(other)
            said = cli.quick(*words, code=2)
            assert "is full" in said.err
            assert "free some space, then repeat" in said.err
        _fill_up(other)
        cli.write("go", "")
        wait_until(lambda: "the work of task first waits" in said_by_run.read_text(), "the run to say so")
        reader.close()
        other.unlink()
        assert cli.said_by(process).code == 0
        assert (cli.root / "first.txt").read_text() == "x\n"
        assert cli.quick("verify", "--json").data["ok"]
        assert in_state(cli.quick("status", "--json").data, "completed") == {"first", "second"}
        assert cli.ours() == {}


def test_a_run_that_keeps_no_files_stops_where_the_store_takes_nothing_and_can_be_gone_on_with(cli: Scratch) -> None:
    """What runs goes on, and with room again the same run is resumed to its end."""
    cli.environment |= NO_LIMIT
    cli.store.parent.mkdir()
    with mounted(cli.store.parent, "1m"):
        tasks = (shell("first", until_file("go")), shell("second", "true", "first"))
        process = cli.begin("run", cli.plan(*tasks, workspace="none"))
        cli.until_running("first")
        run = cli.quick("status", "--json").data["run_id"]
        other = cli.store.parent / "other"
        reader = sqlite3.connect(cli.store, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        _fill_up(other)
        cli.write("go", "")
        said = cli.said_by(process)
        assert said.code == 2
        assert "is full" in said.err
        assert f"`parallel-agents resume {run}` goes on with it" in said.err
        reader.close()
        other.unlink()
        assert cli.quick("verify", "--json").data["ok"]
        found = cli.quick("resume", "--json", code=None).data
        assert (found["run_id"], found["status"]) == (run, "completed")
        assert cli.ours() == {}


def test_a_store_that_is_removed_under_a_run_is_missed(cli: Scratch) -> None:
    """By the process that dispatches, which would go on writing where nobody can read; a daemon does not stay for ever."""
    plan = cli.plan(shell("a", f"{until_file('go')}; sleep 0.1"))
    process = cli.begin("run", plan)
    cli.until_running("a")
    shutil.rmtree(cli.store.parent)
    said = cli.said_by(process)
    assert said.code == 2
    assert f"{cli.store} was removed or replaced" in said.err
    cli.quick("run", "--detach", plan)
    cli.until_running("a")
    cli.store.parent.rename(cli.root / "moved")
    cli.write("go", "")
    wait_until(lambda: cli.ours() == {}, "daemon, supervisors and attempts to end")
    assert cli.quick("runs", "--json").data == []


def test_what_is_read_only_can_be_read_and_says_what_it_is(cli: Scratch) -> None:
    """The project's folder, with a store in it or without."""
    plan = str(cli.write("plan.json", {"tasks": [{"task_id": "a", "command": ["true"]}]}))
    cli.environment |= NO_LIMIT
    cli.store.parent.mkdir()
    with mounted(cli.store.parent, "4m"):
        run = cli.quick("run", plan, "--json").data["run_id"]
        subprocess.run(["mount", "-o", "remount,ro", str(cli.store.parent)], check=True)
        for words in (("status",), ("history",), ("runs",), ("show", "a"), ("verify",), ("queue",), ("logs", "a")):
            assert cli.quick(*words).code == 0
        for words in (("submit", plan), ("run", plan), ("run", plan, "--detach"), ("daemon", "start")):
            said = cli.quick(*words, code=2)
            assert re.search(r"cannot be written|[Rr]ead-only", said.err), said.err
            assert str(cli.store.parent) in said.err
        assert [line["run_id"] for line in cli.quick("runs", "--json").data] == [run]
        assert cli.quick("run", plan, "--dry-run").code == 0
        assert any(finding["level"] == "error" for finding in cli.quick("doctor", "--json", code=1).data)


def test_a_project_may_lie_anywhere_and_somebody_may_have_no_home(make_project: Callable[[str], Scratch]) -> None:
    """In a folder with spaces, quotes and letters of all kinds, in the locale C, without HOME, LANG or a PATH of ours."""
    cli = make_project("it's a 'pro jékt' 50%?#ü")
    plan = cli.plan(shell("a", 'pwd; echo "${HOME-none}"'), shell("b", "true", "a"))
    bare = {"HOME": None, "LANG": None, "PATH": "/usr/bin:/bin"}
    cli("run", plan, env=bare)
    assert cli.quick("logs", "a", env=bare).out == f"{cli.root}\nnone\n"
    cli("run", "plan.json", env={"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0"})
    cli.quick("daemon", "start", env=bare)
    cli.quick("run", "--detach", plan, env=bare)
    assert "completed" in cli.quick("wait", env=bare).out
    cli.quick("daemon", "stop", env=bare)
    assert {line["status"] for line in cli.quick("runs", "--json").data} == {"completed"}


def test_a_task_works_in_the_folder_where_its_run_was_submitted(cli: Scratch) -> None:
    """Whatever folder the daemon was started from."""
    below = cli.root / "below"
    below.mkdir()
    plan = cli.plan(shell("a", "pwd"))
    cli.quick("submit", plan, cwd=below)
    cli.quick("daemon", "start", cwd=Path("/"), env={"PARALLEL_AGENTS_STORE": str(cli.store)})
    cli.quick("wait")
    assert cli.quick("logs", "a").out == f"{below}\n"
    cli.quick("daemon", "stop")


def test_a_plan_of_thousands_is_submitted_looked_at_and_steered(cli: Scratch) -> None:
    """Two thousand tasks, in a tree."""
    tasks = [
        {"task_id": f"t{number}", "command": ["true"], "dependencies": [f"t{(number - 1) // 2}"] if number else []}
        for number in range(MANY)
    ]
    run = cli.quick("submit", cli.plan(*tasks, name="thousands")).out.strip()
    found = cli.quick("status", "--json").data
    assert (len(found["tasks"]), found["counts"]) == (MANY, {"pending": MANY})
    assert f"waiting for t{MANY // 2 - 1}" in cli.quick("why", f"t{MANY - 1}").out
    assert len(cli.quick("runs", "--json").data) == 1
    waves = {task["wave"] for task in cli.quick("run", "thousands.json", "--dry-run", "--json").data["tasks"]}
    assert waves == set(range(1, MANY.bit_length() + 1))
    cli.quick("cancel", run)
    assert cli.quick("status", "--json").data["counts"] == {"cancelled": MANY}
    assert cli.event_count() > MANY


@pytest.mark.slow
def test_a_plan_of_a_hundred_runs_to_its_end(cli: Scratch) -> None:
    """Eight at once, with failures among them: the summary is what the log says."""
    tasks = [shell(f"t{number}", "exit 3" if number % 20 == 7 else ":", allow_failure=True) for number in range(100)]
    said = cli.quick("run", cli.plan(*tasks, max_parallel_agents=8), "--json")
    assert said.data["counts"] == {"completed": 95, "failed": 5}
    assert in_state(said.data, "failed") == {f"t{number}" for number in range(7, 100, 20)}
    assert cli.events("latest", "--type", "RunCompleted")[-1]["data"]["counts"] == said.data["counts"]
    assert cli.ours() == {}
