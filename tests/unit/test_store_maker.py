"""A store that is made by a child of the process that will use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_agents import new_store
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
        store, "maker = StoreMaker()\nmaker.begin(store)\nmaker.finish()\nprint('sqlalchemy' in sys.modules)"
    )
    assert said == "False\n"
    assert store.stat().st_mode & 0o777 == 0o600
    assert (store.parent / ".gitignore").read_text() == "*\n"
    with Log(store, create=False) as log:
        assert log.last_seq() == 0


def test_a_store_that_nobody_asked_for_is_not_made(tmp_path: Path) -> None:
    """A bad plan leaves nothing behind, and no child."""
    said = in_a_process_of_its_own(
        tmp_path / "events.db",
        "maker = StoreMaker()\nchild = maker._child\nmaker.finish()\nmaker.finish()\n"
        "try:\n    os.kill(child, 0)\nexcept ProcessLookupError:\n    print('gone')",
    )
    assert said == "gone\n"
    assert not list(tmp_path.iterdir())


def test_a_store_whose_maker_died_is_made_by_who_opens_it(tmp_path: Path) -> None:
    """Killed at any moment, it costs the time that it was to save."""
    store = tmp_path / "events.db"
    in_a_process_of_its_own(
        store,
        "maker = StoreMaker()\nos.kill(maker._child, signal.SIGKILL)\nmaker.begin(store)\nmaker.finish()\n"
        "from parallel_agents.eventstore.log import Log\nLog(store).close()",
    )
    with Log(store, create=False) as log:
        assert log.last_seq() == 0


def test_a_process_with_other_threads_is_not_copied(tmp_path: Path) -> None:
    """They may hold locks that the copy would wait for, for ever."""
    said = in_a_process_of_its_own(
        tmp_path / "events.db",
        "done = threading.Event()\nthreading.Thread(target=done.wait).start()\n"
        "maker = StoreMaker()\nmaker.begin(store)\nmaker.finish()\nprint(maker._child)\ndone.set()",
    )
    assert said == "0\n"
    assert not (tmp_path / "events.db").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("run plan.json", True),
        ("--store other.db run plan.json", True),
        ("run plan.json --store=other.db", True),
        ("run plan.json --store there.db", False),
        ("--store=there.db run plan.json", False),
        ("run plan.json --dry-run", False),
        ("run --help", False),
        ("status run", False),
        ("--store run", False),
        ("--store nothing://known run plan.json", False),
    ],
)
def test_it_begins_only_where_a_run_needs_a_new_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, wanted: bool
) -> None:
    """A child for nothing would make every other command slower."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARALLEL_AGENTS_STORE", raising=False)
    monkeypatch.setattr(new_store, "StoreMaker", lambda: "a maker")
    (tmp_path / "there.db").touch()
    assert (new_store.maker_for(words.split()) is not None) == wanted
    monkeypatch.setenv("PARALLEL_AGENTS_STORE", str(tmp_path / "there.db"))
    assert new_store.maker_for(["run", "plan.json"]) is None
