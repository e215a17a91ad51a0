"""The state of a run, event by event: what `status` shows and what the scheduler decides on."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, Stage, Task
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.status import RunState, TaskState

PLAN = Plan(
    name="house",
    stages=(Stage(name="first"), Stage(name="second")),
    tasks=(
        Task(task_id="dig"),
        Task(task_id="lint", allow_failure=True),
        Task(task_id="build", dependencies=("dig", "lint"), stage=1),
        Task(task_id="paint", dependencies=("build",), stage=1),
    ),
)
SECOND_US = 1_000_000


def submitted(plan: Plan = PLAN) -> ev.RunSubmitted:
    """The event that names a plan."""
    return ev.RunSubmitted(
        name=plan.name, plan_digest=digest_of(plan.to_bytes()), task_count=len(plan.tasks), strategy=plan.strategy,
        workspace=plan.workspace, workdir="/project", environment={"LANG": "C"}, budget_usd_micros=7,
    )  # fmt: skip


def after(*events: ev.Event, plan: Plan = PLAN) -> RunState:
    """The state after a submission and some events, one a second."""
    state = status_fold.initial("alpha")
    for index, event in enumerate([submitted(plan), *events], 1):
        record = Recorded(10 * index, "alpha", index, index * SECOND_US, "ana", event)
        state = status_fold.fold(state, record, lambda digest: plan.to_bytes())
    return state


def queued(task_id: str, reason: str = "") -> ev.TaskQueued:
    """Ready."""
    return ev.TaskQueued(task_id=task_id, reason=reason)


def started(task_id: str, attempt: int = 1) -> ev.TaskStarted:
    """An attempt called after its task and number."""
    return ev.TaskStarted(
        task_id=task_id, attempt_id=f"{task_id}{attempt}", attempt=attempt, runner="shell", model="haiku"
    )


def completed(task_id: str, attempt: int = 1) -> ev.TaskCompleted:
    """Its good end."""
    return ev.TaskCompleted(
        task_id=task_id, attempt_id=f"{task_id}{attempt}", duration_s=2.5, exit_code=0, output="made", cpu_s=0.5,
        peak_memory_bytes=4096,
    )  # fmt: skip


def failed(task_id: str, attempt: int = 1) -> ev.TaskFailed:
    """Its bad end."""
    return ev.TaskFailed(
        task_id=task_id, attempt_id=f"{task_id}{attempt}", duration_s=1.5, error="exit 3", exit_code=3, output="half"
    )


def ran(task_id: str) -> list[ev.Event]:
    """The whole life of a task that succeeds at once."""
    return [queued(task_id), started(task_id), completed(task_id)]


def shown(task: TaskState, *names: str) -> dict[str, Any]:
    """Some fields of a task."""
    return {name: getattr(task, name) for name in names}


def test_a_submitted_run_has_every_task_pending() -> None:
    """With what the event and its plan say."""
    state = after()
    assert (state.name, state.status, state.workdir, state.environment) == (
        "house",
        "submitted",
        "/project",
        {"LANG": "C"},
    )
    assert (state.seq, state.version, state.submitted_at_us, state.budget_usd_micros) == (10, 1, SECOND_US, 7)
    assert state.counts == {"pending": 4}
    assert {name: task.open_dependencies for name, task in state.tasks.items()} == {
        "dig": 0, "lint": 0, "build": 2, "paint": 1,
    }  # fmt: skip
    assert state.stage_open == [2, 2]
    assert state.dependents == {"dig": ["build"], "lint": ["build"], "build": ["paint"]}
    assert [task.index for task in state.tasks.values()] == [0, 1, 2, 3]
    assert state.touched == set(state.tasks)


def test_a_completed_task_shows_its_attempt_and_opens_the_way() -> None:
    """Times, result and measures, and the dependents count one less."""
    state = after(ev.RunStarted(), *ran("dig"))
    assert shown(state.tasks["dig"], "status", "attempts", "attempt_id", "runner", "model", "exit_code", "output") == {
        "status": "completed", "attempts": 1, "attempt_id": "dig1", "runner": "shell", "model": "haiku", "exit_code": 0,
        "output": "made",
    }  # fmt: skip
    assert shown(
        state.tasks["dig"], "queued_at_us", "started_at_us", "ended_at_us", "duration_s", "cpu_s", "peak_memory_bytes"
    ) == {
        "queued_at_us": 3 * SECOND_US, "started_at_us": 4 * SECOND_US, "ended_at_us": 5 * SECOND_US, "duration_s": 2.5,
        "cpu_s": 0.5, "peak_memory_bytes": 4096,
    }  # fmt: skip
    assert state.tasks["build"].open_dependencies == 1
    assert (state.stage_open, state.running) == ([1, 2], {})


def test_a_running_task_is_found_by_its_attempt() -> None:
    """Until the attempt's one end."""
    assert after(ev.RunStarted(), queued("dig"), started("dig")).running == {"dig1": "dig"}
    for end in (
        failed("dig"),
        ev.TaskTimedOut(task_id="dig", attempt_id="dig1", duration_s=9.0, timeout_s=9.0, error="too long"),
        ev.AttemptLost(task_id="dig", attempt_id="dig1", error="gone"),
        ev.TaskCancelled(task_id="dig", attempt_id="dig1"),
    ):
        assert after(ev.RunStarted(), queued("dig"), started("dig"), end).running == {}


