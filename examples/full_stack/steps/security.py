"""Security engineer: reads the code of service and page, attacks the running service, and reports what it found.

A high finding ends the step with an error, so that nothing is deployed over it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from contract import load, need, operations, say, write
from live import Site, running_site


@dataclass(frozen=True)
class Finding:
    """One place that breaks one rule."""

    rule: str
    severity: str
    file: str
    line: int  # 0: not a line, an answer of the running service.
    detail: str


# Rule -> its severity, and what breaks it.
RULES = {
    "dynamic-code": ("high", "runs text as code"),
    "shell-command": ("high", "starts a command through a shell"),
    "formatted-sql": ("high", "builds SQL out of text instead of parameters"),
    "all-interfaces": ("high", "listens to the whole network"),
    "secret-in-code": ("high", "holds a secret as text"),
    "inner-html": ("high", "puts text into the page as markup"),
    "inline-script": ("high", "has script inside the markup"),
    "foreign-resource": ("medium", "loads from somebody else's server"),
    "missing-header": ("high", "an answer lacks a protecting header"),
    "talkative-server": ("low", "tells strangers which software it is"),
    "hole": ("high", "an attack got through"),
}
SECRET_NAME = re.compile(r"password|passwd|secret|token|api_?key", re.IGNORECASE)
PAGE_RULES = {
    "inner-html": re.compile(r"\.(innerHTML|outerHTML)\s*\+?=|insertAdjacentHTML|document\.write\("),
    "inline-script": re.compile(r"<[^>]+\son\w+\s*=|<script(?![^>]*\bsrc=)|javascript:", re.IGNORECASE),
    "foreign-resource": re.compile(r"(?:src|href|from|import|url\()\s*=?\s*[\"']?(?:https?:)?//", re.IGNORECASE),
    "dynamic-code": re.compile(r"\b(eval|Function)\("),
}
PROTECTING = {
    "content-security-policy": "default-src 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def finding(rule: str, file: str, line: int, detail: str = "") -> Finding:
    severity, text = RULES[rule]
    return Finding(rule, severity, file, line, f"{text}: {detail}" if detail else text)


def is_built_text(node: ast.AST) -> bool:
    """An f-string with holes, ``%``, ``+`` or ``.format()``: text that depends on values."""
    match node:
        case ast.JoinedStr(values=values):
            return any(isinstance(value, ast.FormattedValue) for value in values)
        case ast.BinOp(op=ast.Mod() | ast.Add()):
            return True
        case ast.Call(func=ast.Attribute(attr="format")):
            return True
    return False


def broken_rules(node: ast.AST) -> Iterator[str]:
    """The rules that one node of a Python program breaks."""
    match node:
        case ast.Call(func=ast.Name(id="eval" | "exec")):
            yield "dynamic-code"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen")):
            yield "shell-command"
        case ast.Call(func=ast.Attribute(attr="execute" | "executemany" | "executescript"), args=[sql, *_]):
            if is_built_text(sql):
                yield "formatted-sql"
        case ast.Constant(value="0.0.0.0" | "::"):
            yield "all-interfaces"
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
            if text and SECRET_NAME.search(name):
                yield "secret-in-code"
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if keyword.arg == "shell" and value is not False:
                yield "shell-command"
            if SECRET_NAME.search(keyword.arg or "") and isinstance(value, str) and value:
                yield "secret-in-code"


def read_service() -> tuple[int, list[Finding]]:
    """How many nodes of the service's programs were looked at, and what was found."""
    looked_at, found = 0, []
    for path in sorted(Path("service").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            looked_at += 1
            found += [finding(rule, str(path), getattr(node, "lineno", 0)) for rule in broken_rules(node)]
    return looked_at, found


def read_page() -> tuple[int, list[Finding]]:
    """How many lines of the page were looked at, and what was found."""
    looked_at, found = 0, []
    for path in sorted(Path("web").iterdir()):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            looked_at += 1
            found += [finding(rule, str(path), number) for rule, sign in PAGE_RULES.items() if sign.search(line)]
    return looked_at, found


def inspect_headers(site: Site) -> tuple[int, list[Finding]]:
    """Whether page, answers and refusals all carry the protecting headers."""
    paths, found = ("/", "/app.js", "/api/products", "/api/nothing", "/nothing"), []
    for path in paths:
        headers = site.call("GET", path).headers
        lacking = [name for name, value in PROTECTING.items() if value not in headers.get(name, "")]
        found += [finding("missing-header", path, 0, name) for name in lacking]
        if re.search(r"\d", headers.get("server", "")):
            found.append(finding("talkative-server", path, 0, headers["server"]))
    return len(paths), found


def attack(site: Site) -> tuple[int, list[Finding]]:
    """Paths out of the page's folder, SQL in every parameter, bodies made to break: none may get through."""
    cart = site.call("POST", "/api/carts").json()["cart_id"]
    put = f"/api/carts/{cart}/items/CUP-SMALL"
    injection = "%27%20OR%20%271%27=%271"
    outside = ("/../feature.json", "/%2e%2e/feature.json", "//etc/passwd", "/service/checkout.py")
    tries: list[tuple[str, str, bytes | None]] = [("GET", path, None) for path in outside]
    for op in operations(load()):
        if op.parameters:
            tries.append((op.method, op.path.format(**dict.fromkeys(op.parameters, injection)), b"{}"))
    bodies = (b"", b"{", b"null", b"\xff\xfe", b"[" * 9_000, b"9" * 9_000, b'{"quantity": NaN}', b'{"quantity": 1e999}')
    tries += [("PUT", put, body) for body in (*bodies, b'{"__class__": 1}', b" " * 20_000)]
    tries.append(("PUT", f"/api/carts/{cart}/discount", json.dumps({"code": "' OR '1'='1"}).encode()))
    found = []
    for method, path, body in tries:
        answer = site.call(method, path, raw=body)
        if answer.status not in (404, 422):
            found.append(finding("hole", path, 0, f"{method} with {str(body)[:40]} got {answer.status}"))
    if site.call("GET", f"/api/carts/{cart}").json()["lines"]:
        found.append(finding("hole", put, 0, "a refused body changed the cart"))
    return len(tries), found


def main() -> None:
    need("service/checkout.py")
    need("web/index.html")
    looks = {"nodes of the service": read_service(), "lines of the page": read_page()}
    with running_site() as site:
        looks |= {"live answers": inspect_headers(site), "attacks": attack(site)}
    for name, (looked_at, found) in looks.items():
        say(f"{looked_at} {name}: {len(found)} findings")
    findings = [each for _, found in looks.values() for each in found]
    for each in findings:
        say(f"{each.severity}: {each.rule} at {each.file}:{each.line}, {each.detail}")
    high = sum(each.severity == "high" for each in findings)
    report = {
        "passed": high == 0,
        "looked_at": {name: looked_at for name, (looked_at, _) in looks.items()},
        "rules": {rule: severity for rule, (severity, _) in RULES.items()},
        "findings": [asdict(each) for each in findings],
    }
    write("reports/security.json", json.dumps(report, indent=2) + "\n")
    seen = ", ".join(f"{looked_at} {name}" for name, (looked_at, _) in looks.items())
    say(f"reports/security.json: {len(findings)} findings, {high} of them high, in {seen}")
    raise SystemExit(high > 0)


if __name__ == "__main__":
    main()
