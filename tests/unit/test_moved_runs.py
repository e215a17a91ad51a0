"""A run whose store was restored in another folder has its files there, whatever it is taken back to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from paper import plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector
from parallel_agents.run_standing import places_of
from parallel_agents.submit import submit
from parallel_agents.travel import fork

HERE, THERE = Path("/here"), Path("/there")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A store with nothing in it."""
    with Log(tmp_path / "events.db") as log:
        yield log


def moved(log: Log) -> str:
    """A run that was moved after its start."""
    run_id = submit(log, plan_of(task("a")), workdir=HERE, environ={})
    move = ev.RunMoved(workdir=str(THERE), repository=str(THERE / "top"))
    log.append(run_id, 1, [ev.RunStarted(), move, ev.TaskQueued(task_id="a")])
    return run_id


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_no_rollback_takes_it_back(log: Log, with_snapshot: bool) -> None:
    """Also one to before it, from behind a snapshot, and a second one to where that stood."""
    run_id = moved(log)
    if with_snapshot:
        projector = Projector(log)
        projector.save_snapshot(projector.state(run_id))
    for target in (1, 4):
        log.append(run_id, Projector(log).state(run_id).version, [ev.RunRolledBack(to_seq=target)])
        for state in (Projector(log).state(run_id), Projector(log, use_snapshots=False).state(run_id)):
            assert (state.workdir, state.repository) == (str(THERE), str(THERE / "top"))
    assert Projector(log).state(run_id, 2).workdir == str(HERE)


def test_its_files_and_those_of_its_forks_are_where_it_went(log: Log) -> None:
    """Also of a fork from before it went."""
    run_id = moved(log)
    child = fork(log, run_id, 1, {})["run_id"]
    assert {name: place.workdir for name, place in places_of(log).items()} == {run_id: str(THERE), child: str(THERE)}
    assert Projector(log).state(child).workdir == str(THERE)
