"""A store that is made by a child of the process that will use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_agents.eventstore.log import Log

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no such child")


def in_a_process_of_its_own(store: Path, lines: str) -> str:
    """What lines of Python print in a process without other threads, which may be copied."""
    script = (
        "import os, signal, sys, threading\nfrom pathlib import Path\n"
        "from parallel_agents.eventstore.store_maker import StoreMaker\nstore = Path(sys.argv[1])\n" + lines
    )
    done = subprocess.run([sys.executable, "-c", script, store], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_store_is_made_once_it_is_asked_for(tmp_path: Path) -> None:
    """It is the same as one that is made when it is opened: private, with its folder, and ready."""
    store = tmp_path / ".parallel-agents" / "events.db"
    said = in_a_process_of_its_own(
        store, "with StoreMaker(store) as maker:\n    maker.begin()\nprint('sqlalchemy' in sys.modules)"
    )
    assert said == "False\n"
    assert store.stat().st_mode & 0o777 == 0o600
    assert (store.parent / ".gitignore").read_text() == "*\n"
    with Log(store, create=False) as log:
        assert log.last_seq() == 0


def test_a_store_that_nobody_asked_for_is_not_made(tmp_path: Path) -> None:
    """A bad plan leaves nothing behind."""
    in_a_process_of_its_own(tmp_path / "events.db", "with StoreMaker(store):\n    pass")
    assert not list(tmp_path.iterdir())


def test_a_store_whose_maker_died_is_made_by_who_opens_it(tmp_path: Path) -> None:
    """Killed at any moment, it costs the time that it was to save."""
    store = tmp_path / "events.db"
    in_a_process_of_its_own(
        store,
        "with StoreMaker(store) as maker:\n    os.kill(maker._child, signal.SIGKILL)\n    maker.begin()\n"
        "from parallel_agents.eventstore.log import Log\nLog(store).close()",
    )
    with Log(store, create=False) as log:
        assert log.last_seq() == 0


def test_a_process_with_other_threads_is_not_copied(tmp_path: Path) -> None:
    """They may hold locks that the copy would wait for, for ever."""
    said = in_a_process_of_its_own(
        tmp_path / "events.db",
        "done = threading.Event()\nthreading.Thread(target=done.wait).start()\n"
        "with StoreMaker(store) as maker:\n    maker.begin()\nprint(maker._child)\ndone.set()",
    )
    assert said == "0\n"
    assert not (tmp_path / "events.db").exists()
