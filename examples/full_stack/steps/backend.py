"""Backend engineer: generates records and routes from docs/api.json and puts the hand-written logic beside them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from contract import Operation, load, operations, say, write

TEMPLATES = Path(__file__).parent / "templates" / "service"
SERVICE = Path("service")

HEAD = '''"""Generated from docs/api.json by steps/backend.py: change that document, not this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from service.checks import check_integer, check_text

'''

ROUTE = '''
class Route(NamedTuple):
    """Where an operation is found, what its body must be and the status of its success."""

    method: str
    pattern: str
    operation: str
    takes: type[Any] | None
    status: int
'''


def type_of(schema: dict[str, Any]) -> str:
    """The Python type of a property."""
    if "$ref" in schema:
        return str(schema["$ref"].split("/")[-1])
    match schema["type"]:
        case "array":
            return f"tuple[{type_of(schema['items'])}, ...]"
        case "integer":
            return "int"
        case "string":
            return "str"
        case [name, "null"]:
            return f"{type_of({**schema, 'type': name})} | None"
        case other:
            raise AssertionError(other)


def check_of(name: str, schema: dict[str, Any]) -> str:
    """The line that checks one property of a request."""
    match schema:
        case {"type": "integer", "minimum": low, "maximum": high}:
            return f'check_integer("{name}", self.{name}, {low}, {high})'
        case {"type": "string", "pattern": pattern}:
            return f'check_text("{name}", self.{name}, r"{pattern.strip("^$")}", {schema.get("maxLength", 100)})'
        case _:
            raise SystemExit(f"the contract leaves open what {name} may be: it needs a range or a pattern")


def record(name: str, schema: dict[str, Any], comes_from_outside: bool) -> str:
    """A frozen dataclass; one that comes from outside refuses what its schema refuses."""
    fields = schema["properties"].items()
    lines = ["", "@dataclass(frozen=True)", f"class {name}:"]
    lines += [f"    {field}: {type_of(inner)}" for field, inner in fields]
    if comes_from_outside:
        lines += ["", "    def __post_init__(self) -> None:"]
        lines += [f"        {check_of(field, inner)}" for field, inner in fields]
    return "\n".join([*lines, ""])


def route(op: Operation) -> str:
    """One line of the route table; a path parameter matches what its schema allows."""
    pattern = op.path
    for name, allowed in op.parameters.items():
        pattern = pattern.replace(f"{{{name}}}", f"(?P<{name}>{allowed.strip('^$')})")
    return f'    Route("{op.method}", r"{pattern}", "{op.name}", {op.takes}, {op.success}),'


def generate(api: dict[str, Any]) -> str:
    """The whole of service/contract.py."""
    rules = api["x-rules"]
    taken = {op.takes for op in operations(api)}
    records = [record(name, schema, name in taken) for name, schema in api["components"]["schemas"].items()]
    discounts = {one["code"]: (one["percent"], one["minimum_cents"]) for one in rules["discounts"]}
    return "\n".join(
        [
            "\n".join([HEAD, *records, ROUTE]),
            "ROUTES = (",
            *(route(op) for op in operations(api)),
            ")",
            f"ERROR_STATUS: dict[str, int] = {api['x-errors']}",
            f"CURRENCY = {rules['currency']!r}",
            f"VAT_PERCENT = {rules['vat_percent']}",
            "PRODUCTS = (",
            *(f"    Product{tuple(product.values())}," for product in rules["products"]),
            ")",
            "# Code -> percent off, and the least subtotal in cents for which it counts.",
            f"DISCOUNTS: dict[str, tuple[int, int]] = {discounts}",
            "",
        ]
    )


def operations_without_logic(api: dict[str, Any], logic: str) -> set[str]:
    """Operations of the contract that the hand-written Checkout class has no method for."""
    methods = {node.name for node in ast.walk(ast.parse(logic)) if isinstance(node, ast.FunctionDef)}
    return {op.name for op in operations(api)} - methods


def main() -> None:
    api = load()
    logic = (TEMPLATES / "checkout.py").read_text(encoding="utf-8")
    if missing := operations_without_logic(api, logic):
        raise SystemExit(f"the contract promises what nobody wrote: {', '.join(sorted(missing))}")
    sources = {template.name: template.read_text(encoding="utf-8") for template in sorted(TEMPLATES.glob("*.py"))}
    sources |= {"__init__.py": '"""The checkout service."""\n', "contract.py": generate(api)}
    for name, source in sources.items():
        compile(source, name, "exec")
        write(SERVICE / name, source)
        say(f"wrote {SERVICE / name}: {len(source.splitlines())} lines")
    schemas = len(api["components"]["schemas"])
    say(f"{SERVICE}/: {len(sources)} files; {schemas} records and {len(operations(api))} routes from the contract")


if __name__ == "__main__":
    main()
