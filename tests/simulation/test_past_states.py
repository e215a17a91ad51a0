"""States of the past from light snapshots, and single tasks by their own events: the same as from nothing, at every prefix."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from random import Random

import orjson
import pytest
from hypothesis import given
from test_histories import HISTORIES, SEED, SIZE, check_derived, generated, history_that_counts, naive_state, plain

from parallel_agents import retelling
from parallel_agents.deep_verification import check_folds
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore import known_plans
from parallel_agents.eventstore.errors import UnknownRun, UnknownTask
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.of_task import TASK_INDEX
from parallel_agents.projections import at_hand, letting_go, one_task
from parallel_agents.projections import projector as projector_module
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.at_hand import Tasks
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.replaying import redecide
from parallel_agents.scheduler.decide_past import decide_fork
from parallel_agents.scheduler.plan import Facts, outlook, why_not


@contextmanager
def every_run_is_large(near: int, singly: int = 16) -> Iterator[None]:
    """Light snapshots of runs of two tasks, which hold as many of them whole; so many others are made each by itself.

    Tasks pass by two at a time, are let go every three events, and are read from plans that are packed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_hand, "NEAR", near)
        patch.setattr(at_hand, "SINGLY", singly)
        patch.setattr(at_hand, "_PASSING", 2)
        patch.setattr(one_task, "_TOGETHER", 2)
        patch.setattr(letting_go, "EVERY", 3)
        patch.setattr(projector_module, "_FEW", 5)
        patch.setattr(known_plans, "_LARGE", 1)
        patch.setattr(known_plans, "_known", type(known_plans._known)())
        yield


def save_light(projector: Projector, state: RunState) -> None:
    """As a dispatcher does."""
    projector.save_light_snapshot(state.run_id, state.seq, at_hand.dump(state))


def looked_at(state: RunState, random: Random) -> RunState:
    """The state, after some of its tasks were looked at by name."""
    for name in random.sample(sorted(state.tasks.keys()), random.randint(0, len(state.tasks))):
        assert state.tasks[name].task.task_id == name
        assert name in state.tasks
    return state


def check_without_filling(state: RunState, expected: RunState) -> None:
    """What is known of a run before anybody has gone through its tasks."""
    assert (+state.counts, state.stage_open, state.stage_failed) == (
        +expected.counts, expected.stage_open, expected.stage_failed,
    )  # fmt: skip
    assert (state.running, len(state.tasks)) == (expected.running, len(expected.tasks))
    assert list(state.tasks) == list(expected.tasks)
    if isinstance(state.tasks, Tasks):
        statuses = [(name, task.status) for name, task in expected.tasks.items()]
        assert list(state.tasks.statuses()) == statuses
        assert [(one.task, one.index) for one in state.tasks.passing()] == [
            (one.task, one.index) for one in expected.tasks.values()
        ]


@HISTORIES
@given(SEED, SIZE)
def test_a_state_from_a_light_snapshot_is_the_state_from_nothing(seed: int, events: int) -> None:
    """At every seq, whatever snapshots there are, whichever tasks were looked at first, and whatever was taken away since."""
    random = Random(seed)
    near, singly = random.choice((0, 1, 2)), random.choice((0, 1, 16))
    with generated(random, events) as (made, log), every_run_is_large(near, singly):
        projector = Projector(log)
        for seq in range(1, len(made.events) + 1):
            for run_id, run in made.runs.items():
                if not any(own <= seq for own in run.after):
                    continue
                expected = naive_state(log, run_id, seq)
                state = looked_at(projector.state(run_id, seq), random)
                check_without_filling(state, expected)
                assert list(state.tasks.values()) == list(expected.tasks.values())
                assert plain(state) == plain(expected)
                check_derived(state)
                if random.random() < 0.2:
                    save_light(projector, expected)
                elif random.random() < 0.05:
                    projector.save_snapshot(expected)
            if random.random() < 0.05:
                log._writer.execute("DELETE FROM snapshots WHERE random() % 2 = 0")


@HISTORIES
@given(SEED, SIZE)
def test_a_state_from_a_light_snapshot_goes_on_as_any_other(seed: int, events: int) -> None:
    """By the folds of events, with tasks that were looked at and with tasks that were not."""
    random = Random(seed)
    near, singly = random.choice((0, 1, 2)), random.choice((0, 1, 16))
    with generated(random, events, runs=1) as (_, log), every_run_is_large(near, singly):
        counting = history_that_counts(list(log.read()))
        cut = random.randint(1, len(counting))
        state = status_fold.initial("alpha")
        for record in counting[:cut]:
            state = status_fold.fold(state, record, log.blob)
        if any(isinstance(record.event, ev.RunRolledBack) for record in log.read(0, state.seq)):
            return  # There the tasks of a moment are those of another history than the one that counts in the end.
        projector = Projector(log)
        save_light(projector, state)
        found = looked_at(projector.state("alpha", state.seq), random)
        for record in counting[cut:]:
            state = status_fold.fold(state, record, log.blob)
            found = status_fold.fold(found, record, log.blob)
            check_without_filling(found, state)
        assert plain(found) == plain(state)


