"""Files that hold a plan, and files that hold something else: whatever the bytes are, one clear message."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from parallel_agents.configuration import DEFAULTS
from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.planfile import PlanDraft, load_plan_file, parse_plan

TWO = """\
name: two
tasks:
- task_id: first
  command: [make]
- task_id: second
  command: [make, test]
"""


def plan(text: str) -> PlanDraft:
    """The plan of a YAML text."""
    return parse_plan(text, "plan.yaml", DEFAULTS)


def refusal(text: str, source: str = "plan.yaml") -> InvalidPlan:
    """The error that a text gives; it must be fit for a terminal."""
    with pytest.raises(InvalidPlan) as caught:
        parse_plan(text, source, DEFAULTS)
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600
    return caught.value


def file_refusal(path: Path) -> InvalidPlan:
    """The error that a file gives."""
    with pytest.raises(InvalidPlan) as caught:
        load_plan_file(path, DEFAULTS)
    return caught.value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: [", "line 2: is no YAML"),
        ("a:\n\tb: 1", "line 2: is no YAML"),
        ("tasks: 'x", "line 1: is no YAML"),
        ("a: 1\n---\nb: 2", "holds a second document"),
        ("name: a\nname: b", 'line 2: the key "name" is given twice'),
        ("a: *b", "*b stands for nothing"),
        ("a: &x [*x]", "*x stands inside of what it stands for"),
        ("a: !!python/object/apply:os.system [ls]", "stands for nothing here"),
        ("a: !custom x", "the tag !custom stands for nothing here"),
        ("a: !!int abc", '"abc" cannot be read as int'),
        ("a: 0x_", "cannot be read as int"),
        ("a: " + "9" * 5000, "cannot be read as int"),
        ("yes: 1", "the key true is no text"),
        ("? [a]\n: b", "a key is a list or a mapping"),
        ("a: {<<: 3}", "<< takes a mapping or a list of mappings"),
        ("a: \x01", "control character"),
        ("[" * 200_000, "is nested deeper than 100 levels"),
        ("- " * 200_000 + "a", "is nested deeper than 100 levels"),
        ("{a: " * 200_000, "is nested deeper than 100 levels"),
        ("? " * 200_000, ""),
    ],
    ids=lambda text: text[:30],
)
def test_broken_yaml_is_refused_with_its_line(text: str, found: str) -> None:
    """Deep nesting ends in a message, not in a stack overflow inside libyaml."""
    assert found in refusal(text).message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"tasks": [', "plan.json, line 1: is no JSON"),
        ('{"tasks": [\n{"task_id": "a",\n"task_id": "b"}]}', 'line 3: the key "task_id" is given twice'),
        ('{"tasks":\n [{"task_id": "a", "command": ["x"],\n "priority": "hi"}]}', "line 3: tasks[0].priority"),
        ('{"tasks":\n [{"task_id": "a", "command": ["x"]},\n {"task_id": "b"}]}', "line 3: tasks[1]"),
        ('{"tasks": [{"timeout_s": NaN}]}', "NaN is no number"),
        ('{"tasks": [{"timeout_s": %s}]}' % ("9" * 5000), "too many digits"),
        ('{"tasks": "\\ud800"}', "is no JSON"),
        ("[" * 300_000, "is nested too deep"),
        ("", "is empty"),
        ('{"\\"}\\u0041": 1, "tasks": []}', "line 1"),
    ],
    ids=lambda text: text[:30],
)
def test_broken_json_is_refused_with_its_line(text: str, found: str) -> None:
    """The same care as for YAML."""
    assert found in refusal(text, "plan.json").message


def test_a_yaml_bomb_is_refused_before_it_goes_off() -> None:
    """Nine lines that stand for a billion words."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{other}: &{other} [{', '.join([f'*{one}'] * 10)}]")
    assert "its aliases stand for more than 2,000,000 values" in refusal("\n".join(lines)).message
    long = "a: &a " + "x" * 1_000_000 + "\nb: [" + ", ".join(["*a"] * 100) + "]\n"
    assert "64 MiB of text" in refusal(long).message


