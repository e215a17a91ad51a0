"""The service over HTTP, on this machine only: ``python3 -m service --port 0`` prints where it listens."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, is_dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

from service import contract
from service.checkout import Checkout, Refused
from service.checks import Invalid

WEB = Path(__file__).resolve().parent.parent / "web"
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
LONGEST_BODY_BYTES = 10_000
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingTCPServer):
    """A plain TCP server: HTTPServer would look up the host's name first, which can take seconds."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, checkout: Checkout) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.checkout = checkout


class Handler(BaseHTTPRequestHandler):
    """Finds the operation in the contract, or the file of the page, and answers with it."""

    server: Server
    server_version = "checkout"
    sys_version = ""
    timeout = 10  # Seconds that a client may take over its request.

    def handle_method(self) -> None:
        if self.command == "GET" and not self.path.startswith("/api/"):
            self.send_page(self.path[1:] or "index.html")
            return
        try:
            status, answer = self.call_operation()
        except Refused as refusal:
            status, answer = contract.ERROR_STATUS[refusal.code], contract.Error(refusal.code, str(refusal))
        except Invalid as problem:
            status, answer = contract.ERROR_STATUS["invalid_body"], contract.Error("invalid_body", str(problem))
        self.send(status, "application/json", json.dumps(answer, default=_plain).encode())

    do_GET = do_PUT = do_POST = handle_method

    def call_operation(self) -> tuple[int, Any]:
        for route in contract.ROUTES:
            match = re.fullmatch(route.pattern, self.path)
            if match and route.method == self.command:
                arguments: dict[str, Any] = match.groupdict()
                if route.takes:
                    arguments["body"] = self.read_body(route.takes)
                return route.status, getattr(self.server.checkout, route.operation)(**arguments)
        raise Refused("not_found", "There is nothing at this address.")

    def read_body(self, record: type[Any]) -> Any:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > LONGEST_BODY_BYTES:
            raise Invalid(f"a body of at most {LONGEST_BODY_BYTES} bytes is needed")
        try:
            return record(**json.loads(self.rfile.read(int(size))))
        except Invalid:
            raise
        except (TypeError, ValueError, RecursionError):
            raise Invalid(f"the body must be a JSON object with {', '.join(record.__annotations__)}") from None

    def send_page(self, name: str) -> None:
        # Only plain names directly in web/: no way leads out of that folder.
        known = re.fullmatch(r"[a-z]+\.(html|css|js)", name)
        if known and (WEB / name).is_file():
            self.send(200, f"{MEDIA_TYPES[known[1]]}; charset=utf-8", (WEB / name).read_bytes())
        else:
            self.send(404, "text/plain", b"There is nothing at this address.\n")

    def send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": media_type, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No line per request."""


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


def main() -> None:
    parser = argparse.ArgumentParser(prog="service", description="The checkout service and its page.")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any free one")
    parser.add_argument("--database", default=":memory:", help="a file, where orders shall outlive the process")
    options = parser.parse_args()
    with Server(options.port, Checkout(options.database)) as server:
        print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
