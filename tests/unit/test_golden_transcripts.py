"""Recorded output of the real clients, held against what the scripted server had served them: to the token."""

from __future__ import annotations

import json
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from parallel_agents.scheduler.agents import claude_stream, codex_stream
from parallel_agents.scheduler.agents.bill import charges
from parallel_agents.scheduler.agents.prices import price_of
from parallel_agents.scheduler.agents.reading import Reading
from parallel_agents.scheduler.agents.text_output import PARSERS
from parallel_agents.scheduler.agents.verdict import judge
from parallel_agents.scheduler.runners.protocol import Charge

FOLDER = Path(__file__).parents[1] / "data" / "transcripts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
NOW_US = 1_795_693_200_000_000  # Of the recordings, to a minute or two: times of day in them are told from there on.
HOUR_US = 3_600_000_000

# Codex tells nothing of a call before its turn is completed; a resumed thread then tells of them too.
SILENT = {"codex-interrupted", "codex-killed", "codex-terminated"}


@cache
def served(name: str) -> Any:
    """What the server served, and how the client ended."""
    return json.loads((FOLDER / f"{name}.served.json").read_text(encoding="utf-8"))


def reading_of(name: str, cut_bytes: int = 0) -> Reading:
    """A transcript read line by line, without its last bytes if so wished."""
    reading = Reading()
    text = (FOLDER / f"{name}.jsonl").read_bytes()
    for line in text[: len(text) - cut_bytes].splitlines():
        PARSERS[served(name)["client"]].feed(reading, line)
    return reading


def charges_of(name: str) -> tuple[Charge, ...]:
    """What its attempt is charged with, after the one whose session it went on with."""
    about = served(name)
    before = reading_of(about["resumes"]).reported if about["resumes"] else None
    reading = reading_of(name)
    model = next(iter(about["usage_by_model"]), None) if about["client"] == "codex" else None
    return charges(reading, before, reading.concluded, price_of, model=model)


def tokens_of(found: tuple[Charge, ...]) -> dict[str | None, tuple[int, int, int, int]]:
    """Tokens by model."""
    return {
        charge.model: (
            charge.input_tokens,
            charge.output_tokens,
            charge.cache_read_tokens,
            charge.cache_write_tokens,
        )
        for charge in found
    }


def usage_of(calls: list[dict[str, Any]]) -> dict[str | None, tuple[int, int, int, int]]:
    """The same of what was served."""
    found: dict[str | None, tuple[int, int, int, int]] = {}
    for call in calls:
        had = found.get(call["model"], (0, 0, 0, 0))
        kinds = (call["input"], call["output"], call["cache_read"], call["cache_write"])
        found[call["model"]] = (had[0] + kinds[0], had[1] + kinds[1], had[2] + kinds[2], had[3] + kinds[3])
    return found


def test_there_are_transcripts() -> None:
    """Of both clients; a folder that is not there would test nothing."""
    assert {"claude-tools", "claude-subagent", "claude-killed", "codex-ok", "codex-resumed"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_ends_as_it_was_recorded_to_end(name: str) -> None:
    """Success or the kind of failure, from output, exit code and stderr."""
    about = served(name)
    verdict = judge(reading_of(name), about["client"], "exited", about["exit_code"], about["stderr"], NOW_US)
    assert verdict.kind == (about["kind"] or "")
    assert (verdict.error is None) == (about["kind"] is None)


@pytest.mark.parametrize("name", [name for name in NAMES if "usage-limit" in name and "key" not in name])
def test_the_reset_of_a_usage_limit_is_the_one_that_the_server_stated(name: str) -> None:
    """About an hour after the recording, which was made in UTC."""
    about = served(name)
    verdict = judge(reading_of(name), about["client"], "exited", about["exit_code"], "", NOW_US, zone=UTC)
    assert verdict.until_us is not None
    assert 0 < verdict.until_us - NOW_US <= HOUR_US + 120_000_000


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_transcript_is_unknown(name: str) -> None:
    """No line is bad, no type unheard of, and there is a session to go on with."""
    reading = reading_of(name)
    assert (reading.bad_lines, dict(reading.unknown)) == (0, {})
    assert reading.session_id


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_that_are_skipped_say_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To parse them all comes to the same reading."""
    quick = reading_of(name)
    monkeypatch.setattr(claude_stream, "_SKIPPED", ())
    monkeypatch.setattr(codex_stream, "_SKIPPED", ())
    assert reading_of(name) == quick


@pytest.mark.parametrize("name", [name for name in NAMES if reading_of(name).result and "interrupted" not in name])
def test_the_bill_equals_what_was_served(name: str) -> None:
    """Subagents, several results, resumed sessions and calls that were cut included."""
    about = served(name)
    expected = usage_of([call for call in about["calls"] if call["complete"] and call["status"] == 200])
    if about["resumes"] in SILENT:  # What was unknown then is in the thread's usage now.
        expected = usage_of([call for call in served(about["resumes"])["calls"] + about["calls"] if call["complete"]])
    found = charges_of(name)
    assert tokens_of(found) == expected
    assert not any(charge.partial for charge in found)


@pytest.mark.parametrize("name", ["claude-killed", "claude-terminated", "claude-interrupted"])
def test_a_bill_cut_off_is_partial_and_off_by_at_most_the_call_in_flight(name: str) -> None:
    """At least what was completed, at most that and the last call."""
    about = served(name)
    least = usage_of([call for call in about["calls"] if call["complete"]])
    most = usage_of(about["calls"])
    (charge,) = charges_of(name)
    assert charge.partial
    assert charge.usd_micros
    for figure, low, high in zip(*(bill[charge.model] for bill in (tokens_of((charge,)), least, most)), strict=True):
        assert low <= figure <= high


@pytest.mark.parametrize("name", sorted(SILENT))
def test_what_nobody_told_is_unknown_and_not_nothing(name: str) -> None:
    """A codex that was cut off tells no tokens at all."""
    (charge,) = charges_of(name)
    assert (charge.usd_micros, charge.source, charge.partial) == (None, "unknown", True)


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_request_costs_nothing_and_everything_else_has_a_source(name: str) -> None:
    """The sum of the models is what the agent reported, to a micro-dollar each."""
    found = charges_of(name)
    if not served(name)["usage_by_model"]:
        assert found == ()
    for charge in found:
        assert (charge.usd_micros is None) == (charge.source == "unknown")
        assert bool(charge.prices) == (charge.source == "estimated")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("claude")])
def test_a_transcript_cut_anywhere_is_still_read(name: str) -> None:
    """No kind of tokens is more than in the whole, and there is a bill of it."""
    whole = seen(reading_of(name))
    size = (FOLDER / f"{name}.jsonl").stat().st_size
    for cut in range(0, size, max(1, size // 20)):
        reading = reading_of(name, cut)
        assert all(part <= full for part, full in zip(seen(reading), whole, strict=True))
        assert bool(charges(reading, None, False, price_of)) or not reading.messages


def seen(reading: Reading) -> list[int]:
    """Tokens by kind, of all messages."""
    return [
        sum(kind)
        for kind in zip((0, 0, 0, 0), *(tokens.kinds() for _, tokens in reading.messages.values()), strict=True)
    ]
