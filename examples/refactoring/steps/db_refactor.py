"""Backend engineer: gives the SQL of legacy/db.py parameters instead of values pasted into its text."""

from __future__ import annotations

import ast
import json
import re

from refactor import Change, operands, refactor, replaced, say

VALUE = re.compile(r"'%s'|%d")  # A value pasted into SQL; a bare %s is a name, which cannot be a parameter.


def open_queries(source: str) -> list[tuple[ast.BinOp, str]]:
    """The first argument of every ``execute()`` that is text made with ``%``, with that text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="execute"),
                args=[ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod()) as query],
            ):
                found.append((query, text))
    return found


def with_parameters(text: str, values: list[str]) -> str | None:
    """The two arguments that take the place of one, or None where a value is no value but a name."""
    sql = VALUE.sub("?", text)
    if "%" in sql or sql.count("?") != len(values):
        return None
    return f"{json.dumps(sql)}, ({', '.join(values)}{',' if len(values) == 1 else ''})"


def rewrite(source: str) -> tuple[str, str]:
    changes: list[Change] = []
    for node, text in open_queries(source):
        new = with_parameters(text, operands(source, node.right))
        say(f"line {node.lineno}: {new or 'left alone, a name cannot be a parameter'}")
        if new:
            changes.append((node, new))
    return replaced(source, changes), f"{len(changes)} of {len(open_queries(source))} queries take parameters"


if __name__ == "__main__":
    refactor("db", rewrite)
