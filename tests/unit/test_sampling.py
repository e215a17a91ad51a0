"""Sampling of real processes, and of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from parallel_agents.eventstore.sqlite import _file_system_of
from parallel_agents.scheduler import resources, sampling
from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.scheduler.process import MARKER, end_processes, family
from parallel_agents.scheduler.resources import Sampler

ESCAPES = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            held = bytearray(80_000_000)
            files = [open(os.devnull) for _ in range(30)]
            written = open(sys.argv[1], "wb")
            written.write(b"x" * 4_000_000)
            written.flush()
            os.fsync(written.fileno())
            until = time.process_time() + 0.4
            while time.process_time() < until:
                pass
            open(sys.argv[1] + ".ready", "w").close()
            time.sleep(600)
        os._exit(0)
    time.sleep(600)
"""
"""A child calls setsid, forks again and ends: what holds memory and files has no parent in the attempt any more."""


@pytest.fixture
def attempt(on_disk: Path) -> Iterator[int]:
    """The first process of an attempt called as this test's process; its grandchild has escaped."""
    name = f"sampled-{os.getpid()}"
    words = [sys.executable, "-c", textwrap.dedent(ESCAPES), str(on_disk / "written")]
    started = subprocess.Popen(words, env={**os.environ, MARKER: name})
    wait_until(lambda: (on_disk / "written.ready").exists(), "the process that escapes")
    yield started.pid
    started.kill()
    started.wait()
    assert end_processes(lambda: family([], [name]), grace_s=0)


def test_what_has_escaped_from_its_parents_is_measured(attempt: int, on_disk: Path) -> None:
    """Memory, files, bytes and time of a grandchild that called setsid and lost its parent before the first sample."""
    name = f"sampled-{os.getpid()}"
    sampler = Sampler(lambda: {name: attempt})
    sampler.sample()
    usage = sampler.load().attempts[name]
    assert 80_000_000 < usage.memory_bytes == usage.peak_memory_bytes < 400_000_000
    assert usage.open_files > 30
    assert usage.cpu_s > 0.3
    assert usage.peak_cpu_percent > 0
    if sys.platform.startswith("linux") and _file_system_of(on_disk) not in ("", "tmpfs"):
        assert usage.disk_written_bytes >= 4_000_000
    assert sampler.used(name) == usage
    assert sampler.used(name) is None


def test_what_a_child_has_used_that_ended_before_the_first_sample_counts(tmp_path: Path) -> None:
    """Its parent has waited for it."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    script = f"'{sys.executable}' -c '{burn}'; touch '{tmp_path}/burnt'; exec sleep 600"
    started = subprocess.Popen(["sh", "-c", script])
    try:
        wait_until((tmp_path / "burnt").exists, "the end of the child")
        sampler = Sampler(lambda: {"a": started.pid})
        sampler.sample()
        assert 0.4 < sampler.load().attempts["a"].cpu_s < 5  # Told in hundredths, of each part cut.
    finally:
        started.kill()
        started.wait()


def test_an_attempt_that_has_gone_keeps_what_it_had_used(attempt: int) -> None:
    """For its end; the load of the machine does not name it any more."""
    name = f"sampled-{os.getpid()}"
    live = {name: attempt}
    sampler = Sampler(lambda: live)
    sampler.sample()
    usage = sampler.load().attempts[name]
    live.clear()
    sampler.sample()
    assert dict(sampler.load().attempts) == {}
    assert sampler.used(name) == usage


def test_an_attempt_that_was_sampled_by_somebody_else_keeps_its_peaks(
    attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is asked for once, and of none that is young."""
    name, asked = f"sampled-{os.getpid()}", []
    earlier = Usage(peak_memory_bytes=10**12, peak_open_files=3, peak_cpu_percent=1000.0, disk_written_bytes=10**12)

    def tell(attempt_id: str) -> Usage:
        asked.append(attempt_id)
        return earlier

    monkeypatch.setattr(resources, "_ADOPTED_S", 3600.0)
    young = Sampler(lambda: {name: attempt}, earlier=tell)
    young.sample()
    assert (asked, young.load().attempts[name].peak_memory_bytes < 10**12) == ([], True)
    monkeypatch.setattr(resources, "_ADOPTED_S", -1.0)
    sampler = Sampler(lambda: {name: attempt}, earlier=tell)
    sampler.sample()
    sampler.sample()
    usage = sampler.load().attempts[name]
    assert asked == [name]
    assert (usage.peak_memory_bytes, usage.peak_cpu_percent, usage.disk_written_bytes) == (10**12, 1000.0, 10**12)
    assert usage.peak_open_files > 30
    assert usage.memory_bytes < 10**12


def test_the_machine_is_measured_where_nothing_runs() -> None:
    """Its memory at once, its processors from the second look on."""
    sampler = Sampler(dict)
    sampler.sample()
    first = sampler.load()
    assert first.cpu_percent is None
    assert first.available_bytes is not None
    assert first.available_bytes > 1_000_000

    def has_a_share() -> bool:
        sampler.sample()
        return sampler.load().cpu_percent is not None

    wait_until(has_a_share, "a share of the processors")
    assert 0 <= (sampler.load().cpu_percent or 0) <= 100
    assert sampler.load().at_us > first.at_us


def test_the_load_is_a_mean_of_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of full load among idle ones is a fifth of it, and forgotten after five."""
    times = {"busy": 0.0, "total": 0.0}
    monkeypatch.setattr(sampling, "_processor_times", lambda: (times["busy"], times["total"]))
    machine = sampling.Machine()
    found = []
    for second in range(12):
        found.append(machine.cpu_percent(second * 1_000_000))
        times["total"] += 2.0
        times["busy"] += 2.0 if second == 3 else 0.0
    assert found[:4] == [None, 0, 0, 0]
    assert found[4] == 25
    assert found[5:9] == [20, 20, 20, 20]
    assert found[9:] == [0, 0, 0]


def test_what_processes_share_counts_once_where_it_is_asked_for() -> None:
    """A child that has touched nothing has the pages of its parent."""
    program = "import os, time; held = bytearray(60_000_000); os.fork(); os.write(1, b'ready'); time.sleep(600)"
    started = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert started.stdout is not None
        assert started.stdout.read(10) == b"readyready"
        table = sampling.process_table()
        tree = [row for row in table.values() if row.session == started.pid]
        assert len(tree) == 2
        resident = sum(row.memory_bytes for row in tree)
        shared_once = sampling.proportional_bytes(row.pid for row in tree)
        if shared_once is None:
            pytest.skip("this system does not tell what is shared")
        assert resident > 120_000_000
        assert 60_000_000 < shared_once < 100_000_000
    finally:
        os.killpg(started.pid, 9)
        started.wait()


def test_who_cannot_be_asked_tells_nothing() -> None:
    """A pid that nobody has."""
    assert sampling.held([2**22 + 1]) == {}
    assert sampling.proportional_bytes([2**22 + 1]) is None
