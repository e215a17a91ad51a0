"""SQL views over the events, so that a store opens with sense in ``sqlite3`` and Datasette. docs/audit.md tells of each.

Nothing here reads them: they are for people, and a store without them is as good. They keep to what SQLite knew in 2019, for
one older than that could not open the store any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

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


_UNDONE_SPANS: Final = f"""
WITH RECURSIVE
  rollbacks(run_id, seq, to_seq) AS (
    SELECT run_id, seq, {_field("to_seq")} FROM events WHERE {RUN_LEVEL} AND type = 'RunRolledBack'
  ),
  walk(run_id, after_seq, before_seq) AS (
    SELECT run_id, to_seq, seq FROM rollbacks
    WHERE seq IN (SELECT max(seq) FROM rollbacks GROUP BY run_id)
    UNION ALL
    SELECT rollbacks.run_id, rollbacks.to_seq, rollbacks.seq FROM walk
    JOIN rollbacks ON rollbacks.run_id = walk.run_id AND rollbacks.seq = (
      SELECT max(earlier.seq) FROM rollbacks AS earlier
      WHERE earlier.run_id = walk.run_id AND earlier.seq <= walk.after_seq
    )
  )
SELECT run_id, after_seq, before_seq FROM walk
"""

_UNDONE: Final = (
    "(type <> 'RunRolledBack' AND EXISTS (SELECT 1 FROM undone_spans AS span WHERE span.run_id = events.run_id"
    " AND events.seq > span.after_seq AND events.seq < span.before_seq))"
)

_HISTORY: Final = f"""
SELECT
  seq, {_time("at")} AS at, run_id, version, type, {_field("task_id")} AS task_id, {_field("attempt_id")} AS attempt_id,
  actor, {_UNDONE} AS undone, body = '' AS archived, nullif(body, '') AS data, at AS at_us
FROM events
"""

_RUNS: Final = f"""
WITH
  known AS (
    SELECT seq, run_id, type, at, body FROM events
    WHERE {RUN_LEVEL} AND (type = 'RunSubmitted' OR (type = 'RunForked' AND {_field("state_digest")} <> ''))
  ),
  counting AS (SELECT seq, run_id, type, at FROM events WHERE {RUN_LEVEL} AND NOT {_UNDONE}),
  stands AS (
    SELECT
      run_id,
      max(CASE WHEN type IN
        ('RunSubmitted', 'RunForked', 'RunStarted', 'RunPaused', 'RunResumed', 'RunCompleted', 'RunFailed', 'RunCancelled')
        THEN seq END) AS status_seq,
      min(CASE type WHEN 'RunStarted' THEN seq END) AS started_seq,
      min(CASE type WHEN 'RunStarted' THEN at END) AS started_at,
      max(CASE type WHEN 'RunResumed' THEN seq END) AS resumed_seq,
      max(CASE WHEN type IN ('RunCompleted', 'RunFailed', 'RunCancelled') THEN seq END) AS ended_seq,
      max(CASE WHEN type IN ('RunCompleted', 'RunFailed', 'RunCancelled') THEN at END) AS ended_at
    FROM counting GROUP BY run_id
  ),
  spent AS (
    SELECT run_id, sum({_field("usd_micros")}) AS usd_micros FROM events WHERE type = 'CostCharged' GROUP BY run_id
  ),
  archives AS (
    SELECT {_field("run_id")} AS run_id, max(seq) AS seq FROM events WHERE {
    RUN_LEVEL
} AND type = 'RunArchived' GROUP BY 1
  ),
  lined AS (
    SELECT
      known.*, stands.status_seq, stands.ended_seq, stands.resumed_seq, stands.started_seq, stands.ended_at AS end_at,
      coalesce({_field("started_at_us", "known.body")}, stands.started_at) AS start_at,
      (SELECT type FROM events WHERE seq = stands.status_seq) AS status_type
    FROM known LEFT JOIN stands ON stands.run_id = known.run_id
  )
