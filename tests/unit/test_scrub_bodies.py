"""A secret goes out of the words of events and documents; what others refer to stays, and is told."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import EVENT_TYPES
from parallel_agents.eventstore.record import decode_validated, encode
from parallel_agents.eventstore.secret_spellings import Secret
from parallel_agents.eventstore.submission import Plan, Task, load_plan
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState
from parallel_agents.scrub_bodies import WORDS, clean_document, clean_event, names_plan

TEXT = 'hunter2"hunter2'
SECRET = Secret(TEXT)


def cleaned(event: ev.Event, renamed: dict[str, str] | None = None) -> tuple[Any, list[str]]:
    """An event without the secret, as it would be read, and where it stays."""
    body, left = clean_event(type(event).__name__, encode(event).decode(), SECRET, renamed or {})
    return decode_validated((1, "run", 1, type(event).__name__, 0, "local", body)).event, left


def test_it_goes_out_of_all_free_text() -> None:
    """Also out of JSON in text, keys, and lists."""
    output = {"said": [json.dumps({"key": TEXT})], TEXT: 1, "n": 12345678901234567890123, "f": 1e-07}
    event = ev.TaskCompleted(task_id="a", attempt_id="x", duration_s=0.1, output=output)
    after, left = cleaned(event)
    assert left == []
    assert not SECRET.is_in_value(after.output)
    assert json.loads(after.output["said"][0]) == {"key": "[redacted]"}
    assert (after.output["f"], after.output["[redacted]"]) == (1e-07, 1)
    body, _ = clean_event("TaskCompleted", encode(event).decode(), SECRET, {})
    assert '"n":12345678901234567890123,' in body  # orjson itself reads no number that long.
    assert (after.task_id, after.duration_s) == ("a", 0.1)


def test_an_event_without_it_is_the_same_text() -> None:
    """Byte by byte: its digest is in the chain."""
    body = '{ "reason" : "caf\\u00e9 hunter2" }'
    assert clean_event("RunPaused", body, SECRET, {}) == (body, [])


def test_what_others_refer_to_stays_and_is_told() -> None:
    """Ids, commits, folders."""
    event = ev.TaskFailed(task_id=TEXT, attempt_id="x", duration_s=0.1, error=f"no {TEXT}")
    after, left = cleaned(event)
    assert (after.task_id, after.error, left) == (TEXT, "no [redacted]", ["task_id"])
    moved = ev.RunMoved(workdir=f"/home/{TEXT}")
    assert cleaned(moved) == (moved, ["workdir"])


def test_no_field_that_is_changed_is_one_that_others_refer_to() -> None:
    """Words are told apart from names by a list: whoever adds a field has to say which it is, or it stays."""
    referred_to = {
        "task_id", "attempt_id", "checkpoint_id", "schedule_id", "run_id", "parent", "commit", "base_commit", "workdir", "root",
        "repository", "plan_digest", "state_digest", "sha256", "file", "old_digest", "new_digest", "holder", "scope", "runner",
    }  # fmt: skip
    fields = {name for cls in EVENT_TYPES.values() for name in cls.model_fields}
    assert fields > WORDS
    assert not WORDS & referred_to
    assert not {name for cls in EVENT_TYPES.values() for name in cls.free_text} & referred_to


@pytest.mark.parametrize("body", ["", "[]", "{", "null", "7"])
def test_a_body_that_is_none_is_refused(body: str) -> None:
    """It is damaged, and whoever changes it hides that."""
    with pytest.raises(ValueError):  # noqa: PT011
        clean_event("RunPaused", body, SECRET, {})


def plan(**fields: Any) -> bytes:
    """A plan with one task."""
    task = {"task_id": "a", "command": ("true",), **fields}
    return Plan(name="p", tasks=(Task(**task), Task(task_id="b", command=("x",), dependencies=("a",)))).to_bytes()


def test_a_plan_is_a_plan_afterwards() -> None:
    """Out of commands, descriptions, variables, contexts with their keys."""
    before = plan(
        description=f"use {TEXT}",
        command=("login", TEXT),
        env={"PASSWORD": TEXT},
        context={TEXT: [TEXT]},
        timeout_s=0.5,
    )
    after, left = clean_document(before, SECRET, {})
    assert (left, SECRET.is_in_bytes(after)) == ([], False)
    task = load_plan(after).tasks[0]
    assert (task.command, task.env) == (("login", "[redacted]"), {"PASSWORD": "[redacted]"})
    assert (task.context, task.timeout_s) == ({"[redacted]": ["[redacted]"]}, 0.5)
    assert load_plan(after).tasks[1] == load_plan(before).tasks[1]
    clean = plan()
    assert clean_document(clean, SECRET, {}) == (clean, [])


def test_names_in_a_plan_stay_and_are_told() -> None:
    """Of tasks, agents and variables."""
    secret = Secret("hunter2hunter2")
    before = plan(task_id="hunter2hunter2", env={"hunter2hunter2": "hunter2hunter2"})
    before = before.replace(b'"dependencies":["a"]', b'"dependencies":["hunter2hunter2"]')
    after, left = clean_document(before, secret, {})
    assert load_plan(after).tasks[0].env == {"hunter2hunter2": "[redacted]"}
    assert [task.task_id for task in load_plan(after).tasks] == ["hunter2hunter2", "b"]
    assert left == ["task_id", "a key of env of task hunter2hunter2", "dependencies of task b"]


def test_a_plan_that_would_be_none_any_more_stays_and_is_told() -> None:
    """Such as one whose strategy is the secret."""
    before = plan().replace(b'{"name"', b'{"strategy":"pipeline","name"')
    after, left = clean_document(before, Secret("pipeline"), {})
    assert (after, len(left), "strategy" in left[0]) == (before, 1, True)


def test_the_state_of_a_fork_is_read_as_before_and_names_the_new_plan() -> None:
    """Its outputs and errors are clean."""
    content = plan(description=TEXT)
    blobs = {"0" * 64: content}
    state = RunState("run")
    submitted = ev.RunSubmitted(
        name=TEXT, plan_digest="0" * 64, task_count=2, strategy="concurrent", workspace="none", workdir="/"
    )
    for seq, event in enumerate(
        [submitted, ev.TaskStarted(task_id="a", attempt_id="x", attempt=1, runner="shell"),
         ev.TaskFailed(task_id="a", attempt_id="x", duration_s=1.0, error=f"no {TEXT}", output={"k": TEXT})], start=1,
    ):  # fmt: skip
        st.fold(
            state,
            decode_validated((seq, "run", seq, type(event).__name__, seq, "local", encode(event))),
            blobs.__getitem__,
        )
    before = st.dump(state)
    assert (names_plan(before), names_plan(content)) == (True, False)
    new, _ = clean_document(content, SECRET, {})
    after, left = clean_document(before, SECRET, {"0" * 64: "1" * 64})
    assert (left, SECRET.is_in_bytes(after)) == ([], False)
    read = st.load("run", after, {"1" * 64: new}.__getitem__)
    task = read.tasks["a"]
    assert (read.plan_digest, task.error, task.output, task.attempt_id) == (
        "1" * 64,
        "no [redacted]",
        {"k": "[redacted]"},
        "x",
    )
    assert orjson.loads(after).keys() == orjson.loads(before).keys()
