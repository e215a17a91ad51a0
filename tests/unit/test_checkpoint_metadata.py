"""What a checkpoint is called after: its level and its category."""

from __future__ import annotations

import pytest

from parallel_agents.checkpoint_metadata import CheckpointCategory, CheckpointLevel, category_of, level_of


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("before_attempt", CheckpointLevel.AGENT_EXECUTION),
        ("after_attempt", CheckpointLevel.AGENT_EXECUTION),
        ("before_run", CheckpointLevel.AGENT_EXECUTION),
        ("stage", CheckpointLevel.QUALITY_GATE),
        ("after_run", CheckpointLevel.COMMIT_PREPARATION),
        ("manual", CheckpointLevel.MANUAL),
        ("before_restore", CheckpointLevel.MANUAL),
    ],
)
def test_a_kind_has_a_level(kind: str, level: CheckpointLevel) -> None:
    """Unless its maker said another."""
    assert level_of(kind) is level
    assert level_of(kind, "commit_preparation") is CheckpointLevel.COMMIT_PREPARATION


@pytest.mark.parametrize(
    ("label", "description", "category"),
    [
        ("Fixes the login", "", CheckpointCategory.BUGFIX),
        ("login", "a bugfix of the session", CheckpointCategory.BUGFIX),
        ("Implement checkout", "", CheckpointCategory.FEATURE),
        ("refactored the parser", "", CheckpointCategory.REFACTORING),
        ("tests of the parser", "adds coverage", CheckpointCategory.TESTING),
        ("README and guides", "", CheckpointCategory.DOCUMENTATION),
        ("design of the schema", "", CheckpointCategory.ARCHITECTURE),
        ("refactoring", "so that the fix is easier", CheckpointCategory.REFACTORING),  # The label counts twice.
        ("before lunch", "", CheckpointCategory.UNKNOWN),
        ("", "", CheckpointCategory.UNKNOWN),
    ],
)
def test_words_speak_for_a_category(label: str, description: str, category: CheckpointCategory) -> None:
    """By their stems."""
    assert category_of(label, description) is category


def test_tags_speak_too() -> None:
    """Where nothing else does."""
    assert category_of("monday", "", ["documentation"]) is CheckpointCategory.DOCUMENTATION


def test_levels_and_categories_are_their_values() -> None:
    """As programs that print or compare them expect."""
    assert f"{CheckpointLevel.MANUAL}" == "manual" == CheckpointLevel.MANUAL
    assert CheckpointCategory("bugfix") is CheckpointCategory.BUGFIX