SELECT
  lined.run_id,
  {_field("name", "lined.body")} AS name,
  CASE status_type
    WHEN 'RunForked' THEN {_field("status", "lined.body")}
    WHEN 'RunStarted' THEN 'running' WHEN 'RunPaused' THEN 'paused' WHEN 'RunCompleted' THEN 'completed'
    WHEN 'RunFailed' THEN 'failed' WHEN 'RunCancelled' THEN 'cancelled'
    WHEN 'RunResumed' THEN CASE
      WHEN {
    _field("started_at_us", "lined.body")
} IS NOT NULL OR started_seq < status_seq THEN 'running' ELSE 'submitted' END
    ELSE 'submitted'
  END AS status,
  {_field("strategy", "lined.body")} AS strategy,
  {_field("task_count", "lined.body")} AS tasks,
  {_time("lined.at")} AS submitted_at,
  {_time("start_at")} AS started_at,
  {
    _time(
        "CASE WHEN ended_seq IS NOT NULL AND coalesce(resumed_seq, 0) < ended_seq THEN end_at"
        f" WHEN ended_seq IS NULL AND resumed_seq IS NULL THEN {_field('ended_at_us', 'lined.body')} END"
    )
} AS ended_at,
  {_field("parent", "lined.body")} AS parent,
  {_usd("coalesce(spent.usd_micros, 0)")} AS cost_usd,
  archives.seq IS NOT NULL AS archived,
  lined.seq AS seq
FROM lined
LEFT JOIN spent ON spent.run_id = lined.run_id
LEFT JOIN archives ON archives.run_id = lined.run_id
"""

_ATTEMPTS: Final = f"""
WITH
  ends AS (
    SELECT
      attempt_id, seq, at_us,
      lag(type) OVER (PARTITION BY attempt_id ORDER BY seq) AS before
    FROM (
      SELECT {_field("attempt_id")} AS attempt_id, seq, at AS at_us, type FROM events WHERE type {_any_of(_OUTCOME_OF)}
    )
    WHERE attempt_id IS NOT NULL
  ),
  ended AS (
    SELECT attempt_id, max(seq) AS seq, max(CASE WHEN before IS NOT 'TaskBlocked' THEN at_us END) AS at_us
    FROM ends GROUP BY attempt_id
  ),
  charged AS (
    SELECT
      {_field("attempt_id")} AS attempt_id, sum({_field("usd_micros")}) AS usd_micros,
      max({_field("usd_micros")} IS NULL) AS unknown
    FROM events WHERE type = 'CostCharged' GROUP BY 1
  ),
  archives AS (
    SELECT DISTINCT {_field("run_id")} AS run_id FROM events WHERE {RUN_LEVEL} AND type = 'RunArchived'
  ),
  started AS (
    SELECT *, {_field("attempt_id")} AS attempt_id, {_UNDONE} AS undone FROM events WHERE type = 'TaskStarted'
  )
SELECT
  started.run_id,
  {_field("task_id", "started.body")} AS task_id,
  started.attempt_id,
  {_field("attempt", "started.body")} AS attempt,
  {_field("runner", "started.body")} AS runner,
  {_field("model", "started.body")} AS model,
  {_field("model_reason", "started.body")} AS model_reason,
  {_time("started.at")} AS started_at,
  {_time("ended.at_us")} AS ended_at,
  (ended.at_us - started.at) / 1000000.0 AS duration_s,
  CASE
    WHEN finish.seq IS NOT NULL THEN {_case("finish.type", _OUTCOME_OF)}
    WHEN archives.run_id IS NULL THEN 'running'
  END AS outcome,
  {_field("error", "finish.body")} AS error,
  {_usd("coalesce(charged.usd_micros, 0)")} AS cost_usd,
  coalesce(charged.unknown, 0) AS cost_unknown,
  started.undone OR coalesce(
    finish.type <> 'ResultDiscarded' AND EXISTS (
      SELECT 1 FROM undone_spans AS span
      WHERE span.run_id = finish.run_id AND finish.seq > span.after_seq AND finish.seq < span.before_seq
    ), 0) AS undone,
  archives.run_id IS NOT NULL AS archived,
  started.seq AS started_seq,
  ended.seq AS ended_seq
