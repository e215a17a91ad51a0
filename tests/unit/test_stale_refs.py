"""Which refs may be cleared away, and how old what goes has to be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clearing import Yard, make_old
from gitrepos import user_git

from parallel_agents import travel
from parallel_agents.checkpoint import refs, worktrees
from parallel_agents.checkpoint.snapshot import snapshot
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.leftovers import parse_age


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """A project with a store."""
    made = Yard(tmp_path, monkeypatch)
    yield made
    made.close()


def stranger(yard: Yard, name: str, commit: str, *, days: float = 30.0) -> str:
    """A ref of a run that no log knows."""
    ref = f"refs/parallel-agents/{name}"
    refs.hold(yard.repository, {ref: commit})
    make_old(yard.repository.git_dir / ref, days)
    return ref


def lost_commit(yard: Yard) -> str:
    """A commit that nothing holds."""
    tree_id = user_git(yard.top, "rev-parse", "HEAD^{tree}")
    return user_git(yard.top, "commit-tree", tree_id, "-p", "HEAD", "-m", "lost")


def test_refs_of_unknown_runs_go_where_what_stays_reaches_their_commits(yard: Yard) -> None:
    """Not the young ones of a submission that is under way, and never two that hold each other."""
    lost = lost_commit(yard)
    reached = stranger(yard, "aaaaaaaaaa/one", yard.head)
    stranger(yard, "bbbbbbbbbb/young", yard.head, days=0)
    two = {stranger(yard, "cccccccccc/one", lost), stranger(yard, "dddddddddd/one", lost)}
    by_hand = stranger(yard, "store/one", yard.head)
    yard.append(ev.STORE_RUN, ev.CheckpointCreated(checkpoint_id="one", kind="manual", commit=yard.head))
    assert {one.path for one in yard.survey().stays} == {
        "refs/parallel-agents/cccccccccc",
        "refs/parallel-agents/dddddddddd",
    }
    yard.clean(older_than_s=0)
    held = set(refs.held(yard.repository))
    assert held == {"refs/parallel-agents/bbbbbbbbbb/young", *two, by_hand}
    assert reached not in held
    yard.clean(older_than_s=60 * 86_400, lost_refs=True)
    assert set(refs.held(yard.repository)) == held
    (first, second) = yard.survey(lost_refs=True).items
    assert first.bytes > 0
    assert second.bytes > 0
    yard.clean(lost_refs=True)
    assert set(refs.held(yard.repository)) == held - two


def test_refs_that_no_event_names_go_where_what_stays_reaches_their_commits(yard: Yard) -> None:
    """Those of commands that were killed: not of a run that goes on, not young ones, and none made by hand unasked."""
    over, on = yard.ended(), yard.run()
    named = set(refs.held(yard.repository))
    reached = stranger(yard, f"{over}/one", lost_commit(yard))
    user_git(yard.top, "branch", "mine", reached)
    young = stranger(yard, f"{over}/young", user_git(yard.top, "rev-parse", "mine"), days=0)
    alone = stranger(yard, f"{over}/alone", user_git(yard.top, "commit-tree", "HEAD^{tree}", "-m", "alone"))
    base = stranger(yard, f"{over}/base", yard.head)  # As of a run that makes no checkpoint of its start.
    working = stranger(yard, f"{on}/one", lost_commit(yard))
    by_hand = stranger(yard, "store/one", yard.head)
    stays = yard.survey().stays
    assert {one.path: one.why.rpartition(", but ")[2] for one in stays} == {
        alone: "nothing else reaches its commit",
        by_hand: "another store may know it",
    }
    assert all("--lost-refs" in one.hint for one in stays)
    yard.clean()
    assert refs.held(yard.repository).keys() == {*named, young, alone, base, working, by_hand}
    yard.clean(lost_refs=True)
    assert refs.held(yard.repository).keys() == {*named, young, base, working}


def test_a_ref_that_comes_to_be_named_after_the_look_stays(yard: Yard) -> None:
    """The command that made it was slow."""
    over = yard.ended()
    ref = stranger(yard, f"{over}/one", lost_commit(yard))
    made = ev.CheckpointCreated(checkpoint_id="one", kind="manual", commit=refs.held(yard.repository)[ref])
    done = yard.clean(lambda: yard.append(over, made), lost_refs=True)
    assert [one["why"] for one in done["left"]] == ["its run has come into the log"]
    assert ref in refs.held(yard.repository)


def test_what_only_a_ref_holds_that_no_event_names_becomes_a_checkpoint_first(yard: Yard) -> None:
    """However young that ref is: nobody would find what it holds."""
    run_id = yard.ended()
    path = yard.checkout(run_id, files={"new": "x"})
    made = snapshot(yard.repository, path, message="m", parents=[yard.head], at_us=1).commit
    stranger(yard, f"{run_id}/one", made, days=0)
    done = yard.clean()
    assert [(one["kind"], one["kept_first"]) for one in done["removed"]] == [("checkout", True)]
    [kept] = [one.event for one in yard.log.read_run(run_id) if isinstance(one.event, ev.CheckpointCreated)][-1:]
    assert (kept.kind, user_git(yard.top, "show", f"{kept.commit}:new")) == ("manual", "x")


def test_refs_of_a_run_that_works_elsewhere_stay(yard: Yard, tmp_path: Path) -> None:
    """A store that nobody knows here has a checkout of it."""
    ref = stranger(yard, "aaaaaaaaaa/one", yard.head)
    there = tmp_path / "far" / ".parallel-agents" / "worktrees" / "aaaaaaaaaa" / "a"
    worktrees.add(yard.repository, there, yard.head)
    assert yard.stays(lost_refs=True) == {"refs/parallel-agents/aaaaaaaaaa": f"its run works in {there}"}
    yard.clean(older_than_s=0, lost_refs=True)
    assert ref in refs.held(yard.repository)
    assert there.exists()


def test_a_ref_whose_run_comes_into_the_log_after_the_look_stays(yard: Yard) -> None:
    """Its submission was slow."""
    run_id = yard.ended()
    events = [one.event for one in yard.log.read_run(run_id)]
    ref = stranger(yard, "aaaaaaaaaa/one", yard.head)
    done = yard.clean(lambda: yard.append("aaaaaaaaaa", *events))
    assert done["left"] == [
        {"path": "refs/parallel-agents/aaaaaaaaaa", "why": "its run has come into the log", "failed": False}
    ]
    assert ref in refs.held(yard.repository)


def test_what_only_a_ref_holds_that_goes_as_well_counts_as_held_by_none(yard: Yard) -> None:
    """A checkout of a known run, whose files only a lost ref holds, has a checkpoint of its own first."""
    run_id = yard.ended()
    path = yard.checkout(run_id, files={"new": "x"})
    made = snapshot(yard.repository, path, message="m", parents=[yard.head], at_us=1).commit
    stranger(yard, "aaaaaaaaaa/one", made)
    assert [item.kept_first for item in yard.survey().items] == [False]
    done = yard.clean(lost_refs=True)
    assert [(one["kind"], one["kept_first"]) for one in done["removed"]] == [("checkout", True), ("ref", False)]
    reached = user_git(yard.top, "rev-list", "--glob=refs/parallel-agents/*", "--format=%T").split()
    assert user_git(yard.top, "rev-parse", f"{made}^{{tree}}") in reached


def test_checkpoints_are_given_up_only_on_request_and_where_nothing_builds_on_them(yard: Yard) -> None:
    """Not those of a run that goes on, is the latest, has a fork, is not merged, or has ended a short time ago."""
    runs = {name: yard.ended() for name in ("home", "merged", "unmerged", "parent")}
    runs["on"] = yard.run()
    for name in ("merged", "unmerged"):
        commit = lost_commit(yard)
        yard.append(
            runs[name], ev.RunResumed(), ev.TaskReopened(task_id="a"), ev.TaskQueued(task_id="a"),
            ev.TaskStarted(task_id="a", attempt_id=f"of{name}", attempt=1, runner="shell", base_commit=yard.head),
            ev.TaskCompleted(task_id="a", attempt_id=f"of{name}", duration_s=1.0, commit=commit),
            ev.RunCompleted(counts={"completed": 1}),
        )  # fmt: skip
        yard.hold(runs[name], commit)
        yard.hold(runs[name], yard.head)
    yard.append(runs["merged"], ev.RunMerged(into="main", commit=yard.head, squash=True))
    travel.fork(yard.log, runs["parent"], yard.log.last_seq(), {})
    yard.days = 1
    runs["young"] = yard.ended()
    runs["latest"] = yard.ended()
    held = refs.held(yard.repository)
    assert yard.found() == set()
    assert yard.survey().checkpoints["refs"] == len(held)
    stays = {path.rpartition("/")[2]: why for path, why in yard.stays(checkpoints=True).items()}
    assert {name: stays[runs[name]] for name in runs if runs[name] in stays} == {
        "unmerged": "its result is not merged", "parent": "its run has a fork", "on": "its run is running",
        "young": "its run has ended too short a time ago", "latest": "its run is the latest",
    }  # fmt: skip
    going = {f"refs/parallel-agents/{runs['merged']}"}
    assert yard.found(checkpoints=True) == going
    yard.clean(checkpoints=True)
    gone = held.keys() - refs.held(yard.repository).keys()
    assert {ref.split("/")[2] for ref in gone} == {runs["merged"]}
    integration = user_git(yard.top, "rev-parse", "HEAD")
    assert integration == yard.head
    left = set(refs.held(yard.repository, runs["merged"]).values())
    assert left == {commit for ref, commit in held.items() if ref in held.keys() - gone and runs["merged"] in ref}
    assert len(left) == 1, "where the run stands stays held"
    assert [type(one.event).__name__ for one in yard.log.read_run(runs["merged"])][-1] == "CheckpointsDropped"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7d", 604_800), ("12h", 43_200), ("0", 0), ("2", 172_800), ("90m", 5400), ("1.5H", 5400), ("1w", 604_800)],
)
def test_ages_are_written_as_people_do(text: str, seconds: float) -> None:
    """A number alone is of days."""
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "-1d", "week", "7 years", "1e9d", "7d7d", "٣d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    """With examples of what is one."""
    with pytest.raises(InvalidUsage) as refused:
        parse_age(text)
    assert "7d" in refused.value.hint
