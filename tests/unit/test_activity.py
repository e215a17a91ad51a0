"""What agents have printed, told in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_agents.activity import last_words, words_of

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"


def told(name: str, output: str) -> list[str]:
    """All that a recorded transcript says."""
    lines = (TRANSCRIPTS / f"{name}.jsonl").read_bytes().splitlines()
    return [words for line in lines for words in words_of(line, output)]


def test_claude_is_told_by_what_it_says_and_which_tools_it_uses() -> None:
    """Each once, although a message comes in pieces and as a whole."""
    said = told("claude-tools", "claude")
    assert [words for words in said if words.startswith("▸ Write")]
    assert [words for words in said if words.startswith("▸ Bash")]
    assert len(said) == len(set(said))
    assert not any("{" in words for words in said)


def test_codex_is_told_by_its_items() -> None:
    """A command when it begins, a file when it is changed."""
    said = told("codex-ok", "codex")
    assert "▸ add  hello.txt" in said
    assert [words for words in said if words.startswith("▸ run  ")]


@pytest.mark.parametrize("output", ["claude", "codex", "json", "text"])
@pytest.mark.parametrize(
    "line", [b"", b"{", b"[1]", b'{"type":"assistant","message":3}', b'{"type":"item.completed"}', b"\xff"]
)
def test_whatever_a_line_holds_it_is_no_error(line: bytes, output: str) -> None:
    """It is written by programs that nobody here controls."""
    assert all(isinstance(words, str) for words in words_of(line, output))


def test_the_last_words_are_found_behind_much_that_is_for_programs(tmp_path: Path) -> None:
    """Without reading the whole of it."""
    file = tmp_path / "stdout.log"
    assert last_words(file, "claude") is None
    said = b'{"type":"assistant","message":{"content":[{"type":"tool_use","name":"Edit","input":{"file_path":"src/a.py"}}]}}\n'
    piece = b'{"type":"stream_event","event":{"type":"content_block_delta"}}\n'
    file.write_bytes(piece * 10_000 + said + piece * 100 + b'{"type":"assis')
    assert last_words(file, "claude") == "▸ Edit  src/a.py"
    file.write_bytes(b"one\n\ntwo\n\n")
    assert last_words(file, "text") == "two"
