"""Plans that run again and again by a timetable: made, listed, removed, and fired by the daemon when they are due.

A plan is checked and settled when it is scheduled, as at a submission; later edits of its file change nothing. Each time
that is due becomes one run at most: the run and the event that says so are one commit, decided on what the log says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import InvalidUsage, ParallelAgentsError, StoreError, UnknownEvent, nearest
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.log import Draft, Log, digest_of, wall_clock_us
from parallel_agents.eventstore.record import Recorded, decode_brief, new_id, rfc3339
from parallel_agents.eventstore.submission import Plan, load_plan
from parallel_agents.project import Project
from parallel_agents.projections import runs as runs_fold
from parallel_agents.projections import schedules as fold
from parallel_agents.projections import status as st
from parallel_agents.projections.schedules import Schedule
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.environment import recorded_environment
from parallel_agents.scheduler.timetable import Timetable, due, next_after, timetable
from parallel_agents.submit import Submission, submission
from parallel_agents.versioning import Start, look_again

MISFIRES: Final = ("run", "skip")
GRACE_S: Final = 60.0
"""So late a time still counts as kept; a daemon that is just being restarted misses nothing."""
_AGAIN_US: Final = 5_000_000  # After the store has refused.


def local_zone() -> str:
    """The zone of this machine's clocks, by its name in the IANA database; UTC where it has none."""
    import tzlocal  # What APScheduler finds it by.

    try:
        return str(tzlocal.get_localzone_name() or "UTC")
    except Exception:  # A zone that the database does not know; it says so in several ways.
        return "UTC"


