"""Dispatching a run in this process until it has settled."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_agents import foreground, steer
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.follow import Follower
from parallel_agents.projections.projector import Projector
from parallel_agents.submit import submit


def test_a_run_that_somebody_resumes_while_it_is_let_go_of_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was paused when we looked; a moment later it was not. We stay until it has ended."""
    monkeypatch.setattr(foreground, "LEAVE_S", 1.0)
    script = "while ! test -e go; do sleep 0.02; done"
    with Log(tmp_path / "events.db") as log:
        run_id = submit(log, Plan(name="p", tasks=(Task(task_id="a", command=("sh", "-c", script)),)), workdir=tmp_path)
        steer.pause(log, run_id)
        resumed: list[int] = []

        def told(records: list[Recorded]) -> None:
            if follower.settled and not resumed:
                resumed.append(log.last_seq())
                with Log(log.path) as other:
                    steer.resume(other, run_id)
            if follower.state.running:
                (tmp_path / "go").touch()

        follower = Follower(log, run_id)
        foreground.dispatch(log, follower, kind="run", told=told)
        assert resumed
        assert Projector(log).state(run_id).status == "completed"


def test_a_run_that_waits_for_a_person_is_let_go_of(tmp_path: Path) -> None:
    """Anybody may claim it then."""
    with Log(tmp_path / "events.db") as log:
        run_id = submit(log, Plan(name="p", tasks=(Task(task_id="a", command=("true",)),)), workdir=tmp_path)
        steer.pause(log, run_id)
        foreground.dispatch(log, Follower(log, run_id), kind="run", told=lambda records: None)
        assert Projector(log).runs()[run_id].holder is None
