"""What every service stands on: routes, JSON in and out, one thread per request, on this machine only."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """One request, as a service sees it."""

    names: dict[str, str]  # What stood at the {holes} of the route.
    body: dict[str, Any]
    user: str  # Who asks, as told by the gateway; empty for a stranger.


class Route(NamedTuple):
    """A function of a service, and who may call it: "public", "member" or "internal" (never through the gateway)."""

    access: str
    function: Callable[[Request], Any]


class Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server(ThreadingTCPServer):
    """A plain TCP server: HTTPServer would look up the host's name first, which can take seconds."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class JsonHandler(BaseHTTPRequestHandler):
    """Reads a JSON object, answers with JSON; what lies between is ``answer``."""

    timeout = 10  # Seconds that a client may take over its request.

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        raise NotImplementedError

    def handle_method(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            status, content = self.answer(body)
        except Refused as refusal:
            status, content = refusal.status, {"error": str(refusal)}
        except (KeyError, TypeError, ValueError) as problem:
            status, content = 422, {"error": f"not what this route takes: {problem!r}"}
        sent = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_PUT = do_POST = handle_method

    def log_message(self, format: str, *args: object) -> None:
        """No line per request."""


def find(routes: Mapping[str, Any], method: str, path: str) -> tuple[Any, dict[str, str]]:
    """What a table of "METHOD /path/{hole}" holds for a request, and what stood at its holes."""
    for pattern, found in routes.items():
        match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[\\w-]+)", pattern), f"{method} {path}")
        if match:
            return found, match.groupdict()
    raise Refused(404, f"nothing answers {method} {path}")


def serve(routes: Mapping[str, Route]) -> None:
    """Answer requests until the process ends; ``GET /`` tells the routes and who may call them."""

    class Handler(JsonHandler):
        def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
            if self.path == "/":
                return 200, {pattern: route.access for pattern, route in routes.items()}
            route, names = find(routes, self.command, self.path)
            return 200, route.function(Request(names, body, self.headers.get("X-User", "")))

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    listen(parser.parse_args().port, Handler)


def listen(port: int, handler: type[JsonHandler]) -> None:
    """Print the port that is listened on (any free one for 0), then serve it."""
    with Server(("127.0.0.1", port), handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
