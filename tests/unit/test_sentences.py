"""Every type of event can be said in words, as a line of history and as a notification."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from parallel_agents.cli.sentences import HistoryPage, sentence
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import EVENT_TYPES

SPECIAL: dict[str, Any] = {
    "not_before": "2026-03-01T12:00:00Z",
    "until": "2026-03-01T12:00:00Z",
    "due": "2026-03-01T12:00:00Z",
    "paths": ["a.py", "b.py"],
    "counts": {"completed": 2},
}


def sample(name: str, field: FieldInfo) -> Any:
    """Some value that a field may hold."""
    if name in SPECIAL:
        return SPECIAL[name]
    kind: Any = field.annotation
    if NoneType in get_args(kind):
        return None
    kind = get_origin(kind) or kind
    return {str: "word", int: 3, float: 1.5, bool: False, dict: {}, list: []}.get(kind)


def said(type_: str, **fields: Any) -> str:
    """The sentence of an event."""
    event = EVENT_TYPES[type_](**fields)
    return sentence({"type": type_, "data": event.model_dump(), "seq": 1})


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_every_type_of_event_has_a_sentence(type_: str) -> None:
    """Without an error, whatever its optional fields hold."""
    fields = {name: sample(name, field) for name, field in EVENT_TYPES[type_].model_fields.items()}
    assert isinstance(said(type_, **fields), str)


def test_a_failure_says_how_long_it_took_and_why() -> None:
    """In one line."""
    words = said("TaskFailed", task_id="a", attempt_id="x", duration_s=2.0, error="exit code 1: no such file")
    assert words == "after 2.0 s: exit code 1: no such file"


def test_a_skip_names_the_task_that_failed() -> None:
    """And that the stage fails fast, where that is why."""
    assert said("TaskSkipped", task_id="b", because="a") == "because a failed"
    assert said("TaskSkipped", task_id="b", because="a", reason="fail_fast").endswith("fails fast")


COMMIT = "0123456789abcdef"


@pytest.mark.parametrize(
    ("type_", "fields", "expected"),
    [
        (
            "TaskStarted",
            {"attempt_id": "x", "attempt": 1, "runner": "shell", "base_commit": COMMIT},
            "attempt 1 by shell, x, on 0123456789",
        ),
        (
            "CheckpointCreated",
            {"checkpoint_id": "c", "kind": "after_attempt", "commit": COMMIT, "label": "after a"},
            "c, after attempt, 0123456789: after a",
        ),
        ("CheckpointRestored", {"checkpoint_id": "c", "into": "there", "reason": "why"}, "c, into there: why"),
        (
            "ConflictDetected",
            {"other_task_id": "b", "paths": ["f", "g"], "kinds": ["content"]},
            "with b over f (content), g",
        ),
        (
            "ConflictDetected",
            {"other_task_id": "", "paths": ["f"], "early": True},
            "coming, as both stand now: with what was merged before over f",
        ),
        ("ConflictResolved", {"how": "both", "paths": ["f"], "commit": COMMIT}, "both: f, merged as 0123456789"),
        (
            "TaskBlocked",
            {"reason": "conflict: f with b", "commit": COMMIT},
            "waits for a person: conflict: f with b, its work is 0123456789",
        ),
        ("TaskBlocked", {"reason": "approval"}, "waits for a person: approval"),
        ("TaskUnblocked", {"reason": "approved", "attempt": 2}, "attempt 2: approved"),
        (
            "GateChecked",
            {"scope": "merge", "command": "make test", "passed": False, "exit_code": 2, "duration_s": 1.5},
            "merge gate exit 2 after 1.5 s: make test",
        ),
        (
            "GateChecked",
            {"scope": "stage", "command": "lint", "passed": False, "duration_s": 9.0},
            "stage gate ran too long after 9.0 s: lint",
        ),
        ("SharedStateChanged", {"attempt_id": "x", "what": ["stash", "branch main"]},
         "changed in the repository: stash, branch main"),
        ("RunMerged", {"into": "main", "commit": COMMIT, "squash": True}, "into main as 0123456789, squashed"),
        ("RunRolledBack", {"to_seq": 7, "reason": "wrong way"}, "to event 7: wrong way"),
    ],
)  # fmt: skip
def test_what_happened_to_files_is_said_with_paths_and_short_commits(
    type_: str, fields: dict[str, Any], expected: str
) -> None:
    """In one line each, with the other task where there is one."""
    named = {"task_id": "a"} if "task_id" in EVENT_TYPES[type_].model_fields else {}
    assert said(type_, **named, **fields) == expected


def test_an_event_of_an_older_release_has_a_sentence_too() -> None:
    """Its body holds fewer fields."""
    old = {"task_id": "a", "reason": "approval"}
    assert sentence({"type": "TaskBlocked", "data": old, "seq": 1}) == "waits for a person: approval"
    old = {"task_id": "a", "other_task_id": "b", "paths": ["f"]}
    assert sentence({"type": "ConflictDetected", "data": old, "seq": 1}) == "with b over f"


def test_a_reason_is_said_as_people_say_it() -> None:
    """Codes lose their underscores."""
    counts = {"completed": 1, "cancelled": 2}
    assert said("RunFailed", counts=counts, reason="max_execution_time") == (
        "1 completed, 2 cancelled (max execution time)"
    )
    assert ev.RunPaused(reason="lunch").reason == said("RunPaused", reason="lunch")


def test_a_start_of_an_agent_says_on_which_model_and_why() -> None:
    """And whose session it goes on with, and as whom."""
    fields = {"task_id": "a", "attempt_id": "a2", "attempt": 2, "runner": "claude", "base_commit": None, "facts": {}}
    agent = {**fields, "model": "opus", "model_reason": "it is hard", "resumes": "a1", "role": "merge-engineer"}
    assert said("TaskStarted", **agent) == (
        "attempt 2 by claude as merge-engineer on opus (it is hard), a2, goes on with the session of a1"
    )
    assert said("TaskStarted", **fields) == "attempt 2 by claude, a2"


@pytest.mark.parametrize(
    ("type_", "fields", "ending"),
    [
        ("TaskFailed", {"kind": "agent", "resumable": True}, ", with the error in its prompt"),
        ("TaskFailed", {"kind": "infrastructure", "resumable": False}, ", unchanged"),
        ("TaskFailed", {"kind": "authentication", "resumable": True}, ", unchanged"),
        ("TaskFailed", {"kind": "usage_limit", "resumable": True}, ", going on with its session"),
        ("AttemptLost", {"resumable": True}, ", going on with its session"),
        ("TaskFailed", {}, "1.0 s"),
    ],
)
def test_history_says_how_an_agent_is_tried_again(
    type_: str, fields: dict[str, Any], ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its own fault was, it is told; what was not, changes nothing."""
    ends: dict[str, Any] = {"task_id": "a", "attempt_id": "a1", "error": "it failed", **fields}
    ends |= {"duration_s": 1.0} if type_ == "TaskFailed" else {}
    retry = {
        "task_id": "a",
        "attempt_id": "a1",
        "failures": 1,
        "wait_s": 1.0,
        "jitter_s": 0.0,
        "not_before": "2026-03-01T12:00:00Z",
    }
    page = HistoryPage(undone=frozenset(), with_run=False)
    for seq, (name, data) in enumerate(((type_, ends), ("TaskRetryScheduled", retry)), start=1):
        event = EVENT_TYPES[name](**data).model_dump()
        page.print({"seq": seq, "at": "2026-03-01T12:00:00Z", "type": name, "run_id": "r", "data": event})
    assert capsys.readouterr().out.splitlines()[-1].endswith(ending)


def test_a_release_says_whether_the_run_was_left_in_the_middle() -> None:
    """Only then does anybody go on with it unasked."""
    assert said("RunReleased", epoch=1) == ""
    assert said("RunReleased", epoch=1, left=True) == "in the middle of it; whoever dispatches next goes on"
