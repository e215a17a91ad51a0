"""Parts of the chain followed by processes of their own: to work hashes out again is what ``verify`` takes its time for.

Each part begins with the hash that is stored before it, and holds only together with the part that ends there: whoever joins
them sees to that. ``python -m parallel_agents.eventstore.segments`` follows one part; it is told which on stdin.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from parallel_agents.eventstore.archive import Moved
from parallel_agents.eventstore.links import Break, First, Followed, judge_of
from parallel_agents.eventstore.sqlite import connect, fetched
from parallel_agents.eventstore.stored_rows import in_chunks

Scrubbed = dict[int, tuple[str, str]]


class Part:
    """A part of the chain, ``after < seq <= upto``, that another process follows."""

    def __init__(self, store: Path, after: int, upto: int, scrubbed: Scrubbed, moved: Moved) -> None:
        order = {
            "store": str(store.resolve()),
            "after": after,
            "upto": upto,
            "scrubbed": [[seq, *digests] for seq, digests in scrubbed.items() if after < seq <= upto],
            "runs": sorted(moved.runs),
            "away": sorted(moved.away),
        }
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "parallel_agents.eventstore.segments"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert self._process.stdin is not None
            with self._process.stdin as told:
                told.write(orjson.dumps(order))

    def wait(self) -> Followed | None:
        """What it has found; None where the process could not do it."""
        if self._process is None or self._process.stdout is None:
            return None
        said = self._process.stdout.read()
        try:
            return None if self._process.wait() != 0 else _loaded(orjson.loads(said))
        except (ValueError, TypeError):
            return None

    def end(self) -> None:
        """See to it that nothing of it is left."""
        if self._process is not None:
            self._process.kill()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process.wait()


def follow(order: dict[str, Any]) -> Followed | None:
    """Carry out what ``begin`` has written; None where the event before the part is not there."""
    path = Path(order["store"])
    scrubbed = {int(seq): (old, new) for seq, old, new in order["scrubbed"]}
    judge = judge_of(scrubbed, Moved(path, order["runs"], order["away"]).body)
    with contextlib.closing(connect(path)) as connection:
        before = connection.execute("SELECT hash, at FROM events WHERE seq = ?", (order["after"],)).fetchone()
        if before is None or not isinstance(before[0], bytes):
            return None
        followed = Followed(order["after"], *before)
        for chunk in in_chunks(partial(fetched, connection), order["after"], order["upto"]):
            followed.go_on(chunk, judge, from_start=False)
            if followed.broken is not None:
                break
        return followed


def _dumped(one: Followed) -> bytes:
    firsts = {run_id: (first.seq, first.version, first.prev_hash.hex()) for run_id, first in one.firsts.items()}
    broken = None if one.broken is None else [*one.broken]
    return orjson.dumps([one.seq, one.head.hex(), one.last_at, one.versions, firsts, broken])


def _loaded(raw: list[Any]) -> Followed:
    seq, head, last_at, versions, firsts, broken = raw
    found = {name: First(at, version, bytes.fromhex(before)) for name, (at, version, before) in firsts.items()}
    return Followed(seq, bytes.fromhex(head), last_at, versions, found, None if broken is None else Break(*broken))


if __name__ == "__main__":
    done = follow(orjson.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(b"null" if done is None else _dumped(done))
