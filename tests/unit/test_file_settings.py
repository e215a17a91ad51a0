"""What the configuration says about a run's files, as the run keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parallel_agents.configuration import DEFAULTS, load_configuration
from parallel_agents.eventstore.submission import FileSettings, Gate, load_plan
from parallel_agents.file_settings import file_settings
from parallel_agents.planfile import parse_plan
from parallel_agents.submit import make_plan


def settings_of(folder: Path, tree: dict[str, Any]) -> FileSettings:
    """The settings of a project with this configuration."""
    (folder / "parallel-agents.yaml").write_text(json.dumps(tree))
    return file_settings(load_configuration(folder, environ={}))


def test_a_configuration_that_says_nothing_gives_the_defaults() -> None:
    """So the document of a run need not say them either."""
    assert file_settings(DEFAULTS) == FileSettings()


@pytest.mark.parametrize(
    ("tree", "changed"),
    [
        ({"checkpoint_integration": {"auto_checkpoint_before_parallel": False}}, {"before_run": False}),
        ({"checkpoint_integration": {"auto_checkpoint_after_parallel": False}}, {"after_run": False}),
        ({"checkpoint_integration": {"per_agent_checkpoints": False}}, {"per_agent": False}),
        ({"pipeline": {"checkpoint_between_stages": False}}, {"between_stages": False}),
        ({"checkpoint_integration": {"rollback_on_failure": False}}, {"rollback_on_failure": False}),
        ({"checkpoint_integration": {"preserve_successful_agents": False}}, {"preserve_successful": False}),
        ({"conflict_resolution": {"strategy": "rebase"}}, {"conflicts": "rebase"}),
        ({"conflict_resolution": {"file_conflict_detection": False}}, {"detect_early": False}),
        ({"conflict_resolution": {"pause_on_conflict": False}}, {"pause_on_conflict": False}),
        ({"quality_gates": {"fail_on_quality_issues": False}}, {"fail_on_gates": False}),
        ({"quality_gates": {"auto_rollback_on_failure": True}}, {"rollback_on_gates": True}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_each_key_changes_its_own_setting(tmp_path: Path, tree: dict[str, Any], changed: dict[str, Any]) -> None:
    """And no other."""
    assert settings_of(tmp_path, tree) == FileSettings(**changed)


def test_a_group_that_is_switched_off_is_off_whole(tmp_path: Path) -> None:
    """Whatever its other keys say; how a conflict is settled stays."""
    tree = {
        "checkpoint_integration": {"enabled": False, "rollback_on_failure": True},
        "conflict_resolution": {"enabled": False, "strategy": "theirs", "pause_on_conflict": True},
        "quality_gates": {"enabled": False, "commands": [["make"]], "auto_rollback_on_failure": True},
    }
    assert settings_of(tmp_path, tree) == FileSettings(
        before_run=False, after_run=False, per_agent=False, between_stages=False, rollback_on_failure=False,
        conflicts="theirs", detect_early=False, pause_on_conflict=False, gates=(), rollback_on_gates=False,
    )  # fmt: skip


@pytest.mark.parametrize(("between_stages", "after"), [(True, "stage"), (False, "task")])
def test_a_gate_runs_where_it_says_or_where_the_configuration_does(
    tmp_path: Path, between_stages: bool, after: str
) -> None:
    """As a list of words it says nothing about itself."""
    commands = [
        ["make", "test"],
        {"command": ["a"], "timeout": 5},
        {"command": ["b"], "after": "task"},
        {"command": ["c"], "after": "stage"},
    ]
    tree = {"quality_gates": {"run_between_stages": between_stages, "commands": commands}}
    found = [(gate.command, gate.after, gate.timeout_s) for gate in settings_of(tmp_path, tree).gates]
    assert found == [
        (("make", "test"), after, 600.0), (("a",), after, 5.0), (("b",), "task", 600.0), (("c",), "stage", 600.0),
    ]  # fmt: skip


def test_a_run_keeps_its_settings_and_folders(tmp_path: Path) -> None:
    """Whatever the configuration says later."""
    (tmp_path / "parallel-agents.yaml").write_text(
        "quality_gates: {commands: [[make, test]]}\nconflict_resolution: {strategy: ours}\n"
    )
    configuration = load_configuration(tmp_path, environ={})
    text = "workspace: worktree\nsparse: [docs]\ntasks: [{task_id: a, command: [x], files: ['docs/**'], setup: [y]}]"
    plan = make_plan(parse_plan(text, "plan.yaml", configuration), configuration)
    assert (plan.workspace, plan.sparse, plan.files.conflicts) == ("worktree", ("docs",), "ours")
    assert plan.files.gates == (Gate(command=("make", "test"), after="stage"),)
    assert load_plan(plan.to_bytes()) == plan