def test_anchors_and_merge_keys_work_and_keep_their_lines() -> None:
    """What a task says itself stands; an error in what was merged names where that is written."""
    text = (
        "defaults: &base\n  command: [x]\n  tags: &t [one]\n"
        "tasks:\n- {<<: *base, task_id: a, command: [y]}\n- {<<: [*base, {priority: %s}], task_id: b, tags: *t}\n"
    )
    first, second = plan(text % "low").tasks
    assert (first.command, first.tags) == (("y",), ("one",))
    assert (second.command, second.priority, second.tags) == (("x",), "low", ("one",))
    assert refusal(text % "lwo").message.startswith("plan.yaml, line 6: tasks[1].priority")


def test_words_that_yaml_takes_for_dates_or_signs_stay_texts() -> None:
    """No field takes a date."""
    text = "tasks: [{task_id: a, description: 2026-02-31, command: [test, a, =, <<, 2026-01-01 10:00:00]}]"
    task = plan(text).tasks[0]
    assert task.description == "2026-02-31"
    assert task.command == ("test", "a", "=", "<<", "2026-01-01 10:00:00")


def test_a_missing_file_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    """The nearest plan beside it."""
    (tmp_path / "plan.yaml").write_text(TWO)
    error = file_refusal(tmp_path / "plna.yaml")
    assert error.message == f"{tmp_path / 'plna.yaml'}: there is no such plan file"
    assert error.hint == "did you mean 'plan.yaml'?"
    assert "no such plan file" in file_refusal(tmp_path / "no" / "plan.yaml").message


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A directory, a FIFO that nobody writes to, a device without end, a name with NUL, a link to itself."""
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert "is a directory" in file_refusal(tmp_path).message
    assert "is a pipe, socket or device" in file_refusal(tmp_path / "fifo.yaml").message
    assert "is a pipe, socket or device" in file_refusal(Path("/dev/zero")).message
    assert "cannot be read" in file_refusal(Path("a\0b")).message
    assert "cannot be read" in file_refusal(tmp_path / "loop.yaml").message
    assert "cannot be read" in file_refusal(tmp_path / ("x" * 5000)).message


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by the system, as root would be allowed."""

    def denied(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("parallel_agents.documents.os.open", denied)
    assert "plan.yaml: cannot be read: Permission denied" in file_refusal(tmp_path / "plan.yaml").message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\x7fELF\0\0\0", "is binary (a NUL byte at offset 4)"),
        ("tasks: [a]".encode("utf-16"), "is binary"),
        (b"name: a\ndescription: \xff\xfe", "line 2: is not UTF-8 text"),
        (b"", "is empty"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    """With where the first strange byte is."""
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    assert found in file_refusal(path).message


def test_a_file_of_fifty_megabytes_is_refused_unread(tmp_path: Path) -> None:
    """Its size alone tells."""
    path = tmp_path / "plan.yaml"
    with open(path, "wb") as file:
        file.truncate(50 * 1024 * 1024)
    assert file_refusal(path).message == f"{path}: has 50 MiB; a plan file may have 32 MiB"


def test_endings_and_byte_order_marks_do_not_matter(tmp_path: Path) -> None:
    """JSON under another ending is read as JSON; TOML is no plan."""
    body = json.dumps({"tasks": [{"task_id": "a", "command": ["x"]}]})
    for name in ("p.json", "p.yaml", "p.plan", "p"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + body.encode())
        assert load_plan_file(tmp_path / name, DEFAULTS).name == "p"
    (tmp_path / "p.toml").write_text("")
    assert "a plan is YAML or JSON" in file_refusal(tmp_path / "p.toml").message


def test_a_file_with_a_wild_name_gives_a_plan_with_a_tame_one(tmp_path: Path) -> None:
    """Nor does the name disturb a message."""
    path = tmp_path / "a\n\x1bb.yaml"
    path.write_text(TWO.removeprefix("name: two\n"))
    assert load_plan_file(path, DEFAULTS).name == "a__b"
    path.write_text("x")
    assert file_refusal(path).message.isprintable()
    assert refusal("x", "not\udcffutf8.yaml").message.startswith("not\\udcffutf8.yaml: ")