@HISTORIES
@given(SEED, SIZE)
def test_snapshots_of_who_took_a_run_up_again_are_right(seed: int, events: int) -> None:
    """A dispatcher that was started anew has statuses counted that are no more, or has them not: both are none of them."""
    random = Random(seed)
    with (
        generated(random, events, runs=1) as (_, log),
        every_run_is_large(random.choice((0, 1, 2)), random.choice((0, 16))),
    ):
        records = list(takewhile(lambda one: not isinstance(one.event, ev.RunRolledBack), log.read(run_id="alpha")))
        cut, projector = random.randint(1, len(records)), Projector(log)
        if random.random() < 0.5:
            save_light(projector, naive_state(log, "alpha", records[cut - 1].seq))
        state = looked_at(projector.state("alpha", records[cut - 1].seq), random)
        for record in records[cut:]:
            state = status_fold.fold(state, record, log.blob)
            save_light(projector, state)
        assert check_folds(log, "alpha", log.last_seq())[0] == []


@HISTORIES
@given(SEED, SIZE)
def test_a_task_by_its_own_events_is_the_task_of_the_state(seed: int, events: int) -> None:
    """At every seq, with the index that finds them, and without it as in a store of an older release."""
    random = Random(seed)
    with generated(random, events) as (made, log):
        if random.random() < 0.5:
            log._writer.execute(f"DROP INDEX {TASK_INDEX}")
        projector = Projector(log)
        for seq in range(1, len(made.events) + 1):
            for run_id, run in made.runs.items():
                if not any(own <= seq for own in run.after):
                    with pytest.raises(UnknownRun):
                        projector.task(run_id, "t0", seq)
                    continue
                expected = naive_state(log, run_id, seq)
                for name, task in expected.tasks.items():
                    assert projector.task(run_id, name, seq) == task
                with pytest.raises(UnknownTask, match="'nobody'"):
                    projector.task(run_id, "nobody", seq)
        assert log.has_task_index or log._fetch("SELECT 1 FROM sqlite_master WHERE name = ?", (TASK_INDEX,)) == []


@HISTORIES
@given(SEED, SIZE)
def test_the_tasks_of_a_fork_are_those_that_it_has_inherited_until_it_goes_on(seed: int, events: int) -> None:
    """Each by itself and from light snapshots, in a fork of a fork too."""
    random = Random(seed)
    with generated(random, events, runs=1) as (made, log), every_run_is_large(random.choice((0, 1))):
        parent, projector = "alpha", Projector(log)
        for child in ("beta", "gamma"):
            there = projector.state(parent, random.randint(1, len(made.events)) if parent == "alpha" else None)
            content, snapshot = there.plan.to_bytes(), status_fold.dump(there)
            forked = decide_fork(there, there.seq, there.plan, digest_of(content), digest_of(snapshot), {})
            blobs = {digest_of(content): content, digest_of(snapshot): snapshot}
            log.append(child, 0, forked, blobs=blobs)
            queued = next((name for name, task in there.tasks.items() if task.status == "queued"), None)
            if queued is not None:
                started = ev.TaskStarted(task_id=queued, attempt_id=f"{child}1", attempt=9, runner="shell")
                log.append(child, log.version(child), [started])
            expected = naive_state(log, child, log.last_seq())
            for name, task in expected.tasks.items():
                assert projector.task(child, name) == task
            save_light(projector, expected)
            state = looked_at(projector.state(child), random)
            check_without_filling(state, expected)
            assert plain(state) == plain(expected)
            parent = child


def test_tasks_that_are_made_when_looked_at_are_a_dict_to_everybody() -> None:
    """Of the same length, order and content, before and after they are all made; a copy is one that asks no store."""
    with ExitStack() as stack:
        _, log = stack.enter_context(generated(Random(7), 60, runs=1))
        projector = Projector(log)
        whole = projector.state("alpha")
        assert type(whole.tasks) is dict
        save_light(projector, whole)
        stack.enter_context(every_run_is_large(0))

        def tasks() -> Tasks:
            found = projector.state("alpha").tasks
            assert isinstance(found, Tasks)
            assert not found.is_whole
            return found

        names = list(whole.tasks)
        assert (list(tasks()), list(tasks().keys()), len(tasks()), list(reversed(tasks()))) == (
            names, names, len(names), names[::-1],
        )  # fmt: skip
        assert list(tasks().values()) == list(whole.tasks.values())
        assert list(tasks().items()) == list(whole.tasks.items())
        assert ({**tasks()}, dict(tasks())) == (whole.tasks, whole.tasks)
        assert (tasks() == whole.tasks, whole.tasks == tasks(), tasks() == tasks(), tasks() != whole.tasks) == (
            True, True, True, False,
        )  # fmt: skip
        assert tasks() != {}
        assert (names[0] in tasks(), "nobody" in tasks()) == (True, False)
        assert (tasks().get("nobody"), tasks().get(names[0])) == (None, whole.tasks[names[0]])
        for found in (tasks(), copy.deepcopy(tasks()), copy.copy(tasks())):
            with pytest.raises(KeyError):
                found["nobody"]
        assert type(copy.deepcopy(tasks())) is dict


