"""SQLite as the store's database: connections with explicit transactions, and its errors in the user's words."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.schema import STORE_FORMAT, metadata, store

BUSY_TIMEOUT_MS = 30_000
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "afpfs"}
)


def open_engine(path: Path, *, release: str, create: bool = True) -> Engine:
    """An engine on the store's file, which is made (mode 0600) where it is missing and ``create`` is true.

    Raises:
        StoreError: the file cannot be opened, is no store of ours, or was written by a newer release.
    """
    if sys.platform == "win32":
        raise StoreError("Windows is not supported", hint="use Linux or macOS, or the Windows Subsystem for Linux")
    with explained(path):
        fresh = not path.exists()
        if fresh:
            if not create:
                raise StoreError(f"there is no store at {path}", hint="`parallel-agents run PLAN` makes one")
            _make_file(path)
        elif path.is_dir():
            raise StoreError(f"{path} is a folder, not a store", hint="name the file, such as events.db")
        elif path.stat().st_size == 0:
            path.chmod(0o600)  # Somebody made an empty file for us; what SQLite puts beside it takes its mode.
        engine = _engine(path)
        try:
            _check_store(engine, path, release)
        except BaseException:
            engine.dispose()
            raise
        return engine


def _make_file(path: Path) -> None:
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder {path.parent}", hint="make it first, or name another store")
    kind = _file_system_of(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path.parent} lies on a network file system ({kind}), where SQLite's locks cannot be trusted",
            hint="name a store on a local disk with --store",
        )
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _file_system_of(folder: Path) -> str:
    """The type of the file system that holds a folder, or an empty text where the system does not say."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in mounts:
        _device, point, kind, *_rest = line.split(" ")
        point = point.replace("\\040", " ")
        if (str(folder.resolve()) + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _engine(path: Path) -> Engine:
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)

    def connect() -> sqlite3.Connection:
        mode = "rw" if writable else "ro"
        if not writable and not _wal(path).exists():
            mode += "&immutable=1"  # Or SQLite wants to make a -shm file, also to read.
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
            cached_statements=256,
        )
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if writable:
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=4, max_overflow=16)

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        # pysqlite's own transactions begin too late; ours are explicit, and a writer takes the lock at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")

    return engine


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Several processes that switch a new file at the same moment are refused at once, whatever the timeout: we wait."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.002)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _check_store(engine: Engine, path: Path, release: str) -> None:
    with engine.connect() as reader:
        tables = set(inspect(reader).get_table_names())
        if tables >= {"events", "store", "blobs"}:
            found = {str(row.key): str(row.value) for row in reader.execute(store.select())}
            if not found.get("format", "").isdecimal():
                raise StoreError(f"{path} is corrupt: it does not say its format", hint="restore it from a backup")
            if int(found["format"]) > STORE_FORMAT:
                raise StoreError(
                    f"{path} was written by release {found.get('release')} in format {found['format']}; "
                    f"this is release {release}, which knows formats up to {STORE_FORMAT}",
                    hint="use that release or a later one",
                )
            return
    if tables:
        raise StoreError(f"{path} is an SQLite file, but not a store of parallel-agents", hint="name another --store")
    with engine.connect().execution_options(write=True) as writer, writer.begin():
        if not set(inspect(writer).get_table_names()):  # Another process may have made the tables meanwhile.
            metadata.create_all(writer)
            rows = [{"key": "format", "value": str(STORE_FORMAT)}, {"key": "release", "value": release}]
            writer.execute(store.insert(), rows)


def data_version(connection: sqlite3.Connection) -> int:
    """A number that differs from the last look on this connection if another connection has committed since."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def quick_check(engine: Engine) -> str:
    """SQLite's own opinion of the file: ``ok``, or what is wrong."""
    with engine.connect() as reader:
        return str(reader.execute(text("PRAGMA quick_check(1)")).scalar())


class explained:
    """Turns SQLite's errors into a ``StoreError`` that says what is wrong with which file, and what to do.

    A class, because every commit passes it twice and a generator costs a microsecond more.
    """

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DBAPIError):
            raise _explanation(self.path, error.orig or error) from error
        if isinstance(error, sqlite3.Error | OSError):
            raise _explanation(self.path, error) from error


def _explanation(path: Path, error: BaseException) -> StoreError:
    # An OSError's text holds the path, in which any word may stand.
    what = ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
    if "full" in what or "no space" in what or ("disk i/o" in what and _is_full(path)):
        return StoreError(
            f"the disk that holds {path} is full; nothing was written", hint="free some space, then repeat"
        )
    if "readonly" in what or "read-only" in what or "permission" in what:
        return StoreError(
            f"{path} cannot be written: {error}", hint="check its owner and mode, or name another --store"
        )
    if "not a database" in what:
        return StoreError(f"{path} is not an SQLite file", hint="name another --store, or restore it from a backup")
    if "malformed" in what or "corrupt" in what:
        return StoreError(
            f"{path} is corrupt: {error}",
            hint="restore it from a backup; `sqlite3 FILE .recover` saves what can be read",
        )
    if "locked" in what or "busy" in what:
        return StoreError(
            f"{path} was locked for {BUSY_TIMEOUT_MS // 1000} s by another process",
            hint="find it with `lsof`, then repeat",
        )
    if "disk i/o" in what:
        return StoreError(f"the disk under {path} failed: {error}", hint="look at the system's log")
    return StoreError(f"{path} cannot be used: {error}")


def _is_full(path: Path) -> bool:
    """Whether the disk has no room for the index of a write-ahead log, which SQLite reports as an input error."""
    try:
        return shutil.disk_usage(path.parent).free < 65_536
    except OSError:
        return False
