"""Commands to runs, decided on what the log says at the moment of the append."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_agents import look, steer
from parallel_agents.eventstore.errors import NotAllowed, StaleRun
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.submit import submit


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A store of its own."""
    with Log(tmp_path / "events.db", environ={}) as opened:
        yield opened


def test_a_run_that_moves_on_all_the_time_can_be_steered(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else is first between every look and append: then it is decided with everybody else locked out."""
    run_id = submit(log, Plan(name="busy", tasks=(Task(task_id="a", command=("true",)),)), workdir=log.path.parent)

    def always_late(*_: Any, **__: Any) -> None:
        raise StaleRun("somebody else was first")

    monkeypatch.setattr(log, "append", always_late)
    steer.pause(log, run_id)
    assert look.status(log, run_id)["status"] == "paused"
    with pytest.raises(NotAllowed, match="paused already"):
        steer.pause(log, run_id)
    steer.cancel(log, run_id, "a")
    assert look.status(log, run_id)["tasks"][0]["status"] == "cancelled"
