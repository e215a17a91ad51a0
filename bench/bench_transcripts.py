"""How fast what agents print is read, beside ``orjson.loads`` of each line. In megabytes a second of transcript.

The recorded transcripts are small, so that one is made of them that is of the size of an afternoon: their own lines over and
over, with the texts and the tool results that real work has. What these hold was recorded too: the sources of this project.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import orjson

from bench.measure import ROUNDS, Goal, ratio, scratch, take_turns, tell
from parallel_agents.scheduler.agents.reading import Reading
from parallel_agents.scheduler.agents.tail import Tail
from parallel_agents.scheduler.agents.text_output import PARSERS

TRANSCRIPTS = Path(__file__).parents[1] / "tests" / "data" / "transcripts"
SOURCES = sorted(Path(__file__).parents[1].joinpath("parallel_agents").rglob("*.py"))
TARGET_BYTES = 40_000_000
PIECE = 12  # Characters of a piece of text in the stream, as a model's answer comes.


def recorded(client: str) -> list[bytes]:
    """The lines of all transcripts of a client, as they are, until there are enough of them."""
    lines = [
        line
        for path in sorted(TRANSCRIPTS.glob(f"{client}-*.jsonl"))
        for line in path.read_bytes().splitlines()
        if line
    ]
    size = sum(len(line) + 1 for line in lines)
    return lines * (TARGET_BYTES // 8 // size + 1)


def at_work(turn: Callable[[str, str], list[dict[str, object]]]) -> list[bytes]:
    """A session that reads one file after the other, a turn for each."""
    lines: list[bytes] = []
    size, number = 0, 0
    while size < TARGET_BYTES:
        text = SOURCES[number % len(SOURCES)].read_text(encoding="utf-8")
        number += 1
        for fields in turn(f"msg_{number:06}", text):
            lines.append(orjson.dumps(fields))
            size += len(lines[-1]) + 1
    return lines


def codex_turn(item_id: str, text: str) -> list[dict[str, object]]:
    """What it says, the command that it runs, and what that gave."""
    item: dict[str, object] = {
        "id": item_id,
        "type": "command_execution",
        "command": "cat a.py",
        "aggregated_output": "",
    }
    return [
        {"type": "item.completed", "item": {"id": item_id, "type": "agent_message", "text": text[: len(text) // 8]}},
        {"type": "item.started", "item": {**item, "exit_code": None, "status": "in_progress"}},
        {"type": "item.completed", "item": {**item, "aggregated_output": text, "exit_code": 0, "status": "completed"}},
    ]


def claude_turn(message_id: str, text: str) -> list[dict[str, object]]:
    """A message streamed in pieces, then whole, then what its tool gave."""
    around: dict[str, object] = {"session_id": "x" * 36, "parent_tool_use_id": None, "uuid": "y" * 36}
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 20_000,
        "cache_creation_input_tokens": 900,
        "output_tokens": 1,
    }
    message = {"id": message_id, "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "usage": usage}
    written = text[: len(text) // 8]
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": written[at : at + PIECE]}}
        for at in range(0, len(written), PIECE)
    ]
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use"},
        "usage": {"output_tokens": len(written) // 4},
    }
    stream = [{"type": "message_start", "message": {**message, "content": []}}, block, *deltas]
    return [
        *({"type": "stream_event", "event": event, **around} for event in stream),
        {"type": "assistant", "message": {**message, "content": [{"type": "text", "text": written}]}, **around},
        *({"type": "stream_event", "event": event, **around} for event in (delta, {"type": "message_stop"})),
        {
            "type": "user",
            "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": text}]},
            **around,
            "tool_use_result": {"type": "text", "file": {"filePath": "/project/a.py", "content": text}},
        },
    ]


def contestants(path: Path, client: str) -> dict[str, Callable[[], float]]:
    """MB/s of reading one file: as the runner does, and each line by orjson, both through the same tail."""
    megabytes = path.stat().st_size / 1e6

    def ours() -> float:
        reading, parser, begun = Reading(), PARSERS[client], time.perf_counter()
        for line in Tail(path).finish():
            parser.feed(reading, line)
        took = time.perf_counter() - begun
        assert reading.bad_lines == 0
        assert reading.last_text
        return megabytes / took

    def orjsons() -> float:
        begun = time.perf_counter()
        for line in Tail(path).finish():
            orjson.loads(line)
        return megabytes / (time.perf_counter() - begun)

    return {"ours": ours, "orjson": orjsons}


def main() -> None:
    """Print the rates."""
    with scratch() as folder:
        for what, client, lines in (
            ("claude at work", "claude", at_work(claude_turn)),
            ("codex at work", "codex", at_work(codex_turn)),
            ("claude as recorded", "claude", recorded("claude")),
            ("codex as recorded", "codex", recorded("codex")),
        ):
            path = folder / "stdout.log"
            path.write_bytes(b"\n".join([*lines, b""]))
            figures = take_turns(contestants(path, client), ROUNDS)
            detail = (
                f"{ratio(figures['ours'], figures['orjson']):.1f} times orjson ({median(figures['orjson']):.0f} MB/s)"
            )
            detail += f", {path.stat().st_size / 1e6:.0f} MB in {len(lines)} lines"
            tell(f"transcripts: {what}", median(figures["ours"]), Goal(100, 300), detail, unit="MB/s")


if __name__ == "__main__":
    main()
