"""What holds for every test: random examples can be repeated and no clock judges them; no repository around them counts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from any_load import AT_ANY_LOAD
from hypothesis import is_hypothesis_test, settings
from in_memory import TEMPROOT, folder_for

from examples import LONGEST_S, examples

settings.register_profile("parallel-agents", deadline=None, print_blob=True, max_examples=examples(50))
settings.load_profile("parallel-agents")

# Variables of a hook that runs the tests would lead every git command to the developer's repository.
for name in [name for name in os.environ if name.startswith("GIT_") and name != "GIT_EXEC_PATH"]:
    del os.environ[name]

# Tests run beside each other, on machines that are busy with something else.
os.environ.update(AT_ANY_LOAD)

if (memory := folder_for(os.environ)) is not None:
    os.environ[TEMPROOT] = str(memory)

# Of `nohup` and of a shell's background jobs: programs under test would inherit it, and hear no Ctrl-C.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that draw many more examples may take as much longer; the usual clock would judge how busy the machine is."""
    for item in items if os.environ.get("TEST_ALL") else ():
        if is_hypothesis_test(getattr(item, "obj", None)) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST_S))


@pytest.fixture(scope="session", autouse=True)
def no_repository_around(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Folders without git are that, wherever temporary files lie, and nothing is ever made in the developer's repository."""
    os.environ["GIT_CEILING_DIRECTORIES"] = os.path.realpath(tmp_path_factory.getbasetemp())


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder that lies on the disk, where this machine has its temporary files there."""
    with TemporaryDirectory() as folder:
        yield Path(folder)
