"""One file that holds many: a gzipped tar with its manifest last, whose being there says that the file is whole.

What is written is written under another name first, mode 0600. What is read is unpacked into a folder of its own, each member
compared with the size and the SHA-256 that the manifest has of it, before anybody believes any of it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import orjson

from parallel_agents.eventstore.errors import InvalidUsage, ParallelAgentsError, StoreError
from parallel_agents.eventstore.log import wall_clock_us

MANIFEST = "manifest.json"
CHUNK = 1 << 20
_LEVEL = 1  # Of gzip: half the time of its own default, for 3 % more of a log.
_NOT_OUTPUT = frozenset({"lock"})  # Held by who runs an attempt; a copy of it says nothing.

Told = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What such a file is for.

    Attributes:
        name: in messages, with its article: ``a backup``.
        files: members that have this very name.
        folders: that other members lie below.
        manifest: what its manifest must say, and of which type each is; besides ``format``.
        unharmed: what can be said when one is refused.
    """

    name: str
    format: int
    files: frozenset[str]
    folders: frozenset[str]
    manifest: Mapping[str, type]
    failure: type[ParallelAgentsError]
    unharmed: str

    @property
    def noun(self) -> str:
        """The name without its article."""
        return self.name.split(" ", 1)[1]

    def spoiled(self, file: Path, what: str) -> ParallelAgentsError:
        """The error for a file that is not a whole one of the kind."""
        return self.failure(f"{file} is no whole {self.noun}: {what}", hint=f"{self.unharmed}; use another one")


@dataclass(slots=True)
class _Member:
    """One file of many, as the manifest has it."""

    size: int
    sha256: str


@dataclass(slots=True)
class Writing:
    """Such a file while it is written."""

    tar: tarfile.TarFile
    members: dict[str, _Member] = field(default_factory=dict)

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        """Add as many bytes of a file as it had when it was looked at; one that grows meanwhile is cut there."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, wall_clock_us() // 1_000_000
        reading = _Reading(file, size)
        self.tar.addfile(info, reading)  # type: ignore[arg-type]  # It asks for no more than ``read``.
        self.members[name] = _Member(size, reading.digest.hexdigest())

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add what is at hand."""
        self.add(name, io.BytesIO(content), len(content))

    def add_file(self, name: str, path: Path) -> None:
        """Add a file of our own."""
        with open(path, "rb") as file:
            self.add(name, file, os.fstat(file.fileno()).st_size)

    def add_folder(self, folder: Path, name: str, left_out: list[str]) -> None:
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
                        self.add(inside, opened, found.st_size)
                    else:
                        left_out.append(f"{path}: not a plain file")

    def close(self, manifest: Mapping[str, Any]) -> None:
        """Add the manifest, with all members in it: nothing comes after it."""
        members = {name: {"size": one.size, "sha256": one.sha256} for name, one in self.members.items()}
        self.add_bytes(MANIFEST, orjson.dumps({**manifest, "members": members}, option=orjson.OPT_INDENT_2))


class _Reading:
    """A file that is read: exactly so many bytes, zeros for those that are gone, and their digest."""

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


@contextmanager
def room_for(target: Path, noun: str, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write in beside a file that is to be made; it goes again.

    Raises:
        InvalidUsage: there is such a file, or no folder for it.
        StoreError: something cannot be read or written.
    """
    if target.is_dir():
        raise InvalidUsage(f"{target} is a folder", hint=f"name a file in it, such as {noun}.tar.gz")
    if not target.parent.is_dir():
        raise InvalidUsage(f"there is no folder {target.parent}", hint="make it first")
    if target.exists() and not overwrite:
        raise InvalidUsage(f"{target} exists already", hint="name another file, or say --yes to replace it")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            yield Path(scratch)
    except OSError as error:
        at = error.filename or target
        raise StoreError(f"{at}: {error.strerror or error}", hint=f"nothing was kept of this {noun}") from error


@contextmanager
def written(made: Path) -> Iterator[Writing]:
    """A file that is written to its end and then on the disk, mode 0600."""
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=_LEVEL) as tar:
            yield Writing(tar)
        raw.flush()
        os.fsync(raw.fileno())


def put_in_place(made: Path, target: Path) -> tuple[int, str]:
    """Give it the name that was wanted; its size and its SHA-256."""
    with open(made, "rb") as file:
        size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    os.rename(made, target)
    flush_folder(target.parent)
    return size, digest


def unpack(file: Path, folder: Path, kind: Kind, told: Told) -> dict[str, Any]:
    """Unpack one, and compare each file with the digest that the manifest has of it. Gives the manifest.

    Raises:
        ParallelAgentsError: the kind's own, where it is not whole, or not what was written.
    """
    found: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] | None = None
    try:
        with gzip.open(file) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as tar:
            for number, member in enumerate(tar):
                told("files", number, number + 1)
                name = _safe(file, member, kind)
                if manifest is not None:
                    raise kind.spoiled(file, f"{name} comes after its end")
                found[name] = _take_out(tar, member, folder / name)
                if name == MANIFEST:
                    del found[name]
                    manifest = _manifest(file, folder / MANIFEST, kind)
            while unzipped.read(CHUNK):  # To the sum at its end, which is compared then.
                pass
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise kind.spoiled(file, str(error) or "it ends too early") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise kind.spoiled(file, str(error)) from error  # gzip has no class of its own for what it finds.
    if manifest is None:
        raise kind.spoiled(file, f"{MANIFEST}, its last file, is missing: it was not written to its end")
    named = manifest["members"]
    for name in sorted(named.keys() | found.keys()):
        if name not in found:
            raise kind.spoiled(file, f"{name} is missing")
        if found[name] != named.get(name):
            raise kind.spoiled(file, f"{name} is not what was written")
    return manifest


def _manifest(file: Path, stored: Path, kind: Kind) -> dict[str, Any]:
    try:
        manifest = orjson.loads(stored.read_bytes())
        made_in = manifest["format"]
        whole = all(isinstance(manifest.get(name), of) for name, of in {**kind.manifest, "members": dict}.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise kind.spoiled(file, f"{MANIFEST} cannot be read") from None
    if manifest.get("kind", kind.noun) != kind.noun:
        raise kind.spoiled(file, f"it is of the kind {manifest['kind']!r}")
    if made_in != kind.format:
        raise kind.failure(
            f"{file} is {kind.name} of format {made_in}, and this release knows {kind.format}",
            hint="use the release that made it, or a later one",
        )
    if not whole:
        raise kind.spoiled(file, f"{MANIFEST} does not say all that it should")
    return dict(manifest)


def _safe(file: Path, member: tarfile.TarInfo, kind: Kind) -> str:
    """The name of a file that may be in one: a plain one, below the folder that it is unpacked into."""
    path = PurePosixPath(member.name)
    room = path.parts[0] if path.parts else ""
    expected = member.name == MANIFEST or member.name in kind.files or (room in kind.folders and len(path.parts) > 1)
    if not member.isreg() or path.is_absolute() or ".." in path.parts or not expected or str(path) != member.name:
        raise kind.spoiled(file, f"it holds {member.name!r}, which belongs in no {kind.noun}")
    return member.name


def _take_out(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> dict[str, Any]:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    source, digest, size = tar.extractfile(member), hashlib.sha256(), 0
    assert source is not None
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            made.write(chunk)
        made.flush()
        os.fsync(made.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
