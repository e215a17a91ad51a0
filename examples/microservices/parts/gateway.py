"""The one door to all services: finds who answers, and tells them who asks."""

from __future__ import annotations

import argparse
import json
from http.client import HTTPConnection
from importlib.resources import files
from typing import Any

from frame import JsonHandler, Refused, find, listen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--at", action="append", metavar="SERVICE=PORT", default=[])
    options = parser.parse_args()
    ports = {name: int(port) for name, _, port in (at.partition("=") for at in options.at)}
    # Written into the archive by steps/gateway.py: "METHOD /path" -> [service, access].
    table = json.loads(files("tables").joinpath("routes.json").read_text())

    def forward(service: str, method: str, path: str, body: Any, user: str = "") -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", ports[service], timeout=10)
        try:
            connection.request(method, path, json.dumps(body), {"X-User": user})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            raise Refused(502, f"{service} does not answer") from None
        finally:
            connection.close()

    class Handler(JsonHandler):
        def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
            (service, access), _ = find(table, self.command, self.path)
            if access == "internal":
                raise Refused(404, f"nothing answers {self.command} {self.path}")
            user = self.signed_in() if access == "member" else ""
            return forward(service, self.command, self.path, body, user)

        def signed_in(self) -> str:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = forward("auth", "POST", "/auth/check", {"token": token})
            if status != 200:
                raise Refused(401, "sign in first")
            return str(answer["user"])

    listen(options.port, Handler)
