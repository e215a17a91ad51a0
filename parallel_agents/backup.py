"""A backup: one file that holds a store, the commits of its runs and, if wanted, what attempts wrote.

A gzipped tar, in this order: ``events.db`` (SQLite's online backup, of one moment, while others go on writing), the files
below ``bundles/`` (a git bundle for each repository, made after that moment, so that it holds whatever an event of the copy
names), those below ``archive/`` and ``runs/``, and ``manifest.json``, whose being there says that the file is whole. The
format is in docs/adr/0021.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from parallel_agents.archived import announced
from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.reaching import OUR_REFS, all_refs
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.deep_verification import unheld
from parallel_agents.eventstore import audit
from parallel_agents.eventstore.archive import archive_folder
from parallel_agents.eventstore.errors import InvalidUsage, ParallelAgentsError, StoreError
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.housekeeping import repositories_of
from parallel_agents.named_commits import Named, named_commits
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.run_standing import places_of
from parallel_agents.scheduler.run_files import known_commits
from parallel_agents.verification import verify
from parallel_agents.version import RELEASE, STORE_FORMAT

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "events.db"
BUNDLES = "bundles"
OUTPUTS = "runs"
ARCHIVES = "archive"
CHUNK = 1 << 20
_LEVEL = 1  # Of gzip: half the time of its own default, for 3 % more of a log.
_NOT_OUTPUT = frozenset({"lock"})  # Held by who runs an attempt; a copy of it says nothing.

Told = Callable[[str, int, int], None]


class BackupFailed(ParallelAgentsError):
    """A backup cannot be made, or one cannot be used."""

    code = "backup"


@dataclass(slots=True)
class _Member:
    """One file of a backup, as the manifest has it."""

    size: int
    sha256: str


@dataclass(slots=True)
class _Writing:
    """A backup while it is written."""

    tar: tarfile.TarFile
    members: dict[str, _Member] = field(default_factory=dict)

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        """Add as many bytes of a file as it had when it was looked at; one that grows meanwhile is cut there."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, wall_clock_us() // 1_000_000
        reading = _Reading(file, size)
        self.tar.addfile(info, reading)  # type: ignore[arg-type]  # It asks for no more than ``read``.
        self.members[name] = _Member(size, reading.digest.hexdigest())


class _Reading:
    """A file that is read for a backup: exactly so many bytes, zeros for those that are gone, and their digest."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size
        self.digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        """The next bytes."""
        wanted = min(count, self._left)
        found = self._file.read(wanted)
        found += bytes(wanted - len(found))  # Truncated while it was read.
        self._left -= len(found)
        self.digest.update(found)
        return found


def back_up(
    log: Log,
    project: Project,
    target: Path,
    *,
    outputs: bool = True,
    overwrite: bool = False,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Write a backup, under another name first: a file of the name that was given is always a whole one.

    Args:
        outputs: with what attempts wrote and were told.
        overwrite: in place of a file that is there.
    Returns:
        ``{"file", "bytes", "sha256", "events", "head", "runs", "refs", "outputs", "left_out"}``.
    Raises:
        InvalidUsage: there is such a file, or no such folder.
        BackupFailed: the store is not what was written, or a commit that it names is gone.
        StoreError, GitFailed: it cannot be read, or not written.
    """
    told = progress or (lambda what, done, total: None)
    target = target.absolute()
    if target.is_dir():
        raise InvalidUsage(f"{target} is a folder", hint="name a file in it, such as backup.tar.gz")
    if not target.parent.is_dir():
        raise InvalidUsage(f"there is no folder {target.parent}", hint="make it first")
    if target.exists() and not overwrite:
        raise InvalidUsage(f"{target} exists already", hint="name another file, or say --yes to replace it")
    with _told_of(target), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        return _written(log, project, target, Path(scratch), outputs=outputs, told=told)


@contextmanager
def _told_of(place: Path) -> Iterator[None]:
    """What the system refuses, in words."""
    try:
        yield
    except OSError as error:
        at = error.filename or place
        raise StoreError(f"{at}: {error.strerror or error}", hint="nothing was kept of this backup") from error


def _written(log: Log, project: Project, target: Path, scratch: Path, *, outputs: bool, told: Told) -> dict[str, Any]:
    copied = scratch / DATABASE
    audit.copy(log.path, copied, lambda done, total: told("pages", done, total))
    archives = _archives(log, copied)
    with Log(copied, create=False) as copy:
        found = verify(copy, lambda done, total: told("events", done, total))
        if not found["ok"]:
            raise BackupFailed(
                f"{log.path} is not what was written to it, so no backup is made of it", hint="`verify` says where"
            )
        runs = Projector(copy).runs()
        bundled, left_out = _bundles(log, copy, project, scratch, told)
    made = scratch / "made"
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=_LEVEL) as tar:
            writing = _Writing(tar)
            _add_file(writing, DATABASE, copied)
            for one in bundled:
                _add_file(writing, one["file"], scratch / one["file"].rpartition("/")[2])
            for path in archives:
                _add_file(writing, f"{ARCHIVES}/{path.name}", path)
            folders = [attempts_folder(log.path) / run_id for run_id in runs] if outputs else []
            for number, folder in enumerate(folders):
                told("runs' outputs", number, len(folders))
                _add_folder(writing, folder, f"{OUTPUTS}/{folder.name}", left_out)
            manifest = {
                "format": FORMAT,
                "release": RELEASE,
                "store_format": STORE_FORMAT,
                "made_at": rfc3339(wall_clock_us()),
                "store": str(log.path.absolute()),
                "root": str(project.root),
                "events": found["events"],
                "head": found["head"],
                "outputs": outputs,
                "repositories": bundled,
                "left_out": left_out,
                "members": {name: {"size": one.size, "sha256": one.sha256} for name, one in writing.members.items()},
            }
            content = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
            writing.add(MANIFEST, io.BytesIO(content), len(content))
        raw.flush()
        os.fsync(raw.fileno())
    size, digest = made.stat().st_size, _digest(made)
    os.rename(made, target)
    flush_folder(target.parent)
    return {
        "file": str(target),
        "bytes": size,
        "sha256": digest,
        "events": found["events"],
        "head": found["head"],
        "runs": len(runs),
        "refs": sum(len(one["refs"]) for one in bundled),
        "outputs": outputs,
        "left_out": left_out,
    }


