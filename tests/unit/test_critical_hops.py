"""What a run's length was made of, told by hand: each link is one that happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from parallel_agents.cli.graph_page import graph_page
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import Plan, RunSettings, Stage, Task
from parallel_agents.pictures.course import course
from parallel_agents.pictures.critical_hops import Hop, critical_hops, shares, stood_still_us
from parallel_agents.pictures.graph_data import graph_of, link_words
from parallel_agents.pictures.graph_svg import graph_svg
from parallel_agents.pictures.timeline_svg import timeline_svg
from parallel_agents.pictures.waits import waits
from parallel_agents.why import why

RUN = "k4fj2m7qzd"
BEGIN_US = 1_750_000_000_000_000


class Told:
    """A run whose events are told one by one, at seconds since its submission."""

    def __init__(self, folder: Path) -> None:
        self._at_us = BEGIN_US
        self.log = Log(folder / "events.db", clock=lambda: self._at_us, environ={})

    def submit(self, *tasks: Task, stages: Sequence[Stage] = (Stage(name="all"),), slots: int = 5) -> None:
        """And start it at once."""
        plan = Plan(name="told", stages=tuple(stages), tasks=tasks, settings=RunSettings(max_parallel_agents=slots))
        digest = digest_of(plan.to_bytes())

        def decide(draft: Draft) -> None:
            draft.add_blob(digest, plan.to_bytes())
            draft.add(RUN, ev.RunSubmitted(name="told", plan_digest=digest, task_count=len(tasks), strategy="concurrent",
                                           workspace="none", workdir="/p"))  # fmt: skip
            draft.add(RUN, ev.RunClaimed(holder={"kind": "run"}, epoch=1))
            draft.add(RUN, ev.RunStarted())

        self.log.transact(decide)

    def at(self, second: float, *events: ev.Event) -> None:
        """These in one commit."""
        self._at_us = BEGIN_US + round(second * 1e6)

        def decide(draft: Draft) -> None:
            for event in events:
                draft.add(RUN, event)

        self.log.transact(decide)

    def path(self) -> list[tuple[str, str, str, float, float]]:
        """Task, what it did, what led to it, from when to when in seconds."""
        return [_in_seconds(hop) for hop in critical_hops(waits(self.log, RUN))]


def _in_seconds(hop: Hop) -> tuple[str, str, str, float, float]:
    what = hop.kind if hop.kind == "attempt" else hop.code
    return hop.task_id, what, hop.link, (hop.start_us - BEGIN_US) / 1e6, (hop.end_us - BEGIN_US) / 1e6


def start(name: str, number: int = 1) -> ev.TaskStarted:
    """An attempt begins."""
    return ev.TaskStarted(task_id=name, attempt_id=f"{name}-{number}", attempt=number, runner="shell")


def done(name: str, number: int = 1) -> ev.TaskCompleted:
    """It ends well."""
    return ev.TaskCompleted(task_id=name, attempt_id=f"{name}-{number}", duration_s=1.0)


def queue(*names: str) -> list[ev.Event]:
    """They are ready."""
    return [ev.TaskQueued(task_id=name) for name in names]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """A run, before anything was said of it."""
    made = Told(tmp_path)
    yield made
    made.log.close()


def test_the_later_dependency_is_on_the_path(told: Told) -> None:
    """And the other one is not."""
    told.submit(Task(task_id="a"), Task(task_id="b"), Task(task_id="c", dependencies=("a", "b")))
    told.at(1, *queue("a", "b"), start("a"), start("b"))
    told.at(4, done("a"))
    told.at(6, done("b"), *queue("c"), start("c"))
    told.at(9, done("c"))
    assert told.path() == [
        ("b", "due", "submitted", 0, 1), ("b", "attempt", "itself", 1, 6), ("c", "attempt", "dependency", 6, 9),
    ]  # fmt: skip


def test_a_slot_that_was_freed_is_a_link(told: Told) -> None:
    """From the attempt that held it, although nothing depends on anything."""
    told.submit(Task(task_id="a"), Task(task_id="b"), Task(task_id="c"), slots=1)
    told.at(0, *queue("a", "b", "c"), start("a"))
    told.at(2, done("a"), start("b"))
    told.at(5, done("b"))
    told.at(6, start("c"))
    told.at(7, done("c"))
    assert told.path() == [
        ("a", "attempt", "submitted", 0, 2), ("b", "attempt", "slot", 2, 5), ("c", "due", "slot", 5, 6),
        ("c", "attempt", "itself", 6, 7),
    ]  # fmt: skip


def test_a_retry_and_its_rest_are_hops(told: Told) -> None:
    """The rest is as long as it was, and what comes after it is told apart."""
    told.submit(Task(task_id="a", max_retries=1))
    told.at(0, *queue("a"), start("a"))
    failed = ev.TaskFailed(task_id="a", attempt_id="a-1", duration_s=3.0, error="exit code 1")
    until = rfc3339(BEGIN_US + 8_000_000)
    again = ev.TaskRetryScheduled(task_id="a", attempt_id="a-1", failures=1, not_before=until, wait_s=5.0, jitter_s=0.0)
    told.at(3, failed, again)
    told.at(9, start("a", 2))
    told.at(10, done("a", 2))
    assert told.path() == [
        ("a", "attempt", "submitted", 0, 3), ("a", "not_before", "retry", 3, 8), ("a", "due", "itself", 8, 9),
        ("a", "attempt", "itself", 9, 10),
    ]  # fmt: skip


def test_a_pause_and_a_person_stand_still(told: Told) -> None:
    """They are hops of their own, and are told apart from the time that the run ran."""
    told.submit(Task(task_id="a"), Task(task_id="b", dependencies=("a",)))
    told.at(0, *queue("a"), start("a"))
    told.at(2, done("a"), *queue("b"), ev.TaskBlocked(task_id="b", reason="approval"))
    told.at(5, ev.TaskUnblocked(task_id="b", attempt=1), ev.RunPaused(reason="lunch"))
    told.at(9, ev.RunResumed(), *queue("b"), start("b"))
    told.at(10, done("b"))
    hops = critical_hops(waits(told.log, RUN))
    assert [_in_seconds(hop)[1:4] for hop in hops] == [
        ("attempt", "submitted", 0), ("blocked", "dependency", 2), ("paused", "itself", 5), ("attempt", "itself", 9),
    ]  # fmt: skip
    assert stood_still_us(hops) == 7_000_000
    assert shares(hops) == {"attempt": 3_000_000, "blocked": 3_000_000, "paused": 4_000_000}


def test_files_and_stages_are_links(told: Told) -> None:
    """Of who let the files go, and of the last one of the stage before."""
    told.submit(
        Task(task_id="a", files=("src/**",)), Task(task_id="b", files=("src/x",)), Task(task_id="c", stage=1),
        stages=(Stage(name="one"), Stage(name="two")),
    )  # fmt: skip
    told.at(0, *queue("a", "b"), start("a"))
    told.at(3, done("a"), start("b"))
    told.at(4, done("b"), *queue("c"), start("c"))
    told.at(6, done("c"))
    assert [(hop[0], hop[2]) for hop in told.path()] == [("a", "submitted"), ("b", "files"), ("c", "stage")]
    words = [link_words(hop, before) for before, hop in zip([None, *critical_hops(waits(told.log, RUN))],
                                                           critical_hops(waits(told.log, RUN)), strict=False)]  # fmt: skip
    assert words == ["submitted", "a let its files go", "b ended its stage"]


def test_a_run_that_goes_on_is_cut_where_it_was_looked_at(told: Told) -> None:
    """At any event, what was to come is not known."""
    told.submit(Task(task_id="a"), Task(task_id="b", dependencies=("a",)))
    told.at(0, *queue("a"), start("a"))
    told.at(2, done("a"), *queue("b"), start("b"))
    told.at(9, ev.CostCharged(task_id="b", attempt_id="b-1", usd_micros=250_000, model="m"))
    found = course(told.log, RUN)
    assert found.waits.by_task["b"][-1].open
    graph = graph_of(found)
    assert (graph["makespan_s"], graph["nodes"][1]["worked_s"], graph["nodes"][1]["cost_usd"]) == (9.0, 7.0, 0.25)
    assert graph["edges"] == [["a", "b"]]
    before = graph_of(course(told.log, RUN, 5))
    assert [node["status"] for node in before["nodes"]] == ["running", "pending"]
    assert before["makespan_s"] == 0.0


def test_work_that_a_rollback_has_undone_is_told_apart_from_what_stands(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal, in both pictures and as data."""
    told.submit(Task(task_id="a"), Task(task_id="b", dependencies=("a",)))
    told.at(0, *queue("a"), start("a"))
    told.at(2, done("a"), *queue("b"))
    seq = told.log.last_seq()
    told.at(2, start("b"))
    told.at(5, done("b"))
    told.at(6, ev.RunRolledBack(to_seq=seq), ev.RunPaused(reason="rolled back"))
    told.at(7, ev.RunResumed(), start("b", 2))
    told.at(9, done("b", 2))
    found = course(told.log, RUN)
    graph = graph_of(found)
    worked = [(node["task_id"], node["worked_s"], node["undone_s"]) for node in graph["nodes"]]
    assert worked == [("a", 2.0, 0.0), ("b", 2.0, 3.0)]
    for picture in (graph_svg(found), timeline_svg(found)):
        assert "which took 2.0 s\nundone by a rollback: attempts that took 3.0 s" in picture
    assert "✓ · 2.0 s · ×2 · 3.0 s undone" in graph_svg(found)
    graph_page(found)
    rows = capsys.readouterr().out.splitlines()
    heading = next(row for row in rows if "UNDONE" in row)
    assert heading.split()[3:] == ["TRIES", "TOOK", "UNDONE", "COST", "NEEDS"]
    assert next(row for row in rows if " b " in row).split()[4:] == ["2", "2.0", "s", "3.0", "s", "–", "a"]


