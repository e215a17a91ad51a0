"""Going back and branching off, on paper: what is appended, and where the state stands then."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper import PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.log import digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import FileSettings
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.effective import effective
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.decide_past import changes, decide_fork, decide_rollback
from parallel_agents.scheduler.work import Work


@dataclass
class Past:
    """A run of two tasks that are done one after the other, and every state that it was in."""

    run: PaperRun = field(default_factory=lambda: PaperRun(plan_of(task("a"), task("b", "a"), files=FileSettings())))
    states: dict[int, RunState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.note()
        for name in ("a", "b"):
            self.run.tick()
            self.note()
            self.run.end_with(name, Work(f"after{name}", f"w{name}", 1, "c0", f"m{name}"))
            self.note()
        self.run.add(ev.RunCompleted(counts={"completed": 2}))
        self.note()

    def note(self) -> None:
        self.states[len(self.run.events)] = copy.deepcopy(self.run.state)

    def back_to(self, seq: int) -> RunState:
        """The state after a rollback, folded from the effective history."""
        decided = decide_rollback(self.run.state, self.states[seq], seq)
        records = [
            Recorded(number, "paper", number, 0, "", event)
            for number, event in enumerate([*self.run.events, *decided], start=1)
        ]
        kept, _ = effective(records)
        state = status_fold.initial("paper")
        for record in kept:
            state = status_fold.fold(state, record, lambda digest: self.run._content)
        return state


def test_a_rollback_takes_queue_and_files_back_together() -> None:
    """What ran there is queued again, and nothing starts before a resume."""
    past = Past()
    running_a = next(seq for seq, state in past.states.items() if state.running)
    state = past.back_to(running_a)
    assert (state.status, state.integration) == ("paused", "c0")
    assert {name: one.status for name, one in state.tasks.items()} == {"a": "queued", "b": "pending"}
    assert state.running == {}


@given(st.data())
def test_after_a_rollback_a_run_stands_where_it_stood(data: st.DataObject) -> None:
    """At every moment of it, but for what ran and the pause."""
    past = Past()
    seq = data.draw(st.sampled_from(sorted(past.states)[:-1]))
    then, state = past.states[seq], past.back_to(seq)
    assert (state.integration, state.stages_passed) == (then.integration, then.stages_passed)
    for name, one in then.tasks.items():
        assert state.tasks[name].status == ("queued" if one.status == "running" else one.status)


def test_going_to_where_it_stands_is_refused() -> None:
    """A rollback that changes nothing must not look like one that did."""
    past = Past()
    with pytest.raises(NotAllowed, match="changes nothing"):
        decide_rollback(past.run.state, past.run.state, past.run.state.seq)


def test_a_run_that_is_being_cancelled_is_not_rolled_back() -> None:
    """Both would want its attempts."""
    run = PaperRun(plan_of(task("a"), files=FileSettings()))
    there = copy.deepcopy(run.state)
    run.tick()
    run.add(ev.RunCancelRequested(reason="enough"))
    with pytest.raises(NotAllowed, match="being cancelled"):
        decide_rollback(run.state, there, there.seq)


def test_a_rollback_to_an_end_needs_no_pause() -> None:
    """There is nothing to go on with."""
    past = Past()
    ended = copy.deepcopy(past.run.state)
    past.run.add(ev.TaskReopened(task_id="b"), ev.RunResumed(reason="retry"))
    assert [type(event).__name__ for event in decide_rollback(past.run.state, ended, ended.seq)] == ["RunRolledBack"]


def test_a_rollback_into_the_commit_of_a_retry_can_be_gone_on_from() -> None:
    """There the run had ended already and had open tasks again."""
    past = Past()
    past.run.add(ev.TaskReopened(task_id="b"))
    between = copy.deepcopy(past.run.state)
    past.run.add(ev.RunResumed(reason="retry"))
    assert isinstance(decide_rollback(past.run.state, between, between.seq)[-1], ev.RunPaused)


def test_the_changes_name_each_task_with_both_statuses() -> None:
    """As a person is shown before they agree."""
    past = Past()
    then = next(state for state in past.states.values() if state.running)
    assert changes(past.run.state, then) == [("a", "completed", "queued"), ("b", "completed", "pending")]


def fork_into(state: RunState, past: Past, there: RunState) -> RunState:
    """A fork of a state, folded from its own events and the blobs that they name."""
    content, snapshot = there.plan.to_bytes(), status_fold.dump(there)
    blobs = {there.plan_digest: past.run._content, digest_of(content): content, digest_of(snapshot): snapshot}
    events = decide_fork(there, there.seq, there.plan, digest_of(content), digest_of(snapshot), {})
    for number, event in enumerate(events, start=1):
        record = Recorded(500 + number, "child", number, 7_000_000, "", event)
        state = status_fold.fold(state, record, blobs.__getitem__)
    return state


@given(st.data())
def test_a_fork_stands_where_its_parent_stood(data: st.DataObject) -> None:
    """With the completed work, without what ran, and under its own name."""
    past = Past()
    there = past.states[data.draw(st.sampled_from(sorted(past.states)))]
    child = fork_into(status_fold.initial("child"), past, there)
    assert (child.run_id, child.integration, child.base_commit) == ("child", there.integration, there.integration)
    for name, one in there.tasks.items():
        assert child.tasks[name].status == ("queued" if one.status == "running" else one.status)
    assert (child.running, child.status) == ({}, "completed" if there.ended else "paused")


def test_a_fork_is_folded_into_the_state_that_whoever_folds_has_at_hand() -> None:
    """Not into a new one that they would never see."""
    past = Past()
    mine = status_fold.initial("child")
    tasks = mine.tasks
    assert fork_into(mine, past, past.run.state) is mine
    assert mine.tasks is tasks
    assert set(tasks) == {"a", "b"}