@pytest.mark.parametrize(
    ("end", "status", "failures", "duration_s", "error"),
    [
        (failed("dig"), "failed", 1, 1.5, "exit 3"),
        (
            ev.TaskTimedOut(task_id="dig", attempt_id="dig1", duration_s=9.0, timeout_s=9.0, error="too long"),
            "failed", 1, 9.0, "too long",
        ),
        (ev.AttemptLost(task_id="dig", attempt_id="dig1", error="gone"), "failed", 1, 1.0, "gone"),
        (ev.TaskCancelled(task_id="dig", attempt_id="dig1", duration_s=0.25), "cancelled", 0, 0.25, None),
    ],
)  # fmt: skip
def test_an_attempt_may_end_badly_in_four_ways(
    end: ev.Event, status: str, failures: int, duration_s: float, error: str | None
) -> None:
    """All but a cancellation count against its retries."""
    task = after(ev.RunStarted(), queued("dig"), started("dig"), end).tasks["dig"]
    assert shown(task, "status", "failures", "duration_s", "error") == {
        "status": status, "failures": failures, "duration_s": duration_s, "error": error,
    }  # fmt: skip
    assert task.ended_at_us == 5 * SECOND_US


def test_what_a_cancelled_attempt_used_is_kept() -> None:
    """It ran until it was stopped."""
    used: dict[str, Any] = {
        "duration_s": 3.0, "cpu_s": 1.25, "peak_memory_bytes": 8192, "peak_cpu_percent": 40.5, "peak_open_files": 9,
        "disk_written_bytes": 512,
    }  # fmt: skip
    end = ev.TaskCancelled(task_id="dig", attempt_id="dig1", **used)
    task = after(ev.RunStarted(), queued("dig"), started("dig"), end).tasks["dig"]
    assert shown(task, *used) == used


def test_a_retry_waits_in_the_queue_and_a_start_clears_what_was() -> None:
    """With its not-before, its failures and the last error still to be seen."""
    retry = ev.TaskRetryScheduled(
        task_id="dig", attempt_id="dig1", failures=1, not_before="1970-01-01T00:01:00Z", wait_s=5.0, jitter_s=0.0
    )
    before = [ev.RunStarted(), queued("dig"), started("dig"), failed("dig"), retry]
    state = after(*before)
    assert shown(state.tasks["dig"], "status", "not_before_us", "failures", "error", "ended_at_us") == {
        "status": "queued", "not_before_us": 60 * SECOND_US, "failures": 1, "error": "exit 3", "ended_at_us": None,
    }  # fmt: skip
    assert state.stage_failed == {}
    task = after(*before, started("dig", 2)).tasks["dig"]
    assert shown(task, "status", "not_before_us", "attempts", "attempt_id", "duration_s") == {
        "status": "running", "not_before_us": None, "attempts": 2, "attempt_id": "dig2", "duration_s": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("end", "open_dependencies"),
    [(failed("lint"), 1), (ev.TaskCancelled(task_id="lint"), 1), (ev.TaskSkipped(task_id="lint", because="dig"), 2)],
)
def test_a_task_that_may_fail_lets_its_dependents_start_unless_it_was_skipped(
    end: ev.Event, open_dependencies: int
) -> None:
    """And it never fails its stage."""
    state = after(ev.RunStarted(), queued("lint"), started("lint"), end)
    assert state.tasks["build"].open_dependencies == open_dependencies
    assert state.stage_failed == {}
    assert state.stage_open == [1, 2]