def test_reasons_are_those_of_why(told: Told) -> None:
    """Asked by `why --at` at the event after which a wait began, it gives the same code."""
    told.submit(Task(task_id="a"), Task(task_id="b"), Task(task_id="c", dependencies=("a",)), slots=1)
    told.at(1, *queue("a", "b"), start("a"))
    told.at(3, done("a"), *queue("c"), start("b"))
    told.at(4, ev.RunPaused(reason="tea"))
    told.at(5, done("b"))
    told.at(7, ev.RunResumed(), start("c"))
    told.at(8, done("c"))
    asked = 0
    for name, stretches in waits(told.log, RUN).by_task.items():
        for one in stretches:
            if one.kind == "wait":
                last = max(row.seq for row in told.log.rows() if row.at_us == one.start_us)
                assert why(told.log, RUN, name, last)["code"] == one.code
                asked += 1
    assert asked >= 5


def test_what_a_dead_dispatcher_did_not_start_waited_for_a_dispatcher(told: Told) -> None:
    """That it was gone is known as soon as another one takes over what it had not let go of."""
    told.submit(Task(task_id="a"), Task(task_id="b", dependencies=("a",)))
    told.at(0, *queue("a"), start("a"))
    told.at(2, done("a"))
    assert why(told.log, RUN, "b")["code"] == "due"
    told.at(50, ev.RunClaimed(holder={"kind": "daemon"}, epoch=2))
    told.at(51, *queue("b"), start("b"))
    told.at(52, done("b"))
    assert [hop[1:] for hop in told.path()] == [
        ("attempt", "submitted", 0, 2), ("no_dispatcher", "dependency", 2, 50), ("due", "itself", 50, 51),
        ("attempt", "itself", 51, 52),
    ]  # fmt: skip


