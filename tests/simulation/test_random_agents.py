"""Random plans of agents, refusals, budgets and crashes: nothing is overspent, nobody is stormed, nobody waits for ever."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from agents_world import AgentsWorld
from world import one_story

from examples import examples
from parallel_agents.eventstore.chain import verify_rows

ONE = os.environ.get("AGENTS_SEED")
SEEDS = [int(ONE)] if ONE else range(examples(30))


@contextmanager
def simulated(seed: int) -> Iterator[AgentsWorld]:
    """A world of its own."""
    with tempfile.TemporaryDirectory() as folder:
        world = AgentsWorld(Random(seed), Path(folder))
        with one_story(world.holder_alive):
            try:
                yield world
            except BaseException as error:
                error.add_note(
                    f"again: AGENTS_SEED={seed} pytest -n 0 tests/simulation/test_random_agents.py\n{world.told()}"
                )
                raise
        world.log.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_agents_do_their_bill_is_bounded_and_every_run_comes_to_its_end(seed: int) -> None:
    """The rules are those of the world, looked at after every event and every tick."""
    with simulated(seed) as world:
        world.submits()
        for _ in range(80):
            world.step()
        world.restarts()
        world.settle()
        assert verify_rows(world.log.rows()).broken is None
