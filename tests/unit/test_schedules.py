"""Scheduled plans become runs when they are due: once each, told where it was late, and never two at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gitrepos import user_git

from parallel_agents import schedules
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage, StoreError, UnknownEvent
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
NOON_US = round(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()) * SECOND_US
PLAN = Plan(name="nightly", workspace="none", tasks=(Task(task_id="a", command=("true",)),))


class Scheduled:
    """A store whose clock a test sets, with plans in it that run by a timetable."""

    def __init__(self, folder: Path) -> None:
        self.now_us = NOON_US
        self.project = Project(folder, folder / "events.db", folder / "work")
        self.project.workdir.mkdir()
        self.log = Log(self.project.store, clock=lambda: self.now_us)

    def add(self, cron: str = "*/10 * * * *", **more: Any) -> str:
        """One more; its id."""
        return str(
            schedules.add(self.log, PLAN, self.project, cron=cron, zone="UTC", environ={}, **more)["schedule_id"]
        )

    def fire(self, minutes: float) -> float | None:
        """Fire what is due so long after noon; in how many minutes after noon something is due next."""
        self.now_us = NOON_US + round(minutes * MINUTE_US)
        due_us = schedules.fire(self.log, self.now_us)
        return None if due_us is None else (due_us - NOON_US) / MINUTE_US

    def end(self, run_id: str) -> None:
        """A run is over."""
        version = Projector(self.log).state(run_id).version
        self.log.append(run_id, version, [ev.RunCancelled(counts={})])

    @property
    def told(self) -> list[ev.Event]:
        """What happened to schedules, oldest first."""
        return [one.event for one in self.log.read() if one.run_id == ev.STORE_RUN]

    @property
    def runs(self) -> list[str]:
        """The runs there are."""
        return list(Projector(self.log).runs())


@pytest.fixture
def scheduled(tmp_path: Path) -> Iterator[Scheduled]:
    """A store with nothing in it."""
    made = Scheduled(tmp_path)
    yield made
    made.log.close()


def test_what_is_due_becomes_one_run_and_is_told_with_it(scheduled: Scheduled) -> None:
    """In one commit, and not again until the next time."""
    schedule_id = scheduled.add()
    assert scheduled.fire(9.9) == 10
    assert scheduled.runs == []
    assert scheduled.fire(10) == 20
    [run_id] = scheduled.runs
    assert scheduled.told[1:] == [
        ev.ScheduleFired(
            schedule_id=schedule_id, due="2026-11-26T12:10:00.000000Z", run_id=run_id, missed=0, late_s=0.0
        )
    ]
    state = Projector(scheduled.log).state(run_id)
    assert (state.name, state.workdir, list(state.tasks)) == ("nightly", str(scheduled.project.workdir), ["a"])
    assert scheduled.fire(10.5) == 20
    assert scheduled.runs == [run_id]
    records = list(scheduled.log.read())
    assert records[-1].at_us == records[-2].at_us


def test_times_that_nobody_saw_to_become_one_run_that_says_how_many(scheduled: Scheduled) -> None:
    """The latest of them, and how late it is."""
    scheduled.add()
    assert scheduled.fire(47.5) == 50
    [fired] = scheduled.told[1:]
    assert isinstance(fired, ev.ScheduleFired)
    assert (fired.due, fired.missed, fired.late_s) == ("2026-11-26T12:40:00.000000Z", 3, 450.0)
    assert len(scheduled.runs) == 1


def test_missed_times_can_be_left_out(scheduled: Scheduled) -> None:
    """Told with the reason; a time that is only a little late is kept."""
    scheduled.add(misfire="skip")
    scheduled.fire(45)
    [skipped] = scheduled.told[1:]
    assert isinstance(skipped, ev.ScheduleSkipped)
    assert "nobody dispatched" in skipped.reason
    assert (skipped.due, skipped.missed) == ("2026-11-26T12:40:00.000000Z", 3)
    assert scheduled.runs == []
    scheduled.fire(50.5)
    assert len(scheduled.runs) == 1


def test_a_run_that_has_not_ended_is_not_joined_by_the_next_one(scheduled: Scheduled) -> None:
    """The time is skipped and says which run was in the way; when that is over, the next time counts."""
    scheduled.add()
    scheduled.fire(10)
    [first] = scheduled.runs
    scheduled.fire(20)
    assert scheduled.runs == [first]
    assert f"run {first} of the time before has not ended" in scheduled.told[-1].reason  # type: ignore[attr-defined]
    [line] = schedules.lines(scheduled.log)
    assert (line["last_run_id"], line["last_due_at"]) == (first, "2026-11-26T12:20:00.000000Z")
    assert first in line["skipped"]
    scheduled.end(first)
    scheduled.fire(30)
    assert len(scheduled.runs) == 2


def test_two_that_fire_at_once_make_one_run(scheduled: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second finds inside of the transaction that it is seen to."""
    scheduled.add()
    prepare, raced = schedules._prepare, []

    def slowly(log: Log, made: ev.PlanScheduled) -> Any:
        prepared = prepare(log, made)
        if not raced:
            raced.append(True)
            with Log(scheduled.project.store, clock=lambda: scheduled.now_us) as other:
                schedules.fire(other, scheduled.now_us)
        return prepared

    monkeypatch.setattr(schedules, "_prepare", slowly)
    scheduled.fire(10)
    assert raced
    assert len(scheduled.runs) == 1
    assert len(scheduled.told) == 2


