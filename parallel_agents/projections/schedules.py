"""Which plans are to run again and again, and what became of their last time. Folded from events of no run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, from_rfc3339

FOLDED: Final = ("PlanScheduled", "ScheduleFired", "ScheduleSkipped", "ScheduleRemoved")


@dataclass(slots=True)
class Schedule:
    """One plan with its timetable. Microseconds since the epoch."""

    made: ev.PlanScheduled
    made_at_us: int
    seen_us: int  # Everything that was due up to here was seen to.
    last_due_us: int | None = None
    last_run_id: str | None = None  # Of the last time that led to a run.
    skipped: str = ""  # Why the last time led to none.
    missed: int = 0  # Times before the last one that nobody saw to, the last time somebody did.


def fold(schedules: dict[str, Schedule], record: Recorded) -> dict[str, Schedule]:
    """The schedules after one more event; oldest first."""
    match record.event:
        case ev.PlanScheduled(schedule_id=schedule_id):
            schedules[schedule_id] = Schedule(record.event, record.at_us, record.at_us)
        case ev.ScheduleFired(schedule_id=schedule_id) | ev.ScheduleSkipped(schedule_id=schedule_id):
            schedule = schedules.get(schedule_id)
            if schedule is not None:
                schedule.last_due_us = schedule.seen_us = from_rfc3339(record.event.due)
                schedule.missed = record.event.missed
                if isinstance(record.event, ev.ScheduleFired):
                    schedule.last_run_id, schedule.skipped = record.event.run_id, ""
                else:
                    schedule.skipped = record.event.reason
        case ev.ScheduleRemoved(schedule_id=schedule_id):
            schedules.pop(schedule_id, None)
        case _:
            pass
    return schedules