def test_a_failure_for_good_is_remembered_by_its_stage_until_the_task_is_opened_again() -> None:
    """Then its retries lie ahead of it, and its dependents wait again."""
    life: list[ev.Event] = [ev.RunStarted(), queued("dig"), started("dig"), failed("dig")]
    skipped = ev.TaskSkipped(task_id="build", because="dig")
    state = after(*life, skipped)
    assert state.stage_failed == {0: ["dig"]}
    assert shown(state.tasks["build"], "status", "because", "reason") == {
        "status": "skipped", "because": "dig", "reason": "dependency",
    }  # fmt: skip
    state = after(*life, skipped, ev.TaskReopened(task_id="dig"), ev.TaskReopened(task_id="build"))
    assert state.stage_failed == {}
    assert shown(state.tasks["dig"], "status", "failures", "error", "ended_at_us") == {
        "status": "pending", "failures": 0, "error": None, "ended_at_us": None,
    }  # fmt: skip
    assert shown(state.tasks["build"], "status", "because", "open_dependencies") == {
        "status": "pending", "because": None, "open_dependencies": 2,
    }  # fmt: skip
    assert state.stage_open == [2, 2]


def test_a_completed_task_that_is_opened_again_closes_the_way() -> None:
    """Its dependents count one more."""
    state = after(ev.RunStarted(), *ran("dig"), ev.TaskReopened(task_id="dig"))
    assert state.tasks["build"].open_dependencies == 2


def test_a_blocked_task_says_what_it_waits_for() -> None:
    """And is pending again once a person answered."""
    blocked = ev.TaskBlocked(task_id="dig", reason="approval required")
    assert shown(after(blocked).tasks["dig"], "status", "reason") == {
        "status": "blocked",
        "reason": "approval required",
    }
    assert shown(after(blocked, ev.TaskUnblocked(task_id="dig")).tasks["dig"], "status", "reason") == {
        "status": "pending", "reason": "",
    }  # fmt: skip


def test_a_wish_to_cancel_stands_until_the_attempt_ends() -> None:
    """A later attempt begins without it."""
    wish = ev.TaskCancelRequested(task_id="dig")
    life: list[ev.Event] = [ev.RunStarted(), queued("dig"), started("dig"), wish]
    assert after(*life).tasks["dig"].cancel_requested
    assert not after(*life, failed("dig")).tasks["dig"].cancel_requested


def test_a_task_that_ran_when_a_rollback_took_hold_waits_again_without_its_attempt() -> None:
    """A late result of that attempt finds nobody."""
    state = after(ev.RunStarted(), queued("dig"), started("dig"), queued("dig", "rolled_back"), ev.RunPaused())
    assert (state.status, state.running) == ("paused", {})
    assert shown(state.tasks["dig"], "status", "started_at_us") == {"status": "queued", "started_at_us": None}


