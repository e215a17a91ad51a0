"""The proof of a past run at the command line: its chain, its folds, and every decision made again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256

import pytest
from scratch import Scratch, shell

from parallel_agents.eventstore.links import GENESIS, event_hash


@pytest.fixture(scope="module")
def with_a_run(make_project: Callable[[str], Scratch]) -> Scratch:
    """A run that has failed: a task that was tried twice, and one that was skipped for it."""
    cli = make_project("project")
    again = shell("b", "exit 1", "a", max_retries=1)
    cli.write("parallel-agents.yaml", "execution: {retry_policy: {retry_delay: 0}}\n")
    cli.quick("run", cli.plan(shell("a", "true"), again, shell("c", "true", "b"), shell("d", "true")), code=1)
    return cli.keep()


@pytest.fixture
def cli(with_a_run: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_a_run.anew()


@pytest.fixture
def run_id(cli: Scratch) -> str:
    """The run's id."""
    return str(cli.quick("runs", "--json").data[0]["run_id"])


def rewrite(cli: Scratch, type_: str, change: Callable[[dict[str, object]], object]) -> int:
    """Change the first event of a type, and make the chain anew behind it, as somebody would who knows how. Gives its seq."""
    columns = "seq, run_id, version, type, at, actor, body"
    with closing(sqlite3.connect(cli.store)) as connection, connection:
        rows = connection.execute(f"SELECT {columns} FROM events ORDER BY seq").fetchall()
        first, link = 0, GENESIS
        for seq, run_id, version, of, at, actor, body in rows:
            if of == type_ and not first:
                data = json.loads(body)
                change(data)
                first, body = seq, json.dumps(data)
            digest = sha256(body.encode()).digest()
            before, link = link, event_hash(link, seq, run_id, version, of, at, actor, digest)
            connection.execute(
                "UPDATE events SET body = ?, body_digest = ?, prev_hash = ?, hash = ? WHERE seq = ?",
                (body, digest, before, link, seq),
            )
    return int(first)


def test_a_run_that_was_left_alone_is_proved(cli: Scratch, run_id: str) -> None:
    """Each kind of decision is counted; what rests on a sample of the machine is told apart."""
    found = cli.quick("replay", "--verify", "--json").data
    assert (found["run_id"], found["ok"]) == (run_id, True)
    assert found["chain"]["ok"]
    assert found["folds"]["ok"]
    same = found["decisions"]["same"]
    assert found["decisions"]["divergence"] is None
    assert same["TaskStarted"] == 4
    assert same["TaskQueued"] == 3
    assert (same["TaskFailed"], same["TaskRetryScheduled"], same["TaskSkipped"], same["RunFailed"]) == (2, 1, 1, 1)
    said = cli.quick("replay", run_id[:5], "--verify").out
    assert [line[:10].split() for line in said.splitlines()[1:4]] == [["✓", "chain"], ["✓", "folds"], ["✓", "decision"]]


def test_a_decision_that_no_scheduler_would_have_made_is_named(cli: Scratch, run_id: str) -> None:
    """Although whoever wrote it has made the chain anew: with its event, the field, what is recorded and what is due."""
    seq = rewrite(cli, "TaskSkipped", lambda data: data.update(because="d"))
    said = cli.quick("replay", run_id, "--verify", code=8)
    assert f"event {seq} TaskSkipped: because was 'd', and the scheduler now decides 'b'" in said.err
    assert f"parallel-agents history {run_id}" in said.err
    found = cli.quick("replay", run_id, "--verify", "--json", code=8)
    assert json.loads(found.out)["decisions"]["divergence"] == {
        "seq": seq, "type": "TaskSkipped", "field": "because", "recorded": "d", "now": "b",
    }  # fmt: skip
    assert json.loads(found.err)["error"]["code"] == "replay_differs"


def test_an_event_that_was_changed_is_named_and_nothing_is_judged_by_it(cli: Scratch, run_id: str) -> None:
    """The chain comes first."""
    with closing(sqlite3.connect(cli.store)) as connection, connection:
        connection.execute("UPDATE events SET body = replace(body, 'd', 'e') WHERE type = 'TaskQueued'")
    said = cli.quick("replay", run_id, "--verify", "--json", code=8)
    found = json.loads(said.out)
    assert (found["folds"], found["decisions"]) == (None, None)
    assert f"event {found['chain']['broken']['seq']} was changed" in json.loads(said.err)["error"]["message"]


def test_a_snapshot_of_something_else_is_found(cli: Scratch, run_id: str) -> None:
    """What is built again from nothing is compared with what is stored."""
    from parallel_agents.eventstore.log import Log
    from parallel_agents.projections.projector import Projector

    with Log(cli.store, create=False) as log:
        state = Projector(log).state(run_id)
        state.tasks["a"].failures = 7
        Projector(log).save_snapshot(state)
    assert f"the snapshot of run {run_id}" in cli.quick("replay", run_id, "--verify", code=8).err


def test_what_is_no_run_is_said_to_be_none(cli: Scratch, run_id: str) -> None:
    """With the nearest that is."""
    assert "there is no run 'nope'" in cli.quick("replay", "nope", "--verify", code=3).err
