"""Frontend engineer: finds fragments of HTML that legacy/ui.py repeats, and makes each a function of its own.

Two concatenations are copies when their literals are the same and only the expressions between them differ.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from refactor import Change, refactor, replaced, say

Template = tuple[str | None, ...]  # The literals of a concatenation; None where an expression stands.


def parts(node: ast.expr) -> list[ast.expr]:
    """The operands of ``a + b + c``, in order."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return parts(node.left) + parts(node.right)
    return [node]


def template(node: ast.expr) -> Template:
    return tuple(
        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None for part in parts(node)
    )


def copies(source: str) -> dict[Template, list[ast.expr]]:
    """Every fragment of HTML with an expression in it that occurs more than once, and its places."""
    tree = ast.parse(source)
    sums = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)]
    inner = {id(side) for node in sums for side in (node.left, node.right)}
    places: dict[Template, list[ast.expr]] = defaultdict(list)
    for node in sums:
        literals = template(node)
        if id(node) not in inner and None in literals and str(literals[0]).startswith("<"):
            places[literals].append(node)
    return {literals: nodes for literals, nodes in places.items() if len(nodes) > 1}


def arguments(node: ast.expr) -> list[ast.expr]:
    return [part for part, literal in zip(parts(node), template(node), strict=True) if literal is None]


def generalise(source: str, places: list[ast.expr]) -> tuple[list[str], list[list[str]]]:
    """How the fragment uses its parameters, and what each place passes for them.

    A call around the argument moves into the fragment where all places make the same one: escape() is forgotten
    nowhere if it stands in one place only.
    """
    uses, passed = [], [list[str]() for _ in places]
    for index, column in enumerate(zip(*(arguments(node) for node in places), strict=True)):
        wrappers = {_wrapper(argument) for argument in column}
        wrapper = wrappers.pop() if len(wrappers) == 1 else None
        name = "abcdefgh"[index]
        uses.append(f"{wrapper}({name})" if wrapper else name)
        for row, argument in zip(passed, column, strict=True):
            inside = argument.args[0] if wrapper and isinstance(argument, ast.Call) else argument
            row.append(ast.get_source_segment(source, inside) or "")
    return uses, passed


def _wrapper(node: ast.expr) -> str | None:
    match node:
        case ast.Call(func=ast.Name(id=name), args=[_], keywords=[]):
            return name
    return None


def function(name: str, literals: Template, uses: list[str]) -> str:
    waiting = iter(uses)
    body = " + ".join(next(waiting) if literal is None else repr(literal) for literal in literals)
    return f"def {name}({', '.join('abcdefgh'[: len(uses)])}):\n    return {body}\n\n\n"


def rewrite(source: str) -> tuple[str, str]:
    changes: list[Change] = []
    functions: list[str] = []
    for literals, places in copies(source).items():
        css_class = re.search(r'class="([\w-]+)"', str(literals[0]))
        name = f"{css_class[1] if css_class else f'fragment_{len(functions)}'}_html".replace("-", "_")
        uses, passed = generalise(source, places)
        functions.append(function(name, literals, uses))
        changes += [(node, f"{name}({', '.join(row)})") for node, row in zip(places, passed, strict=True)]
        say(f"{name}({', '.join(uses)}): {len(places)} copies")
    head, first, rest = replaced(source, changes).partition("def ")
    return head + "".join(functions) + first + rest, f"{len(functions)} functions in place of {len(changes)} copies"


if __name__ == "__main__":
    refactor("ui", rewrite)
