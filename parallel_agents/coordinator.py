"""Checkpoints around the work of several agents, for programs that drive agents themselves.

The executor makes such checkpoints by itself for the attempts of its runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parallel_agents.checkpoint.snapshot import changed_paths
from parallel_agents.checkpoint_engine import CheckpointEngine
from parallel_agents.checkpoint_metadata import CheckpointLevel, CheckpointMetadata, RollbackResult
from parallel_agents.checkpoints import list_of, repository_of
from parallel_agents.eventstore.errors import InvalidConfiguration, nearest
from parallel_agents.projections.projector import Projector

# What may be said with ``config``, and the key of the project's configuration that it takes the place of.
_KEYS = {
    "enabled": "checkpointIntegration.perAgentCheckpoints",
    "conflict_detection": "conflictResolution.fileConflictDetection",
}


@dataclass(slots=True, eq=False)
class _Execution:
    """One time that an agent works."""

    agent_type: str
    before: str | None  # Its checkpoint.
    met: list[_Execution] = field(default_factory=list)  # Those of others at the same time.
    said: frozenset[str] = frozenset()  # What it was said to have changed.


@dataclass(slots=True)
class _Agent:
    """What one agent has done under this coordinator."""

    executions: int = 0
    open: list[_Execution] = field(default_factory=list)
    last_checkpoint: str | None = None
    modified: set[str] = field(default_factory=set)


class MultiAgentCoordinator:
    """Makes a checkpoint before and after the work of each agent, and takes them all back together.

    Args:
        checkpoint_engine: on whose project and store it works.
        config: ``enabled``: whether to make checkpoints; ``conflict_detection``: whether to compare what agents changed
            that worked at the same time. What it leaves out is as the project's configuration says.
    Raises:
        InvalidConfiguration: the configuration holds another key, or a value that is not true or false.
    """

    def __init__(self, checkpoint_engine: CheckpointEngine, config: Mapping[str, Any] | None = None) -> None:
        self.checkpoint_engine = checkpoint_engine
        settings = checkpoint_engine.configuration
        given = dict(config or {})
        for key, value in given.items():
            if key not in _KEYS:
                raise InvalidConfiguration(f"config has no key {key!r}", hint=nearest(key, _KEYS))
            if not isinstance(value, bool):
                raise InvalidConfiguration(f"config[{key!r}] is {value!r}, not true or false")
        said = {key: bool(given.get(key, settings.get(name))) for key, name in _KEYS.items()}
        self._enabled = said["enabled"] and ("enabled" in given or bool(settings.get("checkpointIntegration.enabled")))
        self._compares = said["conflict_detection"]
        self._agents: dict[str, _Agent] = {}
        self._conflicts: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def pre_agent_execution_checkpoint(
        self, agent_type: str, description: str | None = None, tags: Sequence[str] | None = None
    ) -> str | None:
        """Make a checkpoint before an agent begins; from here on it is active.

        Returns:
            The checkpoint's id; None where checkpoints are switched off.
        Raises:
            GitFailed, NotAllowed: it cannot be made, so the agent should not begin.
        """
        made = self._checkpoint("before", agent_type, description, tags)
        with self._lock:
            execution = _Execution(agent_type, made)
            for name, other in self._agents.items():
                for one in other.open if name != agent_type else ():
                    one.met.append(execution)
                    execution.met.append(one)
            agent = self._agents.setdefault(agent_type, _Agent())
            agent.executions += 1
            agent.open.append(execution)
            agent.last_checkpoint = made or agent.last_checkpoint
        return made

    def post_agent_execution_checkpoint(
        self,
        agent_type: str,
        success: bool = True,
        modified_files: Sequence[str] | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> str | None:
        """Make a checkpoint after an agent has ended, well or not.

        Args:
            modified_files: what it changed, to be compared with what others did meanwhile; None: whatever changed since
                its checkpoint before, which tells nobody's work from another's.
        Returns:
            The checkpoint's id; None where checkpoints are switched off.
        """
        how = "success" if success else "failure"
        made = self._checkpoint("after", agent_type, description, [*(tags or ()), how], how)
        with self._lock:
            agent = self._agents.setdefault(agent_type, _Agent())
            execution = agent.open.pop(0) if agent.open else None
        changed = self._changed(execution, made) if modified_files is None else modified_files
        with self._lock:
            agent.last_checkpoint = made or agent.last_checkpoint
            agent.modified.update(changed)
            if execution is not None and modified_files is not None:
                execution.said = frozenset(modified_files)
                if self._compares:
                    self._compare(execution)
        return made

    def _checkpoint(
        self, side: str, agent_type: str, description: str | None, tags: Sequence[str] | None, how: str = ""
    ) -> str | None:
        if not self._enabled:
            return None
        return self.checkpoint_engine.record(
            f"{side}_attempt",
            CheckpointLevel.AGENT_EXECUTION,
            f"{side} {agent_type}" + (f" ({how})" if how else ""),
            description or f"{side} the work of {agent_type}",
            agent_type,
            tags,
        )

    def _changed(self, execution: _Execution | None, after: str | None) -> list[str]:
        """What lies between two checkpoints."""
        if execution is None or execution.before is None or after is None:
            return []
        engine = self.checkpoint_engine
        commits = [engine.get_checkpoint_metadata(name).commit for name in (execution.before, after)]
        repository = repository_of(engine.project)
        return [change.path for change in changed_paths(repository, str(commits[0]), str(commits[1]))]

    def _compare(self, execution: _Execution) -> None:
        """Note where an agent that has ended changed what others changed that worked meanwhile."""
        for other in execution.met:
            both = execution.said & other.said
            if both:
                agents = sorted((execution.agent_type, other.agent_type))
                self._conflicts.append({"agents": agents, "files": sorted(both)})

    def coordinated_rollback(
        self, target_checkpoint_id: str, affected_agents: Sequence[str] | None = None
    ) -> RollbackResult:
        """Take the files of all agents back to a checkpoint, at once.

        Agents work on the same files, so the files of all go back; who of the active agents is not among those named is
        said in ``warnings``. The named ones are not active any more afterwards.

        Args:
            affected_agents: None: all.
        Raises:
            UnknownCheckpoint: there is no such checkpoint.
        """
        result = self.checkpoint_engine.rollback_to_checkpoint(target_checkpoint_id)
        with self._lock:
            active = [name for name, agent in self._agents.items() if agent.open]
            affected = active if affected_agents is None else list(affected_agents)
            left = [name for name in active if name not in affected]
            if left:
                result.warnings.append(f"still at work, on files that went back: {', '.join(left)}")
            if result.success:
                for name in affected:
                    if name in self._agents:
                        self._agents[name].open.clear()
                        self._agents[name].modified.clear()  # None of it is there any more.
        return result

    def get_coordination_status(self) -> dict[str, Any]:
        """How many agents are active, which, and what they have done.

        Returns:
            ``active_agents`` (a count), ``agents`` (their types), ``total_checkpoints`` (of the store),
            ``detected_conflicts`` (a count), ``conflicts`` (each with agents and files) and ``agent_states`` by type.
        """
        running, total = self._of_log()
        with self._lock:
            active = sorted({name for name, agent in self._agents.items() if agent.open} | set(running))
            return {
                "active_agents": len(active),
                "agents": active,
                "total_checkpoints": total,
                "detected_conflicts": len(self._conflicts),
                "conflicts": list(self._conflicts),
                "agent_states": {
                    name: {
                        "execution_count": agent.executions,
                        "last_checkpoint": agent.last_checkpoint,
                        "modified_files_count": len(agent.modified),
                    }
                    for name, agent in self._agents.items()
                },
            }

    def _of_log(self) -> tuple[list[str], int]:
        """The agent types of the attempts that run now, and how many checkpoints there are."""
        project = self.checkpoint_engine.project
        if not project.store.exists():
            return [], 0
        with project.open() as log:
            projector = Projector(log)
            running = []
            for run_id, attempts in projector.occupancy().by_run.items():
                if attempts:
                    state = projector.state(run_id)
                    running += [state.tasks[name].task.agent_type for name in state.running.values()]
            return running, len(list_of(log, None))

    def get_agent_checkpoint_history(self, agent_type: str, limit: int = 10) -> list[CheckpointMetadata]:
        """The last checkpoints of an agent type, of all runs and programs, oldest first."""
        engine = self.checkpoint_engine
        of_agent = [one for one in engine.list_checkpoints(limit=2**31) if one["agent_type"] == agent_type][:limit]
        return [engine.get_checkpoint_metadata(one["checkpoint_id"]) for one in reversed(of_agent)]
