"""OTLP/JSON, read by the messages of opentelemetry-proto."""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

_IDS = ("traceId", "spanId", "parentSpanId")


def spans_of(text: str) -> list[Span]:
    """The spans of a file. A field that the protocol does not know is an error.

    Ids are hex in OTLP/JSON and base64 in the JSON of protobuf: that is all that is done to it before.
    """
    data = ParseDict(_in_base64(json.loads(text)), TracesData())
    return [span for resource in data.resource_spans for scope in resource.scope_spans for span in scope.spans]


def _in_base64(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64encode(bytes.fromhex(one)).decode() if key in _IDS else _in_base64(one)
            for key, one in value.items()
        }
    return [_in_base64(one) for one in value] if isinstance(value, list) else value


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span, an event or a link."""
    found = {}
    for one in of.attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        found[one.key] = [entry.string_value for entry in value.values] if kind == "array_value" else value
    return found


def checked(spans: list[Span]) -> dict[bytes, Span]:
    """By id: every id is there once, every parent is there and began no later, nothing ends before it begins."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    assert len({span.trace_id for span in spans}) == 1
    for span in spans:
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.name
        if span.parent_span_id:
            assert span.parent_span_id in by_id
    assert [span.parent_span_id for span in spans].count(b"") == 1
    return by_id