def waited(told: Told, name: str) -> list[tuple[str, float, float]]:
    """What a task waited for, from when to when in seconds."""
    return [
        (one.code, (one.start_us - BEGIN_US) / 1e6, (one.end_us - BEGIN_US) / 1e6)
        for one in waits(told.log, RUN).by_task[name]
        if one.kind == "wait"
    ]


def test_a_rest_ends_without_an_event(told: Told) -> None:
    """What it waits for then is another thing, from that moment on."""
    told.submit(Task(task_id="a"), Task(task_id="b"), Task(task_id="c", max_retries=1), slots=1)
    told.at(0, *queue("a", "b", "c"), start("c"))
    failed = ev.TaskFailed(task_id="c", attempt_id="c-1", duration_s=3.0, error="exit code 1")
    until = rfc3339(BEGIN_US + 8_000_000)
    again = ev.TaskRetryScheduled(task_id="c", attempt_id="c-1", failures=1, not_before=until, wait_s=5.0, jitter_s=0.0)
    told.at(3, failed, again, start("a"))
    told.at(20, done("a"), start("b"))
    told.at(21, done("b"), start("c", 2))
    told.at(22, done("c", 2))
    assert waited(told, "c") == [("not_before", 3, 8), ("lower_rank", 8, 20), ("no_slot", 20, 21)]
    assert waited(told, "b") == [("lower_rank", 0, 3), ("no_slot", 3, 20)]


def test_a_stage_that_opens_in_a_pause_is_waited_for_no_longer(told: Told) -> None:
    """The pause is, from then on."""
    told.submit(Task(task_id="a"), Task(task_id="c", stage=1), stages=(Stage(name="one"), Stage(name="two")))
    told.at(0, *queue("a"), start("a"))
    told.at(1, ev.RunPaused(reason="tea"))
    told.at(3, done("a"))
    told.at(5, ev.RunResumed(), *queue("c"), start("c"))
    told.at(6, done("c"))
    assert waited(told, "c") == [("stage", 0, 3), ("paused", 3, 5)]


def test_where_nothing_runs_the_path_is_that_of_what_stands_still(told: Told) -> None:
    """And not of a task that waits for it; while something runs it is that of what runs."""
    told.submit(Task(task_id="a"), Task(task_id="b", dependencies=("a",)), Task(task_id="c"))
    told.at(0, *queue("a", "c"), start("c"))
    told.at(2, done("c"), ev.RunPaused(reason="tea"))
    told.at(9, ev.CostCharged(task_id="c", attempt_id="c-1", usd_micros=1))
    assert told.path()[-1] == ("a", "paused", "itself", 2, 9)
    told.at(10, ev.RunResumed(), start("a"))
    told.at(12, ev.CostCharged(task_id="c", attempt_id="c-1", usd_micros=1))
    assert told.path()[-1] == ("a", "attempt", "itself", 10, 12)


def test_what_the_dispatcher_saw_is_told_where_the_log_has_no_more(told: Told) -> None:
    """A start says what kept its decision from starting more; the next one says that nothing did."""
    told.submit(Task(task_id="a"), Task(task_id="b"), Task(task_id="c"))
    told.at(0, *queue("a", "b", "c"), start("a").model_copy(update={"facts": {"then": "cpu"}}))
    told.at(4, start("b").model_copy(update={"facts": {"then": ""}}))
    told.at(6, start("c"))
    told.at(7, done("a"), done("b"), done("c"))
    assert waited(told, "b") == [("cpu", 0, 4)]
    assert waited(told, "c") == [("cpu", 0, 4), ("due", 4, 6)]
