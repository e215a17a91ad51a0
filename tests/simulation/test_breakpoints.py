"""Breakpoints in generated histories: each search finds the position that a look at every single one of them finds."""

from __future__ import annotations

from random import Random

from hypothesis import given
from test_histories import HISTORIES, SEED, SIZE, generated

from parallel_agents.debugger.breakpoints import Breakpoint, Search, breakpoint_of
from parallel_agents.debugger.expressions import Here
from parallel_agents.debugger.frames import Frames
from parallel_agents.debugger.tape import Tape
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState

TEXTS = (
    "failed >= 1", "running > queued", "cost > 0.5", "status('t0') == 'running'", "run == 'paused' or short != ''",
    "type == 'RunRolledBack'", "attempts('t0') > 1 and failures('t0') == 0", "left < 3", "task == 't0'", "elapsed > 20",
    "TaskStarted", "TaskCompleted, TaskFailed", "task t0", "conflict",
)  # fmt: skip


def met(one: Breakpoint, tape: Tape, seen: list[tuple[RunState, Cost]], position: int) -> bool:
    """Whether a breakpoint is met at a position, by what other verbs say of that moment and of the one before."""
    if one.types:
        return tape.row(position).type in one.types
    if one.task_id:
        before = seen[position - 1][0].tasks.get(one.task_id) if position else None
        rolled = tape.row(position).type == "RunRolledBack" and before != seen[position][0].tasks.get(one.task_id)
        return f'"task_id":"{one.task_id}"' in tape.row(position).body or rolled
    assert one.holds is not None
    now = one.holds.value(Here(*seen[position], tape, position))
    return bool(now) and not (position and one.holds.value(Here(*seen[position - 1], tape, position - 1)))


@HISTORIES
@given(SEED, SIZE)
def test_searches_stop_where_a_look_at_every_position_stops(seed: int, events: int) -> None:
    """Both ways, from everywhere, with one breakpoint or several."""
    random = Random(seed)
    with generated(random, events) as (made, log):
        run_id = made.events[0][0]
        tape, projector = Tape(log, run_id), Projector(log)
        frames = Frames(tape, spacing=random.choice((2, 7, 1000)))
        seen = [(projector.state(run_id, seq), projector.cost(run_id, seq)) for seq in tape.seqs]
        for _ in range(3):
            chosen = [breakpoint_of(text, seen[-1][0].tasks) for text in random.sample(TEXTS, random.choice((1, 1, 3)))]
            stops = [at for at in range(len(tape)) if any(met(one, tape, seen, at) for one in chosen)]
            for position in range(len(tape)):
                search = Search(tape, frames, chosen)
                list(search.steps(position, forward=True))
                assert search.found == next((at for at in stops if at > position), None), chosen
                list(search.steps(position, forward=False))
                assert search.found == next((at for at in reversed(stops) if at < position), None), chosen
