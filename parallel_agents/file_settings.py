"""What the configuration says about a run's files: checkpoints, conflicts, quality gates."""

from __future__ import annotations

from typing import Any, Literal

from parallel_agents.configuration import Configuration
from parallel_agents.eventstore.submission import FileSettings, Gate


def file_settings(configuration: Configuration) -> FileSettings:
    """The settings as a plan holds them. A group's ``enabled: false`` switches off all that the group does.

    How a conflict is settled stays as configured: work that cannot be merged is there whether anybody looks for it or not.
    """
    checkpoints = configuration.get("checkpointIntegration.enabled")
    conflicts = configuration.get("conflictResolution.enabled")
    gates = configuration.get("qualityGates.enabled")
    return FileSettings(
        before_run=checkpoints and configuration.get("checkpointIntegration.autoCheckpointBeforeParallel"),
        after_run=checkpoints and configuration.get("checkpointIntegration.autoCheckpointAfterParallel"),
        per_agent=checkpoints and configuration.get("checkpointIntegration.perAgentCheckpoints"),
        between_stages=checkpoints and configuration.get("strategies.pipeline.checkpointBetweenStages"),
        rollback_on_failure=checkpoints and configuration.get("checkpointIntegration.rollbackOnFailure"),
        preserve_successful=configuration.get("checkpointIntegration.preserveSuccessfulAgents"),
        conflicts=configuration.get("conflictResolution.strategy"),
        detect_early=conflicts and configuration.get("conflictResolution.fileConflictDetection"),
        pause_on_conflict=conflicts and configuration.get("conflictResolution.pauseOnConflict"),
        gates=_gates(configuration) if gates else (),
        fail_on_gates=configuration.get("qualityGates.failOnQualityIssues"),
        rollback_on_gates=gates and configuration.get("qualityGates.autoRollbackOnFailure"),
    )


def without_checkpoints(settings: FileSettings) -> FileSettings:
    """The same settings for a run that makes no checkpoints by itself."""
    off = dict.fromkeys(("before_run", "after_run", "per_agent", "between_stages", "rollback_on_failure"), False)
    return settings.model_copy(update=off)


def _gates(configuration: Configuration) -> tuple[Gate, ...]:
    after: Literal["task", "stage"] = "stage" if configuration.get("qualityGates.runBetweenStages") else "task"
    items: list[list[str] | dict[str, Any]] = configuration.get("qualityGates.commands")
    return tuple(
        Gate(command=tuple(item), after=after)
        if isinstance(item, list)
        else Gate(command=tuple(item["command"]), after=item.get("after", after), timeout_s=float(item["timeout"]))
        for item in items
    )
