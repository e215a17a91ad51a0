"""Going to and fro in generated histories: wherever one comes from, a position has one state, which is that of `--at`."""

from __future__ import annotations

import dataclasses
from random import Random

from hypothesis import example, given
from test_histories import HISTORIES, SEED, SIZE, check_derived, generated, plain

from parallel_agents.debugger.frames import Frame, Frames
from parallel_agents.debugger.tape import Tape
from parallel_agents.projections.projector import Projector


def check(frame: Frame, projector: Projector, tape: Tape) -> None:
    """A frame is what other verbs say of that moment."""
    seq = tape.seqs[frame.position]
    assert plain(frame.state) == plain(projector.state(tape.run_id, seq))
    assert dataclasses.asdict(frame.cost) == dataclasses.asdict(projector.cost(tape.run_id, seq))
    check_derived(frame.state)


@HISTORIES
@given(SEED, SIZE)
@example(seed=213032120, events=60)  # Two tasks of a stage fail, and one of them is tried again.
def test_every_position_has_one_state_however_one_came_there(seed: int, events: int) -> None:
    """Forwards, backwards, by jumps, and once more: no step changes a frame that was given out before."""
    random = Random(seed)
    with generated(random, events) as (made, log):
        for run_id in made.runs:
            if not any(name == run_id for name, _ in made.events):
                continue
            tape = Tape(log, run_id)
            frames, projector = Frames(tape, spacing=random.choice((1, 2, 5, 1000))), Projector(log)
            there = list(range(len(tape)))
            seen = {}
            for position in [*there, *reversed(there), *(random.choice(there) for _ in there)]:
                frame = frames.at(position)
                assert frame.position == position
                seen[position] = frame
                check(frame, projector, tape)
            for frame in seen.values():
                check(frame, projector, tape)


@HISTORIES
@given(SEED, SIZE)
def test_a_walk_passes_the_same_states_as_jumps(seed: int, events: int) -> None:
    """From any position to any later one."""
    random = Random(seed)
    with generated(random, events) as (made, log):
        run_id = made.events[0][0]
        tape = Tape(log, run_id)
        frames, projector = Frames(tape, spacing=3), Projector(log)
        after = random.randint(-1, len(tape) - 1)
        upto = random.randint(after, len(tape) - 1)
        passed = []
        for frame in frames.walk(after, upto):
            passed.append(frame.position)
            check(frame, projector, tape)
        assert passed == list(range(after + 1, upto + 1))
        if after >= 0:
            check(frames.at(after), projector, tape)


@HISTORIES
@given(SEED, SIZE)
def test_a_tape_says_where_everything_stands(seed: int, events: int) -> None:
    """Rows, types, times and tasks are those of the log, also where it was longer when they were asked for again."""
    random = Random(seed)
    with generated(random, events) as (made, log):
        run_id = made.events[0][0]
        tape = Tape(log, run_id)
        rows = log.run_rows(run_id)
        assert [tape.row(position) for position in range(len(tape))] == rows
        assert [tape.type_of(position) for position in range(len(tape))] == [row.type for row in rows]
        assert [row.version for row in rows] == list(range(1, len(rows) + 1))
        for task in made.runs[run_id].plan.tasks:
            named = [at for at, row in enumerate(rows) if f'"task_id":"{task.task_id}"' in row.body]
            assert tape.of_task(task.task_id) == named
        at = random.randrange(len(rows))
        assert tape.position_of(rows[at].seq) == at
        assert tape.position_of(rows[0].seq - 1) == -1
        assert tape.first_at(rows[at].at_us) <= at <= tape.position_at(rows[at].at_us)
        wanted = {rows[random.randrange(len(rows))].type}
        standing = [place for place, row in enumerate(rows) if row.type in wanted]
        assert tape.next_of(wanted, at) == next((place for place in standing if place > at), None)
        assert tape.previous_of(wanted, at) == next((place for place in reversed(standing) if place < at), None)