def test_one_that_is_removed_fires_no_more(scheduled: Scheduled) -> None:
    """The others do; the past knows it still."""
    gone, stays = scheduled.add(), scheduled.add("0 13 * * *")
    seq = scheduled.log.last_seq()
    schedules.remove(scheduled.log, gone, "enough")
    assert scheduled.fire(59) == 60
    assert scheduled.runs == []
    assert [line["schedule_id"] for line in schedules.lines(scheduled.log)] == [stays]
    assert [line["schedule_id"] for line in schedules.lines(scheduled.log, seq)] == [gone, stays]
    with pytest.raises(UnknownEvent, match="no schedule"):
        schedules.remove(scheduled.log, gone)


def test_what_cannot_start_is_skipped_with_the_reason_and_the_next_one_starts(scheduled: Scheduled) -> None:
    """A folder that is gone stops nothing else."""
    broken, whole = scheduled.add(), scheduled.add()
    away = scheduled.project.workdir.rename(scheduled.project.root / "away")
    scheduled.fire(10)
    assert [type(event).__name__ for event in scheduled.told[2:]] == ["ScheduleSkipped", "ScheduleSkipped"]
    assert "no folder" in scheduled.told[-1].reason  # type: ignore[attr-defined]
    away.rename(scheduled.project.workdir)
    scheduled.fire(20)
    fired = {event.schedule_id for event in scheduled.told if isinstance(event, ev.ScheduleFired)}
    assert fired == {broken, whole}


def test_a_plan_with_checkouts_starts_from_the_commit_of_that_moment(scheduled: Scheduled) -> None:
    """Not from the one at which it was scheduled."""
    top = scheduled.project.workdir
    user_git(top, "init", "-q")

    def commit(name: str) -> str:
        (top / name).write_text(name)
        user_git(top, "add", "-A")
        user_git(top, "commit", "-qm", name)
        return user_git(top, "rev-parse", "HEAD")

    commit("one")
    plan = PLAN.model_copy(update={"workspace": "worktree"})
    schedules.add(scheduled.log, plan, scheduled.project, cron="*/10 * * * *", zone="UTC", environ={})
    second = commit("two")
    scheduled.fire(10)
    [run_id] = scheduled.runs
    assert Projector(scheduled.log).state(run_id).integration == second


def test_a_wrong_timetable_is_appended_nowhere(scheduled: Scheduled) -> None:
    """Nor a wrong way with missed times."""
    with pytest.raises(InvalidUsage, match="bad minute"):
        scheduled.add("99 * * * *")
    with pytest.raises(InvalidUsage, match="neither run nor skip"):
        scheduled.add(misfire="later")
    assert scheduled.told == []


def test_the_clock_asks_to_be_woken_and_learns_of_new_plans(scheduled: Scheduled) -> None:
    """It reads the log only when something is due or has changed."""
    woken: list[int] = []
    clock = schedules.Clock(scheduled.log, woken.append, clock=lambda: scheduled.now_us)
    clock.look()
    assert woken == []
    scheduled.add()
    clock.look()
    assert woken == []
    clock.learn(list(scheduled.log.read()))
    clock.look()
    assert [(at - NOON_US) / MINUTE_US for at in woken] == [0, 10]
    scheduled.now_us = NOON_US + 10 * MINUTE_US
    clock.look()
    assert len(scheduled.runs) == 1
    assert woken[-1] == NOON_US + 20 * MINUTE_US


def test_a_store_that_refuses_loses_no_time(scheduled: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was due is due still when it is mended."""
    scheduled.add()
    clock = schedules.Clock(scheduled.log, lambda at_us: None, clock=lambda: scheduled.now_us)
    scheduled.now_us = NOON_US + 11 * MINUTE_US
    transact = Log.transact

    def refuse(log: Log, decide: Any, *, actor: str | None = None) -> list[Recorded]:
        def then_fail(draft: Draft) -> None:
            decide(draft)
            raise StoreError("the disk is full")

        return transact(log, then_fail, actor=actor)

    monkeypatch.setattr(Log, "transact", refuse)
    clock.look()
    assert scheduled.runs == []
    monkeypatch.undo()
    clock.look()
    assert scheduled.runs == []  # It waits a little before it tries again.
    scheduled.now_us += 6 * SECOND_US
    clock.look()
    assert len(scheduled.runs) == 1
