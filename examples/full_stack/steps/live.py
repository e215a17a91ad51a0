"""Starts the service as a process of its own on a free port and speaks to it over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

SERVICE = (sys.executable, "-m", "service", "--port", "0")


@dataclass(frozen=True)
class Answer:
    """What the service said to one request."""

    status: int
    headers: dict[str, str]  # Names in lower case.
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """A running service. Every request is made over a connection of its own, and timed."""

    port: int
    request_s: list[float] = field(default_factory=list)

    def call(self, method: str, path: str, body: object = None, raw: bytes | None = None) -> Answer:
        """One request with a JSON body (``body``), with exactly these bytes (``raw``), or without any."""
        sent = raw if body is None else json.dumps(body).encode()
        started = time.perf_counter()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, sent)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()
            self.request_s.append(time.perf_counter() - started)


@contextmanager
def running_site(command: Sequence[str] = SERVICE, folder: str | Path = ".") -> Iterator[Site]:
    """The service, started by this command in this folder, for as long as the block lasts."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"the service did not start: {line.strip() or 'it said nothing'}")
        yield Site(int(line.rsplit(":", 1)[1]))
    finally:
        process.terminate()
        process.communicate()
