"""Light snapshots as a dispatcher leaves them, plans that are kept at hand, and the index that finds a task's events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from dispatching import Scene, plain
from paper import plan_of, task

from parallel_agents.eventstore import known_plans
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.known_plans import known_plan
from parallel_agents.eventstore.log import digest_of
from parallel_agents.eventstore.of_task import TASK_INDEX
from parallel_agents.eventstore.submission import Plan, StoredTasks, Task, load_plan
from parallel_agents.projections import at_hand, task_snapshots
from parallel_agents.projections.at_hand import Tasks
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler import upkeep


def snapshots(scene: Scene) -> dict[str, list[int]]:
    """The seqs of those that there are of runs, by projection."""
    found: dict[str, list[int]] = {}
    query = f"SELECT projection, seq FROM snapshots WHERE run_id != '{STORE_RUN}' ORDER BY seq"
    for projection, seq in scene.log._writer.execute(query):
        found.setdefault(projection, []).append(seq)
    return found


def test_a_dispatcher_leaves_light_snapshots_of_large_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once, then one each so many events; whole ones far apart. What is read from them is what the log says."""
    monkeypatch.setattr(at_hand, "NEAR", 2)
    monkeypatch.setattr(upkeep, "LIGHT_EVERY", 4)
    monkeypatch.setattr(upkeep, "SNAPSHOT_EVERY", 1)
    run_id = scene.submit(task("a"), task("b", "a"), task("c", "b"), task("d", "c"))
    for name in "abcd":
        scene.tick()
        scene.runner.end(name, output=f"{name} says")
    scene.tick()
    assert scene.state(run_id).status == "completed"
    found = snapshots(scene)
    assert len(found[at_hand.NAME]) == 3
    assert all(after - before >= 4 for before, after in pairwise(found[at_hand.NAME]))
    assert "status" not in found  # Four events for each of four tasks lie between two of those.
    for seq in range(found[at_hand.NAME][0], scene.log.last_seq() + 1):
        state = Projector(scene.log).state(run_id, seq)
        assert isinstance(state.tasks, Tasks)
        assert plain(state) == plain(Projector(scene.log, use_snapshots=False).state(run_id, seq))


