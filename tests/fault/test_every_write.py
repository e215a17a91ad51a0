"""Every write of a short run fails once, and once for good until the disk is mended; with each error that a disk can give.

What has to hold afterwards, whatever was hit: the error is told in words; once the disk is mended, what a user would do
leads the run to its end; the chain holds and everything matches it; no attempt ran twice; no process is left.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from failing_disk import Fault, failing, library
from trials import Trial, make_template

MODES = [
    Fault(error=error, lasting=lasting) for error in (errno.ENOSPC, errno.EIO, errno.EROFS) for lasting in (False, True)
] + [Fault(error=errno.ENOSPC, torn=True)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a disk fail."""
    return library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to be copied."""
    return make_template(tmp_path_factory.mktemp("template"))


def one_fault(tmp_path: Path, template: Path, made: Path, fault: Fault) -> int:
    """One run under one fault, mended and gone on with. Gives how many writes there were before the disk was mended."""
    trial = Trial(tmp_path / f"at{fault.at}", template)
    try:
        with failing(trial.store.parent, made, tmp_path / "control", fault) as disk:
            told = ""
            try:
                told = trial.tried(disk, made).err[-2000:]
                disk.mend()
                trial.mended()
                trial.check()
            except AssertionError as error:
                raise AssertionError(f"{fault} ({disk.what}), after {told!r}: {error}") from error
            return disk.count if disk.failed else 0
    finally:
        trial.close()
        shutil.rmtree(trial.root)


SAMPLE = [(7 + 17 * number, MODES[number % len(MODES)]) for number in range(11)]
"""Of all writes and faults: far apart, so that each part of a run is hit."""


@pytest.mark.parametrize(("at", "mode"), SAMPLE, ids=lambda value: str(value).replace(" ", "-"))
def test_a_run_survives_a_write_that_fails(at: int, mode: Fault, tmp_path: Path, template: Path, made: Path) -> None:
    """A sample of all of them."""
    fault = Fault(at, mode.error, mode.lasting, mode.torn)
    assert one_fault(tmp_path, template, made, fault) >= at


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode).replace(" ", "-"))
def test_a_run_survives_whichever_write_fails(mode: Fault, tmp_path: Path, template: Path, made: Path) -> None:
    """Each in turn, until a run has fewer. All that went wrong is told at the end."""
    at, reached, wrong = 0, 1, []
    while reached:
        at += 1
        try:
            reached = one_fault(tmp_path, template, made, Fault(at, mode.error, mode.lasting, mode.torn))
        except AssertionError as error:
            wrong.append(str(error))
    assert at > 100
    assert wrong == []


@pytest.fixture
def trial(tmp_path: Path, template: Path) -> Iterator[Trial]:
    """A project whose disk is well to begin with."""
    made = Trial(tmp_path / "trial", template)
    yield made
    made.close()


def test_the_disk_counts_and_fails_as_it_is_told(trial: Trial, made: Path, tmp_path: Path) -> None:
    """Or nothing here would be tried at all: git, the supervisor and the database are counted, and none else."""
    with failing(trial.store.parent, made, tmp_path / "control", Fault()) as disk:
        assert trial.tried(disk, made).code == 0
        assert disk.count > 100
        assert (disk.failed, disk.what) == (0, "")
    trial.check()
