"""The real ``codex`` against the scripted model server: what the transcripts say is what it does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from clients import Place, find_codex
from codex_scenarios import CODEX_SCENARIOS
from modelserver import ModelServer
from scenarios import Scenario, Stage

BINARY = find_codex()
TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BINARY is None, reason="no codex on PATH")]


@pytest.mark.parametrize("scenario", CODEX_SCENARIOS, ids=lambda s: s.__name__)
def test_it_still_does_what_was_recorded(scenario: Scenario, server: ModelServer, tmp_path: Path) -> None:
    """Exit code, usage and what the server was asked for are those of the transcripts."""
    assert BINARY
    for now in scenario(Stage(BINARY, server, Place(tmp_path))):
        facts = json.loads((TRANSCRIPTS / f"{now.name}.served.json").read_text())
        last = json.loads((TRANSCRIPTS / f"{now.name}.jsonl").read_text().splitlines()[-1])
        assert now.client.process.returncode == facts["exit_code"], now.name
        assert now.client.objects[-1]["type"] == last["type"], now.name
        assert now.client.objects[-1].get("usage") == last.get("usage"), now.name
        calls = server.served()[now.first_call - 1 :]
        assert Counter((c.model, c.status) for c in calls) == Counter((c["model"], c["status"]) for c in facts["calls"])
