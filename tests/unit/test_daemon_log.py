"""The log of a daemon rotates, and no line of it is lost on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from parallel_agents.scheduler.daemon_log import KEPT

PROGRAM = """
import sys
from pathlib import Path
from parallel_agents.scheduler.daemon_log import rotate

log, lines, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(lines):
    print(f"{number:09}", file=sys.stderr, flush=True)
    print(f"{number:09}", flush=True)
    rotate(log, limit=limit)
"""


def run(log: Path, lines: int, limit: int, *, into: Path | None = None) -> None:
    """A process that says so many lines on each of its streams, which go to its log."""
    with (into or log).open("ab") as file:
        command = [sys.executable, "-c", PROGRAM, str(log), str(lines), str(limit)]
        subprocess.run(command, stdout=file, stderr=file, check=True)


def test_a_log_that_is_full_gets_a_number_and_a_new_one_begins(tmp_path: Path) -> None:
    """Both streams go on in the new one; the newest old one is number 1; older ones than are kept go."""
    log = tmp_path / "events.daemon.log"
    run(log, 100, 400)  # Twenty lines are 200 bytes of each stream.
    files = [tmp_path / f"events.daemon.log.{number}" for number in range(KEPT, 0, -1)]
    assert sorted(tmp_path.iterdir()) == sorted([log, *files])
    numbers = [int(line) for file in [*files, log] for line in file.read_text().splitlines()]
    assert numbers == [number for number in range(100 - 60, 100) for _ in (1, 2)]
    assert log.read_text() == ""
    assert (log.stat().st_mode & 0o777) == 0o600


def test_a_log_with_room_goes_on(tmp_path: Path) -> None:
    """And so does another file that the streams go to, however long: somebody else sees to that."""
    log, other = tmp_path / "events.daemon.log", tmp_path / "journal"
    run(log, 10, 100_000)
    run(log, 100, 400, into=other)
    assert sorted(tmp_path.iterdir()) == [log, other]
    assert len(log.read_text().splitlines()) == 20
    assert len(other.read_text().splitlines()) == 200
