"""A task that prints more than is kept, as its user sees it."""

from __future__ import annotations

from pathlib import Path

from scratch import Scratch, wait_until

PRINTS = "seq -f '%099.0f' 1 60000; echo trouble >&2; echo the last word"  # Six megabytes.


def test_what_is_cut_out_of_an_output_is_told_wherever_it_is_shown(cli: Scratch) -> None:
    """In ``logs``, followed or not, in ``show``, and for scripts; the folder takes little more than the limit."""
    cli.write("parallel-agents.toml", "[monitoring]\nmax_output_mb = 1\n")
    cli.quick("run", cli.plan({"task_id": "chatty", "command": ["sh", "-c", PRINTS]}))
    (attempt,) = cli.quick("show", "chatty", "--json").data["attempt_list"]
    cut = attempt["cut_bytes"]["stdout"]
    assert 4_900_000 < cut < 6_000_000
    assert sum(file.stat().st_blocks * 512 for file in Path(attempt["folder"]).iterdir()) < 1_200_000
    words = f"[... {cut:,} bytes are cut here: monitoring.maxOutputMB is what is kept of an output ...]"
    for options in ([], ["--raw"], ["-f"]):
        said = cli.quick("logs", *options, "chatty").out
        assert words in said.splitlines()
        assert said.startswith(f"{1:099}\n")
        assert said.endswith(f"{60_000:099}\nthe last word\ntrouble\n")
        assert len(said) + cut == 6_000_000 + len("the last word\ntrouble\n") + len(words) + 2
    data = cli.quick("logs", "chatty", "--json").data
    assert data["cut_bytes"] == {"stdout": cut}
    assert words in data["stdout"]
    page = cli.quick("show", "chatty").out
    assert "attempt 1: " in page
    assert "of its stdout are cut out (monitoring.maxOutputMB)" in page
    assert cli.quick("status", "--json").data["tasks"][0]["output"] == "the last word"


def test_an_output_that_fits_says_nothing_of_cuts(cli: Scratch) -> None:
    """And with 0 everything is kept."""
    cli.write("parallel-agents.toml", "[monitoring]\nmax_output_mb = 0\n")
    cli.quick("run", cli.plan({"task_id": "chatty", "command": ["sh", "-c", PRINTS]}))
    assert len(cli.quick("logs", "chatty").out) == 6_000_000 + len("the last word\ntrouble\n")
    assert cli.quick("logs", "chatty", "--json").data["cut_bytes"] == {}
    assert "cut out" not in cli.quick("show", "chatty").out


def test_the_log_of_a_daemon_begins_anew_when_it_is_full(cli: Scratch) -> None:
    """What it says after that is in the new one, and the old one is kept."""
    log = cli.store.with_name("events.daemon.log")
    log.parent.mkdir()
    log.write_bytes(b"an old line\n" * 500_000)
    cli.quick("daemon", "start")
    wait_until(log.with_name("events.daemon.log.1").exists, "the log to rotate")
    cli.quick("daemon", "stop")
    assert log.with_name("events.daemon.log.1").stat().st_size >= 6_000_000
    assert "detached" in log.read_text()
