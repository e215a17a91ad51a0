"""Limits of the store hold over every process that dispatches on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Store, task, wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.projections.occupancy import Occupancy, fold

DISPATCHER = """
import sys
from pathlib import Path
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.engine import Engine
with Log(Path(sys.argv[1])) as log:
    engine = Engine(log, kind=sys.argv[3])
    engine.hold(sys.argv[2])
    engine.start()
    engine.wait(sys.argv[2], until=lambda progress: progress.status == "completed", timeout_s=60.0)
    engine.close()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, without a daemon."""
    made = Store(tmp_path)
    yield made
    made.close()


def test_the_limit_of_the_store_holds_over_three_processes(store: Store) -> None:
    """A daemon and two others share three slots: never more are taken, all are used, and everybody gets some."""
    gate = "while ! test -e go; do sleep 0.01; done"
    runs = [
        store.submit(*(task(f"t{number}", gate) for number in range(8)), max_parallel_agents=2, store_limit=3)
        for _ in range(3)
    ]
    others = [store.start(DISPATCHER, run_id, f"other {at}") for at, run_id in enumerate(runs[:2])]
    wait_until(lambda: all(store.events(run_id, ev.RunClaimed) for run_id in runs[:2]), "the two others to hold theirs")
    store.daemon()
    wait_until(lambda: store.events(runs[2], ev.RunClaimed), "the daemon to hold the third")
    wait_until(lambda: sum(len(store.state(run_id).running) for run_id in runs) == 3, "three that run")
    (store.folder / "go").touch()
    assert [store.ended(run_id) for run_id in runs] == ["completed"] * 3
    for other in others:
        other.communicate(timeout=60)
    occupancy = Occupancy()
    most = 0
    for record in store.log.read():
        fold(occupancy, record)
        most = max(most, len(occupancy.slots))
        assert occupancy.of_run(record.run_id) <= 2
    assert most == 3
    by_run = {
        run_id: {one.actor for one in store.records(run_id) if isinstance(one.event, ev.TaskStarted)} for run_id in runs
    }
    assert list(by_run.values()) == [{"other 0"}, {"other 1"}, {"daemon"}]
