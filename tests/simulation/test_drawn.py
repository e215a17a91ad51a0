"""Whatever happened can be drawn, and written for other tools: generated histories, and those that releases have made."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from random import Random

import otlp_files
import trace_events
from hypothesis import given, settings
from test_histories import HISTORIES, SEED, SIZE, generated

from examples import examples
from parallel_agents.eventstore.log import Log
from parallel_agents.pictures.chrome_trace import BEGINS as CHROME
from parallel_agents.pictures.chrome_trace import chrome_trace
from parallel_agents.pictures.course import course
from parallel_agents.pictures.graph_data import graph_of
from parallel_agents.pictures.graph_svg import graph_svg
from parallel_agents.pictures.otlp_json import BEGINS as OTLP
from parallel_agents.pictures.otlp_json import otlp_json
from parallel_agents.pictures.run_spans import run_spans
from parallel_agents.pictures.stretches import ATTEMPT
from parallel_agents.pictures.timeline_svg import timeline_svg
from parallel_agents.projections.projector import Projector

SVG = "{http://www.w3.org/2000/svg}"


def check_all(log: Log, run_id: str, upto: int | None = None) -> None:
    """All four are what their formats say, tell of the same attempts, and come out the same again."""
    found = course(log, run_id, upto)
    again = course(log, run_id, upto)
    for draw in (timeline_svg, graph_svg):
        picture = draw(found)
        assert draw(again) == picture
        root = ElementTree.fromstring(picture)
        assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
        assert root.find(f"{SVG}title") is not None
        assert root.find(f"{SVG}desc") is not None
        assert not [one for one in root.iter() if one.tag in (f"{SVG}script", f"{SVG}image", f"{SVG}use")]
        assert "href" not in picture
    graph = graph_of(found)
    assert {node["task_id"] for node in graph["nodes"]} == set(found.state.tasks)

    text = chrome_trace(found)
    assert text.startswith(CHROME)
    assert chrome_trace(again) == text
    trace = trace_events.checked(text)
    drawn = {one.args["attempt_id"] for one in trace.traceEvents if getattr(one, "cat", "") == "attempt"}
    assert drawn == {one.attempt_id for of in found.waits.by_task.values() for one in of if one.kind == ATTEMPT}

    text = otlp_json(run_spans(found))
    assert text.startswith(OTLP)
    assert otlp_json(run_spans(again)) == text
    spans = otlp_files.checked(otlp_files.spans_of(text))
    assert len(spans) == 1 + len(found.state.tasks) + len(found.spans)


@settings(HISTORIES, max_examples=examples(6))
@given(SEED, SIZE)
def test_what_can_be_generated_can_be_drawn(seed: int, events: int) -> None:
    """As of its end, and as of any event."""
    random = Random(seed)
    with generated(random, events) as (_, log):
        for run_id in Projector(log).runs():
            check_all(log, run_id)
            first = next(log.briefs(run_id))[0]
            check_all(log, run_id, random.randint(first, log.last_seq()))
