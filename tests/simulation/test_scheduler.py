"""Random plans, limits, ends, failures, pauses, cancellations, rollbacks, crashes and full disks: the rules always hold."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from world import World, one_story

from examples import examples
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler import dispatcher as dispatcher_module

# A failure prints its seed. Nothing is shrunk: another seed is another story, a smaller one no simpler.
STORIES = settings(max_examples=examples(8), deadline=None, phases=[Phase.explicit, Phase.generate])
SEED = st.integers(0, 2**32)


@contextmanager
def simulated(seed: int) -> Iterator[World]:
    """A world of its own."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Random(seed), Path(folder))
        with one_story(world.holder_alive):
            yield world
        world.log.close()


@STORIES
@given(SEED)
def test_whatever_happens_the_rules_hold_and_every_run_comes_to_its_end(seed: int) -> None:
    """The rules are the referee's, and what is checked after every tick."""
    with simulated(seed) as world:
        for _ in range(60):
            world.step()
        world.settle()
        assert verify_rows(world.log.rows()).broken is None


@STORIES
@given(SEED, st.floats(0, 1))
def test_any_prefix_of_a_log_is_a_state_to_go_on_from(seed: int, share: float) -> None:
    """Cut anywhere, also in the middle of a commit; whatever ran is lost, and everything comes to its end."""
    with simulated(seed) as world:
        for _ in range(40):
            world.step()
        cut = round(share * world.log.last_seq())
        while is_part_of_a_rollback(world.log, cut + 1):
            cut += 1
        world.log._writer.execute("DELETE FROM events WHERE seq > ?", (cut,))
        world.log.close()
        later = World(Random(seed), world.folder, first_pid=100)
        with patch.object(dispatcher_module, "holder_alive", later.holder_alive):
            later.now_us = world.now_us
            later.set_back_us = later.referee.set_back_us = world.set_back_us
            later.referee.look()
            later.settle()
        later.log.close()


def is_part_of_a_rollback(log: Log, seq: int) -> bool:
    """Whether an event only completes what a rollback, a few events before, has begun."""
    row = log.row(seq)
    return row is not None and "rolled" in row.body and row.type in ("TaskQueued", "RunPaused")
