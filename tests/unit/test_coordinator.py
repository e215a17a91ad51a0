"""Checkpoints around the work of several agents."""

from __future__ import annotations

from pathlib import Path

import pytest
from gitrepos import make_project, write

from parallel_agents import InvalidConfiguration, UnknownCheckpoint
from parallel_agents.checkpoint_engine import CheckpointEngine
from parallel_agents.coordinator import MultiAgentCoordinator


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git project with one commit."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "PARALLEL_AGENTS_STORE"):
        monkeypatch.delenv(name, raising=False)
    return make_project(tmp_path, monkeypatch).top


@pytest.fixture
def coordinator(top: Path) -> MultiAgentCoordinator:
    """A coordinator of that project."""
    return MultiAgentCoordinator(CheckpointEngine(framework_root=top))


def test_an_agent_is_active_between_its_two_checkpoints(coordinator: MultiAgentCoordinator, top: Path) -> None:
    """And what it changed is what lies between them."""
    assert coordinator.get_coordination_status()["active_agents"] == 0
    before = coordinator.pre_agent_execution_checkpoint("backend-engineer", "Fix the login")
    assert coordinator.get_coordination_status()["agents"] == ["backend-engineer"]
    write(top, {"login": "fixed\n"})
    after = coordinator.post_agent_execution_checkpoint("backend-engineer", True)
    status = coordinator.get_coordination_status()
    assert (status["active_agents"], status["total_checkpoints"], status["detected_conflicts"]) == (0, 2, 0)
    assert status["agent_states"] == {
        "backend-engineer": {"execution_count": 1, "last_checkpoint": after, "modified_files_count": 1}
    }
    history = coordinator.get_agent_checkpoint_history("backend-engineer")
    assert [one.checkpoint_id for one in history] == [before, after]
    assert [one.level for one in history] == ["agent_execution"] * 2
    assert [one.kind for one in history] == ["before_attempt", "after_attempt"]
    assert history[1].changed_files == ["login"]
    assert history[1].tags == ["success"]
    assert [one.checkpoint_id for one in coordinator.get_agent_checkpoint_history("backend-engineer", 1)] == [after]
    assert coordinator.get_agent_checkpoint_history("nobody") == []


def test_words_lead_to_before_what_an_agent_was_to_do(coordinator: MultiAgentCoordinator, top: Path) -> None:
    """The checkpoint that was made before it began."""
    before = coordinator.pre_agent_execution_checkpoint("backend-engineer", "Bug fix of the login")
    write(top, {"login": "fixed\n"})
    after = coordinator.post_agent_execution_checkpoint("backend-engineer", False)
    engine = coordinator.checkpoint_engine
    assert engine.semantic_rewind("rewind to before bug fix", dry_run=True).checkpoint_id == before
    assert engine.semantic_rewind("last backend-engineer checkpoint", dry_run=True).checkpoint_id == after


def test_agents_that_changed_the_same_file_at_the_same_time_are_found(coordinator: MultiAgentCoordinator) -> None:
    """Whoever ends first; not those that worked one after the other."""
    coordinator.pre_agent_execution_checkpoint("a")
    coordinator.pre_agent_execution_checkpoint("b")
    coordinator.post_agent_execution_checkpoint("a", True, ["x", "y"])
    coordinator.post_agent_execution_checkpoint("b", True, ["y", "z"])
    coordinator.pre_agent_execution_checkpoint("c")
    coordinator.post_agent_execution_checkpoint("c", True, ["y"])
    status = coordinator.get_coordination_status()
    assert status["detected_conflicts"] == 1
    assert status["conflicts"] == [{"agents": ["a", "b"], "files": ["y"]}]


def test_a_coordinated_rollback_takes_the_work_of_all_back_at_once(
    coordinator: MultiAgentCoordinator, top: Path
) -> None:
    """Agents that are still at work but were not named are said."""
    before = coordinator.pre_agent_execution_checkpoint("a")
    coordinator.pre_agent_execution_checkpoint("b")
    write(top, {"of-a": "1\n", "of-b": "2\n"})
    assert before is not None
    result = coordinator.coordinated_rollback(before, ["a"])
    assert (result.success, result.checkpoint_id, result.files_restored) == (True, before, 2)
    assert result.warnings == ["still at work, on files that went back: b"]
    assert not (top / "of-a").exists()
    assert coordinator.get_coordination_status()["agents"] == ["b"]
    assert result.rollback_checkpoint_created is not None
    assert coordinator.coordinated_rollback(result.rollback_checkpoint_created).success
    assert (top / "of-b").read_text() == "2\n"
    assert coordinator.get_coordination_status()["agents"] == []
    with pytest.raises(UnknownCheckpoint):
        coordinator.coordinated_rollback("aaaaaaaaaa", [])


def test_switched_off_it_makes_no_checkpoints_but_knows_who_works(top: Path) -> None:
    """By its own configuration or by the project's."""
    engine = CheckpointEngine(framework_root=top)
    off = MultiAgentCoordinator(engine, {"enabled": False})
    (top / "parallel-agents.toml").write_text("[checkpoint_integration]\nper_agent_checkpoints = false\n")
    off_too = MultiAgentCoordinator(CheckpointEngine(framework_root=top))
    for coordinator in (off, off_too):
        assert coordinator.pre_agent_execution_checkpoint("a") is None
        assert coordinator.get_coordination_status()["agents"] == ["a"]
        assert coordinator.post_agent_execution_checkpoint("a", True) is None
        assert coordinator.get_coordination_status()["active_agents"] == 0
    assert engine.list_checkpoints() == []
    on = MultiAgentCoordinator(CheckpointEngine(framework_root=top), {"enabled": True})
    assert on.pre_agent_execution_checkpoint("a") is not None


def test_agents_are_not_compared_where_nobody_wants_it(top: Path) -> None:
    """``conflict_detection`` switches it off."""
    coordinator = MultiAgentCoordinator(CheckpointEngine(framework_root=top), {"conflict_detection": False})
    coordinator.pre_agent_execution_checkpoint("a")
    coordinator.pre_agent_execution_checkpoint("b")
    coordinator.post_agent_execution_checkpoint("a", True, ["x"])
    coordinator.post_agent_execution_checkpoint("b", True, ["x"])
    assert coordinator.get_coordination_status()["detected_conflicts"] == 0


@pytest.mark.parametrize(
    ("config", "complaint"), [({"enable": True}, "enable"), ({"enabled": "yes"}, "not true or false")]
)
def test_a_configuration_that_says_something_else_is_refused(
    top: Path, config: dict[str, object], complaint: str
) -> None:
    """By name."""
    with pytest.raises(InvalidConfiguration, match=complaint):
        MultiAgentCoordinator(CheckpointEngine(framework_root=top), config)
