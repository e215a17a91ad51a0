"""The Trace Event Format, as the public document of that name of the Chromium project says it: its JSON object format.

Each phase has the fields that the document names for it; one that it does not name is refused.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Microseconds = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Event(_Strict):
    name: str = Field(min_length=1)
    pid: int
    tid: int


class Complete(_Event):
    """A slice: it has its length."""

    ph: Literal["X"]
    cat: str
    ts: Microseconds
    dur: Microseconds
    args: dict[str, Any]


class Instant(_Event):
    """Something that has no length; its scope is a thread, a process or all."""

    ph: Literal["i"]
    cat: str
    ts: Microseconds
    s: Literal["t", "p", "g"]
    args: dict[str, Any]


class Counter(_Event):
    """Values from here on; each is a number."""

    ph: Literal["C"]
    ts: Microseconds
    args: dict[str, float | int] = Field(min_length=1)


class Flow(_Event):
    """The beginning of an arrow, or its end, which binds to the slice that it ends in."""

    ph: Literal["s", "f"]
    cat: str
    id: int
    ts: Microseconds
    bp: Literal["e"] | None = None


class Metadata(_Event):
    """Names of processes and threads, and in which order they are shown."""

    ph: Literal["M"]
    name: Literal["process_name", "thread_name", "process_sort_index", "thread_sort_index"]
    args: dict[str, str | int]


class Trace(_Strict):
    """A whole file."""

    displayTimeUnit: Literal["ms", "ns"]
    otherData: dict[str, str | int]
    traceEvents: list[Annotated[Complete | Instant | Counter | Flow | Metadata, Field(discriminator="ph")]]


def checked(text: str) -> Trace:
    """A file, as the format has it.

    On each thread slices lie apart or one within the other; every arrow has both of its ends, and begins and ends in a slice.
    """
    trace = Trace.model_validate(json.loads(text))
    slices = [one for one in trace.traceEvents if isinstance(one, Complete)]
    by_thread: dict[tuple[int, int], list[Complete]] = {}
    for one in slices:
        by_thread.setdefault((one.pid, one.tid), []).append(one)
    for of in by_thread.values():
        until = 0.0
        for one in sorted(of, key=lambda one: (one.ts, one.dur)):
            assert one.ts >= until, one
            until = max(until, one.ts + one.dur)
    flows = [one for one in trace.traceEvents if isinstance(one, Flow)]
    begins = {one.id: one for one in flows if one.ph == "s"}
    ends = {one.id: one for one in flows if one.ph == "f"}
    assert begins.keys() == ends.keys()
    for one in flows:
        assert any(a.ts <= one.ts <= a.ts + a.dur for a in by_thread[one.pid, one.tid]), one
    assert all(begins[number].ts <= end.ts for number, end in ends.items())
    return trace
