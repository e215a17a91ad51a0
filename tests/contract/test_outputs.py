"""Commands and agents that print far more than is kept: the disk stays free while they do, and their last word is heard."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stages import Agents, Shell

from parallel_agents.attempt_files import cut_bytes
from parallel_agents.scheduler.runners.folder import EXIT, read_object

LIMIT = 1_000_000
ROOM = LIMIT + 65_536  # Blocks at both ends, and what the file system itself writes down.
# Prints a megabyte, and waits until what it has printed takes no more than the limit on disk; thirty times.
PATIENT = f"""
import os, sys, time
for turn in range(30):
    os.write(1, b"".join(b"%099d\\n" % (turn * 10_000 + n) for n in range(10_000)))
    end = time.monotonic() + 60
    while os.fstat(1).st_blocks * 512 > {ROOM}:
        if time.monotonic() > end:
            sys.exit("nobody has given anything back to the disk")
        time.sleep(0.001)
print("the last word")
"""


def test_a_command_that_prints_without_end_takes_no_more_than_its_limit(shell: Shell) -> None:
    """While it runs, thirty times as much as there may be; both ends of it are there, and its offsets with them."""
    ended = shell.run(shell.launch(command=(sys.executable, "-c", PATIENT), max_output_bytes=LIMIT))
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "the last word")


def test_what_is_printed_at_the_very_last_is_cut_too(shell: Shell) -> None:
    """However fast it was: nobody looks a second time at what has ended."""
    launch = shell.launch(command=("sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end"))
    launch.max_output_bytes = LIMIT
    ended = shell.run(launch)
    assert (ended.error, ended.output) == (None, "end")
    file = Path(launch.folder) / "stdout.log"
    assert file.stat().st_size == 30_000_005
    assert file.stat().st_blocks * 512 <= ROOM
    assert cut_bytes(Path(launch.folder))["stdout"] > 29_000_000


def test_an_output_without_a_limit_is_kept_whole(shell: Shell) -> None:
    """As it always was."""
    launch = shell.launch(command=("sh", "-c", "head -c 3000000 /dev/urandom"))
    shell.run(launch)
    assert (Path(launch.folder) / "stdout.log").stat().st_blocks * 512 >= 3_000_000
    assert cut_bytes(Path(launch.folder)) == {}


def test_an_agent_that_prints_too_much_is_heard_to_its_result(agents: Agents) -> None:
    """Its client prints a line of JSON for each word; the last one says how it went and what it cost."""
    launch = agents.errand(*["long 100000"] * 40, "say all is well")
    launch.max_output_bytes = LIMIT
    ended = agents.run(launch)
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "all is well")
    assert cut_bytes(Path(launch.folder))["stdout"] > 0
    assert [charge.source for charge in ended.charges] == ["agent"]
    assert (ended.charges[0].usd_micros or 0) > 0


@contextlib.contextmanager
def without_holes(folder: Path) -> Iterator[Path]:
    """A disk that can give nothing back of a file, or the test is skipped where mounting is not permitted."""
    folder.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("mounting is tried on Linux only")
    command = ["mount", "-t", "ramfs", "-o", "mode=0700", "ramfs", str(folder)]
    if (made := subprocess.run(command, capture_output=True, text=True, check=False)).returncode != 0:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_where_nothing_can_be_given_back_a_command_ends_with_the_reason(tmp_path: Path) -> None:
    """And is not tried again: it would fill the disk again."""
    with without_holes(tmp_path / "ram") as disk:
        shell = Shell(disk)
        try:
            script = "while :; do head -c 100000 /dev/zero; sleep 0.01; done"
            launch = shell.launch(command=("sh", "-c", script), max_output_bytes=2 * LIMIT)
            ended = shell.run(launch)
            assert ended.outcome == "exited"
            assert (ended.kind, ended.retryable) == ("output", False)
            assert "it has printed more than 2 MB to stdout.log" in (ended.error or "")
            assert "monitoring.maxOutputMB" in (ended.error or "")
            said = read_object(str(launch.folder), EXIT)
            assert said is not None
            assert said["retryable"] is False
        finally:
            shell.runner.close()
