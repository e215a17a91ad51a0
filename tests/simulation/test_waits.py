"""What tasks waited for, over generated histories and those that dispatchers have made: every moment has one answer."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from stories import story, tell
from test_histories import HISTORIES, SEED, SIZE, generated

from examples import examples
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.pictures.critical_hops import critical_hops, shares
from parallel_agents.pictures.moving import Moving
from parallel_agents.pictures.stretches import ATTEMPT, OVER, WAIT, Waits
from parallel_agents.pictures.waits import Follower, waits
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.timeline import timeline
from parallel_agents.scheduler.plan import Reason, outlook, why_not
from parallel_agents.why import why


class Asking(Follower):
    """Asks the scheduler of every task at every moment, as nobody would who knows what has changed."""

    def follow(self, at_us: int, records: list[Recorded]) -> None:  # type: ignore[override]
        """And compare."""
        super().follow(at_us, records)
        state = self.moving.state
        touched, broken = set(state.touched), set(state.broken)
        facts = self.moving.facts(at_us)
        seen = outlook(state, facts, at_us)
        for name, task in state.tasks.items():
            if task.status != status_fold.RUNNING and task.status not in status_fold.ENDED:
                reason: Reason = why_not(state, name, facts, at_us, seen)
                assert self._now[name].code == self.told(reason).code, (records[-1].seq, name, reason)
        state.touched, state.broken = touched, broken


def check(log: Log, run_id: str) -> None:
    """Every moment has the answer that asking anew gives; stretches have no gap; attempts are those of the timeline."""
    moving = Moving(log, run_id)
    asking = Asking(moving)
    for at_us, records in moving.moments():
        asking.follow(at_us, records)
    found = waits(log, run_id)
    records = Projector(log).records(run_id)
    assert found.begin_us == records[0].at_us
    spans = {span.attempt_id: span for span in timeline(records)}
    drawn = set()
    for name, stretches in found.by_task.items():
        for before, after in pairwise(stretches):
            assert before.end_us == after.start_us, name
            assert before.kind != WAIT or after.kind != WAIT or before.code != after.code
        if stretches:
            assert stretches[0].start_us == found.begin_us or isinstance(records[0].event, ev.RunForked)
            assert stretches[-1].kind != OVER
            if stretches[-1].open:
                assert found.state.tasks[name].status not in status_fold.ENDED
                assert stretches[-1].end_us == found.end_us
        for one in stretches:
            assert one.kind in (WAIT, ATTEMPT, OVER)
            assert one.code
            assert one.length_us > 0 or one.kind == ATTEMPT
            if one.kind == ATTEMPT:
                assert one.attempt_id in drawn or one.start_us == spans[one.attempt_id].started_at_us
                drawn.add(one.attempt_id)
    assert drawn == spans.keys()
    check_path(found)


def check_path(found: Waits) -> None:
    """Its hops have no gap, and together they are as long as the run was; each is a part of what its task did."""
    hops = critical_hops(found)
    if not hops:
        assert not any(found.by_task.values())
        return
    assert (hops[0].start_us, hops[-1].end_us) == (found.begin_us, found.end_us)
    assert all(one.end_us == other.start_us for one, other in pairwise(hops))
    assert sum(hop.length_us for hop in hops) == found.end_us - found.begin_us == sum(shares(hops).values())
    assert [hop.link for hop in hops].count("submitted") <= 2
    assert hops[0].link == "submitted"
    for before, hop in pairwise(hops):
        own = [one for one in found.by_task[hop.task_id] if one.start_us <= hop.start_us and hop.end_us <= one.end_us]
        assert any((one.kind, one.code) == (hop.kind, hop.code) for one in own)
        assert (hop.link in ("itself", "retry")) <= (before.task_id == hop.task_id)
        if hop.link == "dependency":
            assert before.task_id in found.state.tasks[hop.task_id].task.dependencies


@HISTORIES
@given(SEED, SIZE)
def test_every_moment_of_a_task_has_one_answer(seed: int, events: int) -> None:
    """Also where it cannot have happened like that."""
    with generated(Random(seed), events) as (_, log):
        for run_id in Projector(log).runs():
            check(log, run_id)


@pytest.mark.parametrize("world", ["scheduler", "agents", "governed"])
def test_a_story_has_one_answer_at_every_moment(world: str) -> None:
    """Dispatchers made it, so it did happen like that."""
    for seed in range(7000, 7000 + examples(1)):
        tell(story(world, seed), lambda told: check_story(told.log))


def check_story(log: Log) -> None:
    """Also against `why --at`, which reads everything anew: some of the questions, at events that are the last of their time."""
    random = Random(1)
    for run_id in Projector(log).runs():
        check(log, run_id)
        moving = Moving(log, run_id)
        follower = Follower(moving)
        for at_us, records in moving.moments():
            follower.follow(at_us, records)
            after = log.row(records[-1].seq + 1)
            name = random.choice(list(moving.state.tasks))
            now = follower._now[name]
            if now.kind == WAIT and random.random() < 0.2 and (after is None or after.at_us > at_us):
                code = why(log, run_id, name, records[-1].seq)["code"]
                assert code in (now.code, "due"), (records[-1].seq, name)