def add(
    log: Log,
    plan: Plan,
    project: Project,
    *,
    cron: str,
    zone: str | None = None,
    misfire: str = "run",
    include_uncommitted: bool = False,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Schedule a plan.

    Returns:
        The schedule, as ``schedules`` lists it.
    Raises:
        InvalidUsage: the timetable is wrong.
    """
    table = check(cron=cron, zone=zone, misfire=misfire)
    content = plan.to_bytes()
    made = ev.PlanScheduled(
        schedule_id=new_id(),
        name=plan.name,
        plan_digest=digest_of(content),
        task_count=len(plan.tasks),
        cron=table.cron,
        zone=table.zone,
        misfire=misfire,
        workdir=os.path.abspath(project.workdir),
        root=str(project.root),
        environment=recorded_environment(os.environ if environ is None else environ),
        include_uncommitted=include_uncommitted,
    )

    def decide(draft: Draft) -> None:
        draft.add_blob(made.plan_digest, content)
        draft.add(STORE_RUN, made)

    [record] = log.transact(decide)
    return as_line(Schedule(made, record.at_us, record.at_us), record.at_us)


def check(*, cron: str, zone: str | None = None, misfire: str = "run") -> Timetable:
    """The timetable that somebody wants, with this machine's zone where none is named.

    Raises:
        InvalidUsage: it is wrong.
    """
    if misfire not in MISFIRES:
        raise InvalidUsage(f"--misfire {misfire!r} is neither run nor skip")
    return timetable(cron, zone or local_zone())


def remove(log: Log, schedule_id: str, reason: str = "") -> None:
    """Let a plan not run by itself any more. What it had started goes on.

    Raises:
        UnknownEvent: there is no such schedule.
    """

    def decide(draft: Draft) -> None:
        known = schedules(log)
        if schedule_id not in known:
            raise UnknownEvent(f"there is no schedule {schedule_id!r}", hint=nearest(schedule_id, known))
        draft.add(STORE_RUN, ev.ScheduleRemoved(schedule_id=schedule_id, reason=reason))

    log.transact(decide)


def schedules(log: Log, upto: int | None = None) -> dict[str, Schedule]:
    """The schedules of a store, oldest first."""
    found: dict[str, Schedule] = {}
    for brief in log.briefs(STORE_RUN, 0, upto, where=f"type IN {fold.FOLDED}"):
        fold.fold(found, decode_brief(STORE_RUN, brief))
    return found


def lines(log: Log, upto: int | None = None) -> list[dict[str, Any]]:
    """Each schedule as JSON has it: when it is due next, as of now or of an event, and what became of the last time."""
    row = None if upto is None else log.row(upto)
    now_us = wall_clock_us() if row is None else row.at_us
    return [as_line(one, now_us) for one in schedules(log, upto).values()]


def as_line(schedule: Schedule, now_us: int) -> dict[str, Any]:
    """One schedule, as of a moment."""
    made = schedule.made
    next_us = _next(schedule, max(schedule.seen_us, now_us))
    return {
        "schedule_id": made.schedule_id,
        "name": made.name,
        "cron": made.cron,
        "zone": made.zone,
        "misfire": made.misfire,
        "next_at": None if next_us is None else rfc3339(next_us),
        "last_due_at": None if schedule.last_due_us is None else rfc3339(schedule.last_due_us),
        "last_run_id": schedule.last_run_id,
        "skipped": schedule.skipped,
        "missed": schedule.missed,
        "scheduled_at": rfc3339(schedule.made_at_us),
        "workdir": made.workdir,
    }


def _table(schedule: Schedule) -> Timetable:
    return Timetable(schedule.made.cron, schedule.made.zone)


def fire(log: Log, now_us: int) -> int | None:
    """Make runs of whatever is due.

    Returns:
        When something is due next, in microseconds since the epoch; None where nothing is scheduled.
    Raises:
        StoreError: the store refuses; what was due is due still.
    """
    for schedule in schedules(log).values():
        at_us = _next(schedule, schedule.seen_us)
        if at_us is not None and at_us <= now_us:
            _fire_one(log, schedule, now_us)
    times = (_next(one, one.seen_us) for one in schedules(log).values())
    return min((at_us for at_us in times if at_us is not None), default=None)


def _next(schedule: Schedule, after_us: int) -> int | None:
    try:
        return next_after(_table(schedule), after_us)
    except InvalidUsage as error:  # Scheduled where the zone was known.
        trouble.warn("schedule {} is never due here: {} ({})", schedule.made.schedule_id, error, error.hint)
        return None


def _fire_one(log: Log, schedule: Schedule, now_us: int) -> None:
    made = schedule.made
    prepared: Submission | None = None
    refused = _why_not(log, schedule, now_us)
    if not refused:
        try:
            prepared = _prepare(log, made)
        except StoreError:
            raise
        except (ParallelAgentsError, OSError) as error:
            refused = str(error)

    reach("schedule.prepared")

    def decide(draft: Draft) -> None:
        fresh = schedules(log).get(made.schedule_id)
        found = None if fresh is None else due(_table(fresh), fresh.seen_us, now_us)
        if found is None:  # Removed, or somebody else saw to it.
            return
        at = rfc3339(found.at_us)
        if prepared is None:
            skipped = ev.ScheduleSkipped(schedule_id=made.schedule_id, due=at, reason=refused, missed=found.missed)
            draft.add(STORE_RUN, skipped)
            return
        for digest, content in prepared.blobs.items():
            draft.add_blob(digest, content)
        draft.add_all(prepared.run_id, prepared.events)
        fired = ev.ScheduleFired(
            schedule_id=made.schedule_id,
            due=at,
            run_id=prepared.run_id,
            missed=found.missed,
            late_s=max(0, now_us - found.at_us) / 1e6,
        )
        draft.add(STORE_RUN, fired)

    log.transact(decide)
    reach("schedule.fired")


def _why_not(log: Log, schedule: Schedule, now_us: int) -> str:
    """Why a time that is due leads to no run; empty where it does."""
    found = due(_table(schedule), schedule.seen_us, now_us)
    late_s = 0.0 if found is None else (now_us - found.at_us) / 1e6
    if schedule.made.misfire == "skip" and late_s > GRACE_S:
        return "nobody dispatched at that time, and misfire is skip"
    if schedule.last_run_id is not None:
        last = runs_fold.fold_all(log.run_level(None)).get(schedule.last_run_id)
        if last is not None and last.status not in st.ENDED:
            return f"run {last.run_id} of the time before has not ended: it is {last.status}"
    return ""


def _prepare(log: Log, made: ev.PlanScheduled) -> Submission:
    plan = load_plan(log.blob(made.plan_digest))
    workdir = Path(made.workdir)
    if not workdir.is_dir():
        raise InvalidUsage(f"there is no folder {workdir} any more", hint="schedule the plan anew")
    project = Project(Path(made.root), log.path, workdir)
    start: Start = look_again(plan.workspace, project, include_uncommitted=made.include_uncommitted)
    return submission(log, plan, workdir=workdir, environment=made.environment, start=start)


class Clock:
    """Fires what is due, for the daemon. ``look`` is called by one thread, again and again; ``learn`` by any.

    Args:
        wake_at: asks for a call of ``look`` at a time, in microseconds since the epoch.
    """

    def __init__(self, log: Log, wake_at: Callable[[int], None], clock: Callable[[], int] = wall_clock_us) -> None:
        self._log = log
        self._wake_at = wake_at
        self._clock = clock
        self._stale = True
        self._due_us: int | None = None

    def learn(self, records: list[Recorded]) -> None:
        """What was appended; a listener of the dispatcher."""
        if any(type(record.event).__name__ in fold.FOLDED for record in records):
            self._stale = True
            self._wake_at(self._clock())

    def look(self) -> None:
        """Fire what is due. A store that refuses is met again at the next look."""
        now_us = self._clock()
        if not self._stale and (self._due_us is None or now_us < self._due_us):
            return
        self._stale = False
        try:
            self._due_us = fire(self._log, now_us)
        except StoreError as error:
            trouble.report("no scheduled plan can be started: {} ({})", error, error.hint)
            self._due_us = now_us + _AGAIN_US
        if self._due_us is not None:
            self._wake_at(self._due_us)
