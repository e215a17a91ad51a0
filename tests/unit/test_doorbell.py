"""Whoever listens on a store is woken by every commit of others, and nobody is held up by it."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.doorbell import Doorbell, doorbell_folder, doorbell_prefix, drain
from parallel_agents.eventstore.log import Log

APPEND = """
import sys
from pathlib import Path
from parallel_agents.eventstore.events import RunStarted
from parallel_agents.eventstore.log import Log

with Log(Path(sys.argv[1])) as log:
    log.append(sys.argv[2], 0, [RunStarted()])
"""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, with a path short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="pa"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def bell_at() -> Iterator[Callable[[Path], Doorbell]]:
    """Makes bells, and closes them in the end."""
    with ExitStack() as made:

        def make(store: Path) -> Doorbell:
            bell = Doorbell(store)
            made.callback(bell.close)
            return bell

        yield make


def rung(listener: socket.socket, timeout_s: float = 0.0) -> bool:
    """Whether somebody has rung, waiting at most so long; the ring is taken off."""
    readable, _, _ = select.select([listener], [], [], timeout_s)
    drain(listener)
    return bool(readable)


def listen(bell: Doorbell) -> socket.socket:
    """A socket that is there."""
    listener = bell.listen()
    assert listener is not None
    return listener


def test_a_commit_rings_the_listener_of_another_process(tmp_path: Path) -> None:
    """Once it is committed: who is woken reads it at once."""
    store = tmp_path / "events.db"
    with Log(store) as log, listen(log.doorbell) as listener:
        child = subprocess.Popen([sys.executable, "-c", APPEND, str(store), "alpha"])
        assert rung(listener, 60)
        assert [row.run_id for row in log.rows()] == ["alpha"]
        assert child.wait(60) == 0


def test_a_refused_or_empty_transaction_rings_nobody(tmp_path: Path) -> None:
    """There is nothing new to read."""
    with Log(tmp_path / "events.db") as log, Log(tmp_path / "events.db") as other, listen(other.doorbell) as listener:
        log.transact(lambda draft: None)
        assert not rung(listener)
        log.append("alpha", 0, [ev.RunStarted()])
        assert rung(listener)


def test_a_process_is_not_woken_by_its_own_commits(tmp_path: Path) -> None:
    """Or its loop would chase itself."""
    with Log(tmp_path / "events.db") as log, listen(log.doorbell) as listener:
        log.append("alpha", 0, [ev.RunStarted()])
        assert not rung(listener)


def test_every_listener_of_a_store_is_rung_and_none_of_another(
    tmp_path: Path, bell_at: Callable[[Path], Doorbell]
) -> None:
    """By the path of the store, however it is written."""
    (tmp_path / "sub").mkdir()
    ours = [bell_at(tmp_path / "events.db"), bell_at(tmp_path / "sub" / ".." / "events.db")]
    other = bell_at(tmp_path / "other.db")
    listeners = [listen(bell) for bell in [*ours, other]]
    bell_at(tmp_path / "events.db").ring()
    assert [rung(listener) for listener in listeners] == [True, True, False]
    for listener in listeners:
        listener.close()


def test_many_rings_are_one_wake_and_never_block(tmp_path: Path, bell_at: Callable[[Path], Doorbell]) -> None:
    """A listener that does not answer holds nobody up."""
    bell, ringer = bell_at(tmp_path / "x"), bell_at(tmp_path / "x")
    with listen(bell) as listener:
        for _ in range(3_000):
            ringer.ring()
        assert rung(listener)
        assert not rung(listener)
        ringer.ring()
        assert rung(listener)


def test_a_listener_that_comes_within_the_same_tick_of_the_clock_is_heard_of(
    tmp_path: Path, runtime: Path, bell_at: Callable[[Path], Doorbell]
) -> None:
    """Folders tell their changes in steps of a few milliseconds; a second change in one step looks like none."""
    ringer, first, second = (bell_at(tmp_path / "x") for _ in range(3))
    folder = runtime / "parallel-agents"
    step = time.time_ns() + 3600 * 10**9  # One that does not end while the test runs.
    with listen(first) as one:
        os.utime(folder, ns=(step, step))
        ringer.ring()
        assert rung(one)
        with listen(second) as two:
            os.utime(folder, ns=(step, step))
            ringer.ring()
            assert rung(two)


def test_the_socket_of_a_dead_listener_is_removed(
    tmp_path: Path, runtime: Path, bell_at: Callable[[Path], Doorbell]
) -> None:
    """Who was killed could not do it."""
    bell, ringer = bell_at(tmp_path / "x"), bell_at(tmp_path / "x")
    listen(bell).close()
    folder = runtime / "parallel-agents"
    assert len(list(folder.iterdir())) == 1
    ringer.ring()
    assert list(folder.iterdir()) == []
    ringer.ring()


def test_who_begins_to_listen_takes_away_what_the_dead_of_any_store_left(
    tmp_path: Path, runtime: Path, bell_at: Callable[[Path], Doorbell]
) -> None:
    """And nothing of the living, nor what is no socket of ours."""
    living = bell_at(tmp_path / "living")
    with listen(living) as listener:
        for number in range(3):
            listen(bell_at(tmp_path / f"dead-{number}")).close()
        other = runtime / "parallel-agents" / "note"
        other.touch()
        with listen(bell_at(tmp_path / "new")):
            names = {path.name[:13] for path in (runtime / "parallel-agents").iterdir()}
        assert names == {"note", doorbell_prefix(tmp_path / "living"), doorbell_prefix(tmp_path / "new")}
        assert not rung(listener)
        other.unlink()


def test_closing_takes_the_socket_away(tmp_path: Path, runtime: Path, bell_at: Callable[[Path], Doorbell]) -> None:
    """Nothing is left in the runtime folder, and closing twice is no error."""
    bell = bell_at(tmp_path / "x")
    with listen(bell):
        bell.close()
        bell.close()
    assert list((runtime / "parallel-agents").iterdir()) == []


def test_a_commit_is_acknowledged_even_if_nobody_can_be_rung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bell_at: Callable[[Path], Doorbell]
) -> None:
    """The bell is a hint; what is committed is never reported as failed."""
    bell = bell_at(tmp_path / "events.db")

    def no_descriptors(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    with listen(bell) as listener, Log(tmp_path / "events.db") as log:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", no_descriptors)
            assert len(log.append("alpha", 0, [ev.RunStarted()])) == 1
        log.append("alpha", 1, [ev.RunResumed()])
        assert rung(listener)


def test_sockets_lie_in_a_private_folder(runtime: Path) -> None:
    """Under the runtime folder where there is one."""
    folder = doorbell_folder()
    assert folder == runtime / "parallel-agents"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_without_a_runtime_folder_the_temporary_one_serves(monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    """With a name of the user's own."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(runtime))
    assert doorbell_folder() == runtime / f"parallel-agents-{os.getuid()}"


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file", "missing above"])
def test_a_folder_that_is_not_private_is_not_used(
    monkeypatch: pytest.MonkeyPatch, runtime: Path, tmp_path: Path, kind: str, bell_at: Callable[[Path], Doorbell]
) -> None:
    """Then there is no bell, no error, and the slow poll has to do."""
    folder = runtime / "parallel-agents"
    match kind:
        case "open to others":
            folder.mkdir()
            folder.chmod(0o750)
        case "a link":
            (runtime / "elsewhere").mkdir(mode=0o700)
            folder.symlink_to(runtime / "elsewhere")
        case "a file":
            folder.touch()
        case _:
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "gone"))
    assert doorbell_folder() is None
    bell = bell_at(tmp_path / "events.db")
    assert bell.listen() is None
    bell.ring()
    bell.close()
    with Log(tmp_path / "events.db") as log:
        log.append("alpha", 0, [ev.RunStarted()])


def test_a_path_that_is_too_long_for_a_socket_means_no_bell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runtime: Path, bell_at: Callable[[Path], Doorbell]
) -> None:
    """And no error either."""
    long = runtime / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    bell = bell_at(tmp_path / "x")
    assert bell.listen() is None
    bell.ring()


def test_the_names_of_sockets_tell_nothing_of_the_path(tmp_path: Path) -> None:
    """Twelve hexadecimal digits, the same for every way to write the path."""
    prefix = doorbell_prefix(tmp_path / "events.db")
    assert len(prefix) == 13
    assert prefix == doorbell_prefix(tmp_path / "." / "events.db")
    assert prefix != doorbell_prefix(tmp_path / "events2.db")
