"""What attempts use, as a user sees it: while they run, after their end, and gone with what else they have left."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

from scratch import Scratch, shell, wait_until
from terminal import quickly_on_terminal as on_terminal

HOLDS = (
    "import os, time; held = bytearray(50_000_000); files = [open(os.devnull) for _ in range(20)]\n"
    "while not os.path.exists('go'): time.sleep(0.01)\n"
)


def test_what_an_attempt_uses_is_seen_from_its_begin_to_its_removal(cli: Scratch) -> None:
    """Drawn, as JSON, in the summary of its task, as of an event; and the history is the same without it."""
    cli.write("holds.py", HOLDS)
    plan = cli.plan(shell("big", f"exec '{sys.executable}' holds.py"), shell("small", "true"), workspace="shared")
    process = cli.begin("run", plan)

    def points() -> list[dict[str, int]]:
        said = cli.quick("show", "latest", "big", "--usage", "--json", code=None)
        return [] if said.code else [one for one in said.data["points"] if one["memory_bytes"] > 50_000_000]

    found = wait_until(points, "a sample of the attempt", every_s=0.1)
    assert set(found[0]) == {"at", "span_s", "cpu_percent", "memory_bytes", "open_files", "disk_written_bytes"}
    assert found[0]["open_files"] > 20
    drawing = cli.quick("show", "latest", "big", "--usage").out
    assert "attempt 1" in drawing
    assert "of the machine" in drawing
    cli.write("go", "")
    assert cli.said_by(process).code == 0

    task = cli.quick("show", "latest", "big", "--json").data
    assert task["peak_open_files"] > 20
    assert task["attempt_list"][0]["peak_open_files"] == task["peak_open_files"]
    assert 50_000_000 < task["peak_memory_bytes"] < 500_000_000
    page = cli.quick("show", "latest", "big").out
    assert "of memory at its peak" in page
    assert "open files" in page
    assert "attempt 1" in "\n".join(on_terminal(cli, "show", "latest", "big", "--usage").screen.lines)
    short = cli.quick("show", "latest", "small", "--usage", "--json").data
    assert short["attempt"] == 1
    assert cli.quick("show", "latest", "big", "--usage", "--at", "1", "--json").data["points"] == []

    for words, wrong in ((("--usage", "--prompt"), "exclude"), (("--attempt", "1"), "--usage")):
        assert wrong in cli.quick("show", "latest", "big", *words, "--json", code=2).complaint["message"]
    missing = cli.quick("show", "latest", "big", "--usage", "--attempt", "7", "--json", code=3).complaint
    assert "no attempt 7" in missing["message"]

    before = cli.quick("history", "--json").out, cli.quick("status", "--json").out
    cli.quick("gc", "--older-than", "0", "--yes")
    assert cli.quick("show", "latest", "big", "--usage", "--json").data["points"] == []
    with closing(sqlite3.connect(cli.store)) as connection:
        connection.execute("DROP TABLE usage_samples")
    assert "samples are gone" in cli.quick("show", "latest", "big", "--usage").out
    assert (cli.quick("history", "--json").out, cli.quick("status", "--json").out) == before
    cli.quick("verify")


def test_doctor_says_what_holds_agents_here(cli: Scratch) -> None:
    """A line that names the means."""
    [said] = [one for one in cli.quick("doctor", "--json", code=None).data if one["check"] == "limits of agents"]
    assert said["level"] == "ok"
    assert "a watchdog" in said["detail"]
