"""How a module is rewritten: piece by piece in its source, between two runs of the tests that pin what it does."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

BEFORE = Path("before")  # The modules as they were; the same layout as the working directory.

Change = tuple[ast.expr, str]  # A piece of the source, and the text that takes its place.


def say(line: str) -> None:
    """Report progress. Flushed, so that who watches the run sees it as it happens."""
    print(line, flush=True)


def outcomes(folder: Path, module: str = "*") -> dict[str, str]:
    """Test -> "ok", "FAIL" or "ERROR", for the modules under ``folder``/legacy.

    Nothing is cached as bytecode: a file rewritten within the same second could be taken for the old one.
    """
    command = [sys.executable, "-B", "-m", "unittest", "discover", "-v", "-s", str(Path("tests").resolve())]
    run = subprocess.run([*command, "-p", f"test_{module}.py"], cwd=folder, capture_output=True, text=True)
    return dict(re.findall(r"^(\w+) \(.*\) \.\.\. (\w+)", run.stderr, re.MULTILINE)) or {"loading": "ERROR"}


def red(results: dict[str, str]) -> list[str]:
    return [name for name, outcome in results.items() if outcome != "ok"]


def replaced(source: str, changes: list[Change]) -> str:
    """The source with these pieces replaced; all else, comments and blanks, stays to the letter."""
    text = source.encode()  # ast counts columns in bytes.
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    for node, new in sorted(changes, key=lambda change: (change[0].lineno, change[0].col_offset), reverse=True):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset
        text = text[:start] + new.encode() + text[end:]
    return text.decode()


def operands(source: str, right: ast.expr) -> list[str]:
    """The sources of what stands right of a ``%``.

    A lone name could hold a tuple; whether it does, the tests say.
    """
    nodes = right.elts if isinstance(right, ast.Tuple) else [right]
    return [ast.get_source_segment(source, node) or "" for node in nodes]


def refactor(module: str, rewrite: Callable[[str], tuple[str, str]]) -> None:
    """Rewrite legacy/<module>.py; its tests must be green before, and are green after or the module is as it was.

    Args:
        module: name of the module, without its ending.
        rewrite: source -> new source, and what was done in a few words.
    """
    path = Path("legacy") / f"{module}.py"
    if failing := red(outcomes(Path(), module)):
        raise SystemExit(f"the tests of {path} are red before anything was changed: {', '.join(failing)}")
    kept = BEFORE / path
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        shutil.copy(path, kept)
    original = path.read_text(encoding="utf-8")
    new, summary = rewrite(original)
    path.write_text(new, encoding="utf-8")
    after = outcomes(Path(), module)
    if failing := red(after):
        path.write_text(original, encoding="utf-8")
        raise SystemExit(f"{path} is as it was: the rewritten one breaks {', '.join(failing)}")
    say(f"{path}: {summary}; {len(after)} tests green before and after")
