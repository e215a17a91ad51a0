"""What a dispatcher has done to files around attempts, on threads of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from gitrepos import head, make_project, shim
from waiting import wait_until

from parallel_agents.scheduler.checkouts import Checkouts, Kept, Merged, Order, Prepared, Result
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.work import Work


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


FULL = "error: unable to write file: No space left on device"
READ_ONLY = "fatal: Unable to create index.lock: Read-only file system"


def one_of(checkouts: Checkouts, kind: type[Result]) -> Result:
    """The next result of a kind."""
    found: list[Result] = []

    def is_there() -> bool:
        found.extend(one for one in checkouts.poll() if isinstance(one, kind))
        return bool(found)

    wait_until(is_there, kind.__name__)
    return found[0]


@pytest.mark.parametrize("said", [FULL, READ_ONLY])
def test_work_is_kept_and_merged_once_the_disk_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """It is done, and paid for: to call it failed because of a disk would have it done again."""
    monkeypatch.setattr("parallel_agents.scheduler.checkouts._AGAIN_S", 0.02)
    project = make_project(tmp_path, monkeypatch)
    refusals = tmp_path / "refusals"
    refuse = f'echo x >>{refusals}; echo "{said}" >&2; exit 128'
    script = f'if [ -e {refusals} ]; then case "$*" in *write-tree*|*update-ref*) {refuse};; esac; fi'
    order = Order(
        run_id="run", task_id="one", attempt_id="one1", attempt=1, folder=str(tmp_path / "one"), after_id="after",
        repository=str(project.top), workdir=project.top, workspace="worktree", base=head(project),
    )  # fmt: skip
    ended = Ended("one1", "exited", exit_code=0, ended_at_us=time.time_ns() // 1000)
    checkouts = Checkouts(project.top / ".parallel-agents", lambda: None)
    try:
        checkouts.prepare(order)
        one_of(checkouts, Prepared)
        (checkouts.worktree("run", "one") / "made").write_text("1")
        shim(tmp_path, monkeypatch, script)
        refusals.touch()
        checkouts.keep(order, ended)
        wait_until(lambda: len(refusals.read_text()) >= 6, "three refusals")
        assert checkouts.poll() == []
        refusals.unlink()
        kept = one_of(checkouts, Kept)
        assert isinstance(kept, Kept)
        assert (kept.ended.error, kept.work.changed) == (None, 1)
        refusals.touch()
        checkouts.merge(order, ended, kept.work, head(project), "ask")
        wait_until(lambda: len(refusals.read_text()) >= 6, "three refusals more")
        refusals.unlink()
        merged = one_of(checkouts, Merged)
        assert isinstance(merged, Merged)
        assert (merged.ended.error, merged.work.merged) == (None, kept.work.commit)
        refusals.touch()
        checkouts.keep(order, ended)
        checkouts.merge(order, ended, Work("after", commit=kept.work.commit), head(project), "ask")
    finally:
        begin = time.monotonic()
        checkouts.close()
    assert time.monotonic() - begin < 9, "whoever leaves does not wait for the disk"