def _archives(log: Log, copied: Path) -> list[Path]:
    """Put the archives that a copy of the log names beside it, where they are read. Gives them; one that is gone is none."""
    folder = archive_folder(copied)
    found = []
    with Log(copied, create=False) as copy:
        for event in announced(copy):
            source = archive_folder(log.path) / event.file
            if source.is_file():
                folder.mkdir(mode=0o700, exist_ok=True)
                found.append(Path(shutil.copyfile(source, folder / event.file)))
    return found


def _bundles(
    log: Log, copy: Log, project: Project, scratch: Path, told: Told
) -> tuple[list[dict[str, Any]], list[str]]:
    """A bundle for each repository in which the copy's runs have refs, and what could not be had."""
    unusable: list[tuple[str, str, str]] = []
    places = places_of(copy)
    repositories = repositories_of(project, places, unusable)
    left_out = [f"{name}: {message}" for name, message, _ in unusable]
    there = {path for one in repositories.values() for path in (str(one.top), str(one.git_dir))}
    wanted = {place.repository for place in places.values() if place.repository is not None}
    left_out += [f"{name}: the repository is not there" for name in sorted(wanted - there)]
    named, bundled = named_commits(copy), []
    for number, one in enumerate(repositories.values()):
        told("repositories", number, len(repositories))
        held = refs_of(log, one, named)
        if held:
            file = scratch / f"{number}.bundle"
            bundle(one, file, held)
            name = f"{BUNDLES}/{file.name}"
            lacking = {
                commit for run_id in _run_ids(held) for commit in unheld(one, run_id, named.get(run_id, Named()))
            }
            left_out += [
                f"commit {commit}: {one.git_dir} has lost it, or no ref of its run reaches it" for commit in lacking
            ]
            entry = {"path": str(one.top), "git_dir": str(one.git_dir), "shadow": one.shadow, "file": name}
            bundled.append({**entry, "refs": held, "lacking": sorted(lacking)})
    return bundled, left_out


def _run_ids(held: dict[str, str]) -> set[str]:
    return {ref.split("/")[2] for ref in held if ref.startswith(OUR_REFS)}


def refs_of(log: Log, repository: Repository, named: dict[str, Named]) -> dict[str, str]:
    """The refs of some runs that their events account for, and those of their branches that are somebody else's.

    Args:
        log: the store itself, which may know of a branch's later commits than the copy does.
        named: what the copy says.
    """
    found = {}
    for ref, commit in refs.held(repository).items():
        _, _, run_id, name = ref.split("/", 3)
        known = named.get(run_id, Named())
        if name in known.names or commit in known.kept or commit in known.branch:
            found[ref] = commit
    branches = {ref: one for ref, one in all_refs(repository).items() if ref.startswith(refs.branch_ref(""))}
    for ref, stands in branches.items():
        run_id = ref.removeprefix(refs.branch_ref(""))
        if run_id in named and stands not in named[run_id].branch | known_commits(log, run_id):
            found[ref] = stands
    return found


def bundle(repository: Repository, file: Path, held: dict[str, str]) -> None:
    """Write refs and all that they need into a file. It needs no other repository to be read.

    Raises:
        GitFailed: one of them is gone, or something of it cannot be read.
    """
    wanted = "".join(f"{ref}\n" for ref in held)
    git = repository.git()
    said = git.run("bundle", "create", "--quiet", str(file), "--stdin", stdin=wanted.encode(), ok=range(256))
    if said.code:
        last = said.err.strip().splitlines()
        raise GitFailed(
            f"the commits of runs cannot be read from {repository.git_dir}: {last[-1] if last else said.code}",
            hint="`parallel-agents verify --deep` says what is missing; without it, say the backup again",
        )
    file.chmod(0o600)


def _add_file(writing: _Writing, name: str, path: Path) -> None:
    with open(path, "rb") as file:
        writing.add(name, file, os.fstat(file.fileno()).st_size)


def _add_folder(writing: _Writing, folder: Path, name: str, left_out: list[str]) -> None:
    """Add the plain files of a folder. What an agent may have put there besides, such as a link, is left out, and told."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if file in _NOT_OUTPUT or file.endswith(".tmp"):
                continue
            path = f"{place}/{file}"
            inside = f"{name}/{os.path.relpath(path, folder)}"
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                continue  # Its attempt has ended meanwhile.
            except OSError as error:
                left_out.append(f"{path}: {error.strerror}")
                continue
            with open(fd, "rb") as opened:
                found = os.fstat(fd)
                if stat.S_ISREG(found.st_mode) and inside.isprintable():
                    writing.add(inside, opened, found.st_size)
                else:
                    left_out.append(f"{path}: not a plain file")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