@pytest.mark.parametrize(
    ("events", "status", "ended_at_us"),
    [
        ([ev.RunStarted()], "running", None),
        ([ev.RunStarted(), ev.RunPaused()], "paused", None),
        ([ev.RunStarted(), ev.RunPaused(), ev.RunResumed()], "running", None),
        ([ev.RunPaused()], "paused", None),
        ([ev.RunPaused(), ev.RunResumed()], "submitted", None),
        ([ev.RunStarted(), ev.RunCompleted(counts={})], "completed", 3 * SECOND_US),
        ([ev.RunStarted(), ev.RunFailed(counts={})], "failed", 3 * SECOND_US),
        ([ev.RunStarted(), ev.RunCancelRequested()], "running", None),
        ([ev.RunStarted(), ev.RunCancelled(counts={})], "cancelled", 3 * SECOND_US),
        ([ev.RunStarted(), ev.RunFailed(counts={}), ev.RunResumed()], "running", None),
    ],
)
def test_a_run_goes_through_its_states(events: list[ev.Event], status: str, ended_at_us: int | None) -> None:
    """Its end is no end once it is resumed."""
    state = after(*events)
    assert (state.status, state.ended_at_us) == (status, ended_at_us)
    assert state.ended == (ended_at_us is not None)


def test_a_resumed_run_is_no_longer_to_be_cancelled() -> None:
    """Whoever resumes it wants it to go on; its time counts anew."""
    state = after(ev.RunStarted(), ev.RunCancelRequested(reason="enough"), ev.RunCancelled(counts={}), ev.RunResumed())
    assert (state.cancel_requested, state.reason, state.started_at_us, state.active_since_us) == (
        False, "", 2 * SECOND_US, 5 * SECOND_US,
    )  # fmt: skip


def test_a_checkpoint_is_shown_at_its_task() -> None:
    """One of the whole run at none."""
    state = after(
        ev.CheckpointCreated(checkpoint_id="c1", kind="before", task_id="dig"),
        ev.CheckpointCreated(checkpoint_id="c2", kind="manual"),
    )
    assert [task.checkpoint_id for task in state.tasks.values()] == ["c1", None, None, None]


@pytest.mark.parametrize("cls", list(ev.EVENT_TYPES.values()), ids=lambda cls: cls.__name__)
def test_every_event_there_is_can_be_folded(cls: type[ev.Event]) -> None:
    """A new one cannot be forgotten here."""
    given: dict[str, Any] = {
        "task_id": "dig", "attempt_id": "dig1", "plan_digest": digest_of(PLAN.to_bytes()), "name": "house",
        "strategy": "concurrent", "workspace": "shared", "workdir": "/project", "environment": {},
        "not_before": "1970-01-01T00:01:00Z",
        "until": "1970-01-01T00:01:00Z",
        "due": "1970-01-01T00:01:00Z",
    }  # fmt: skip
    filler: dict[type, Any] = {int: 1, float: 1.0, str: "x", bool: False, dict: {}, list: []}
    values: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        if field.is_required():
            kind: Any = getattr(field.annotation, "__origin__", field.annotation)
            values[name] = given.get(name, filler.get(kind))
    state = after(queued("dig"), started("dig"))
    if cls is ev.RunSubmitted:
        state = status_fold.initial("alpha")
    record = Recorded(50, "alpha", 5, 9 * SECOND_US, "ana", cls(**values))
    state = status_fold.fold(state, record, lambda digest: PLAN.to_bytes())
    assert (state.seq, state.version) == (50, 5)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [ev.TaskCancelRequested(task_id="paint")],
        [ev.CheckpointCreated(checkpoint_id="c1", kind="before", task_id="dig")],
        [queued("dig"), ev.TaskCancelled(task_id="dig"), ev.TaskReopened(task_id="dig")],
        [queued("dig"), ev.TaskBlocked(task_id="dig", reason="x"), ev.TaskUnblocked(task_id="dig")],
        [ev.RunStarted(), *ran("dig"), queued("lint"), started("lint"), failed("lint")],
        [ev.RunStarted(), queued("dig"), started("dig"), failed("dig"), ev.TaskReopened(task_id="dig")],
    ],
)
def test_a_snapshot_forgets_nothing(events: list[ev.Event]) -> None:
    """Not even of a task that has never started."""
    state = after(*events)
    loaded = status_fold.load("alpha", status_fold.dump(state), lambda digest: PLAN.to_bytes())
    for name in state.__slots__:
        if name not in ("touched", "broken"):
            assert getattr(loaded, name) == getattr(state, name), name
