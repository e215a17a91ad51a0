"""What a dispatcher has done to files around attempts, on threads of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gitrepos import head, make_project
from waiting import wait_until

from parallel_agents.scheduler.checkouts import Checkouts, Order, Prepared


def test_a_finished_checkout_becomes_that_of_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a run has no more of them than attempts at once; one whose attempt failed stays to be looked at."""
    project = make_project(tmp_path, monkeypatch)
    checkouts = Checkouts(project.top / ".parallel-agents", lambda: None)
    ready: list[Prepared] = []

    def prepare(task_id: str) -> tuple[Order, int]:
        """Give an attempt of a task its checkout; which folder it is."""
        order = Order(
            run_id="run", task_id=task_id, attempt_id=f"{task_id}1", attempt=1, folder=str(tmp_path / task_id),
            repository=str(project.top), workdir=project.top, workspace="worktree", base=head(project),
        )  # fmt: skip
        checkouts.prepare(order)

        def is_there() -> bool:
            ready.extend(one for one in checkouts.poll() if isinstance(one, Prepared))
            return bool(ready)

        wait_until(is_there, f"the checkout of {task_id}")
        assert ready.pop().error is None
        place = checkouts.worktree("run", task_id)
        assert sorted(os.listdir(place)) == [".git", "readme", "src"]
        return order, place.stat().st_ino

    try:
        (first, folder), (other, another) = prepare("first"), prepare("other")
        assert folder != another
        checkouts.release(first, free=True)
        checkouts.release(other, free=False)
        _, next_folder = prepare("next")
        _, last_folder = prepare("last")
    finally:
        checkouts.close()
    assert next_folder == folder
    assert last_folder not in (folder, another)
    assert sorted(path.name for path in (project.top / ".parallel-agents/worktrees/run").iterdir()) == [
        "last",
        "next",
        "other",
    ]
