"""Work that falls into many small parts, done by as many processes as there are processors. Stdlib only.

Each process is a copy of this one, takes every n-th part and tells each result in a line of JSON. A copy whose parent is gone
ends at the next line that it has to tell; one that dies, or is not to be had, leaves its parts to the parent.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import orjson


def in_slices(
    parts: Sequence[Any], work: Callable[[], Callable[[Any], Any]], *, processes: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Do all parts, and give the number and the result of each as it is done, in any order.

    Args:
        work: called once in each process; gives what does one part. The result is what JSON holds.
        processes: at most so many; left out: as many as may run at once here.
    """
    many = min(len(parts), processes or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    left = set(range(len(parts)))
    if many > 1 and sys.platform.startswith("linux") and threading.active_count() == 1:
        with contextlib.closing(_by_copies(parts, work, many)) as results:
            for number, result in results:
                left.discard(number)
                yield number, result
    if left:
        do = work()
        for number in sorted(left):
            yield number, do(parts[number])


def _by_copies(
    parts: Sequence[Any], work: Callable[[], Callable[[Any], Any]], many: int
) -> Generator[tuple[int, Any], None, None]:
    children: dict[int, int] = {}  # What is read from -> who writes there.
    texts: dict[int, bytes] = {}
    try:
        with selectors.DefaultSelector() as selector:
            for place in range(many):
                reads, writes = os.pipe()
                sys.stdout.flush()
                sys.stderr.flush()
                child = os.fork()
                if not child:
                    os.close(reads)
                    for other in children:
                        os.close(other)
                    _serve(parts, work, range(place, len(parts), many), writes)
                os.close(writes)
                children[reads], texts[reads] = child, b""
                selector.register(reads, selectors.EVENT_READ)
            open_ = set(children)
            while open_:
                for key, _ in selector.select():
                    some = os.read(key.fd, 1 << 16)
                    if not some:
                        selector.unregister(key.fd)
                        open_.discard(key.fd)
                        continue
                    *lines, texts[key.fd] = (texts[key.fd] + some).split(b"\n")
                    for line in lines:
                        number, result = orjson.loads(line)
                        yield number, result
    finally:
        for reads, child in children.items():
            os.close(reads)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # One that has told all has nothing left to do.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _serve(parts: Sequence[Any], work: Callable[[], Callable[[Any], Any]], numbers: range, writes: int) -> None:
    """What a copy does; it never returns."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent hears it, and ends us.
        do = work()
        for number in numbers:
            text = orjson.dumps([number, do(parts[number])]) + b"\n"
            while text:
                text = text[os.write(writes, text) :]
    except BaseException:  # The parent does what is left, and meets it again.
        pass
    finally:
        os._exit(0)
