"""Projects of their own for the command line; each is left without a process of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scratch import Scratch


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Scratch]:
    """The command line in an empty project."""
    scratch = Scratch(tmp_path / "project")
    yield scratch
    scratch.close()


@pytest.fixture(scope="module")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Scratch]]:
    """Makes projects that the tests of a module share, each by its name."""
    made: list[Scratch] = []

    def make(name: str) -> Scratch:
        made.append(Scratch(tmp_path_factory.mktemp("projects") / name))
        return made[-1]

    yield make
    for scratch in made:
        scratch.close()
