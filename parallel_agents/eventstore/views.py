"""SQL views over the events, so that a store opens with sense in ``sqlite3`` and Datasette. docs/audit.md tells of each.

Nothing here reads them: they are for people, and a store without them is as good. They keep to what SQLite knew in 2019, for
one older than that could not open the store any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from parallel_agents.eventstore.of_attempt import CHARGES, CONFLICTS, HAS_BODY, STARTS, of_attempt, usd_micros
from parallel_agents.eventstore.of_task import OF_TASK, of_task
from parallel_agents.eventstore.run_level import RUN_LEVEL


def _time(column: str) -> str:
    """RFC 3339 of a number of microseconds, as ``--json`` has it."""
    return f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch') || printf('.%06dZ', {column} % 1000000)"


def _field(name: str, body: str = "body") -> str:
    """A field of a body; NULL where that was moved to an archive."""
    return f"json_extract(nullif({body}, ''), '$.{name}')"


def _usd(column: str) -> str:
    return f"{column} / 1000000.0"


_STATUS_OF: Final = {
    "TaskQueued": "queued", "TaskRetryScheduled": "queued", "TaskStarted": "running", "TaskCompleted": "completed",
    "TaskFailed": "failed", "TaskTimedOut": "failed", "AttemptLost": "failed", "TaskCancelled": "cancelled",
    "TaskSkipped": "skipped", "TaskReopened": "pending", "TaskUnblocked": "pending", "TaskBlocked": "blocked",
}  # fmt: skip
_OUTCOME_OF: Final = {
    "TaskCompleted": "completed", "TaskFailed": "failed", "TaskTimedOut": "timed_out", "TaskCancelled": "cancelled",
    "AttemptLost": "lost", "TaskBlocked": "blocked", "ResultDiscarded": "discarded",
}  # fmt: skip
_DECIDED: Final = {
    "TaskQueued": "queue", "TaskStarted": "start", "TaskBlocked": "block", "TaskSkipped": "skip",
    "TaskRetryScheduled": "retry", "RunPaused": "pause", "RunCompleted": "end", "RunFailed": "end",
    "DispatchThrottled": "throttle", "DispatchUnthrottled": "unthrottle", "WorkersScaled": "scale",
    "BudgetExceeded": "budget", "ProviderLimited": "wait for provider", "CircuitOpened": "leave runner alone",
    "CircuitHalfOpened": "try runner", "ScheduleFired": "run by timetable", "ScheduleSkipped": "skip by timetable",
}  # fmt: skip


def _case(column: str, values: dict[str, str]) -> str:
    return f"CASE {column} {' '.join(f'WHEN {_text(name)} THEN {_text(value)}' for name, value in values.items())} END"


def _text(value: str) -> str:
    return f"'{value}'"


def _any_of(names: dict[str, str]) -> str:
    return f"IN ({', '.join(map(_text, names))})"


def _qualified(condition: str, row: str) -> str:
    """A condition on a row, of this one."""
    return re.sub(r"\b(type|body)\b", rf"{row}.\1", condition)


_UNDONE_SPANS: Final = f"""
WITH RECURSIVE
  walk(run_id, after_seq, before_seq, version) AS (
    SELECT newest.run_id, {_field("to_seq", "newest.body")}, newest.seq, newest.version FROM events AS newest
    WHERE {_qualified(RUN_LEVEL, "newest")} AND newest.type = 'RunRolledBack' AND NOT EXISTS (
      SELECT 1 FROM events AS later
      WHERE later.run_id = newest.run_id AND {of_task("later.body")} IS NULL AND later.version > newest.version
        AND later.type = 'RunRolledBack'
    )
    UNION ALL
    SELECT earlier.run_id, {_field("to_seq", "earlier.body")}, earlier.seq, earlier.version
    FROM walk JOIN events AS earlier ON earlier.seq = (
      SELECT back.seq FROM events AS back
      WHERE back.run_id = walk.run_id AND {of_task("back.body")} IS NULL AND back.version < walk.version
        AND back.type = 'RunRolledBack' AND back.seq <= walk.after_seq
      ORDER BY back.version DESC LIMIT 1
    )
  )
