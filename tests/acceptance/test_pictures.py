"""Pictures and traces of runs, as their user makes them: timeline and graph with --svg, export for other tools."""

from __future__ import annotations

import json
import os
import stat
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import otlp_files
import pytest
import trace_events
from collector import Collector
from fakeagent.installing import install
from scratch import Scratch, shell
from versioned import versioned


@pytest.fixture(scope="module")
def project(make_project: Callable[[str], Scratch]) -> Scratch:
    """A run with a failure and a retry, names that would break a picture, and what an agent said."""
    made = versioned(make_project("drawn"), {"README.md": "hello\n"})
    folder = install(made.root / "home" / "bin")
    made.environment["PATH"] = f"{folder}:{made.environment['PATH']}"
    plan = made.plan(
        shell("base", "echo base >base"),
        shell("flaky", 'test -e "$HOME/once" || { touch "$HOME/once"; exit 3; }', "base", max_retries=1),
        {"task_id": "words", "agent_type": "qa-engineer", "description": "Say it.\n@say the <answer> & more",
         "dependencies": ["base"]},
        shell("last", "true", "flaky", "words", agent_type='a"<b>&c'),
        name='<script>alert("x")</script> & so on',
    )  # fmt: skip
    made.quick("run", plan, "--set=execution.retryPolicy.retryDelay=0.01")
    return made


@pytest.mark.parametrize("verb", ["timeline", "graph"])
def test_a_picture_is_one_file_that_is_the_same_each_time(project: Scratch, verb: str) -> None:
    """Whole XML, with its names in it as text; "-" prints the same; an earlier one of its own it replaces."""
    said = project.quick(verb, "--svg", "picture.svg")
    assert (said.out, "picture.svg: " in said.err) == ("", True)
    file = project.root / "picture.svg"
    picture = file.read_text()
    root = ElementTree.fromstring(picture)
    texts = " ".join(root.itertext())
    assert "base" in texts
    assert '<script>alert("x")</script> & so on' in texts
    assert "<script" not in picture
    assert "prefers-color-scheme:dark" in picture
    assert project.quick(verb, "--svg", "-").out == picture
    project.quick(verb, "--svg", "picture.svg")
    assert file.read_text() == picture
    assert stat.S_IMODE(file.stat().st_mode) & 0o077
    first = project.quick("history", "--json").lines[0]["seq"]
    then = project.quick(verb, "--svg", "-", "--at", str(first)).out
    assert ElementTree.fromstring(then) is not None
    assert then != picture
    assert not list(project.root.glob(".*.part"))


def test_what_a_picture_must_not_do_is_refused(project: Scratch) -> None:
    """No folder is made, nobody's file replaced, and nothing is printed twice."""
    project.write("mine.svg", "my notes")
    for words, told in (
        (("timeline", "--svg", "nowhere/x.svg"), "there is no folder nowhere"),
        (("graph", "--svg", "mine.svg"), "is no picture in SVG"),
        (("graph", "--svg", "."), "is a folder"),
        (("graph", "--svg", ""), "an empty name"),
        (("timeline", "--svg", "x", "--json"), "exclude each other"),
        (("export", "--chrome", "a", "--otlp", "b"), "--chrome and --otlp exclude each other"),
        (("export", "--chrome", "a", "-o", "b"), "--chrome and --output exclude each other"),
        (("export", "--with-content"), "--with-content goes with"),
        (("export", "--chrome", "a", "--with-content"), "goes with spans"),
        (("export", "--otlp", "a", "--with-content", "--redact"), "exclude each other"),
        (("export", "--at", "3"), "--at goes with"),
        (("export", "--otlp-endpoint", "localhost:4318"), "no address of a collector"),
        (("export", "--otlp-send"), "nobody has said where"),
    ):
        said = project.quick(*words, code=2)
        assert (told in said.err, "hint" in said.err, said.out) == (True, True, ""), words
    assert (project.root / "mine.svg").read_text() == "my notes"
    assert project.quick("graph", "nope", "--svg", "x", code=3).out == ""
    assert not (project.root / "x").exists()


