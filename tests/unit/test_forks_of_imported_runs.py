"""A fork whose parent's events lie in another store: what it began with is told by its own state, and it is compared with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from handmade import HandmadeRun, Make
from paper import task

from parallel_agents import conflicts, differences, settling, travel
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import UnknownCheckpoint
from parallel_agents.eventstore.log import Log


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Log]:
    """The store that forks are of."""
    (tmp_path / "own").mkdir()
    with Log(tmp_path / "own" / "events.db", environ={}) as log:
        yield log


@pytest.fixture
def run(make: Make) -> HandmadeRun:
    """Work of b that does not merge with that of a."""
    made = make(task("a"), task("b"))
    made.start("a", "b")
    made.end("a", {"f": "A\n"})
    made.end("b", {"f": "B\n"}, other="a")
    return made


def forked(run: HandmadeRun, own: Log, settings: Mapping[str, str] = MappingProxyType({})) -> str:
    """A fork as one of an imported run is: its first events say where its files are."""
    there = run.state
    fork = str(travel.fork(run.log, run.run_id, there.seq, settings, into=own)["run_id"])
    own.append(fork, own.version(fork), [ev.RunMoved(workdir=there.workdir, repository=there.repository)])
    return fork


def test_a_conflict_that_it_began_with_is_told_and_settled(run: HandmadeRun, own: Log) -> None:
    """With its paths, the work and the commands of the fork; as long as it waits."""
    fork = forked(run, own)
    (there,) = conflicts.conflicts(run.log, run.run_id)
    (one,) = conflicts.conflicts(own, fork, hunks=True)
    same = ("task_id", "other_task_id", "status", "commit", "onto", "attempt_id", "round")
    assert [one[name] for name in same] == [there[name] for name in same]
    assert [(path["path"], path["kind"]) for path in one["paths"]] == [("f", "content")]
    assert "A\n=======\nB\n" in one["paths"][0]["hunks"]
    assert (one["run_id"], one["seq"]) == (fork, 1)
    assert one["settle"][0] == f"parallel-agents resolve {fork} b --take ours"
    assert conflicts.conflicts(own, None) == conflicts.conflicts(own, fork)
    settling.resolve(own, fork, "b", "theirs")
    assert conflicts.conflicts(own, fork) == []


def test_it_is_compared_with_its_parent_whichever_comes_first(run: HandmadeRun, own: Log) -> None:
    """Each at a moment of its own store, by whose numbers it is named."""
    fork = forked(run, own, {"b.timeout_s": "77"})
    settling.resolve(own, fork, "b", "theirs")

    def elsewhere(named: str) -> Log | None:
        return run.log if len(named) >= 4 and run.run_id.startswith(named) else None

    a, b = differences.sides(own, (run.run_id, fork), elsewhere)
    found = differences.differences(a, b)
    assert (found["a"]["run_id"], found["b"]["run_id"]) == (run.run_id, fork)
    assert next(iter(found["tasks"]))["status"] == {"a": "blocked", "b": "completed"}
    assert found["configuration"]["b.timeout_s"] == {"a": 600.0, "b": 77.0}
    assert found["files"] == [{"path": "f", "change": "M"}]
    assert b"-A\n+B\n" in differences.patch(a, b)
    assert b"-B\n+A\n" in differences.patch(b, a)

    began = differences.differences(*differences.sides(own, (f"{fork}@1", f"{run.run_id[:5]}@now"), elsewhere))
    assert (began["a"]["seq"], list(began["tasks"]), began["files"]) == (1, [], [])
    assert differences.sides(own, ("2", run.run_id), elsewhere)[0].target.state.run_id == run.run_id
    with pytest.raises(UnknownCheckpoint):
        differences.sides(own, (run.run_id, "nowhere"), elsewhere)