SELECT run_id, after_seq, before_seq FROM walk
"""


def _undone(row: str) -> str:
    """Whether a rollback has undone an event. The spans are found once a statement, whatever it asks."""
    return (
        f"({row}.type <> 'RunRolledBack' AND EXISTS (SELECT 1 FROM undone_spans AS span WHERE span.run_id = {row}.run_id"
        f" AND {row}.seq > span.after_seq AND {row}.seq < span.before_seq))"
    )


def _begins(row: str) -> str:
    """Whether an event is the first one of a run. By its version too, which a run that is named is found by at once."""
    forked = f"({row}.type = 'RunForked' AND {_field('state_digest', f'{row}.body')} <> '')"
    return f"{_qualified(RUN_LEVEL, row)} AND {row}.version = 1 AND ({row}.type = 'RunSubmitted' OR {forked})"


def _same_task(row: str, other: str) -> str:
    return f"{row}.run_id = {other}.run_id AND {of_task(f'{row}.body')} = {of_task(f'{other}.body')}"


def _joined_to_spans(row: str, name: str) -> str:
    """The span that an event is undone in, if it is: for columns. In the arguments of an aggregate function SQLite makes no
    index for a subquery, and would look through all spans for each row.
    """
    return (
        f"LEFT JOIN undone_spans AS {name} ON {name}.run_id = {row}.run_id AND {row}.seq > {name}.after_seq"
        f" AND {row}.seq < {name}.before_seq AND {row}.type <> 'RunRolledBack'"
    )


def _newest_of_run(run: str, types: str, order: str = "DESC") -> str:
    """The newest event of a run of these types that counts; or the oldest one. None of them names a task."""
    return (
        f"(SELECT own.seq FROM events AS own WHERE own.run_id = {run}.run_id AND {of_task('own.body')} IS NULL"
        f" AND own.type IN ({types}) AND NOT {_undone('own')} ORDER BY own.version {order} LIMIT 1)"
    )


def _archived(run: str) -> str:
    """Whether a run was archived. The list of those is made once a statement."""
    return (
        f"{run}.run_id IN (SELECT {_field('run_id')} FROM events"
        f" WHERE {RUN_LEVEL} AND type = 'RunArchived' AND body <> '')"
    )


def _spent(run: str) -> str:
    """What a run was charged with, from the index alone."""
    return (
        f"(SELECT sum({usd_micros('charge.body')}) FROM events AS charge"
        f" WHERE charge.run_id = {run}.run_id AND {_qualified(CHARGES, 'charge')} AND {_qualified(HAS_BODY, 'charge')} = 1)"
    )


def _ends(row: str) -> str:
    """Whether an event is an end of the attempt that was ``started``."""
    # What is blocked may have an output of any shape and no attempt.
    named = f"CASE {row}.type WHEN 'TaskBlocked' THEN {_field('attempt_id', f'{row}.body')} ELSE {of_attempt(f'{row}.body')} END"
    mine = f"{named} = {of_attempt('started.body')}"
    return f"{_same_task(row, 'started')} AND {row}.version > started.version AND {row}.type {_any_of(_OUTCOME_OF)} AND {mine}"


def _charged(fold: str, value: str) -> str:
    """Something of the charges of the attempt that was ``started``."""
    return (
        f"(SELECT {fold}({value}) FROM events AS charge WHERE {_same_task('charge', 'started')}"
        f" AND charge.version > started.version AND charge.version < coalesce(until.version, {_END})"
        f" AND charge.type = 'CostCharged' AND {of_attempt('charge.body')} = {of_attempt('started.body')})"
    )


_END: Final = 2**62
_PLANNED: Final = "json_extract(task.value, '$.task_id')"


def _of_planned(row: str) -> str:
    """Whether an event is of the ``task`` of the ``plan``."""
    return f"{row}.run_id = plan.run_id AND {of_task(f'{row}.body')} = {_PLANNED}"


def _inherited(name: str) -> str:
    """A field of a ``task`` in the state that a fork began with: by its name, or by its place among the fields."""
    place = f"(SELECT key FROM json_each(CAST(blobs.bytes AS TEXT), '$.fields') WHERE value = '{name}')"
    return (
        f"CASE json_type(task.value) WHEN 'object' THEN json_extract(task.value, '$.{name}')"
        f" ELSE json_extract(task.value, '$[' || {place} || ']') END"
    )


def _early(row: str) -> str:
    return f"coalesce({_field('early', f'{row}.body')}, 0)"


_HISTORY: Final = f"""
SELECT
  event.seq AS seq, {_time("event.at")} AS at, event.run_id AS run_id, event.version AS version, event.type AS type,
  {_field("task_id", "event.body")} AS task_id, {_field("attempt_id", "event.body")} AS attempt_id, event.actor AS actor,
  span.run_id IS NOT NULL AS undone, event.body = '' AS archived, nullif(event.body, '') AS data, event.at AS at_us
