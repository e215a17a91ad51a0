"""What is known of a checkpoint and of a rollback, in the shape and under the names that Python programs know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from parallel_agents.rewind_words import stem, words


class CheckpointLevel(StrEnum):
    """What a checkpoint was made for."""

    AGENT_EXECUTION = "agent_execution"
    QUALITY_GATE = "quality_gate"
    COMMIT_PREPARATION = "commit_preparation"
    MANUAL = "manual"


class CheckpointCategory(StrEnum):
    """What kind of work a checkpoint belongs to, by the words of its label and description."""

    FEATURE = "feature"
    BUGFIX = "bugfix"
    REFACTORING = "refactoring"
    TESTING = "testing"
    DOCUMENTATION = "documentation"
    ARCHITECTURE = "architecture"
    UNKNOWN = "unknown"


@dataclass
class CheckpointMetadata:
    """One checkpoint. Sizes are bytes, times RFC 3339 in UTC."""

    checkpoint_id: str
    timestamp: str
    level: str  # A value of CheckpointLevel.
    category: str  # A value of CheckpointCategory.
    label: str
    description: str = ""
    git_commit: str | None = None  # What HEAD was, or for a checkpoint of a run its commit; None without git.
    git_branch: str | None = None
    git_status: dict[str, Any] | None = None  # {"clean": bool, "changes": ["M path", ...]} against git_commit.
    agent_type: str | None = None
    files_count: int = 0
    total_size_bytes: int = 0
    changed_files: list[str] = field(default_factory=list)  # Against the parent checkpoint; without one, git_commit.
    parent_checkpoint: str | None = None
    child_checkpoints: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    commit: str | None = None  # That holds the files.
    run_id: str = ""
    kind: str = ""


@dataclass
class RollbackResult:
    """What a rollback did, or with ``dry_run`` would do."""

    success: bool
    checkpoint_id: str
    checkpoint_label: str
    files_restored: int  # Files that were written or removed; 0 where nothing differed.
    conflicts: list[str] = field(default_factory=list)  # Paths of ignored files that would have been overwritten.
    warnings: list[str] = field(default_factory=list)
    rollback_checkpoint_created: str | None = None  # Of what was there before.
    message: str = ""


_LEVELS = {
    "before_run": CheckpointLevel.AGENT_EXECUTION,
    "before_attempt": CheckpointLevel.AGENT_EXECUTION,
    "after_attempt": CheckpointLevel.AGENT_EXECUTION,
    "stage": CheckpointLevel.QUALITY_GATE,
    "after_run": CheckpointLevel.COMMIT_PREPARATION,
}
# The first of those that most words speak for.
_CATEGORIES: dict[CheckpointCategory, frozenset[str]] = {
    category: frozenset(map(stem, words(said)))
    for category, said in {
        CheckpointCategory.BUGFIX: "bug bugfix fix hotfix defect crash error fault regression repair issue broken",
        CheckpointCategory.REFACTORING: "refactor restructure cleanup rename extract simplify reorganize rewrite tidy",
        CheckpointCategory.TESTING: "test qa coverage unittest pytest regression e2e",
        CheckpointCategory.DOCUMENTATION: "documentation document doc docs readme guide tutorial changelog docstring",
        CheckpointCategory.ARCHITECTURE: "architecture architect design schema blueprint adr",
        CheckpointCategory.FEATURE: "feature add implement implementation introduce build create new support",
    }.items()
}


def level_of(kind: str, said: str = "") -> CheckpointLevel:
    """The level of a checkpoint: what its maker said, else what its kind is made for."""
    return CheckpointLevel(said) if said else _LEVELS.get(kind, CheckpointLevel.MANUAL)


def category_of(label: str, description: str = "", tags: Sequence[str] = ()) -> CheckpointCategory:
    """What kind of work the words speak of; those of the label count twice."""
    said = words(label) * 2 + words(description) + words(" ".join(tags))
    votes = {category: sum(stem(word) in known for word in said) for category, known in _CATEGORIES.items()}
    best = max(votes, key=lambda category: votes[category])
    return best if votes[best] else CheckpointCategory.UNKNOWN


def category(checkpoint: Mapping[str, Any]) -> CheckpointCategory:
    """The same, of a checkpoint as ``checkpoints.list_of`` gives it."""
    return category_of(checkpoint["label"], checkpoint["description"], checkpoint["tags"])