FROM started
LEFT JOIN ended ON ended.attempt_id = started.attempt_id
LEFT JOIN events AS finish ON finish.seq = ended.seq
LEFT JOIN charged ON charged.attempt_id = started.attempt_id
LEFT JOIN archives ON archives.run_id = started.run_id
"""

_TASKS: Final = f"""
WITH
  plans AS (
    SELECT run_id, seq, {_field("plan_digest")} AS plan, {_field("state_digest")} AS state FROM events
    WHERE {RUN_LEVEL} AND (type = 'RunSubmitted' OR (type = 'RunForked' AND {_field("state_digest")} <> ''))
  ),
  planned AS (
    SELECT
      plans.run_id, plans.state, each.key AS place, each.value AS task, json_extract(each.value, '$.task_id') AS task_id
    FROM plans JOIN blobs ON blobs.digest = plans.plan JOIN json_each(CAST(blobs.bytes AS TEXT), '$.tasks') AS each
  ),
  taken AS (
    SELECT plans.run_id, each.key AS task_id, each.value AS task, CAST(blobs.bytes AS TEXT) AS state
    FROM plans JOIN blobs ON blobs.digest = plans.state JOIN json_each(CAST(blobs.bytes AS TEXT), '$.tasks') AS each
  ),
  moves AS (
    SELECT
      run_id, {_field("task_id")} AS task_id, max(seq) AS seq,
      max(CASE type WHEN 'TaskStarted' THEN seq END) AS started_seq
    FROM events WHERE type {_any_of(_STATUS_OF)} AND NOT {_UNDONE} GROUP BY 1, 2
  ),
  charged AS (
    SELECT run_id, {_field("task_id")} AS task_id, sum({_field("usd_micros")}) AS usd_micros
    FROM events WHERE type = 'CostCharged' GROUP BY 1, 2
  ),
  archives AS (
    SELECT DISTINCT {_field("run_id")} AS run_id FROM events WHERE {RUN_LEVEL} AND type = 'RunArchived'
  ),
  inherited AS (
    SELECT
      run_id, task_id,
      CASE json_type(task) WHEN 'object' THEN json_extract(task, '$.status') ELSE
        json_extract(task, '$[' || (SELECT key FROM json_each(state, '$.fields') WHERE value = 'status') || ']') END AS status,
      CASE json_type(task) WHEN 'object' THEN json_extract(task, '$.attempts') ELSE
        json_extract(task, '$[' || (SELECT key FROM json_each(state, '$.fields') WHERE value = 'attempts') || ']')
      END AS attempts
    FROM taken
  ),
  found AS (
    SELECT
      planned.*,
      coalesce({_case("(SELECT type FROM events WHERE seq = moves.seq)", _STATUS_OF)}, inherited.status, 'pending') AS stands,
      coalesce({_field("attempt", "begin.body")}, inherited.attempts, 0) AS attempts,
      begin.body AS begun, moves.seq AS seq, charged.usd_micros AS usd_micros, archives.run_id IS NOT NULL AS archived
    FROM planned
    LEFT JOIN moves ON moves.run_id = planned.run_id AND moves.task_id = planned.task_id
    LEFT JOIN events AS begin ON begin.seq = moves.started_seq
    LEFT JOIN inherited ON inherited.run_id = planned.run_id AND inherited.task_id = planned.task_id
    LEFT JOIN charged ON charged.run_id = planned.run_id AND charged.task_id = planned.task_id
    LEFT JOIN archives ON archives.run_id = planned.run_id
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
  {_time("(SELECT at FROM events WHERE events.seq = found.seq)")} AS changed_at,
  archived,
  place,
  seq
FROM found
"""

_COSTS: Final = f"""
SELECT
  seq, {_time("at")} AS at, run_id, {_field("task_id")} AS task_id, {_field("attempt_id")} AS attempt_id,
  coalesce({_field("agent_type")}, '') AS agent_type, {_field("model")} AS model, {_usd(_field("usd_micros"))} AS usd,
  coalesce({_field("source")}, 'agent') AS source, coalesce({_field("partial")}, 0) AS partial,
  coalesce({_field("input_tokens")}, 0) AS input_tokens, coalesce({_field("output_tokens")}, 0) AS output_tokens,
  coalesce({_field("cache_read_tokens")}, 0) AS cache_read_tokens,
  coalesce({_field("cache_write_tokens")}, 0) AS cache_write_tokens, coalesce({_field("calls")}, 0) AS calls
FROM events WHERE type = 'CostCharged'
"""

_CONFLICTS: Final = f"""
WITH
  counting AS (
    SELECT seq, at, run_id, type, {_field("task_id")} AS task_id, {_field("attempt_id")} AS attempt_id, body
    FROM events
    WHERE type IN ('ConflictDetected', 'ConflictResolved', 'TaskCompleted', 'TaskCancelled', 'TaskReopened')
      AND NOT {_UNDONE}
  ),
  met AS (
    SELECT *, coalesce({_field("early")}, 0) AS early FROM counting WHERE type = 'ConflictDetected'
  ),
  settling AS (
    SELECT
      met.seq AS conflict, min(later.seq) AS seq
    FROM met JOIN counting AS later ON later.run_id = met.run_id AND later.seq > met.seq AND later.task_id = met.task_id
    WHERE NOT met.early AND later.type <> 'ConflictDetected' AND (
      later.type IN ('TaskCancelled', 'TaskReopened') OR met.attempt_id IS NULL OR later.attempt_id = met.attempt_id
      OR (later.type = 'ConflictResolved' AND (later.attempt_id IS NULL OR {_field("how", "later.body")} = 'agent'))
    )
    GROUP BY met.seq
  ),
  again AS (
    SELECT met.seq AS conflict, min(later.seq) AS seq
    FROM met JOIN met AS later ON later.run_id = met.run_id AND later.seq > met.seq
      AND later.attempt_id IS met.attempt_id AND NOT later.early
    WHERE NOT met.early
    GROUP BY met.seq
  ),
  archives AS (
    SELECT DISTINCT {_field("run_id")} AS run_id FROM events WHERE {RUN_LEVEL} AND type = 'RunArchived'
  )
SELECT
  met.seq, {_time("met.at")} AS at, met.run_id, met.task_id, {_field("other_task_id", "met.body")} AS other_task_id,
  met.attempt_id, {_field("paths", "met.body")} AS paths, coalesce({_field("kinds", "met.body")}, '[]') AS kinds,
  CASE
    WHEN met.early THEN 'early'
    WHEN settled.type IN ('TaskCancelled', 'TaskReopened') THEN 'dropped'
    WHEN settled.seq IS NOT NULL THEN 'resolved'
    WHEN archives.run_id IS NULL THEN 'waiting'
  END AS status,
  CASE settled.type WHEN 'ConflictResolved' THEN {_field("how", "settled.body")} END AS how,
  settled.seq AS settled_seq,
  met.body = '' AS archived
FROM met
LEFT JOIN settling ON settling.conflict = met.seq
LEFT JOIN counting AS settled ON settled.seq = settling.seq
LEFT JOIN again ON again.conflict = met.seq
LEFT JOIN archives ON archives.run_id = met.run_id
WHERE again.seq IS NULL OR settling.seq < again.seq
"""

_DECISIONS: Final = f"""
SELECT
  seq, {_time("at")} AS at, run_id, {_field("task_id")} AS task_id, {_field("attempt_id")} AS attempt_id,
  {_case("type", _DECIDED)} AS decision, type,
  coalesce(
    nullif({_field("model_reason")}, ''), nullif({_field("reason")}, ''), {_field("because")}, {_field("scope")}
  ) AS reason,
  {_field("because")} AS because, {_field("runner")} AS runner, {_field("model")} AS model, {_field("facts")} AS facts,
  actor, {_UNDONE} AS undone, body = '' AS archived
FROM events WHERE type {_any_of(_DECIDED)}
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
