"""Every type of event can be said in words, as a line of history and as a notification."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from parallel_agents.cli.history_page import HistoryPage
from parallel_agents.cli.sentences import sentence
from parallel_agents.eventstore.events import EVENT_TYPES

VALUES: dict[str, tuple[Any, Any]] = {
    "not_before": ("2026-03-01T12:00:00Z", "2026-03-02T13:00:00Z"),
    "until": ("2026-03-01T12:00:00Z", "2026-03-02T13:00:00Z"),
    "due": ("2026-03-01T12:00:00Z", "2026-03-02T13:00:00Z"),
    "counts": ({"completed": 2}, {"completed": 3}),
    "holder": ({"kind": "daemon", "pid": 7}, {"kind": "run", "pid": 8}),
    "scope": ("run", "task:a"),
    "outcome": ("", "no_change"),
    "source": ("agent", "estimated"),
    "reason": ("dependency", "fail_fast"),
}
BY_KIND: dict[Any, tuple[Any, Any]] = {
    str: ("word", "other"), int: (4_000_000, 9_000_000), float: (1.5, 2.5), bool: (False, True),
    dict: ({"field": "one"}, {"field": "two"}), list: (["one"], ["two"]), Any: ("out", "put"),
}  # fmt: skip
"""Two values of each kind, of which a sentence that tells it makes two."""
MEASURES = {"cpu_s", "peak_memory_bytes", "peak_cpu_percent", "peak_open_files", "disk_written_bytes"}
BESIDE = {"task_id", "attempt_id"}  # In a column of their own, or told with the attempt's start.
FOR_PROGRAMS = {
    "plan_digest", "state_digest", "old_digest", "new_digest", "sha256", "environment", "facts", "epoch", "used_s", "version",
    "resumable", "retryable", "jitter_s", "log", "prices", "at_once", "repository", "callables", "level", "tags", "folder",
    "openings", "misfire", "root", "include_uncommitted", "wait_s",
}  # fmt: skip
IN_OTHER_WORDS = {
    "RunSubmitted": {"workspace", "base_commit"}, "RunPaused": {"code"}, "RunRolledBack": {"commit"},
    "RunForked": {"strategy", "task_count", "commit", "status", "started_at_us", "ended_at_us", "counts"},
    "TaskFailed": {"exit_code", "output"}, "TaskCompleted": {"exit_code"}, "AttemptStuck": {"kind", "silent_s"},
    "TaskRetryScheduled": {"not_before", "attempt_id"}, "TaskBlocked": {"output", "exit_code", "duration_s"},
    "CheckpointCreated": {"stage", "description", "agent_type", "branch"}, "CheckpointRestored": {"commit"},
    "FilesRestoring": {"checkpoint_id"}, "ConflictDetected": {"onto", "commit"}, "PlanScheduled": {"workdir"},
    "CostCharged": {"agent_type", "runner", "duration_s"}, "GateChecked": {"output", "commit", "stage"},
    "ProviderLimited": {"kind", "count"}, "CircuitOpened": {"lost"},
}  # fmt: skip
"""What a sentence leaves to another field of its event that says it better, or to another event of the same moment."""


def sample(name: str, field: FieldInfo, which: int) -> Any:
    """One of two values that a field may hold."""
    if name in VALUES:
        return VALUES[name][which]
    kind: Any = field.annotation
    if NoneType in get_args(kind):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return BY_KIND[get_origin(kind) or kind][which]


def said(type_: str, **fields: Any) -> str:
    """The sentence of an event."""
    event = EVENT_TYPES[type_](**fields)
    return sentence({"type": type_, "data": event.model_dump(), "seq": 1})


def full(type_: str) -> dict[str, Any]:
    """The fields of an event, all of them set."""
    return {name: sample(name, field, 0) for name, field in EVENT_TYPES[type_].model_fields.items()}


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_every_type_of_event_has_a_sentence(type_: str) -> None:
    """With all that there is to say, and with as little as a release ever wrote."""
    assert sentence({"type": type_, "data": full(type_)}).strip()
    least = {name: value for name, value in full(type_).items() if EVENT_TYPES[type_].model_fields[name].is_required()}
    assert said(type_, **least).strip()


def test_the_sentences_of_two_types_are_never_the_same() -> None:
    """Whoever reads one without the column beside it knows what happened."""
    sentences = {type_: sentence({"type": type_, "data": full(type_)}) for type_ in EVENT_TYPES}
    assert len(set(sentences.values())) == len(EVENT_TYPES)
    with pytest.raises(AssertionError, match="SomethingNew has no sentence"):
        sentence({"type": "SomethingNew", "data": {}})


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_a_sentence_tells_who_what_why_and_how_much(type_: str) -> None:
    """Every field makes a difference, but for what stands beside the sentence, measures, and what is for programs."""
    fields, said_then = full(type_), sentence({"type": type_, "data": full(type_)})
    untold = set()
    for name, field in EVENT_TYPES[type_].model_fields.items():
        other = {**fields, name: sample(name, field, 1)}
        if sentence({"type": type_, "data": other}) == said_then:
            untold.add(name)
    assert untold - MEASURES - BESIDE - FOR_PROGRAMS == IN_OTHER_WORDS.get(type_, set()) - BESIDE


def test_a_sentence_says_by_whom_where_somebody_asked_for_it() -> None:
    """A pause may be a person's, or the dispatcher's because of money."""
    event = {"type": "RunPaused", "data": {"reason": "lunch"}, "actor": "cli"}
    assert sentence(event) == "no task starts any more; what runs finishes: lunch (by cli)"
    assert sentence({"type": "RunStarted", "data": {}, "actor": "daemon"}) == "it begins"


def test_a_failure_says_how_long_it_took_and_why() -> None:
    """In one line."""
    words = said("TaskFailed", task_id="a", attempt_id="x", duration_s=2.0, error="exit code 1: no such file")
    assert words == "failed after 2.0 s: exit code 1: no such file"


def test_a_skip_names_the_task_that_failed() -> None:
    """And that the stage fails fast, where that is why."""
    assert said("TaskSkipped", task_id="b", because="a") == "skipped, because a did not complete"
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
            "checkpoint c, after attempt, 0123456789: after a",
        ),
        ("CheckpointRestored", {"checkpoint_id": "c", "into": "there", "reason": "why"},
         "files are those of c again, into there: why"),
        (
            "ConflictDetected",
            {"other_task_id": "b", "paths": ["f", "g"], "kinds": ["content"]},
            "does not merge with b over f (content), g",
        ),
        (
            "ConflictDetected",
            {"other_task_id": "", "paths": ["f"], "early": True},
            "will not merge, as both stand now, with what was merged before over f",
        ),
        ("ConflictResolved", {"how": "both", "paths": ["f"], "commit": COMMIT}, "settled by both: f, merged as 0123456789"),
        (
            "TaskBlocked",
            {"reason": "conflict: f with b", "commit": COMMIT},
            "waits for a person: conflict: f with b, its work is 0123456789",
        ),
        ("TaskBlocked", {"reason": "approval"}, "waits for a person: approval"),
        ("TaskUnblocked", {"reason": "approved", "attempt": 2}, "waits for nobody any more: attempt 2: approved"),
        (
            "GateChecked",
            {"scope": "merge", "command": "make test", "passed": False, "exit_code": 2, "duration_s": 1.5},
            "merge gate did not pass, exit 2, after 1.5 s: make test",
        ),
        (
            "GateChecked",
            {"scope": "stage", "command": "lint", "passed": False, "duration_s": 9.0},
            "stage gate ran too long after 9.0 s: lint",
        ),
        ("SharedStateChanged", {"attempt_id": "x", "what": ["stash", "branch main"]},
         "while it ran, this changed in the repository: stash, branch main"),
        ("RunMerged", {"into": "main", "commit": COMMIT, "squash": True},
         "its result is brought into main as 0123456789, squashed"),
        ("RunRolledBack", {"to_seq": 7, "reason": "wrong way"}, "back to event 7; what came after is undone: wrong way"),
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
    assert sentence({"type": "ConflictDetected", "data": old, "seq": 1}) == "does not merge with b over f"


def test_a_reason_is_said_as_people_say_it() -> None:
    """Codes lose their underscores."""
    counts = {"completed": 1, "cancelled": 2}
    assert said("RunFailed", counts=counts, reason="max_execution_time") == (
        "it has failed: 1 completed, 2 cancelled (max execution time)"
    )
    assert said("RunPaused", reason="a_b") == "no task starts any more; what runs finishes: a b"


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
    page = HistoryPage(undone=lambda *_: False, with_run=False)
    for seq, (name, data) in enumerate(((type_, ends), ("TaskRetryScheduled", retry)), start=1):
        event = EVENT_TYPES[name](**data).model_dump()
        page.print({"seq": seq, "at": "2026-03-01T12:00:00Z", "type": name, "run_id": "r", "data": event})
    assert capsys.readouterr().out.splitlines()[-1].endswith(ending)


def test_a_release_says_whether_the_run_was_left_in_the_middle() -> None:
    """Only then does anybody go on with it unasked."""
    assert said("RunReleased", epoch=1) == "nobody dispatches it any more"
    assert said("RunReleased", epoch=1, left=True).endswith("in the middle of it; whoever dispatches next goes on")
