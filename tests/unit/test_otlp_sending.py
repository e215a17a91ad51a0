"""Spans are sent where somebody has said, in the wire format of OTLP, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import otlp_files
import pytest
from collector import Collector
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, process_attributes
from opentelemetry.semconv.attributes import error_attributes

from parallel_agents import InvalidUsage
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.pictures import run_spans
from parallel_agents.pictures.otlp_json import otlp_json
from parallel_agents.pictures.otlp_sending import ENDPOINTS, NotSent, check_sending, send
from parallel_agents.pictures.span_model import RunSpan, SpanEvent, SpanLink


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    """One that answers with the code that the test names, or takes all."""
    made = Collector(getattr(request, "param", 200))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nobody_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the environment of who runs the tests."""
    for name in (*ENDPOINTS, "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


def spans(count: int = 2) -> list[RunSpan]:
    """Some, with all that a span can have."""
    trace, first = run_spans.trace_id_of("run"), run_spans.span_id_of("run")
    made = [RunSpan("run", trace, first, "", 1_000, 9_000, {"a": 1, "b": 0.5, "c": True, "d": ("x", "y")})]
    for number in range(1, count):
        one = RunSpan("task", trace, run_spans.span_id_of("run", "task", str(number)), first, 2_000, 3_000, {"e": "ü"})
        one.events.append(SpanEvent("wait", 2_500, {"s": 1.5}))
        one.links.append(SpanLink(trace, first, {"parallel_agents.link": "dependency"}))
        one.error, one.message = True, "broke"
        made.append(one)
    return made


def test_what_is_sent_is_what_a_file_holds(collector: Collector) -> None:
    """Span by span, by the messages of the protocol; a large trace in several requests."""
    made = spans(600)
    assert send(made, collector.address) == collector.address
    assert [path for path, _ in collector.got] == ["/v1/traces", "/v1/traces"]
    sent = collector.spans()
    written = otlp_files.checked(otlp_files.spans_of(otlp_json(made)))
    assert len(sent) == len(written) == 600
    for span in sent:
        span.flags = 0  # That it was sampled, and is of this process: the SDK's own.
        for link in span.links:
            link.flags = 0
        if not span.status.code:
            span.ClearField("status")  # Which the SDK sends empty.
        assert span == written[span.span_id]


def test_the_standard_variables_say_where_to(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base of all signals, or the whole address of traces."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    send(spans(), None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.address}/mine")
    send(spans(), None)
    send(spans(), f"{collector.address}/v1/traces")
    assert [path for path, _ in collector.got] == ["/v1/traces", "/mine", "/v1/traces"]


@pytest.mark.parametrize("collector", [400], indirect=True)
def test_a_collector_that_takes_nothing_is_told_of(collector: Collector) -> None:
    """With what it said."""
    with pytest.raises(NotSent, match=r"taken 0 of 2 spans.*400"):
        send(spans(), collector.address)


def test_what_cannot_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, before anything is made."""
    with pytest.raises(InvalidUsage, match="nobody has said where"):
        check_sending(None)
    for wrong in ("localhost:4318", "ftp://localhost", "http://", "/tmp/x"):
        with pytest.raises(InvalidUsage, match="no address of a collector"):
            check_sending(wrong)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InvalidUsage, match="not 'grpc'"):
        check_sending("http://localhost:4318")
    monkeypatch.setattr("parallel_agents.pictures.otlp_sending.find_spec", lambda name: None)
    with pytest.raises(NotAllowed, match="not installed") as refused:
        check_sending("http://localhost:4318")
    assert "[otel]" in refused.value.hint


def test_an_address_that_holds_a_password_is_not_said_again() -> None:
    """Not in any message."""
    assert check_sending("http://me:secret@localhost:4318/x") == "http://localhost:4318"


def test_names_are_those_of_the_conventions() -> None:
    """Of the version of the package that is installed."""
    known = {
        value
        for module in (gen_ai_attributes, process_attributes, error_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    names = {
        value
        for value in vars(run_spans).values()
        if isinstance(value, str) and value.startswith(("gen_ai.", "error."))
    }
    assert len(names) >= 14
    assert names <= known
    assert "process.exit.code" in known
    operations = {one.value for one in gen_ai_attributes.GenAiOperationNameValues}
    assert {run_spans.INVOKE_AGENT, run_spans.INVOKE_WORKFLOW} <= operations
    providers = {one.value for one in gen_ai_attributes.GenAiProviderNameValues}
    assert {"anthropic", "openai", *run_spans._PROVIDERS.values()} <= providers