def test_a_run_that_is_not_large_has_light_snapshots_closer_together(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None at its start, as a short run needs none; whole ones come as they do in any case."""
    monkeypatch.setattr(upkeep, "LIGHT_EVERY_OF_SMALL", 4)
    monkeypatch.setattr(upkeep, "LIGHT_AT_ONCE", 10**6)
    monkeypatch.setattr(at_hand, "NEAR_OF_SMALL", 1)
    run_id = scene.submit(task("a"), task("b", "a"))
    scene.tick()
    assert snapshots(scene) == {}
    for name in "ab":
        assert snapshots(scene) == {}
        scene.runner.end(name)
        scene.tick()
    scene.tick()
    found = snapshots(scene)  # The run has ended: what is left is written.
    assert found.keys() == {at_hand.NAME}
    assert len(found[at_hand.NAME]) > 1
    assert all(after - before >= 4 for before, after in pairwise(found[at_hand.NAME]))
    for seq in range(found[at_hand.NAME][0], scene.log.last_seq() + 1):
        state = Projector(scene.log).state(run_id, seq)
        assert isinstance(state.tasks, Tasks)
        assert plain(state) == plain(Projector(scene.log, use_snapshots=False).state(run_id, seq))


def test_a_dispatcher_leaves_snapshots_of_a_task_that_has_many_events(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One each so many events of its own; what is read of the task is what the log says."""
    monkeypatch.setattr(task_snapshots, "EVERY", 2)
    monkeypatch.setattr(task_snapshots, "_AT_ONCE", 1)
    run_id = scene.submit(task("a"), task("b", "a"))
    for name in "ab":
        scene.tick()
        scene.runner.end(name, output=f"{name} says")
    scene.tick()
    found = snapshots(scene)
    assert found.keys() == {"task:a", "task:b"}
    for seq in range(found["task:a"][0], scene.log.last_seq() + 1):
        whole = Projector(scene.log, use_snapshots=False)
        assert Projector(scene.log).task(run_id, "a", seq) == whole.state(run_id, seq).tasks["a"]


def test_a_dispatcher_gives_an_old_store_the_index_when_nothing_else_is_to_be_done(scene: Scene) -> None:
    """Until then every task is found without it."""
    scene.log._writer.execute(f"DROP INDEX {TASK_INDEX}")
    run_id = scene.submit(task("a"))
    assert Projector(scene.log).task(run_id, "a").status == "pending"
    scene.tick()
    assert not scene.log.has_task_index
    assert Projector(scene.log).task(run_id, "a").status == "running"
    scene.tick()
    assert scene.log.has_task_index
    assert Projector(scene.log).task(run_id, "a").status == "running"


def test_the_events_of_a_task_are_those_that_name_it(scene: Scene) -> None:
    """Not those of a task of a longer name, and whatever an output looks like."""
    run_id = scene.submit(task("a"), task("a.b"), task("ab"))
    scene.tick()
    scene.runner.end("ab", output='{"task_id":"a"} and "task_id":"a"')
    scene.runner.end("a.b", output={"task_id": "a"})
    scene.tick()
    for name in ("a", "a.b", "ab"):
        found = scene.log.task_briefs(run_id, name)
        wanted = [row.seq for row in scene.log.rows(run_id=run_id) if row.body.startswith(f'{{"task_id":"{name}"')]
        assert [seq for seq, *_ in found] == wanted
        assert len(wanted) >= 2


def test_a_plan_from_the_store_is_the_plan_that_was_stored() -> None:
    """Its tasks are made when somebody looks at them, and are the same ones from then on."""
    plan = Plan(
        name="p",
        tasks=(Task(task_id="a", command=("true",)), Task(task_id="b", dependencies=("a",), context={"task_id": "x"})),
    )
    stored = load_plan(plan.to_bytes())
    assert isinstance(stored.tasks, StoredTasks)
    assert list(stored.tasks.fields("task_id")) == ["a", "b"]
    assert (stored == plan, plan == stored, load_plan(stored.to_bytes()) == plan) == (True, True, True)
    assert stored.tasks[1] is stored.tasks[-1]
    assert (stored.tasks[:1], len(stored.tasks), stored.tasks != ()) == (plan.tasks[:1], 2, True)
    assert list(stored.tasks.fields("dependencies")) == [(), ("a",)]
    assert stored.model_copy(update={"name": "q"}).tasks is stored.tasks
    with pytest.raises(IndexError):
        stored.tasks[2]


def test_few_plans_are_kept_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their size, the last one whatever its own; what is asked again is not read again."""
    blobs = {}
    for name in "abc":
        content = plan_of(Task(task_id=name, command=("true",))).to_bytes()
        blobs[digest_of(content)] = content
    reads: list[str] = []

    def blob(digest: str) -> bytes:
        reads.append(digest)
        return blobs[digest]

    monkeypatch.setattr(known_plans, "_known", type(known_plans._known)())
    monkeypatch.setattr(known_plans, "_BYTES", 2 * max(map(len, blobs.values())))
    a, b, c = blobs
    for digest in (a, b, a, c, a, b):
        assert known_plan(digest, blob).plan == load_plan(blobs[digest])
    assert reads == [a, b, c, b]
    monkeypatch.setattr(known_plans, "_BYTES", 0)
    assert known_plan(c, blob) is not known_plan(a, blob)
    assert list(known_plans._known) == [a]


def test_a_plan_that_is_packed_is_the_same_plan() -> None:
    """Its tasks are made anew by who looks at them."""
    plan = Plan(
        name="p",
        tasks=(
            Task(task_id="a", command=("true",), description="größer"),
            Task(task_id="b", dependencies=("a",), context={"stage": 7, "task_id": "x"}),
            Task(task_id="c", stage=0, budget_usd_micros=5),
        ),
    )
    stored = load_plan(plan.to_bytes())
    assert isinstance(stored.tasks, StoredTasks)
    stored.tasks.pack()
    assert (stored == plan, len(stored.tasks), stored.tasks[1:], stored.tasks[-1]) == (
        True, 3, plan.tasks[1:], plan.tasks[2],
    )  # fmt: skip
    assert stored.tasks[1] == stored.tasks[1]
    assert stored.tasks[1] is not stored.tasks[1]
    assert list(stored.tasks.fields("task_id")) == ["a", "b", "c"]
    assert list(stored.tasks.fields("dependencies")) == [None, ["a"], None]
    assert list(stored.tasks.fields("stage")) == [None, None, None]
    assert list(stored.tasks.fields("budget_usd_micros")) == [None, None, 5]
    assert load_plan(stored.to_bytes()) == plan
    with pytest.raises(IndexError):
        stored.tasks[3]


def test_what_is_asked_of_a_large_plan_is_asked_before_it_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is the same of one that is not."""
    monkeypatch.setattr(known_plans, "_known", type(known_plans._known)())
    plan = plan_of(Task(task_id="a", command=("true",)), Task(task_id="b", command=("true",), dependencies=("a",)))
    content = plan.to_bytes()
    seen = []
    for large in (0, 100):
        monkeypatch.setattr(known_plans, "_LARGE", large)
        known_plans._known.clear()
        found = known_plan(digest_of(content), lambda _: content)
        seen.append((found.positions, found.dependents, found.stage_sizes, found.plan))
    assert seen[0] == seen[1] == ({"a": 0, "b": 1}, {"a": ["b"]}, [2], plan)
