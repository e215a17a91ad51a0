"""A disk that fails at the Nth write: a library that is preloaded into real processes, and what it is told to do."""

from __future__ import annotations

import contextlib
import errno
import mmap
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

_LAYOUT = struct.Struct("=qqiiiiii1024s1024s")  # As struct control in failing_disk.c.
_COUNT = struct.Struct("=q")
_FLAG = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls the disk.

    Attributes:
        at: the first call that fails, from 1; 0: none does.
        lasting: whether all after it fail as well, until the disk is mended.
        torn: whether half of what was to be written is written all the same.
    """

    at: int = 0
    error: int = errno.ENOSPC
    lasting: bool = False
    torn: bool = False

    def __str__(self) -> str:
        how = " from there on" * self.lasting + " (half written)" * self.torn
        return f"{errno.errorcode[self.error]} at write {self.at}{how}"


@cache
def library(folder: Path) -> Path:
    """The library, made once for all tests of a process; they are skipped where it cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not sys.platform.startswith("linux"):
        pytest.skip("libraries are preloaded on Linux only")
    if compiler is None:
        pytest.skip("there is no C compiler to make the failing disk with")
    made = folder / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the failing disk cannot be compiled here: {done.stderr.strip()[-300:]}")
    return made


class FailingDisk:
    """The control of one disk: everything below ``folder``, for processes that were given ``environment``.

    Attributes:
        environment: what makes a process, and all that it starts, one that this disk fails.
    """

    def __init__(self, folder: Path, made: Path, control: Path, fault: Fault) -> None:
        head = (fault.at, 0, fault.error, fault.lasting, fault.torn, 0, 0, 0)
        control.write_bytes(_LAYOUT.pack(*head, str(folder).encode(), b""))
        with control.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(made), "FAILING_DISK": str(control)}

    @property
    def count(self) -> int:
        """How many calls have written, or were to."""
        number: int = _COUNT.unpack_from(self._mapped, 8)[0]
        return number

    @property
    def failed(self) -> int:
        """How many of them have failed."""
        number: int = _FLAG.unpack_from(self._mapped, 32)[0]
        return number

    @property
    def what(self) -> str:
        """The first of those: the call, and the file below the folder."""
        return bytes(self._mapped[1064:2088]).split(b"\0")[0].decode()

    def fail_after(self, calls: int, error: int, *, lasting: bool = True) -> None:
        """From so many calls on, counted from this moment, let them fail."""
        _FLAG.pack_into(self._mapped, 16, error)
        _FLAG.pack_into(self._mapped, 20, lasting)
        _COUNT.pack_into(self._mapped, 0, self.count + calls)

    def mend(self) -> None:
        """From here on nothing fails, in processes that run too."""
        _FLAG.pack_into(self._mapped, 28, 1)

    def close(self) -> None:
        """Let go of the control. Whoever has it mapped is not concerned."""
        self._mapped.close()


@contextlib.contextmanager
def failing(folder: Path, made: Path, control: Path, fault: Fault) -> Iterator[FailingDisk]:
    """A disk for as long as somebody wants to know of it."""
    disk = FailingDisk(folder, made, control, fault)
    try:
        yield disk
    finally:
        disk.close()
