"""What befalls the store under a daemon that dispatches: it says so, starts nothing that it could not record, lets run
what runs, and goes on by itself once that is mended, or ends where it never can be.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from disks import fill, mounted
from failing_disk import Fault, failing, library
from forks import CLI, Forked
from trials import Trial, make_template, wait_until


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a disk fail."""
    return library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to be copied."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def trial(tmp_path: Path, template: Path) -> Iterator[Trial]:
    """A project."""
    made = Trial(tmp_path / "trial", template)
    yield made
    made.close()


# What a program prints lies in a file, its first word, from the start.
INTO_FILE = """
import os, sys
for number in (1, 2):
    os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), number)
del sys.argv[1]
"""


class Watched:
    """A daemon with a run whose first two tasks wait for a file, and what it says."""

    def __init__(self, trial: Trial, **more: Any) -> None:
        self.trial = trial
        self.flag, self.log = trial.ran.with_name("go"), trial.ran.with_name("daemon.log")
        wait = f"until [ -e {self.flag} ]; do sleep 0.02; done"
        tasks = [
            trial.task("one", then=wait),
            trial.task("two", "one", then="echo 2 >two"),
            trial.task("three", then=wait),
        ]
        trial.written = trial.plan(*tasks, defaults={"max_retries": 2})
        self.log.touch()
        self.process = self.start(**more)
        self.run_id = trial.forked("submit", trial.written).out.strip()
        trial.until_running("one", "three")

    def start(self, program: str = CLI, env: Mapping[str, str] | None = None) -> Forked:
        """A daemon, in the foreground of a process of its own."""
        return self.trial.fork(INTO_FILE + program, str(self.log), "daemon", "run", env=env)

    @property
    def said(self) -> str:
        """All that it has said."""
        return self.log.read_text("utf-8", "replace")

    def until_it_says(self, *words: str) -> None:
        """Wait for words of it, and see that it is alive."""
        wait_until(lambda: all(word in self.said for word in words), f"the daemon to say {words}")

    def go(self) -> None:
        """Let its attempts end."""
        self.flag.touch()

    def until_it_ended(self) -> None:
        """Wait for the run's end, then let the daemon go."""
        self.trial.until(lambda status: status["status"] == "completed", "the end of the run")
        self.leave()

    def leave(self) -> None:
        """Let the daemon go."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) is not None


def started(trial: Trial) -> Counter[str]:
    """How often each task was started."""
    return Counter(event["data"]["task_id"] for event in trial.events() if event["type"] == "TaskStarted")


def refused_and_mended(watched: Watched, mend: Callable[[], None], *words: str) -> None:
    """Attempts end while the store refuses; that is told, nothing is lost, and once it is mended the same daemon goes on."""
    watched.go()
    watched.until_it_says("the store refuses", *words)
    assert watched.process.poll() is None
    mend()
    watched.until_it_ended()
    assert "Traceback" not in watched.said
    watched.trial.check()
    assert {line.split()[0] for line in watched.trial.ran.read_text().splitlines()} == {"one", "two", "three"}
    assert started(watched.trial)["one"] == started(watched.trial)["three"] == 1, "what had ended was done again"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "calls", [1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_daemon_goes_on_when_its_disk_is_mended(
    trial: Trial, made: Path, tmp_path: Path, error: int, calls: int
) -> None:
    """From whichever of its next writes on the disk had failed; the ends that came meanwhile are taken up as they were."""
    with failing(trial.store.parent, made, tmp_path / "control", Fault()) as disk:
        watched = Watched(trial, env=disk.environment)
        disk.fail_after(calls, error)
        refused_and_mended(watched, disk.mend, str(trial.store))
        assert disk.failed


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
def test_work_that_the_disk_of_the_repository_does_not_take_is_not_done_again(
    trial: Trial, made: Path, tmp_path: Path, error: int
) -> None:
    """All of the project lies on the disk: what tasks left is kept and merged once it is mended."""
    with failing(trial.root / ".git", made, tmp_path / "control", Fault()) as disk:
        watched = Watched(trial, env=disk.environment)
        disk.fail_after(1, error)
        watched.go()
        watched.until_it_says("the work of task", "waits")
        disk.mend()
        watched.until_it_ended()
    trial.check()
    assert started(trial)["one"] == started(trial)["three"] == 1, "what had ended was done again"


def test_a_full_disk_under_a_daemon(trial: Trial) -> None:
    """A real one, that somebody else fills and makes room on again."""
    with mounted(trial.store.parent, "6m") as disk:
        watched = Watched(trial)
        fill(disk / "other")
        refused_and_mended(watched, (disk / "other").unlink, "is full")


IMPATIENT = """
import parallel_agents.eventstore.sqlite as sqlite
sqlite.BUSY_TIMEOUT_MS = 200
"""


def test_a_store_that_another_process_locks_for_long_is_waited_for(trial: Trial) -> None:
    """Longer than a database is waited for: it is told who to look for, and nothing is lost."""
    watched = Watched(trial, program=IMPATIENT + CLI)
    with closing(sqlite3.connect(trial.store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused_and_mended(watched, lambda: other.execute("COMMIT") and None, "was locked for", "lsof")


def test_a_store_that_is_damaged_under_a_daemon_stops_it_until_it_is_restored(trial: Trial, tmp_path: Path) -> None:
    """What it cannot read it does not guess. The attempts end; the backup knows them; nothing is done twice."""
    watched = Watched(trial)
    trial.forked("backup", str(tmp_path / "backup.tar.gz"))
    content = trial.store.read_bytes()
    with closing(sqlite3.connect(trial.store)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with trial.store.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(max(len(content), trial.store.stat().st_size) - 4096))
    watched.go()
    watched.until_it_says("corrupt", "backup")
    watched.leave()
    assert trial.forked("restore", str(tmp_path / "backup.tar.gz"), "--yes").code == 0
    assert trial.forked("resume", watched.run_id).code == 0
    trial.check()
    assert set(started(trial).values()) == {1}


def test_an_end_that_the_disk_did_not_take_waits_for_the_next_daemon(trial: Trial, made: Path, tmp_path: Path) -> None:
    """The daemon is killed as well; whoever comes next waits for what the supervisor still has to write."""
    with failing(trial.store.parent, made, tmp_path / "control", Fault()) as disk:
        watched = Watched(trial, env=disk.environment)
        disk.fail_after(1, errno.ENOSPC)
        watched.process.kill()
        watched.process.wait(60)
        before = disk.failed
        watched.go()
        wait_until(lambda: disk.failed >= before + 4, "both ends to be refused, twice")
        watched.process = watched.start()
        wait_until(lambda: trial.quick("daemon", "status", code=None).code == 0, "the next daemon")
        disk.mend()
        watched.until_it_ended()
    trial.check()
    assert set(started(trial).values()) == {1}


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_store_that_is_removed_or_replaced_under_a_daemon_ends_it(trial: Trial, tmp_path: Path, how: str) -> None:
    """Nothing more is appended to what nobody can find. The file is put back, and the next daemon adopts what lives."""
    watched = Watched(trial)
    aside = tmp_path / "aside.db"
    for suffix in ("", "-wal", "-shm"):
        trial.store.with_name(trial.store.name + suffix).rename(f"{aside}{suffix}")
    if how == "replaced":
        trial.store.write_bytes(b"")
    before = aside.with_name("aside.db-wal").stat().st_size
    assert watched.process.wait(60) not in (0, None)
    assert "was removed or replaced while it was in use" in watched.said
    assert aside.with_name("aside.db-wal").exists() is False or aside.with_name("aside.db-wal").stat().st_size == before
    trial.store.unlink(missing_ok=True)
    for suffix in ("", "-wal", "-shm"):
        if Path(f"{aside}{suffix}").exists():
            Path(f"{aside}{suffix}").rename(trial.store.with_name(trial.store.name + suffix))
    watched.process = watched.start()
    watched.go()
    watched.until_it_ended()
    trial.check()
    assert set(started(trial).values()) == {1}


def test_a_write_ahead_log_that_is_removed_under_a_daemon_ends_it_and_loses_nothing(trial: Trial) -> None:
    """As by somebody who tidies up; it lies where nobody else finds it, until the daemon folds it into the store at its end."""
    watched = Watched(trial)
    for suffix in ("-wal", "-shm"):
        trial.store.with_name(trial.store.name + suffix).unlink()
    assert watched.process.wait(60) not in (0, None)
    assert f"{trial.store}-wal was removed or replaced while it was in use" in watched.said
    watched.process = watched.start()
    watched.go()
    watched.until_it_ended()
    trial.check()
    assert set(started(trial).values()) == {1}
