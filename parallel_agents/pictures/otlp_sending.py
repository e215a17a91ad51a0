"""Spans sent to a collector by OTLP over HTTP, with the SDK of OpenTelemetry: only where somebody has asked for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit

from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed, ParallelAgentsError
from parallel_agents.pictures.otlp_json import SCOPE, SERVICE
from parallel_agents.pictures.span_model import RunSpan
from parallel_agents.version import RELEASE

AT_ONCE: Final = 512  # Spans in one request, as the SDK's own batches.
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PATH: Final = "/v1/traces"


class NotSent(ParallelAgentsError):
    """A collector did not take the spans."""

    code = "not_sent"


def check_sending(endpoint: str | None) -> str:
    """Where spans are to be sent, before any are made.

    Args:
        endpoint: an address, with or without the path of traces; None: the one in the environment.
    Returns:
        What to call it in words.
    Raises:
        NotAllowed: the SDK is not installed.
        InvalidUsage: there is no such address, or a protocol is asked for that is not spoken.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        raise NotAllowed(
            "the SDK of OpenTelemetry is not installed, and without it nothing can be sent",
            hint="pip install 'parallel-agent-orchestrator[otel]' brings it; --otlp FILE needs nothing",
        )
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise InvalidUsage(
            f"OTLP is spoken over http/protobuf, not {protocol!r}",
            hint=f"unset {' and '.join(_PROTOCOLS)}, or set it so",
        )
    told = endpoint or next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    if told is None:
        raise InvalidUsage(
            "nobody has said where to send the spans",
            hint=f"name an address with --otlp-endpoint, or set {ENDPOINTS[1]}",
        )
    parts = urlsplit(told)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidUsage(f"{told!r} is no address of a collector", hint="such as http://localhost:4318")
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def send(spans: Sequence[RunSpan], endpoint: str | None) -> str:
    """Send spans, and wait until the collector has taken all of them.

    Args:
        endpoint: as for ``check_sending``. Headers, certificates and times of waiting are those of the standard variables.
    Returns:
        Where they were sent, in words.
    Raises:
        NotSent: it did not take them.
        NotAllowed, InvalidUsage: as of ``check_sending``.
    """
    where = check_sending(endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    heard = _Heard()
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(heard)
    propagated, logger.propagate = logger.propagate, False
    exporter: Any = OTLPSpanExporter(endpoint=None if endpoint is None else _of_traces(endpoint))
    try:
        made = [_of_sdk(span) for span in spans]
        for begin in range(0, len(made), AT_ONCE):
            if exporter.export(made[begin : begin + AT_ONCE]) is not SpanExportResult.SUCCESS:
                raise NotSent(
                    f"{where} has taken {begin} of {len(made)} spans, and no more: {heard.last or 'it did not answer'}",
                    hint="the same command sends them again, under the same ids",
                )
    finally:
        exporter.shutdown()
        logger.removeHandler(heard)
        logger.propagate = propagated
    return where


def _of_traces(endpoint: str) -> str:
    return endpoint if urlsplit(endpoint).path.rstrip("/").endswith(_PATH) else endpoint.rstrip("/") + _PATH


class _Heard(logging.Handler):
    """Keeps what the exporter says last: it tells nobody else why something was not taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = " ".join(record.getMessage().split())[:300]


def _of_sdk(span: RunSpan) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(trace_id: str, span_id: str) -> SpanContext:
        return SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )

    return ReadableSpan(
        name=span.name,
        context=context(span.trace_id, span.span_id),
        parent=context(span.trace_id, span.parent_id) if span.parent_id else None,
        resource=Resource({"service.name": SERVICE, "service.version": RELEASE}),
        attributes=span.attributes,
        events=[Event(one.name, one.attributes, one.at_ns) for one in span.events],
        links=[Link(context(one.trace_id, one.span_id), one.attributes) for one in span.links],
        kind=SpanKind.INTERNAL,
        instrumentation_scope=InstrumentationScope(SCOPE, RELEASE),
        status=Status(StatusCode.ERROR, span.message or None) if span.error else Status(StatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
    )
