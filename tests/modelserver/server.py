"""A model server on 127.0.0.1 that says what a script tells it, and remembers what it has served to the token."""

from __future__ import annotations

import contextlib
import json
import select
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

from modelserver import anthropic, responses
from modelserver.script import Reply, Rule, Usage, stated

DIALECTS: dict[str, ModuleType] = {"/v1/messages": anthropic, "/v1/responses": responses}
UNSCRIPTED = Reply(text="The script says nothing of this.", usage=Usage(0, 0))


@dataclass(slots=True)
class Served:
    """One request and what became of it."""

    number: int  # From 1, in the order in which they came.
    path: str
    model: str
    word: str | None  # Of the rule that it belonged to; None: the script says nothing of it.
    status: int
    usage: Usage  # Of the whole answer. Zero for a refusal.
    message_id: str
    at_s: float  # Monotonic, when the request had been read.
    reset_at_s: int = 0  # When the limit ends that it was refused for, as it was stated; seconds since the epoch.
    sent: int = 0  # Events written.
    told_input: bool = False  # The event that tells the input tokens was written.
    told_output: bool = False  # The event that tells the output tokens was written.
    complete: bool = False  # The answer was written to its end, and the client was still there.
    request: dict[str, Any] = field(default_factory=dict, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)


class ModelServer:
    """Serves until ``close``; use it as a context."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._served: list[Served] = []
        self.other_paths: list[str] = []  # What was asked for beside the model.
        self.closed = threading.Event()
        server = self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; answers that hang are let go."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, word: str, *replies: Reply, by_turn: bool = False) -> None:
        """Add a rule: what requests with that word get. An empty word fits every request."""
        with self._lock:
            self._rules.append(Rule(word, replies, by_turn))

    def served(self) -> list[Served]:
        """What has been asked for so far, and how each answer went."""
        with self._lock:
            return list(self._served)

    def usage_by_model(self) -> dict[str, Usage]:
        """Tokens of the answers that were written to their end, by model."""
        sums: dict[str, Usage] = {}
        for one in self.served():
            if one.complete and one.status == 200:
                had = sums.get(one.model, Usage(0, 0))
                sums[one.model] = Usage(
                    had.input + one.usage.input,
                    had.output + one.usage.output,
                    had.cache_read + one.usage.cache_read,
                    had.cache_write + one.usage.cache_write,
                )
        return sums

    def take(self, path: str, request: dict[str, Any], headers: dict[str, str]) -> tuple[Reply, Served]:
        """Find the reply to a request and note that it was asked for."""
        dialect = DIALECTS[path]
        words = dialect.words_of(request)
        with self._lock:
            rule = next((r for r in self._rules if r.word in words), None)
            reply = UNSCRIPTED
            if rule is not None:
                index = dialect.turns_of(request) if rule.by_turn else rule.taken
                rule.taken += 1
                reply = rule.replies[min(index, len(rule.replies) - 1)]
            number = len(self._served) + 1
            refused = bool(reply.refusal or reply.garbage)
            one = Served(
                number=number,
                path=path,
                model=str(request.get("model")),
                word=rule.word if rule else None,
                status=200,
                usage=Usage(0, 0) if refused else reply.usage,
                message_id=f"{'msg_' if dialect is anthropic else 'resp_'}{number:06d}",
                at_s=time.monotonic(),
                request=request,
                headers=headers,
            )
            self._served.append(one)
        return reply, one


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # Many clients come at once.

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed in these tests; what else goes wrong is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        model_server = server

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model_server: ModelServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.model_server.other_paths.append(f"{self.command} {self.path}")
        self._send(404, {"error": {"type": "not_found_error", "message": "not scripted"}})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]
        if path == "/v1/messages/count_tokens":
            self.model_server.other_paths.append(f"POST {path}")
            self._send(200, {"input_tokens": len(raw) // 4})
        elif path in DIALECTS:
            with contextlib.suppress(OSError):  # The client has gone away: what was written says how far it got.
                self._serve(path, json.loads(raw))
        else:
            self.do_GET()

    def _serve(self, path: str, request: dict[str, Any]) -> None:
        dialect = DIALECTS[path]
        reply, one = self.model_server.take(path, request, {k.lower(): v for k, v in self.headers.items()})
        try:
            self._reply(dialect, reply, one)
        except OSError:
            one.complete = False
            raise

    def _reply(self, dialect: ModuleType, reply: Reply, one: Served) -> None:
        """Write an answer. What is noted of it is noted before its last part goes out: a client may end at once."""
        if reply.wait_s:
            self._linger(reply.wait_s)
        if reply.refusal:
            reply = stated(reply, time.time())
            one.reset_at_s = reply.reset_at_s
            one.status, body = dialect.refusal_of(reply, one.model, f"req_{one.number:06d}")
            one.complete = True
            self._send(one.status, body, dict(reply.headers))
        elif reply.garbage:
            self._start_stream()
            one.complete = True
            self._chunk(reply.garbage)
            self._chunk(b"")
        elif not one.request.get("stream"):
            one.told_input = one.told_output = one.complete = True
            self._send(200, dialect.whole(reply, one.message_id, one.model))
        else:
            self._stream(dialect, reply, one)

    def _stream(self, dialect: ModuleType, reply: Reply, one: Served) -> None:
        self._start_stream()
        events = dialect.answer(reply, one.message_id, one.model)
        breaks = [n for n in (reply.cut_after, reply.hang_after, reply.error_after) if n is not None]
        whole = not breaks
        events = events[: min(breaks, default=len(events))]
        if reply.error_after is not None:
            events.append(dialect.error_event())
        for event, data in events:
            number = {"sequence_number": one.sent} if dialect is responses else {}
            payload = json.dumps({"type": event, **number, **data}, separators=(",", ":"))
            one.told_input |= event in ("message_start", "response.completed")
            one.told_output |= event in ("message_delta", "response.completed")
            one.complete = whole and one.sent + 1 == len(events)
            self._chunk(f"event: {event}\ndata: {payload}\n\n".encode())
            one.sent += 1
        if reply.cut_after is not None:
            self.close_connection = True
        elif reply.hang_after is not None:
            self._linger(float("inf"))
        else:
            with contextlib.suppress(OSError):  # A client that has read the last event has all that it needs.
                self._chunk(b"")

    def _linger(self, wait_s: float) -> None:
        """Wait, but no longer than the client does."""
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0 and not self.model_server.closed.is_set():
            if self._gone(min(left, 0.1)):
                raise ConnectionResetError

    def _gone(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self.connection], [], [], wait_s)
        if not ready:
            return False
        try:
            return not self.connection.recv(1, 2)  # MSG_PEEK
        except OSError:
            return True

    def _start_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "content-type": "application/json",
            "content-length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
