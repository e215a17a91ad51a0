"""Records the transcripts of ``tests/data/transcripts`` from the real clients that are found on PATH.

``python tests/real/record.py`` records all of them, ``python tests/real/record.py well killed`` those scenarios.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # A script finds what lies beside it; the server lies one folder above.

from clients import Place, find_claude, find_codex
from codex_scenarios import CODEX_SCENARIOS
from modelserver import ModelServer, Usage
from scenarios import SCENARIOS, Recording, Stage

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"
TEXT_CHARS = 300  # Longer texts are shortened: they tell nothing more.
LIST_ITEMS = 2
DROPPED = {"messaging_socket_path", "output_file", "outputFile"}
LISTS = {"tools", "slash_commands", "skills", "capabilities", "agents", "plugins", "terminal_slash_commands"}


def main(names: set[str]) -> None:
    """Play the scenarios of those names, or all, and write their transcripts."""
    TRANSCRIPTS.mkdir(parents=True, exist_ok=True)
    for binary, scenarios in ((find_claude(), SCENARIOS), (find_codex(), CODEX_SCENARIOS)):
        if not binary:
            continue
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
        version = next(word for word in said.split() if word[0].isdigit())
        for scenario in (s for s in scenarios if not names or s.__name__ in names):
            with tempfile.TemporaryDirectory() as folder, ModelServer() as server:
                place = Place(Path(folder).resolve())
                for recording in scenario(Stage(binary, server, place)):
                    write_down(recording, server, place, version)


def write_down(recording: Recording, server: ModelServer, place: Place, version: str) -> None:
    """Write a transcript, and beside it what the server has served."""
    lines = [plain(line, place, server) for line in recording.client.lines]
    (TRANSCRIPTS / f"{recording.name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    calls = [
        {
            "message_id": one.message_id,
            "model": one.model,
            "status": one.status,
            **asdict(one.usage),
            "told_input": one.told_input,
            "told_output": one.told_output,
            "complete": one.complete,
            "subagent": "subtask" in (one.word or ""),
        }
        for one in server.served()[recording.first_call - 1 :]
    ]
    facts = {
        "client": recording.name.split("-")[0],
        "version": version,
        "exit_code": recording.client.process.returncode,
        "stderr": anonymous(recording.client.stderr.decode(), place, server),
        "kind": recording.kind,
        "note": recording.note,
        "resumes": recording.resumes,
        "calls": calls,
        "usage_by_model": dict(sums(calls)),
    }
    (TRANSCRIPTS / f"{recording.name}.served.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    print(f"{recording.name}: {len(lines)} lines, exit code {facts['exit_code']}")


def sums(calls: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, int]]]:
    """Tokens by model, of the calls that were served to their end."""
    for model in dict.fromkeys(call["model"] for call in calls if call["complete"] and call["status"] == 200):
        of_it = [call for call in calls if call["model"] == model and call["complete"]]
        yield model, {kind: sum(call[kind] for call in of_it) for kind in asdict(Usage())}


def plain(line: bytes, place: Place, server: ModelServer) -> str:
    """A line without what belongs to this machine, and without what makes it long."""
    shortened = _shorten(json.loads(line))
    return anonymous(json.dumps(shortened, separators=(",", ":"), ensure_ascii=False), place, server)


def anonymous(text: str, place: Place, server: ModelServer) -> str:
    """A text without the names of places, and without a warning about them."""
    root = str(place.root)
    for name, other in (
        (root, ""),
        (root.replace("/", "-"), ""),
        (server.url.removeprefix("http://"), "127.0.0.1:8000"),
    ):
        text = text.replace(name, other)
    return "".join(line for line in text.splitlines(keepends=True) if "could not create PATH aliases" not in line)


def _shorten(value: Any, key: str = "") -> Any:
    match value:
        case dict():
            return {k: _shorten(v, k) for k, v in value.items() if k not in DROPPED}
        case list() if key in LISTS:
            return value[:LIST_ITEMS]
        case list():
            return [_shorten(item) for item in value]
        case str() if len(value) > TEXT_CHARS:
            return value[:TEXT_CHARS] + " [...]"
        case _:
            return value


if __name__ == "__main__":
    main(set(sys.argv[1:]))
