"""The doorbell: after a commit, every process that listens on the store is woken at once.

One unix datagram socket per listener in a private folder, named by a hash of the store's path. It is a hint only: a bell
that nobody heard costs a second, because the truth is the log, which everybody polls slowly. Stdlib only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket  # Imported by those who ring or listen: whoever only reads the store does neither.


def doorbell_folder() -> Path | None:
    """The private folder (0700, ours) for sockets, or None where there is none to be had: then polling must do."""
    import tempfile

    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = (
        Path(runtime) / "parallel-agents" if runtime else Path(tempfile.gettempdir()) / f"parallel-agents-{os.getuid()}"
    )
    try:
        folder.mkdir(mode=0o700, parents=False, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0
    return folder if ours else None


def doorbell_prefix(store: Path) -> str:
    """What the names of all sockets for one store begin with: 12 hex digits of a hash of its path."""
    return hashlib.sha256(os.fsencode(store.resolve())).hexdigest()[:12] + "-"


_TICK_NS = 50_000_000  # Far above the step in which file systems date changes (at most 10 ms).


class Doorbell:
    """The bell of one store: ``ring`` after a commit, ``listen`` to be rung. Both are safe from any thread."""

    def __init__(self, store: Path) -> None:
        self.prefix = doorbell_prefix(store)
        self._sender: socket.socket | None = None
        self._seen_mtime_ns = -1
        self._others: list[str] = []
        self._own: Path | None = None

    @cached_property
    def folder(self) -> Path | None:
        """Where the sockets lie; None where there is no such place."""
        return doorbell_folder()

    @cached_property
    def _folder(self) -> str:
        return str(self.folder)

    def listen(self) -> socket.socket | None:
        """A socket that becomes readable when somebody rings, or None where sockets cannot be had."""
        import socket

        if self.folder is None:
            return None
        _sweep(self._folder)
        path = self.folder / f"{self.prefix}{os.getpid()}-{os.urandom(4).hex()}.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listener.bind(str(path))
        except OSError:
            listener.close()
            return None
        listener.setblocking(False)
        self._own = path
        return listener

    def ring(self) -> None:
        """Wake every other listener. Never blocks and never fails; a dead listener's socket is removed."""
        if self.folder is None:
            return
        try:
            changed = os.stat(self._folder).st_mtime_ns
            if changed != self._seen_mtime_ns:
                # A second change in the same step of the clock would look like none: then look again next time.
                self._seen_mtime_ns = changed if changed < time.time_ns() - _TICK_NS else -1
                own = self._own.name if self._own else ""
                self._others = [
                    str(self.folder / name)
                    for name in os.listdir(self.folder)
                    if name.startswith(self.prefix) and name != own
                ]
            if not self._others:
                return
            sender = self._sender
            if sender is None:
                import socket

                sender = self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                sender.setblocking(False)
        except OSError:
            return
        for path in self._others:
            try:
                sender.sendto(b"!", path)
            except (ConnectionRefusedError, FileNotFoundError):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            except OSError:
                continue  # Its queue is full: it has been rung already.

    def close(self) -> None:
        """Stop listening and forget the sockets."""
        if self._own is not None:
            with contextlib.suppress(OSError):
                self._own.unlink()
            self._own = None
        if self._sender is not None:
            self._sender.close()
            self._sender = None


def _sweep(folder: str) -> None:
    """Take away the sockets of listeners that were killed, whatever their store.

    Nobody may ever ring for theirs again, and every ringer of every store would have to look through them.
    """
    import socket

    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        for name in os.listdir(folder):
            if name.endswith(".sock"):
                path = f"{folder}/{name}"
                try:
                    probe.connect(path)  # Says nothing to whoever listens.
                except ConnectionRefusedError:
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                except OSError:
                    continue


def drain(listener: socket.socket) -> None:
    """Take all pending rings off a listener; many rings are one wake."""
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.recv(64)
