"""The SQL views of a store say what the projections say: of generated histories, and of those that a release has left."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_histories import HISTORIES, SEED, generated, history_that_counts

from parallel_agents import archiving
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore import views
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.projections.conflicts import conflicts
from parallel_agents.projections.effective import effective
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.timeline import timeline
from parallel_agents.version import VIEWS

FROZEN = sorted((Path(__file__).parents[1] / "compat" / "histories").glob("*.sql.gz"))


def rows(log: Log, query: str) -> list[dict[str, Any]]:
    """What somebody with a tool of SQLite's gets."""
    with closing(sqlite3.connect(f"{log.path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def at(at_us: int | None) -> str | None:
    """A time as a view has it."""
    return None if at_us is None else rfc3339(at_us)


def some(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """Some columns of a row."""
    return tuple(row[name] for name in names)


def check_all(log: Log) -> Counter[str]:
    """Every view against the projections. Gives how much there was of each."""
    seen: Counter[str] = Counter()
    for check in (
        check_history,
        check_runs,
        check_tasks,
        check_attempts,
        check_costs,
        check_conflicts,
        check_decisions,
    ):
        seen[check.__name__.removeprefix("check_")] = check(log)
    return seen


def check_history(log: Log) -> int:
    """Every event, and whether it is undone."""
    found = rows(log, "SELECT * FROM history ORDER BY seq")
    kept: set[int] = set()
    for run_id in {row["run_id"] for row in found}:
        kept.update(record.seq for record in history_that_counts(log.read_run(run_id)))
    for row, stored in zip(found, log.rows(stored=True), strict=True):
        assert some(row, "seq", "run_id", "version", "type", "actor", "at", "at_us") == (
            stored.seq, stored.run_id, stored.version, stored.type, stored.actor, at(stored.at_us), stored.at_us,
        )  # fmt: skip
        assert (row["data"] or "", row["archived"]) == (stored.body, not stored.body)
        data = json.loads(stored.body or "{}")
        assert some(row, "task_id", "attempt_id") == (data.get("task_id"), data.get("attempt_id"))
        assert row["undone"] == (stored.type != "RunRolledBack" and stored.seq not in kept)
    return len(found)


def check_runs(log: Log) -> int:
    """The list of runs."""
    found, projector = rows(log, "SELECT * FROM runs ORDER BY seq"), Projector(log)
    assert [
        some(row, "run_id", "name", "status", "strategy", "tasks", "submitted_at", "started_at", "ended_at", "parent")
        for row in found
    ] == [
        (one.run_id, one.name, one.status, one.strategy, one.task_count, at(one.submitted_at_us), at(one.started_at_us),
         at(one.ended_at_us), one.parent)
        for one in projector.runs().values()
    ]  # fmt: skip
    for row in found:
        assert row["cost_usd"] == pytest.approx(projector.cost(row["run_id"]).usd_micros / 1e6)
    return len(found)


def check_tasks(log: Log) -> int:
    """Every task of every plan, as it stands."""
    found, projector = rows(log, "SELECT * FROM tasks ORDER BY run_id, place"), Projector(log)
    expected = []
    for run_id in sorted(projector.runs()):
        view = projector.view(run_id)
        for task in view.state.tasks.values():
            spec = task.task
            expected.append(
                (run_id, spec.task_id, spec.agent_type, task.status, spec.priority, list(spec.dependencies), task.attempts,
                 view.cost.by_task[spec.task_id])
            )  # fmt: skip
    assert [
        (*some(row, "run_id", "task_id", "agent_type"), row["status"] or "completed", row["priority"],
         json.loads(row["dependencies"]), row["attempts"], round(row["cost_usd"] * 1e6))
        for row in found
    ] == expected  # fmt: skip
    return len(found)


def check_attempts(log: Log) -> int:
    """Every attempt that was started, undone ones too."""
    found = {row["attempt_id"]: row for row in rows(log, "SELECT * FROM attempts")}
    count = 0
    for run_id in Projector(log).runs():
        records = log.read_run(run_id)
        spent: Counter[str] = Counter()
        for record in records:
            if isinstance(record.event, ev.CostCharged):
                spent[record.event.attempt_id] += record.event.usd_micros or 0
        for span in timeline(records):
            row, count = found[span.attempt_id], count + 1
            assert some(row, "run_id", "task_id", "attempt", "started_at", "started_seq", "undone") == (
                run_id, span.task_id, span.attempt, at(span.started_at_us), span.started_seq, span.undone,
            ), span  # fmt: skip
            assert round(row["cost_usd"] * 1e6) == spent[span.attempt_id]
            if not (row["archived"] and row["ended_seq"] != span.ended_seq):
                assert some(row, "ended_at", "ended_seq", "outcome") == (
                    at(span.ended_at_us),
                    span.ended_seq,
                    span.outcome,
                )
            else:
                assert row["outcome"] in (None, "blocked")
    assert count == len(found)
    return count


def check_costs(log: Log) -> int:
    """Every charge, whatever was rolled back."""
    found = rows(log, "SELECT * FROM costs ORDER BY seq")
    lines = []
    for record in log.read():
        if isinstance(record.event, ev.CostCharged):
            lines.append((record.seq, record.run_id, at(record.at_us), record.event))
    names = ("task_id", "attempt_id", "agent_type", "model", "source", "partial", "input_tokens", "output_tokens",
             "cache_read_tokens", "cache_write_tokens", "calls")  # fmt: skip
    for row, (seq, run_id, when, charge) in zip(found, lines, strict=True):
        assert some(row, "seq", "run_id", "at", *names) == (
            seq, run_id, when, *(getattr(charge, name) for name in names),
        )  # fmt: skip
        assert row["usd"] == (None if charge.usd_micros is None else pytest.approx(charge.usd_micros / 1e6))
    return len(found)


def check_conflicts(log: Log) -> int:
    """The conflicts that count, and what became of each."""
    found, count = rows(log, "SELECT * FROM conflicts ORDER BY seq"), 0
    for run_id in {record.run_id for record in log.read()}:
        ours = [row for row in found if row["run_id"] == run_id]
        expected = sorted(conflicts(effective(log.read_run(run_id))[0]), key=lambda one: one.record.seq)
        count += len(expected)
        assert [
            (row["seq"], row["task_id"], row["other_task_id"], row["attempt_id"], json.loads(row["paths"]), row["status"])
            for row in ours
        ] == [
            (one.record.seq, one.event.task_id, one.event.other_task_id, one.event.attempt_id, one.event.paths, one.status)
            for one in expected
        ]  # fmt: skip
        assert [row["how"] or "" for row in ours] == [one.how for one in expected]
    assert count == len(found)
    return count


def check_decisions(log: Log) -> int:
    """What was decided, with why."""
    found = {row["seq"]: row for row in rows(log, "SELECT * FROM decisions")}
    for record in log.read():
        match record.event:
            case ev.TaskStarted() as start:
                row = found[record.seq]
                assert (row["decision"], row["model"], row["reason"]) == (
                    "start",
                    start.model,
                    start.model_reason or None,
                )
                assert json.loads(row["facts"] or "{}") == start.facts
            case ev.TaskSkipped(because=because):
                assert some(found[record.seq], "decision", "because") == ("skip", because)
            case ev.TaskBlocked(reason=reason):
                assert found[record.seq]["archived"] or found[record.seq]["reason"] == reason
            case _:
                pass
    return len(found)


@HISTORIES
@given(seed=SEED, size=st.sampled_from([12, 60, 150]))
def test_every_view_says_of_generated_histories_what_the_folds_say(seed: int, size: int) -> None:
    """With rollbacks, redone ones too."""
    with generated(Random(seed), size, runs=3) as (_, log):
        check_all(log)


@pytest.fixture
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """A store of release 0.1.0. Most had no views when they were made."""
    store = tmp_path / "events.db"
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(gzip.decompress(request.param.read_bytes()).decode())
    store.chmod(0o600)
    with Log(store, create=False, environ={}) as log:
        yield log


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda file: file.name.removesuffix(".sql.gz"), indirect=True)
def test_every_view_says_of_frozen_histories_what_the_folds_say(frozen: Log) -> None:
    """Of failures, conflicts, forks, agents and money."""
    seen = check_all(frozen)
    assert seen["attempts"] > 0
    assert seen["history"] == frozen.last_seq()


def test_the_frozen_histories_show_enough() -> None:
    """Conflicts and forks are among them, or the views of them are hardly looked at."""
    assert {"conflicts_and_forks_0_1_0.sql.gz", "agents_and_money_0_1_0.sql.gz"} <= {file.name for file in FROZEN}
    assert any(b"CREATE VIEW" not in gzip.decompress(file.read_bytes()) for file in FROZEN)


def random_conflict(random: Random, seq: int) -> ev.Event:
    """Something that has to do with conflicts of two tasks, in any order."""
    task_id, attempt_id = random.choice("ab"), random.choice(["a1", "a2", None])
    match random.randrange(9):
        case 0 | 1 | 2:
            return ev.ConflictDetected(
                task_id=task_id, other_task_id="c", paths=["f"], attempt_id=attempt_id, early=random.random() < 0.3
            )
        case 3 | 4:
            return ev.ConflictResolved(task_id=task_id, how=random.choice(["agent", "both"]), attempt_id=attempt_id)
        case 5:
            return ev.TaskCompleted(task_id=task_id, attempt_id=attempt_id or "a3", duration_s=1.0)
        case 6:
            return ev.TaskCancelled(task_id=task_id, attempt_id=attempt_id)
        case 7:
            return ev.TaskReopened(task_id=task_id)
        case _:
            return ev.RunRolledBack(to_seq=random.randint(1, max(1, seq - 1)))


@HISTORIES
@given(seed=SEED)
def test_what_became_of_a_conflict_is_told_as_the_fold_tells_it(seed: int) -> None:
    """Settled, dropped, met once more, taken back."""
    random = Random(seed)
    with generated(Random(1), 1, runs=1) as (_, log):
        for _ in range(40):
            log.append("one", log.version("one"), [random_conflict(random, log.last_seq())])
        check_conflicts(log)
        check_history(log)


def test_what_lies_in_an_archive_is_said_to_and_nothing_else_is_made_up(tmp_path: Path) -> None:
    """Without its body nobody can tell which attempt an end was of: outcome and status are NULL then, not wrong."""
    plan = Plan(name="house", workspace="none", tasks=tuple(Task(task_id=name) for name in ("dig", "build", "paint")))
    with Log(tmp_path / "events.db", environ={}) as log:
        submitted = ev.RunSubmitted(
            name="house", plan_digest=digest_of(plan.to_bytes()), task_count=3, strategy="concurrent", workspace="none",
            workdir="/project",
        )  # fmt: skip
        log.append("alpha", 0, [submitted, ev.RunStarted()], blobs={submitted.plan_digest: plan.to_bytes()})
        for task_id, output in (("dig", "short"), ("build", "long" * 200)):
            start = ev.TaskStarted(task_id=task_id, attempt_id=f"of {task_id}", attempt=1, runner="shell")
            charge = ev.CostCharged(task_id=task_id, attempt_id=start.attempt_id, usd_micros=7)
            end = ev.TaskCompleted(task_id=task_id, attempt_id=start.attempt_id, duration_s=1.0, output=output)
            log.append("alpha", log.version("alpha"), [ev.TaskQueued(task_id=task_id), start, charge, end])
        rest = [ev.TaskSkipped(task_id="paint", because="dig"), ev.RunCompleted(counts={"completed": 2})]
        log.append("alpha", log.version("alpha"), rest)
        (tmp_path / "runs").mkdir()
        before = [some(row, "task_id", "status") for row in rows(log, "SELECT * FROM tasks ORDER BY place")]
        assert before == [("dig", "completed"), ("build", "completed"), ("paint", "skipped")]
        assert archiving.archive(log, ["alpha"], named=True)["archived"][0]["events"] == 1
        check_all(log)
        found = [some(row, "task_id", "status", "archived") for row in rows(log, "SELECT * FROM tasks ORDER BY place")]
        assert found == [("dig", "completed", 1), ("build", None, 1), ("paint", "skipped", 1)]
        attempts = rows(log, "SELECT * FROM attempts ORDER BY started_seq")
        assert [some(row, "task_id", "outcome", "cost_usd") for row in attempts] == [
            ("dig", "completed", 0.000007), ("build", None, 0.000007),
        ]  # fmt: skip
        assert rows(log, "SELECT archived FROM runs") == [{"archived": 1}]


def test_an_attempt_has_ended_when_its_work_was_done_however_long_a_person_took(tmp_path: Path) -> None:
    """Blocked, then completed; what was rolled back after it is undone."""
    clock = iter(range(10**15, 2 * 10**15, 10**6))
    plan = Plan(name="house", workspace="none", tasks=(Task(task_id="dig"),))
    digest = digest_of(plan.to_bytes())
    submitted = ev.RunSubmitted(
        name="house", plan_digest=digest, task_count=1, strategy="concurrent", workspace="none", workdir="/project"
    )
    story = [
        ev.RunStarted(), ev.TaskQueued(task_id="dig"),
        ev.TaskStarted(task_id="dig", attempt_id="first", attempt=1, runner="shell"),
        ev.TaskBlocked(task_id="dig", attempt_id="first", reason="conflict", duration_s=1.0),
        ev.TaskCompleted(task_id="dig", attempt_id="first", duration_s=1.0), ev.RunRolledBack(to_seq=5),
    ]  # fmt: skip
    with Log(tmp_path / "events.db", environ={}, clock=lambda: next(clock)) as log:
        log.append("alpha", 0, [submitted], blobs={digest: plan.to_bytes()})
        for event in story:
            log.append("alpha", log.version("alpha"), [event])
            check_all(log)
        (row,) = rows(log, "SELECT * FROM attempts")
        assert some(row, "outcome", "duration_s", "undone", "ended_seq") == ("completed", 1.0, 1, 6)
        assert [row["status"] for row in rows(log, "SELECT * FROM tasks")] == ["blocked"]


def test_a_view_of_somebody_else_stays(tmp_path: Path) -> None:
    """Ours of that name is not made then, the others are; and ours of another release are replaced."""
    store = tmp_path / "events.db"
    Log(store, environ={}).close()
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("DELETE FROM store WHERE key = 'views'")
        connection.execute("DROP VIEW costs")
        connection.execute("CREATE VIEW costs AS SELECT 7 AS mine")
        connection.execute("DROP VIEW decisions")
        connection.execute(f"CREATE VIEW decisions AS {views.OURS}\nSELECT 8 AS old")
        connection.commit()
    with Log(store, environ={}) as log:
        assert rows(log, "SELECT * FROM costs") == [{"mine": 7}]
        assert rows(log, "SELECT * FROM decisions") == []
        assert rows(log, "SELECT value FROM store WHERE key = 'views'") == [{"value": str(VIEWS)}]


def test_a_store_that_is_written_to_gets_its_views_from_the_next_who_opens_it(tmp_path: Path) -> None:
    """Nobody waits for a view."""
    store = tmp_path / "events.db"
    Log(store, environ={}).close()
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("DELETE FROM store WHERE key = 'views'")
        for name in reversed(views.VIEWS):
            connection.execute(f"DROP VIEW {name}")
        connection.execute("BEGIN IMMEDIATE")
        Log(store, environ={}).close()
        connection.execute("COMMIT")
        count = "SELECT count(*) FROM sqlite_master WHERE type = 'view'"
        assert connection.execute(count).fetchone() == (0,)
        Log(store, environ={}).close()
        assert connection.execute(count).fetchone() == (len(views.VIEWS),)


def instructions(log: Log, query: str, values: tuple[str, ...] = ()) -> int:
    """How many instructions SQLite needs to answer, which is the same on every machine."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 10

    with closing(sqlite3.connect(f"{log.path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.set_progress_handler(count, 10)
        connection.execute(query, values).fetchall()
    return done


def submit(log: Log, run_id: str, task_ids: list[str]) -> None:
    """A run of these tasks, started."""
    plan = Plan(name="house", workspace="none", tasks=tuple(Task(task_id=name) for name in task_ids))
    digest = digest_of(plan.to_bytes())
    submitted = ev.RunSubmitted(
        name="house", plan_digest=digest, task_count=len(task_ids), strategy="concurrent", workspace="none", workdir="/project"
    )  # fmt: skip
    log.append(run_id, 0, [submitted, ev.RunStarted()], blobs={digest: plan.to_bytes()})


def tried(task_id: str, number: int) -> list[ev.Event]:
    """One attempt of a task, which fails."""
    attempt_id = f"{task_id}-{number}"
    return [
        ev.TaskStarted(task_id=task_id, attempt_id=attempt_id, attempt=number, runner="shell"),
        ev.CostCharged(task_id=task_id, attempt_id=attempt_id, usd_micros=number),
        ev.ConflictDetected(task_id=task_id, other_task_id="other", paths=["a"], attempt_id=attempt_id),
        ev.ConflictResolved(task_id=task_id, how="ours", attempt_id=attempt_id),
        ev.TaskFailed(task_id=task_id, attempt_id=attempt_id, duration_s=1.0, error="no"),
    ]


def one_task_again_and_again(log: Log, size: int) -> None:
    """One run, one task, many attempts; now and then a rollback of a few events."""
    submit(log, "one", ["again"])
    for number in range(1, size + 1):
        log.append("one", log.version("one"), tried("again", number))
    for _ in range(3):
        log.append("one", log.version("one"), [ev.RunRolledBack(to_seq=log.last_seq() - 7)])


def many_runs_rolled_back(log: Log, size: int) -> None:
    """Many runs of one attempt, each rolled back and tried again."""
    for number in range(size):
        run_id = f"run {number}"
        submit(log, run_id, ["again"])
        first = log.last_seq()
        log.append(run_id, log.version(run_id), tried("again", 2 * number))
        log.append(run_id, log.version(run_id), [ev.RunRolledBack(to_seq=first), *tried("again", 2 * number + 1)])


def a_wide_run(log: Log, size: int) -> None:
    """One run of many tasks, each tried once."""
    names = [f"t{number}" for number in range(size)]
    submit(log, "one", names)
    log.append("one", log.version("one"), [ev.TaskQueued(task_id=name) for name in names])
    log.append("one", log.version("one"), [event for name in names for event in tried(name, 1)])


GROUPED = (
    "SELECT runner, sum(undone), sum(cost_usd) FROM attempts GROUP BY runner",
    "SELECT type, sum(undone) FROM history GROUP BY type",
    "SELECT status, count(*), sum(cost_usd) FROM tasks GROUP BY status",
    "SELECT status, sum(cost_usd) FROM runs GROUP BY status",
    "SELECT c.model, sum(c.usd * a.undone) FROM costs AS c JOIN attempts AS a USING (attempt_id) GROUP BY c.model",
)
NARROW = (
    ("SELECT * FROM attempts WHERE run_id = ? AND task_id = ?", ("one", "t7")),
    ("SELECT * FROM attempts WHERE run_id = ? AND attempt_id = ?", ("one", "t7-1")),
    ("SELECT * FROM attempts WHERE attempt_id = ?", ("t7-1",)),
    ("SELECT * FROM attempts LIMIT 5", ()),
    ("SELECT * FROM attempts ORDER BY started_seq DESC LIMIT 5", ()),
    ("SELECT * FROM tasks WHERE run_id = ?", ("two",)),
    ("SELECT * FROM runs WHERE run_id = ?", ("two",)),
    ("SELECT * FROM costs WHERE run_id = ? AND task_id = ?", ("one", "t7")),
    ("SELECT * FROM costs WHERE run_id = ?", ("two",)),
    ("SELECT * FROM conflicts WHERE run_id = ?", ("two",)),
    ("SELECT * FROM conflicts WHERE run_id = ? LIMIT 5", ("one",)),
    ("SELECT * FROM conflicts LIMIT 5", ()),
    ("SELECT * FROM history LIMIT 5", ()),
    ("SELECT * FROM history ORDER BY seq DESC LIMIT 5", ()),
    ("SELECT * FROM history WHERE run_id = ? ORDER BY version DESC LIMIT 5", ("one",)),
    ("SELECT * FROM decisions WHERE run_id = ? AND task_id = ?", ("one", "t7")),
    ("SELECT * FROM decisions ORDER BY seq DESC LIMIT 5", ()),
)


@pytest.mark.parametrize("story", [one_task_again_and_again, many_runs_rolled_back, a_wide_run])
def test_a_whole_view_of_a_log_twice_as_long_takes_twice_as_long(
    story: Callable[[Log, int], None], tmp_path: Path
) -> None:
    """And not four times, as it would if every row looked through the log, also where rows are counted by something."""
    took = []
    for size in (60, 240):
        with Log(tmp_path / f"{size}.db", environ={}) as log:
            log._writer.execute("PRAGMA synchronous = OFF")
            story(log, size)
            check_all(log)
            took.append(
                {
                    query: instructions(log, query)
                    for name in views.VIEWS
                    for query in (f"SELECT * FROM {name}", f"SELECT count(*) FROM {name}")
                }
                | {query: instructions(log, query) for query in GROUPED}
            )
    few, many = took
    for query, instructions_of_few in few.items():
        assert many[query] < 5.5 * instructions_of_few + 2000, query


@pytest.mark.parametrize("order", [1, -1])
def test_a_question_for_a_few_rows_reads_a_few_events(order: int, tmp_path: Path) -> None:
    """However long the log is: conditions reach the indexes. A task is looked for in its plan, so that grows with the plan.

    Which of several indexes SQLite takes must not hang on the order in which they were made.
    """
    took = []
    for size in (60, 600):
        with Log(tmp_path / f"{size}.db", environ={}) as log:
            made = dict(log.ask("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL", ()))
            for name in made:
                log._writer.execute(f"DROP INDEX {name}")
            for name in sorted(made)[::order]:
                log._writer.execute(made[name])
            a_wide_run(log, size)
            submit(log, "two", ["alone"])
            took.append([instructions(log, *question) for question in NARROW])
            a_task = instructions(log, "SELECT * FROM tasks WHERE run_id = ? AND task_id = ?", ("one", "t7"))
            assert a_task < 1000 + 15 * size
            all_runs = instructions(log, "SELECT * FROM runs")
            assert all_runs < 2500 + 15 * size
    for question, in_short, in_long in zip(NARROW, *took, strict=True):
        assert in_long < 1.2 * in_short + 100, question