def test_a_device_is_written_to_and_stays_one(project: Scratch) -> None:
    """Whoever names one wants the text to go there."""
    project.quick("graph", "--svg", os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_graph_says_what_a_run_s_length_was_made_of(project: Scratch) -> None:
    """On a terminal, and for scripts: hops without a gap, which sum up to the whole."""
    graph = project.quick("graph", "--json").data
    nodes = {node["task_id"]: node for node in graph["nodes"]}
    assert (nodes["flaky"]["attempts"], nodes["base"]["layer"], nodes["last"]["layer"]) == (2, 0, 2)
    assert "dependencies" in nodes["last"]["waited_s"]
    assert ["base", "flaky"] in graph["edges"]
    hops = graph["critical_path"]
    assert [one["end"] for one in hops[:-1]] == [one["start"] for one in hops[1:]]
    assert sum(one["length_s"] for one in hops) == pytest.approx(graph["makespan_s"], abs=1e-5)
    assert sum(graph["critical_s"].values()) == pytest.approx(graph["makespan_s"], abs=1e-5)
    assert (hops[0]["link"], hops[-1]["task_id"]) == ("submitted", "last")
    page = project.quick("graph").out
    assert "critical path: " in page
    assert "LAYER" in page


def test_a_trace_is_what_the_format_says(project: Scratch) -> None:
    """Attempts, waits, slots, arrows, counters; less of what people wrote where that is asked for."""
    project.quick("export", "--chrome", "trace.json")
    text = (project.root / "trace.json").read_text()
    trace = trace_events.checked(text)
    seen = {getattr(one, "cat", one.ph) for one in trace.traceEvents}
    assert {"attempt", "wait", "slot", "critical", "dependency", "checkpoint", "C", "M"} <= seen
    assert trace.otherData["name"] == '<script>alert("x")</script> & so on'
    assert project.quick("export", "--chrome", "-").out == text
    assert "alert" not in project.quick("export", "--chrome", "-", "--redact").out
    early = trace_events.checked(project.quick("export", "--chrome", "-", "--at", "4").out)
    assert len(early.traceEvents) < len(trace.traceEvents)


def spans(text: str) -> dict[str, list[Any]]:
    """By the kind of what they tell: the run, tasks, agents' attempts and others'."""
    found: dict[str, list[Any]] = {"invoke_workflow": [], "task": [], "invoke_agent": [], "attempt": []}
    for span in otlp_files.checked(otlp_files.spans_of(text)).values():
        found[span.name.partition(" ")[0]].append(span)
    return found


def test_spans_tell_of_the_run_and_hold_no_content(project: Scratch) -> None:
    """By the conventions; what an agent was told and what it said is in there only where somebody asks for it."""
    project.quick("export", "--otlp", "spans.json")
    text = (project.root / "spans.json").read_text()
    found = spans(text)
    assert {name: len(of) for name, of in found.items()} == {
        "invoke_workflow": 1, "task": 4, "invoke_agent": 1, "attempt": 4,
    }  # fmt: skip
    (agent,), (run,) = found["invoke_agent"], found["invoke_workflow"]
    told = otlp_files.attributes(agent)
    assert agent.name == "invoke_agent qa-engineer"
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("invoke_agent", "anthropic")
    assert told["gen_ai.usage.input_tokens"] >= told["gen_ai.usage.cache_read.input_tokens"]
    assert told["gen_ai.request.model"]
    assert told["gen_ai.conversation.id"] == told["parallel_agents.attempt.id"]
    assert otlp_files.attributes(run)["parallel_agents.run.status"] == "completed"
    failed = [one for one in found["attempt"] if one.status.code]
    assert [otlp_files.attributes(one)["error.type"] for one in failed] == ["failed"]
    assert [one.message for one in [failed[0].status]] == [""]
    kinds = [otlp_files.attributes(link)["parallel_agents.link"] for one in found["attempt"] for link in one.links]
    assert {"dependency", "retry"} == set(kinds)
    assert {"decision", "checkpoint"} <= {event.name for one in found["attempt"] for event in one.events}
    assert "wait" in {event.name for one in found["task"] for event in one.events}
    for word in ("answer", "Say it", "exit code 3"):
        assert word not in text

    whole = project.quick("export", "--otlp", "whole.json", "--with-content")
    file = project.root / "whole.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "whole.json: " in whole.err
    (agent,) = spans(file.read_text())["invoke_agent"]
    told = otlp_files.attributes(agent)
    (asked,), (answered,) = json.loads(told["gen_ai.input.messages"]), json.loads(told["gen_ai.output.messages"])
    assert (asked["role"], "Say it" in asked["parts"][0]["content"]) == ("user", True)
    assert answered == {
        "role": "assistant", "parts": [{"type": "text", "content": "the <answer> & more"}], "finish_reason": "stop",
    }  # fmt: skip
    assert "alert" not in project.quick("export", "--otlp", "-", "--redact").out


def test_spans_are_sent_where_somebody_says(project: Scratch) -> None:
    """By the option, or by the standard variable where sending is asked for; a collector that is not there is told of."""
    collector = Collector(200)
    try:
        said = project.quick("export", "--otlp-endpoint", collector.address)
        assert f"{collector.address}: 10 spans of run " in said.err
        project.quick("export", "--otlp-send", env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address})
        assert len(collector.spans()) == 20
        project.quick("export", "--otlp", "-", env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address})
        assert len(collector.spans()) == 20
    finally:
        collector.close()
    gone = project.quick(
        "export", "--otlp-endpoint", collector.address, code=2, env={"OTEL_EXPORTER_OTLP_TIMEOUT": "0.1"}
    )
    assert f"{collector.address} has taken 0 of 10 spans" in gone.err