FROM events AS event
{_joined_to_spans("event", "span")}
"""

_RUNS: Final = f"""
SELECT
  known.run_id,
  {_field("name", "known.body")} AS name,
  CASE coalesce(stands.type, CASE WHEN span.run_id IS NULL THEN known.type END)
    WHEN 'RunForked' THEN {_field("status", "known.body")}
    WHEN 'RunStarted' THEN 'running' WHEN 'RunPaused' THEN 'paused' WHEN 'RunCompleted' THEN 'completed'
    WHEN 'RunFailed' THEN 'failed' WHEN 'RunCancelled' THEN 'cancelled'
    WHEN 'RunResumed' THEN CASE
      WHEN {
    _field("started_at_us", "known.body")
} IS NOT NULL OR began.seq < stands.seq THEN 'running' ELSE 'submitted' END
    ELSE 'submitted'
  END AS status,
  {_field("strategy", "known.body")} AS strategy,
  {_field("task_count", "known.body")} AS tasks,
  {_time("known.at")} AS submitted_at,
  {_time(f"coalesce({_field('started_at_us', 'known.body')}, began.at)")} AS started_at,
  {
    _time(
        "CASE WHEN ended.seq IS NOT NULL AND coalesce(resumed.seq, 0) < ended.seq THEN ended.at"
        f" WHEN ended.seq IS NULL AND resumed.seq IS NULL THEN {_field('ended_at_us', 'known.body')} END"
    )
} AS ended_at,
  {_field("parent", "known.body")} AS parent,
  {_usd(f"coalesce({_spent('known')}, 0)")} AS cost_usd,
  {_archived("known")} AS archived,
  known.seq AS seq
FROM events AS known
LEFT JOIN events AS stands ON stands.seq = {
    _newest_of_run("known", "'RunStarted', 'RunPaused', 'RunResumed', 'RunCompleted', 'RunFailed', 'RunCancelled'")
}
LEFT JOIN events AS began ON began.seq = {_newest_of_run("known", "'RunStarted'", "")}
LEFT JOIN events AS resumed ON resumed.seq = {_newest_of_run("known", "'RunResumed'")}
LEFT JOIN events AS ended ON ended.seq = {_newest_of_run("known", "'RunCompleted', 'RunFailed', 'RunCancelled'")}
{_joined_to_spans("known", "span")}
WHERE {_begins("known")}
"""

_ATTEMPTS: Final = f"""
WITH
  rollbacks AS (
    SELECT run_id, seq, {_field("to_seq")} AS to_seq FROM events WHERE {RUN_LEVEL} AND type = 'RunRolledBack' LIMIT -1
  )
SELECT
  started.run_id,
  {of_task("started.body")} AS task_id,
  {of_attempt("started.body")} AS attempt_id,
  {_field("attempt", "started.body")} AS attempt,
  {_field("runner", "started.body")} AS runner,
  {_field("model", "started.body")} AS model,
  {_field("model_reason", "started.body")} AS model_reason,
  {_time("started.at")} AS started_at,
  {_time("done.at")} AS ended_at,
  (done.at - started.at) / 1000000.0 AS duration_s,
  CASE
    WHEN finish.seq IS NOT NULL THEN {_case("finish.type", _OUTCOME_OF)}
    WHEN NOT {_archived("started")} THEN 'running'
  END AS outcome,
  CASE WHEN finish.type <> 'TaskCompleted' THEN {_field("error", "finish.body")} END AS error,
  {_usd(f"coalesce({_charged('sum', usd_micros('charge.body'))}, 0)")} AS cost_usd,
  coalesce({_charged("max", f"{_field('usd_micros', 'charge.body')} IS NULL")}, 0) AS cost_unknown,
  span.run_id IS NOT NULL OR (finish.type IS NOT 'ResultDiscarded' AND after.run_id IS NOT NULL) AS undone,
  {_archived("started")} AS archived,
  started.seq AS started_seq,
  finish.seq AS ended_seq
