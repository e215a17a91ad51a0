"""The contract (docs/api.json) as the other steps read it, and what else they find in the working directory."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

CONTRACT = Path("docs/api.json")
METHODS = ("get", "put", "post")


class Operation(NamedTuple):
    """One method on one path."""

    method: str  # "GET"
    path: str  # "/api/carts/{cart_id}"
    name: str  # Its operationId.
    parameters: dict[str, str]  # Name of a path parameter -> its regular expression.
    takes: str | None  # Schema of the request body.
    answers: dict[int, dict[str, Any]]  # Status -> schema of the response body.

    @property
    def success(self) -> int:
        """The status of an answer that is no error."""
        return min(self.answers)


def say(line: str) -> None:
    """Report progress. Flushed, so that who watches the run sees it as it happens."""
    print(line, flush=True)


def need(path: str | Path) -> Path:
    """The path of a piece that an earlier step has left, or the end of this step."""
    if not Path(path).is_file():
        sys.exit(f"{path} is missing: the step that writes it has not run here")
    return Path(path)


def write(path: str | Path, text: str) -> None:
    """Leave a piece in the working directory."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def load() -> dict[str, Any]:
    """The whole document."""
    document: dict[str, Any] = json.loads(need(CONTRACT).read_text(encoding="utf-8"))
    return document


def operations(api: dict[str, Any]) -> list[Operation]:
    """All operations of the document, in its order."""
    return [
        Operation(
            method.upper(),
            path,
            item[method]["operationId"],
            {parameter["name"]: parameter["schema"]["pattern"] for parameter in item.get("parameters", [])},
            _body(item[method]["requestBody"])["$ref"].split("/")[-1] if "requestBody" in item[method] else None,
            {int(status): _body(answer) for status, answer in item[method]["responses"].items()},
        )
        for path, item in api["paths"].items()
        for method in METHODS
        if method in item
    ]


def _body(part: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = part["content"]["application/json"]["schema"]
    return schema


def resolve(schema: dict[str, Any], api: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, also where it is a reference. Raises KeyError for one that leads nowhere."""
    while "$ref" in schema:
        schema = api["components"]["schemas"][schema["$ref"].removeprefix("#/components/schemas/")]
    return schema


_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "null": type(None)}


def violations(value: Any, schema: dict[str, Any], api: dict[str, Any], where: str = "body") -> list[str]:
    """What in a JSON value breaks its schema, for the part of JSON Schema that the contract uses."""
    schema = resolve(schema, api)
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if isinstance(value, bool) or not isinstance(value, tuple(_TYPES[name] for name in names)):
        return [f"{where} is {value!r}, not of type {' or '.join(names)}"]
    found: list[str] = []
    if isinstance(value, dict):
        for name in sorted(value.keys() ^ schema["properties"].keys()):
            found.append(f"{where}.{name} is {'not in the contract' if name in value else 'missing'}")
        for name in value.keys() & schema["properties"].keys():
            found += violations(value[name], schema["properties"][name], api, f"{where}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += violations(item, schema["items"], api, f"{where}[{index}]")
    elif isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{where} is {value}, out of range")
    elif isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{where} is {value!r}, which does not match {schema['pattern']}")
        if value not in schema.get("enum", [value]):
            found.append(f"{where} is {value!r}, which the contract does not list")
    return found