def test_an_archived_and_an_imported_run_are_drawn_all_the_same(project: Scratch, tmp_path: Path) -> None:
    """To the byte."""
    made = [("timeline", "--svg", "-"), ("graph", "--svg", "-"), ("export", "--chrome", "-"), ("export", "--otlp", "-")]
    (run,) = [one["run_id"] for one in project.quick("runs", "--json").data]
    before = [project.quick(verb, run, *more).out for verb, *more in made]
    with_content = project.quick("export", run, "--otlp", "-", "--with-content").out
    project.quick("export", run, "-o", str(tmp_path / "run.tar.gz"))
    project.quick("archive", run)
    assert [project.quick(verb, run, *more).out for verb, *more in made] == before
    assert project.quick("export", run, "--otlp", "-", "--with-content").out == with_content
    elsewhere = Scratch(tmp_path / "elsewhere")
    try:
        elsewhere.quick("import", str(tmp_path / "run.tar.gz"))
        assert [elsewhere.quick(verb, run, *more).out for verb, *more in made] == before
    finally:
        elsewhere.close()


def test_slots_that_another_run_held_are_known_when_that_one_is_archived(cli: Scratch) -> None:
    """Its ends are read from there: the waits are what they were."""
    settings = ("--set=maxParallelAgents=1",)
    other = cli.quick(
        "submit", cli.plan(shell("o", "sleep 0.2"), shell("p", "true"), name="other"), *settings
    ).out.strip()
    mine = cli.quick("submit", cli.plan(shell("m", "true"), shell("n", "true"), name="mine"), *settings).out.strip()
    cli.quick("daemon", "start")
    cli.quick("wait", other)
    cli.quick("wait", mine)
    cli.quick("daemon", "stop")
    before = cli.quick("graph", mine, "--json").out
    waited = {code for node in json.loads(before)["nodes"] for code in node["waited_s"]}
    assert waited & {"no_slot", "lower_rank"}
    cli.quick("archive", other)
    assert cli.quick("graph", mine, "--json").out == before