FROM events AS started
LEFT JOIN events AS until ON until.seq = (
  SELECT again.seq FROM events AS again
  WHERE {_same_task("again", "started")} AND again.version > started.version AND again.type = 'TaskStarted'
  ORDER BY again.version LIMIT 1
) AND NOT EXISTS (
  SELECT 1 FROM rollbacks AS back
  WHERE back.run_id = started.run_id AND back.seq > started.seq
    AND CASE WHEN back.to_seq < started.seq THEN back.seq ELSE back.to_seq END < until.seq
)
LEFT JOIN events AS finish ON finish.seq = (
  SELECT ending.seq FROM events AS ending
  WHERE {_ends("ending")} AND ending.version < coalesce(until.version, {_END}) ORDER BY ending.version DESC LIMIT 1
)
LEFT JOIN events AS done ON done.seq = CASE
  WHEN NOT EXISTS (
    SELECT 1 FROM events AS ending
    WHERE {_same_task("ending", "started")} AND ending.version > started.version AND ending.version < finish.version
      AND ending.type = 'TaskBlocked'
  ) THEN finish.seq
  ELSE (
    SELECT ending.seq FROM events AS ending
    WHERE {_ends("ending")} AND ending.version <= finish.version AND (
      SELECT earlier.type FROM events AS earlier
      WHERE {_ends("earlier")} AND earlier.version < ending.version ORDER BY earlier.version DESC LIMIT 1
    ) IS NOT 'TaskBlocked'
    ORDER BY ending.version DESC LIMIT 1
  ) END
{_joined_to_spans("started", "span")}
{_joined_to_spans("finish", "after")}
WHERE {_qualified(STARTS, "started")}
"""

_TASKS: Final = f"""
WITH
  inherited AS (
    SELECT
      forked.run_id, task.key AS task_id,
      {_inherited("status")} AS status,
      {_inherited("attempts")} AS attempts
    FROM events AS forked JOIN blobs ON blobs.digest = {_field("state_digest", "forked.body")}
    JOIN json_each(CAST(blobs.bytes AS TEXT), '$.tasks') AS task
    WHERE {_begins("forked")}
  ),
  found AS (
    SELECT
      plan.run_id AS run_id, {_PLANNED} AS task_id, task.key AS place, task.value AS task,
      coalesce({_case("moved.type", _STATUS_OF)}, inherited.status, 'pending') AS stands,
      coalesce({_field("attempt", "begin.body")}, inherited.attempts, 0) AS attempts,
      begin.body AS begun, moved.seq AS seq, moved.at AS moved_at, {_archived("plan")} AS archived,
      (
        SELECT sum({usd_micros("charge.body")}) FROM events AS charge
        WHERE {_of_planned("charge")} AND charge.type = 'CostCharged'
      ) AS usd_micros
    FROM events AS plan JOIN blobs ON blobs.digest = {_field("plan_digest", "plan.body")}
    JOIN json_each(CAST(blobs.bytes AS TEXT), '$.tasks') AS task
    LEFT JOIN events AS moved ON moved.seq = (
      SELECT move.seq FROM events AS move
      WHERE {_of_planned("move")} AND move.type {_any_of(_STATUS_OF)} AND NOT {_undone("move")}
      ORDER BY move.version DESC LIMIT 1
    )
    LEFT JOIN events AS begin ON begin.seq = (
      SELECT start.seq FROM events AS start
      WHERE {_of_planned("start")} AND start.type = 'TaskStarted' AND NOT {_undone("start")}
      ORDER BY start.version DESC LIMIT 1
    )
    LEFT JOIN inherited ON inherited.run_id = plan.run_id AND inherited.task_id = {_PLANNED}
    WHERE {_begins("plan")}
  )
SELECT
  run_id,
  task_id,
  coalesce(json_extract(task, '$.agent_type'), 'shell') AS agent_type,
  CASE WHEN NOT archived OR stands IN ('completed', 'failed', 'cancelled', 'skipped') THEN stands END AS status,
  coalesce(json_extract(task, '$.priority'), 'medium') AS priority,
  coalesce(json_extract(task, '$.dependencies'), '[]') AS dependencies,
  attempts,
  {_field("runner", "begun")} AS runner,
  {_field("model", "begun")} AS model,
  {_usd("coalesce(usd_micros, 0)")} AS cost_usd,
  {_time("moved_at")} AS changed_at,
  archived,
  place,
  seq
FROM found
"""

_COSTS: Final = f"""
SELECT
  seq, {_time("at")} AS at, run_id, {OF_TASK} AS task_id, {_field("attempt_id")} AS attempt_id,
  coalesce({_field("agent_type")}, '') AS agent_type, {_field("model")} AS model, {_usd(_field("usd_micros"))} AS usd,
  coalesce({_field("source")}, 'agent') AS source, coalesce({_field("partial")}, 0) AS partial,
  coalesce({_field("input_tokens")}, 0) AS input_tokens, coalesce({_field("output_tokens")}, 0) AS output_tokens,
  coalesce({_field("cache_read_tokens")}, 0) AS cache_read_tokens,
  coalesce({_field("cache_write_tokens")}, 0) AS cache_write_tokens, coalesce({_field("calls")}, 0) AS calls
