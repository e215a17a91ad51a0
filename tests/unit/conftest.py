"""What several of these tests begin with. A test file that needs another one of that name has its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dispatching import Scene
from handmade import HandmadeRun, Make


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """An empty store and its dispatcher."""
    made = Scene(tmp_path)
    yield made
    made.end_of_story()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a run by hand."""
    made: list[HandmadeRun] = []

    def make_run(*tasks: Any, **more: Any) -> HandmadeRun:
        made.append(HandmadeRun(tmp_path, monkeypatch, *tasks, **more))
        return made[-1]

    yield make_run
    for run in made:
        run.close()
