"""Packs a service into one runnable file, starts it on a free port, and calls it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipapp
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

SERVICES = Path("services")


def say(line: str) -> None:
    """Report progress. Flushed, so that who watches the run sees it as it happens."""
    print(line, flush=True)


def pack(name: str, routes: dict[str, Any] | None = None) -> Path:
    """services/<name>.pyz: the frame, the part of that name and, for the gateway, its table of routes."""
    SERVICES.mkdir(exist_ok=True)
    target = SERVICES / f"{name}.pyz"
    with tempfile.TemporaryDirectory() as folder:
        for part in ("frame.py", f"{name}.py"):
            shutil.copy(Path("parts") / part, folder)
        if routes is not None:
            tables = Path(folder) / "tables"
            tables.mkdir()
            (tables / "__init__.py").touch()
            (tables / "routes.json").write_text(json.dumps(routes), encoding="utf-8")
        zipapp.create_archive(folder, target, interpreter="/usr/bin/env python3", main=f"{name}:main")
    say(f"packed {target}: {target.stat().st_size} bytes")
    return target


@contextmanager
def running(name: str, *options: str) -> Iterator[int]:
    """The packed service, running for as long as the block lasts, on the port that is given."""
    process = subprocess.Popen(
        [sys.executable, str(SERVICES / f"{name}.pyz"), *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            raise SystemExit(f"{name} did not start")
        yield int(port)
    finally:
        process.terminate()
        process.communicate()


class Caller:
    """Calls one port and counts; an answer that is not the expected one ends the step."""

    def __init__(self, port: int, **headers: str) -> None:
        self.port = port
        self.headers = headers
        self.checks = 0

    def expect(self, status: int, call: str, **body: Any) -> Any:
        """The JSON that "METHOD /path" answers with this status."""
        method, path = call.split()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body), self.headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != status:
            raise SystemExit(f"{call} with {body}: {status} expected, got {response.status} {answer}")
        self.checks += 1
        return answer


def holds(promise: str, true: bool = True) -> None:
    """Say a promise that the calls so far have shown, or end the step over one that is broken."""
    if not true:
        raise SystemExit(f"broken: {promise}")
    say(f"holds: {promise}")


def publish(name: str, caller: Caller) -> None:
    """Leave services/<name>.json, the routes as the running service tells them, for the gateway."""
    routes = caller.expect(200, "GET /")
    (SERVICES / f"{name}.json").write_text(json.dumps(routes, indent=2) + "\n", encoding="utf-8")
    say(f"services/{name}.pyz: {len(routes)} routes, {caller.checks} calls answered as expected")
