"""SQLite as the store's database: connections with explicit transactions, and its errors in the user's words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.location import FOLDER
from parallel_agents.eventstore.write_ahead import LIMIT_BYTES, wal_file
from parallel_agents.version import STORE_FORMAT, VIEWS

BUSY_TIMEOUT_MS = 30_000
_VIEWS = "views"  # Which views the store has, in its table of what it says of itself.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "afpfs"}
)


def open_store(path: Path, *, release: str, create: bool = True) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Two connections to the store's file, to write and to read; it is made (mode 0600) if missing and ``create`` is true.

    Raises:
        StoreError: the file cannot be opened, is no store of ours, or was written by a newer release.
    """
    if sys.platform == "win32":
        raise StoreError("Windows is not supported", hint="use Linux or macOS, or the Windows Subsystem for Linux")
    with explained(path):
        if not path.exists():
            if not create:
                raise StoreError(f"there is no store at {path}", hint="`parallel-agents run PLAN` makes one")
            _make_file(path)
        elif path.is_dir():
            raise StoreError(f"{path} is a folder, not a store", hint="name the file, such as events.db")
        elif path.stat().st_size == 0:
            path.chmod(0o600)  # Somebody made an empty file for us; what SQLite puts beside it takes its mode.
        else:
            _check_ours(path)
        writer = connect(path)
        try:
            found = _found(writer, path, release)
            if found is None:
                _make_tables(path, release)
            writer = _settled(writer, path)
            if found is not None and found.get(_VIEWS) != str(VIEWS) and _is_writable(path):
                _renew_views(writer, found.get(_VIEWS, ""))
            return writer, _settled(connect(path), path)
        except BaseException:
            writer.close()
            raise


def _check_ours(path: Path) -> None:
    """What is in a store is run as the user who dispatches it, so nobody else may be able to write there.

    Raises:
        StoreError: the file, or the folder that is made for it, belongs to somebody else or can be written by others.
    """
    me = os.geteuid()
    for place in (path, *((path.parent,) if path.parent.name == FOLDER else ())):
        found = place.stat()
        if found.st_uid != me and me != 0:
            raise StoreError(
                f"{place} belongs to another user (uid {found.st_uid}), who could have commands run as you",
                hint="name a store of your own with --store",
            )
        if found.st_mode & 0o022:
            raise StoreError(
                f"{place} can be written by others (mode {found.st_mode & 0o777:04o}), who could have commands run as you",
                hint=f"look at its history, then chmod go-w {place}",
            )


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


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose transactions are explicit: pysqlite's own begin too late to read what they write upon."""
    writable = _is_writable(path)
    mode = "rw" if writable else "ro"
    if not writable and not wal_file(path).exists():
        mode += "&immutable=1"  # Or SQLite wants to make a -shm file, also to read.
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
        cached_statements=256,
    )
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _settled(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """The connection, with the journal that a store of ours has: to be asked for only once it is known to be ours."""
    try:
        if _is_writable(path):
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {LIMIT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


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


def _tables(connection: Any) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _found(connection: sqlite3.Connection, path: Path, release: str) -> dict[str, str] | None:
    """What a store says of itself; None for a file that is empty."""
    tables = _tables(connection)
    if tables >= {"events", "store", "blobs"}:
        found = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM store")}
        if not found.get("format", "").isdecimal():
            raise StoreError(f"{path} is corrupt: it does not say its format", hint="restore it from a backup")
        if int(found["format"]) > STORE_FORMAT:
            raise StoreError(
                f"{path} was written by release {found.get('release')} in format {found['format']}; "
                f"this is release {release}, which knows formats up to {STORE_FORMAT}",
                hint="use that release or a later one",
            )
        return found
    if tables:
        raise StoreError(f"{path} is an SQLite file, but not a store of parallel-agents", hint="name another --store")
    return None


def _renew_views(connection: sqlite3.Connection, number: str) -> None:
    """Give a store of an older release the views of this one, unless it is written to just then: the next one does it."""
    if number.isdecimal() and int(number) > VIEWS:
        return
    from parallel_agents.eventstore import views

    try:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("BEGIN IMMEDIATE")
        there = {str(name): str(sql) for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")}
        views.make(connection.execute, there)
        connection.execute("INSERT OR REPLACE INTO store (key, value) VALUES (?, ?)", (_VIEWS, str(VIEWS)))
        connection.execute("COMMIT")
    except sqlite3.Error:  # Whoever needs the store for more than this is told.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


def _make_tables(path: Path, release: str) -> None:
    """Make the tables, in one transaction; another process may have been first."""
    from sqlalchemy import create_engine, event, inspect
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    from parallel_agents.eventstore import views
    from parallel_agents.eventstore.schema import metadata, store

    engine = create_engine("sqlite://", creator=lambda: _settled(_to_be_cut(connect(path)), path), poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        with engine.begin() as writer:
            if not inspect(writer).get_table_names():
                metadata.create_all(writer)
                views.make(writer.exec_driver_sql, {})
                kept = {"format": str(STORE_FORMAT), "release": release, _VIEWS: str(VIEWS)}
                rows = [{"key": key, "value": value} for key, value in kept.items()]
                writer.execute(store.insert(), rows)
    except DBAPIError as error:
        raise error.orig or error from None


def _to_be_cut(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A connection to an empty file, of which unused pages can be cut off one day: to be said before anything is written."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    return connection


def fetched(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    """All rows of a query. A damaged text is read as the bytes that it is now, so that `verify` can name its event."""
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.text_factory = str


def data_version(connection: sqlite3.Connection) -> int:
    """A number that differs from the last look on this connection if another connection has committed since."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


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
        if error is not None and isinstance(error, sqlite3.Error | OSError | UnicodeDecodeError):
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
    if "malformed" in what or "corrupt" in what or "decode" in what:
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
        found = os.statvfs(path.parent)
        return found.f_bavail * found.f_frsize < 65_536
    except OSError:
        return False
