"""Where the tests write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from in_memory import NEEDS, NO_PROGRAMS, TEMPROOT, folder_for, temporary


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in memory with just enough room, on a machine with much of it."""
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=NEEDS, f_frsize=1, f_flag=0))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * NEEDS))
    return tmp_path


def test_tests_write_into_memory_where_there_is_room(memory: Path) -> None:
    """Unless all of them run, or somebody has named another folder."""
    assert folder_for({}, memory) == memory
    assert folder_for({"TEST_ALL": "1"}, memory) is None
    assert folder_for({TEMPROOT: "/elsewhere"}, memory) is None


@pytest.mark.parametrize("lack", [{"f_bavail": NEEDS - 1}, {"f_flag": NO_PROGRAMS}])
def test_a_folder_that_is_small_or_lets_no_program_run_will_not_do(
    memory: Path, monkeypatch: pytest.MonkeyPatch, lack: dict[str, int]
) -> None:
    """As containers have it."""
    room = {"f_bavail": NEEDS, "f_frsize": 1, "f_flag": 0, **lack}
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**room))
    assert folder_for({}, memory) is None


def test_a_machine_with_little_memory_keeps_it(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests write counts there."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * NEEDS - 1))
    assert folder_for({}, memory) is None


def test_a_machine_without_such_a_folder_has_none(tmp_path: Path) -> None:
    """Tests write where they always do."""
    assert folder_for({}, tmp_path / "nowhere") is None


def test_other_temporary_folders_lie_where_the_tests_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the disk where that is not said."""
    monkeypatch.setenv(TEMPROOT, str(tmp_path))
    with temporary() as folder:
        assert Path(folder).parent == tmp_path
    monkeypatch.delenv(TEMPROOT)
    with temporary() as folder:
        assert Path(folder).parent == Path(tempfile.gettempdir())
