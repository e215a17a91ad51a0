"""What is left out of an export for strangers: texts of all fields but those that are named, and never a shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parallel_agents.eventstore.events import EVENT_TYPES
from parallel_agents.eventstore.record import decode_body
from parallel_agents.eventstore.submission import Plan, Task, load_plan
from parallel_agents.scheduler import scopes
from parallel_agents.withholding import KEPT, Withholding

SECRET = "a secret: thing/of.theirs"


def filled(type_: str) -> dict[str, Any]:
    """A body of a type with the secret in every field that can hold a text and is not kept."""
    values: dict[str, Any] = {}
    for name, field in EVENT_TYPES[type_].model_fields.items():
        of = str(field.annotation)
        if name in KEPT:
            values[name] = "kept" if "str" in of and "list" not in of and "dict" not in of else 7
        elif "dict" in of:
            values[name] = {SECRET: SECRET, "kind": SECRET} if name != "counts" else {"completed": 1}
        elif "list" in of:
            values[name] = [SECRET, SECRET]
        elif "str" in of or of.endswith("Any"):
            values[name] = SECRET
        else:
            values[name] = 7
    return values


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_no_text_of_a_field_that_is_not_named_stays(type_: str) -> None:
    """Also of a type, or of a field, that is made one day: whoever adds it decides whether it may be shown."""
    body = filled(type_)
    shown = Withholding().body(type_, json.dumps(body))
    assert SECRET not in shown.replace('"kind":"' + SECRET + '"', "")
    assert json.loads(shown).keys() == body.keys()
    assert {name: value for name, value in json.loads(shown).items() if name in KEPT} == {
        name: value for name, value in body.items() if name in KEPT
    }
    decode_body(type_, shown)


def test_what_holds_no_text_stays_byte_for_byte() -> None:
    """So that its digest proves it."""
    body = '{"task_id":"a",  "attempt_id":"b","usd_micros":5,"model":"m"}'
    assert Withholding().body("CostCharged", body) == body


def test_reasons_of_the_scheduler_stay_and_those_of_people_do_not() -> None:
    """Also what follows a colon goes."""
    of = Withholding()
    for reason, stays in (("dependency", "dependency"), ("approval: of her", "approval"), ("because I say so", "")):
        shown = of.body("TaskBlocked", json.dumps({"task_id": "a", "reason": reason}))
        assert json.loads(shown)["reason"] == stays


def test_a_path_is_the_same_number_within_one_export_only() -> None:
    """Nobody can try out whether a path that they guess is in it."""
    body = json.dumps({"task_id": "a", "paths": ["x", "y", "x"]})
    one, other = (json.loads(Withholding().body("ConflictDetected", body))["paths"] for _ in range(2))
    assert one[0] == one[2] != one[1]
    assert one != other


def test_a_plan_is_read_and_its_tasks_meet_where_they_did() -> None:
    """Commands, prompts, names of files and of variables are gone."""
    globs = [("src/*.py",), ("src/main.py", "docs/"), ("docs/a",), (), ("alone",), ("src/*.py",)]
    tasks = tuple(
        Task(
            task_id=f"t{at}", description=SECRET, command=("sh", SECRET), env={SECRET: SECRET}, env_from=(SECRET,),
            context={SECRET: 1}, tags=(SECRET,), outputs=(SECRET,), files=files, timeout_s=7.0,
        )
        for at, files in enumerate(globs)
    )  # fmt: skip
    of = Withholding()
    of.add_plan("d", Plan(name=SECRET, tasks=tasks, sparse=(SECRET,)).to_bytes())
    digest, content = of.documents["d"]
    assert SECRET not in content.decode()
    assert "src" not in content.decode()
    shown = load_plan(content)
    Plan.model_validate_json(content)
    assert [task.timeout_s for task in shown.tasks] == [7.0] * len(globs)
    for one, mine in zip(shown.tasks, globs, strict=True):
        for other, theirs in zip(shown.tasks, globs, strict=True):
            assert scopes.meet(one.files, other.files) == scopes.meet(mine, theirs)
    submitted = of.body("RunSubmitted", json.dumps({"name": SECRET, "plan_digest": "d", "workdir": SECRET}))
    assert json.loads(submitted)["plan_digest"] == digest
