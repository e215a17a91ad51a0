"""Backend engineer: turns the ``%`` formatting of legacy/auth.py into f-strings."""

from __future__ import annotations

import ast
import re

from refactor import Change, operands, refactor, replaced, say

CONVERSION = re.compile(r"%(?P<flags>[-0]?)(?P<width>\d*)(?P<precision>\.\d+)?(?P<kind>[sdrf%])")


def old_formats(source: str) -> list[tuple[ast.BinOp, str]]:
    """Every ``"text" % values`` of a module, with its text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod()):
                found.append((node, text))
    return found


def hole(conversion: re.Match[str], operand: str) -> str:
    """The f-string's counterpart of one conversion."""
    flags, width, precision, kind = conversion.group("flags", "width", "precision", "kind")
    if kind in "sr":  # % sets text to the right, an f-string to the left.
        spec = (("<" if flags == "-" else ">") + width if width else "") + (precision or "")
        as_text = "!r" if kind == "r" else "!s" if spec else ""
        return f"{{{operand}{as_text}{':' + spec if spec else ''}}}"
    return f"{{{operand}:{'<' if flags == '-' else flags}{width}{precision or ''}{kind}}}"


def f_string(text: str, values: list[str]) -> str | None:
    """What takes the place of an old format, or None where an f-string could not say the same."""
    conversions = list(CONVERSION.finditer(text))
    quote = "'" if any('"' in value for value in values) else '"'
    unfit = any(mark in value for value in values for mark in ("\\", "\n", "#", "{", quote))
    understood = text.count("%") == sum(found[0].count("%") for found in conversions)
    if unfit or not understood or len(values) != sum(found["kind"] != "%" for found in conversions):
        return None
    parts, end, waiting = [], 0, iter(values)
    for found in conversions:
        parts.append(_literal(text[end : found.start()], quote))
        parts.append("%" if found["kind"] == "%" else hole(found, next(waiting)))
        end = found.end()
    return f"f{quote}{''.join(parts)}{_literal(text[end:], quote)}{quote}"


def _literal(text: str, quote: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace(quote, f"\\{quote}")
    return escaped.replace("{", "{{").replace("}", "}}")


def rewrite(source: str) -> tuple[str, str]:
    changes: list[Change] = []
    for node, text in old_formats(source):
        new = f_string(text, operands(source, node.right))
        say(f"line {node.lineno}: {new or 'left alone, an f-string cannot say the same'}")
        if new:
            changes.append((node, new))
    return replaced(source, changes), f"{len(changes)} of {len(old_formats(source))} old formats are f-strings"


if __name__ == "__main__":
    refactor("auth", rewrite)