def test_who_asks_for_one_task_after_the_other_soon_has_all_of_them() -> None:
    """Each by itself is faster for a few of them, and slower for many."""
    with generated(Random(28), 60, runs=1) as (_, log), every_run_is_large(0, singly=1):
        whole = naive_state(log, "alpha", log.last_seq())
        save_light(Projector(log), whole)
        found = Projector(log).state("alpha").tasks
        assert isinstance(found, Tasks)
        touched = [name for name, task in whole.tasks.items() if task.attempts]
        assert len(touched) > 1
        seen = []
        for name in touched:
            assert found[name] == whole.tasks[name]
            seen.append(found.is_whole)
        assert seen == [False, *[True] * (len(touched) - 1)]
        assert found == whole.tasks


def test_a_store_without_the_index_has_states_from_whole_snapshots_alone() -> None:
    """A task by itself would be looked for in the whole run, once for each of them."""
    with generated(Random(7), 60, runs=1) as (_, log), every_run_is_large(0):
        projector = Projector(log)
        whole = projector.state("alpha")
        save_light(projector, whole)
        log._writer.execute(f"DROP INDEX {TASK_INDEX}")
        with Log(log.path, environ={}) as other:
            assert type(Projector(other).state("alpha").tasks) is dict
            other.make_indexes()
            assert isinstance(Projector(other).state("alpha").tasks, Tasks)


def test_a_light_snapshot_that_is_none_is_passed_over() -> None:
    """It is a cache, and what it would have said is folded."""
    with generated(Random(7), 60, runs=1) as (_, log):
        projector = Projector(log)
        whole = projector.state("alpha")
        raw = orjson.loads(zlib.decompress(at_hand.dump(whole)))
        short, stranger = {**raw, "near": {"t0": []}}, {**raw, "near": {"nobody": raw["fields"]}}
        others = (zlib.compress(orjson.dumps(one)) for one in (short, stranger, {}, []))
        for nonsense in (b"", b"nothing", *others):
            projector.save_light_snapshot("alpha", whole.seq, nonsense)
            assert plain(projector.state("alpha")) == plain(whole)


@HISTORIES
@given(SEED, SIZE)
def test_what_is_planned_from_a_large_run_is_planned_from_all_of_its_tasks(seed: int, events: int) -> None:
    """Though few of them are made for it; and so are the reasons why others are not started."""
    random = Random(seed)
    with generated(random, events, runs=1) as (made, log), every_run_is_large(0, singly=random.choice((0, 16))):
        first = made.runs["alpha"].after
        for seq in random.sample(range(1, len(made.events) + 1), min(6, len(made.events))):
            if not any(own <= seq for own in first):
                continue
            light, whole = Projector(log).state("alpha", seq), naive_state(log, "alpha", seq)
            now_us = random.choice((0, 2**60))
            seen, expected = (outlook(state, Facts(), now_us) for state in (light, whole))
            assert (seen.decision, seen.starting, seen.line) == (expected.decision, expected.starting, expected.line)
            for name in whole.tasks:
                reasons = [why_not(state, name, Facts(), now_us) for state in (light, whole)]
                assert reasons[0] == reasons[1]


@HISTORIES
@given(SEED, SIZE)
def test_a_large_run_is_retold_and_decided_again_as_any_other(seed: int, events: int) -> None:
    """Whether its tasks are let go on the way or not."""
    with generated(Random(seed), events, runs=1) as (_, log):
        told = [retelling.as_json(moment, 0) for moment in retelling.moments(log, "alpha")]
        verdict = redecide(log, "alpha")
        with every_run_is_large(0):
            assert [retelling.as_json(moment, 0) for moment in retelling.moments(log, "alpha")] == told
            assert [retelling.as_json(moment, 0) for moment in retelling.moments(log, "alpha", whole=True)] == told
            assert redecide(log, "alpha") == verdict
            assert check_folds(log, "alpha", log.last_seq())[0] == []


@pytest.mark.parametrize("lost", ["TaskStarted", "TaskCompleted", "CheckpointCreated"])
def test_tasks_that_are_read_otherwise_than_their_run_was_folded_are_named(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the index of tasks does not find an event."""
    for seed in range(100):
        with generated(Random(seed), 20, runs=1) as (_, log), every_run_is_large(0):
            assert check_folds(log, "alpha", log.last_seq())[0] == []
            if any(isinstance(record.event, ev.RunRolledBack) for record in log.read()):
                continue
            state = naive_state(log, "alpha", log.last_seq())
            names = {getattr(one.event, "task_id", None) for one in log.read() if type(one.event).__name__ == lost}
            if not names & state.tasks.keys():
                continue
            for asked in ("briefs_of_tasks", "task_briefs"):
                found = getattr(Log, asked)
                monkeypatch.setattr(
                    Log, asked, lambda *given, found=found, **named: [row for row in found(*given, **named) if row[2] != lost]
                )  # fmt: skip
            log._writer.execute("DELETE FROM snapshots")
            (finding,) = check_folds(log, "alpha", log.last_seq())[0]
            assert finding.check == "folds"
            return
    raise AssertionError("no history was fit to be tried")
