"""Spans as a file of OTLP/JSON, which collectors read. Pure.

Source: OTLP specification 1.x of the OpenTelemetry project, "JSON Protobuf Encoding": names in lowerCamelCase, ids in hex,
numbers of 64 bits as texts, enumerations as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from parallel_agents.pictures.span_model import RunSpan, Value
from parallel_agents.version import RELEASE

BEGINS: Final = '{"resourceSpans":'  # So begins every file of ours.
SCOPE: Final = "parallel_agents"
SERVICE: Final = "parallel-agents"
_INTERNAL: Final = 1  # Span.SpanKind: what it tells of ran on this machine.
_ERROR: Final = 2  # Status.StatusCode


def otlp_json(spans: Iterable[RunSpan]) -> str:
    """One ``TracesData`` with all of them, as JSON on one line."""
    resource = {"service.name": SERVICE, "service.version": RELEASE}
    shown = {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": {"name": SCOPE, "version": RELEASE}, "spans": [_span(one) for one in spans]}],
            }
        ]
    }
    return json.dumps(shown, ensure_ascii=True, separators=(",", ":")) + "\n"


def _span(span: RunSpan) -> dict[str, Any]:
    shown: dict[str, Any] = {"traceId": span.trace_id, "spanId": span.span_id}
    if span.parent_id:
        shown["parentSpanId"] = span.parent_id
    shown |= {
        "name": span.name, "kind": _INTERNAL, "startTimeUnixNano": str(span.start_ns), "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "events": [
            {"timeUnixNano": str(one.at_ns), "name": one.name, "attributes": _attributes(one.attributes)}
            for one in span.events
        ],
        "links": [
            {"traceId": one.trace_id, "spanId": one.span_id, "attributes": _attributes(one.attributes)} for one in span.links
        ],
    }  # fmt: skip
    if span.error:
        shown["status"] = {"code": _ERROR, **({"message": span.message} if span.message else {})}
    return shown


def _attributes(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case _:
            return {"arrayValue": {"values": [_value(one) for one in value]}}
