"""Files of runs that a Python program waits for: their checkpoints, and what waits for a person."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from parallel_agents import AgentTask, InvalidUsage, ParallelExecutor
from parallel_agents.checkpoint import CheckpointEngine, MultiAgentCoordinator


def git(folder: Path, *words: str) -> str:
    """A git command of the user's, without the machine's configuration."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    named = ("-c", "user.name=t", "-c", "user.email=t@localhost", *words)
    return subprocess.run(["git", *named], cwd=folder, env=env, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one file of three lines."""
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "c.txt").write_text("x\ny\nz\n")
    git(tmp_path, "add", "c.txt")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_with_a_checkpoint_engine_calls_have_checkpoints_too(tmp_path: Path) -> None:
    """All five kinds as they come, and the task's last one at the task."""
    engine = CheckpointEngine(framework_root=tmp_path)
    coordinator = MultiAgentCoordinator(engine)
    tasks = [
        AgentTask("a", "one", "", call=lambda: (tmp_path / "one").write_text("1")),
        AgentTask("b", "two", "", call=lambda: (tmp_path / "two").write_text("2"), dependencies=["one"]),
    ]
    with ParallelExecutor(framework_root=tmp_path, checkpoint_engine=engine, coordinator=coordinator) as executor:
        result = executor.execute_parallel(tasks)
    assert result.success
    assert len(result.checkpoint_ids) == 6
    assert {task.checkpoint_id for task in tasks} <= set(result.checkpoint_ids)
    after_one = engine.find_checkpoint_by_agent("a")
    assert after_one == tasks[0].checkpoint_id
    assert engine.rollback_to_checkpoint(after_one).success
    assert [name for name in ("one", "two") if (tmp_path / name).exists()] == ["one"]


def test_without_one_calls_have_none(tmp_path: Path) -> None:
    """Nothing is versioned that nobody asked for."""
    with ParallelExecutor(framework_root=tmp_path) as executor:
        result = executor.execute_parallel([AgentTask("a", "one", "", call=lambda: 1)])
    assert (result.success, result.checkpoint_ids) == (True, [])


def test_an_engine_of_another_store_is_refused(tmp_path: Path) -> None:
    """Its checkpoints would not be those of the run."""
    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidUsage, match="works on"):
        ParallelExecutor(framework_root=tmp_path, checkpoint_engine=CheckpointEngine(framework_root=tmp_path / "other"))


def test_what_is_no_engine_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(InvalidUsage, match='checkpoint_engine is "x"'):
        ParallelExecutor(framework_root=tmp_path, checkpoint_engine="x")  # type: ignore[arg-type]


def test_a_conflict_ends_the_wait_and_names_what_settles_it(repository: Path) -> None:
    """The run is let go of, so that it can be gone on with from anywhere."""
    tasks = [
        AgentTask("a", name, "", command=["sh", "-c", f"sed -i s/y/{name}/ c.txt"], timeout_s=60)
        for name in ("one", "two")
    ]
    with ParallelExecutor(project_root=repository) as executor:
        result = executor.execute_parallel(tasks)
    assert not result.success
    assert sorted(task.status.value for task in tasks) == ["blocked", "completed"]
    assert any("conflict: c.txt with" in error for error in result.errors)
    assert any(f"parallel-agents conflicts {result.run_id}" in error for error in result.errors)
    assert (repository / "c.txt").read_text() == "x\ny\nz\n"


def test_auto_checkpoint_can_be_left_out(repository: Path) -> None:
    """Then only changed work has one, or it could not be found again."""
    task = AgentTask("a", "one", "", command=["sh", "-c", "echo 1 > one"])
    with ParallelExecutor(project_root=repository) as executor:
        result = executor.execute_parallel([task], auto_checkpoint=False)
    assert result.checkpoint_ids == [task.checkpoint_id]