FROM events WHERE type = 'CostCharged'
"""

_CONFLICTS: Final = f"""
SELECT
  met.seq, {_time("met.at")} AS at, met.run_id, {of_task("met.body")} AS task_id,
  {_field("other_task_id", "met.body")} AS other_task_id, {of_attempt("met.body")} AS attempt_id,
  {_field("paths", "met.body")} AS paths, coalesce({_field("kinds", "met.body")}, '[]') AS kinds,
  CASE
    WHEN {_early("met")} THEN 'early'
    WHEN settled.type IN ('TaskCancelled', 'TaskReopened') THEN 'dropped'
    WHEN settled.seq IS NOT NULL THEN 'resolved'
    WHEN NOT {_archived("met")} THEN 'waiting'
  END AS status,
  CASE settled.type WHEN 'ConflictResolved' THEN {_field("how", "settled.body")} END AS how,
  settled.seq AS settled_seq,
  met.body = '' AS archived
FROM events AS met
LEFT JOIN events AS settled ON settled.seq = (
  SELECT later.seq FROM events AS later
  WHERE NOT {_early("met")} AND {_same_task("later", "met")} AND later.version > met.version
    AND later.type IN ('ConflictResolved', 'TaskCompleted', 'TaskCancelled', 'TaskReopened') AND NOT {_undone("later")} AND (
      later.type IN ('TaskCancelled', 'TaskReopened') OR {of_attempt("met.body")} IS NULL
      OR {_field("attempt_id", "later.body")} = {of_attempt("met.body")}
      OR (later.type = 'ConflictResolved' AND (
        {_field("attempt_id", "later.body")} IS NULL OR {_field("how", "later.body")} = 'agent'
      ))
    )
  ORDER BY later.version LIMIT 1
)
LEFT JOIN events AS again ON again.seq = (
  SELECT later.seq FROM events AS later
  WHERE NOT {_early("met")} AND later.run_id = met.run_id AND {of_attempt("later.body")} IS {of_attempt("met.body")}
    AND later.version > met.version AND {_qualified(CONFLICTS, "later")} AND NOT {_early("later")} AND NOT {_undone("later")}
  ORDER BY later.version LIMIT 1
)
WHERE {_qualified(CONFLICTS, "met")} AND NOT {_undone("met")} AND (again.seq IS NULL OR settled.seq < again.seq)
"""

_DECISIONS: Final = f"""
SELECT
  event.seq AS seq, {_time("event.at")} AS at, event.run_id AS run_id, {of_task("event.body")} AS task_id,
  {_field("attempt_id", "event.body")} AS attempt_id, {_case("event.type", _DECIDED)} AS decision, event.type AS type,
  coalesce(
    nullif({_field("model_reason", "event.body")}, ''), nullif({_field("reason", "event.body")}, ''),
    {_field("because", "event.body")}, {_field("scope", "event.body")}
  ) AS reason,
  {_field("because", "event.body")} AS because, {_field("runner", "event.body")} AS runner,
  {_field("model", "event.body")} AS model, {_field("facts", "event.body")} AS facts, event.actor AS actor,
  span.run_id IS NOT NULL AS undone, event.body = '' AS archived
FROM events AS event
{_joined_to_spans("event", "span")}
WHERE event.type {_any_of(_DECIDED)}
"""

VIEWS: Final[dict[str, str]] = {
    "undone_spans": _UNDONE_SPANS,
    "history": _HISTORY,
    "runs": _RUNS,
    "tasks": _TASKS,
    "attempts": _ATTEMPTS,
    "costs": _COSTS,
    "conflicts": _CONFLICTS,
    "decisions": _DECISIONS,
}
"""By name, in an order in which none needs a later one."""

OURS: Final = "-- made by parallel-agents"
"""In the statement of each, so that nobody takes a view of somebody else's away."""


def make(execute: Callable[[str], Any], there: Mapping[str, str]) -> None:
    """Make the views, in the place of those that another release has made.

    Args:
        execute: carries out a statement.
        there: what the store holds by the name of it, with the statement that made it.
    """
    for name, query in VIEWS.items():
        if name in there:
            if OURS not in there[name]:  # Somebody has one of that name.
                continue
            execute(f"DROP VIEW {name}")
        execute(f"CREATE VIEW {name} AS {OURS}{query.rstrip()}")
