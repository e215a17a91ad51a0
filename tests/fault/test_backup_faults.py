"""A disk that fails under `backup` and under `restore`: there is a whole one afterwards or none, and the next try succeeds."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from disks import fill, mounted
from failing_disk import Fault, failing, library
from trials import Trial, make_template
from versioned import git

EVERY_OF_BACKUP, EVERY_OF_RESTORE = 7, 19  # Writes between two that fail; where there is time, each does.
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a disk fail."""
    return library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """A project with a run that has ended, and a backup of it."""
    trial = Trial(tmp_path_factory.mktemp("finished") / "trial", make_template(tmp_path_factory.mktemp("template")))
    trial("run", trial.written)
    trial("backup", str(whole_one(trial)))
    yield trial
    trial.close()


def whole_one(trial: Trial) -> Path:
    """The backup that was made on a disk that is well."""
    return trial.root.parent / "whole.tar.gz"


def back_up_on(trial: Trial, made: Path, folder: Path, fault: Fault) -> int:
    """A backup over one that is there, on a disk that fails. Gives how many writes there were, or 0 where all of them went."""
    target = folder / "backup.tar.gz"
    before = target.read_bytes()
    with failing(folder, made, folder.parent / "control", fault) as disk:
        said = trial.forked("backup", str(target), "--yes", made=made, environment=disk.environment)
        if said.code == 0:
            assert target.read_bytes() != before
        else:
            assert target.read_bytes() == before, f"{fault} ({disk.what})"
        left = [path for path in folder.iterdir() if path != target]
        if not fault.lasting or fault.error == errno.ENOSPC:  # Else nothing can be removed either.
            assert left == [], f"{fault} ({disk.what})"
        for path in left:
            shutil.rmtree(path)
        return disk.count if disk.failed else 0


def restore_on(trial: Trial, made: Path, control: Path, fault: Fault) -> int:
    """A restore where everything of ours was lost, on a disk that fails, and once more when it is mended."""
    shutil.rmtree(trial.store.parent, ignore_errors=True)
    for ref in git(trial, "for-each-ref", "--format=%(refname)", "refs/heads/parallel-agents").splitlines():
        git(trial, "update-ref", "-d", ref)
    shutil.rmtree(trial.root / ".git/refs/parallel-agents", ignore_errors=True)
    with failing(trial.store.parent, made, control, fault) as disk:
        words = ("restore", str(whole_one(trial)))
        said = trial.forked(*words, made=made, environment=disk.environment)
        try:
            if said.code != 0:
                disk.mend()
                assert trial.forked(*words, "--yes").code == 0
            trial.check()
        except AssertionError as error:
            raise AssertionError(f"{fault} ({disk.what}), after {said.err[-2000:]!r}: {error}") from error
        return disk.count if disk.failed else 0


def each(step: int) -> Iterator[Fault]:
    """Faults at writes that are so far apart, with each error in turn, once and for good."""
    for number in range(10_000):
        yield Fault(1 + number * step, ERRORS[number % 3], lasting=bool(number // 3 % 2))


def test_a_backup_on_a_disk_that_fails_leaves_the_one_before_it(finished: Trial, made: Path, tmp_path: Path) -> None:
    """Not half of one, nor a file of another name."""
    folder = tmp_path / "backups"
    folder.mkdir()
    shutil.copy(whole_one(finished), folder / "backup.tar.gz")
    tried = list(takewhile(lambda fault: back_up_on(finished, made, folder, fault), each(EVERY_OF_BACKUP)))
    assert len(tried) > 3


@pytest.mark.slow
def test_a_restore_on_a_disk_that_fails_can_be_said_again(finished: Trial, made: Path, tmp_path: Path) -> None:
    """What it leaves is no store, or the whole one."""
    tried = list(
        takewhile(lambda fault: restore_on(finished, made, tmp_path / "control", fault), each(EVERY_OF_RESTORE))
    )
    assert len(tried) > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whichever_write_of_a_backup_or_a_restore_fails(finished: Trial, made: Path, tmp_path: Path) -> None:
    """Each in turn."""
    folder = tmp_path / "backups"
    folder.mkdir()
    shutil.copy(whole_one(finished), folder / "backup.tar.gz")
    assert len(list(takewhile(lambda fault: back_up_on(finished, made, folder, fault), each(1)))) > 20
    assert len(list(takewhile(lambda fault: restore_on(finished, made, tmp_path / "control", fault), each(1)))) > 30


def test_a_backup_for_which_there_is_no_room_says_so(finished: Trial, tmp_path: Path) -> None:
    """On a real disk that is full; with room it is made."""
    with mounted(tmp_path / "disk", "1m") as disk:
        fill(disk / "other")
        said = finished.forked("backup", str(disk / "backup.tar.gz"))
        assert said.code == 2
        assert "full" in said.err or "No space left" in said.err
        assert [path.name for path in disk.iterdir()] == ["other"]
        (disk / "other").unlink()
        assert finished.forked("backup", str(disk / "backup.tar.gz")).code == 0
