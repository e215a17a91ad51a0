"""Which refs of a run its events account for."""

from __future__ import annotations

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, derived_id
from parallel_agents.named_commits import Named


def named(*events: ev.Event) -> Named:
    """What some events say."""
    found = Named()
    for seq, event in enumerate(events, start=1):
        found.learn(Recorded(seq, "r", seq, seq, "", event))
    return found


def test_a_ref_is_accounted_for_by_its_name_or_by_its_commit() -> None:
    """After a task, an attempt, a checkpoint, or what is derived from an attempt, which no event names by itself."""
    found = named(
        ev.RunSubmitted(
            name="x",
            plan_digest="d",
            task_count=1,
            strategy="concurrent",
            workspace="worktree",
            workdir="/x",
            base_commit="base",
        ),
        ev.TaskStarted(task_id="a", attempt_id="one", attempt=1, runner="shell"),
        ev.CheckpointCreated(checkpoint_id="kept", kind="after_attempt", task_id="a", attempt_id="one", commit="work"),
    )
    names = ("a", "one", "kept", derived_id("before", "one"), derived_id("after", "one"))
    assert all(found.accounts_for(f"refs/parallel-agents/r/{name}", "another") for name in names)
    assert not found.accounts_for("refs/parallel-agents/r/nobody", "another")
    assert not found.accounts_for(f"refs/parallel-agents/r/{derived_id('before', 'two')}", "another")
    assert found.accounts_for("refs/parallel-agents/r/nobody", "base")
    assert found.accounts_for("refs/parallel-agents/r/nobody", "work")


def test_what_is_dropped_is_held_by_no_ref_and_its_name_is_known_all_the_same() -> None:
    """A command may have been killed before it removed the ref."""
    found = named(
        ev.CheckpointCreated(checkpoint_id="kept", kind="manual", commit="work"),
        ev.CheckpointsDropped(refs=1),
    )
    assert (found.kept, found.checkpoints) == ({}, {})
    assert found.accounts_for("refs/parallel-agents/r/kept", "work")
