"""What a span of OpenTelemetry is, as far as a run needs it: neither the SDK nor its wire format is known here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, Value]


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """What happened at one time, in nanoseconds since the epoch."""

    name: str
    at_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SpanLink:
    """Another span that this one has to do with. Ids in hex."""

    trace_id: str
    span_id: str
    attributes: Attributes


@dataclass(slots=True)
class RunSpan:
    """One span. Times are nanoseconds since the epoch, ids hex; ``error`` says that it ended in one."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Attributes = field(default_factory=dict)
    events: list[SpanEvent] = field(default_factory=list)
    links: list[SpanLink] = field(default_factory=list)
    error: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What people and agents wrote, for who asks for it: messages as JSON texts, by attempt id; and words in events."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
