"""What of a run's money is in lines that are left: told line by line against what every attempt is known to have written."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from gitrepos import user_git
from handmade import HandmadeRun
from hypothesis import given
from hypothesis import strategies as some
from paper import task

from parallel_agents.authorship import Authorship
from parallel_agents.eventstore import events as ev
from parallel_agents.lineage import lineage
from parallel_agents.projections.bill import FATES
from parallel_agents.survival import PARTS, Share, apportion, divide, survival

MONEY = some.integers(0, 10**12)


@given(MONEY, some.lists(some.integers(0, 10**6), min_size=1).filter(any))
def test_what_is_divided_adds_up_and_is_off_by_less_than_one(total: int, weights: list[int]) -> None:
    """Nothing is lost or made, and who has no weight gets nothing."""
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total * weight / sum(weights)) < 1 + 1e-3
        assert weight or not part


@given(
    MONEY, some.sampled_from(list(FATES)), some.integers(0, 1000), some.dictionaries(some.text(), some.integers(1, 1000)),
    some.booleans(),
)  # fmt: skip
def test_the_parts_of_an_attempt_are_its_cost(
    micros: int, fate: str, added: int, left: dict[str, int], clashed: bool
) -> None:
    """Whatever it added and whatever is left, even where that is more; what survives is what its files have."""
    parts, files = divide(Share("a1", "a", micros, fate, added, left, clashed=clashed))
    assert sum(parts.values()) == micros
    assert set(parts) <= set(PARTS)
    assert sum(files.values()) == parts.get("survived", 0)
    if micros and not left:
        assert "survived" not in parts or not parts["survived"]


def charge(run: HandmadeRun, attempt_id: str, micros: int) -> None:
    """What an attempt has cost."""
    run.add(ev.CostCharged(task_id=attempt_id[:-1], attempt_id=attempt_id, usd_micros=micros, model="m"))


@pytest.mark.parametrize("seed", range(4))
def test_every_line_is_of_the_attempt_that_wrote_it(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random edits of unlike lines by tasks one after another, some of which commit themselves; half of them squashed home."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    names = [f"t{number}" for number in range(6)]
    start = [f"user {number}" for number in range(12)]
    run = HandmadeRun(tmp_path, monkeypatch, *map(task, names), content={"f": "".join(f"{one}\n" for one in start)})
    lines, costs, added = list(start), {}, Counter[str]()
    for name in names:
        run.start(name)
        before = set(lines)
        for number in range(dice.randint(1, 4)):
            at, fresh = dice.randrange(len(lines)), f"{name} {number} {dice.random()}"
            match dice.choice(("change", "insert", "remove")):
                case "change":
                    lines[at] = fresh
                case "insert":
                    lines.insert(at, fresh)
                case _ if len(lines) > 3:
                    del lines[at]
                case _:
                    pass
        added[f"{name}1"] = len(set(lines) - before)
        run.end(name, {"f": "".join(f"{one}\n" for one in lines)})
        costs[f"{name}1"] = dice.randint(0, 10**6)
        charge(run, f"{name}1", costs[f"{name}1"])
    run.finish()
    if seed % 2:
        user_git(run.repository.top, "merge", "-q", "--squash", str(run.state.integration))
        user_git(run.repository.top, "commit", "-qm", "all of it")
        run.add(ev.RunMerged(into="main", commit=user_git(run.repository.top, "rev-parse", "HEAD"), squash=True))
        found = lineage(run.log, run.project, "f")
    else:
        found = lineage(run.log, run.project, "f", run.run_id)
    makers = [part["task_id"] for part in found["parts"] for _ in range(part["lines"])]
    expected = [one.split()[0] if one[0] == "t" else None for one in lines]
    assert makers == expected
    left = survival(run.log, run.run_id)
    assert round(left["cost_usd"] * 1e6) == sum(costs.values())
    assert sum(round(left[f"{part}_usd"] * 1e6) for part in PARTS) == sum(costs.values())
    counted = {one["attempt_id"]: one for one in left["attempts"]}
    for attempt_id, one in counted.items():
        kept = expected.count(attempt_id[:-1])
        assert (one["lines_left"], one["lines_added"]) == (kept, added[attempt_id])
        share = costs[attempt_id] * kept / added[attempt_id] if added[attempt_id] else 0
        assert one["survived_usd"] * 1e6 == pytest.approx(share, abs=1)
    run.close()


def test_what_an_agent_found_or_merged_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes nothing makes no line; of what another one's commits lead to, only those made meanwhile are its own."""
    run = HandmadeRun(tmp_path, monkeypatch)
    run.start("a")
    run.end("a", {})
    assert [part["by"] for part in lineage(run.log, run.project, "f")["parts"]] == ["commit"]
    run.start("b")
    top = run.repository.top

    def commit(branch: str, name: str) -> None:
        user_git(top, "switch", "-qc", branch, run.base)
        (top / name).write_text(f"{name}\n")
        user_git(top, "add", "-A")
        user_git(top, "commit", "-qm", name)

    with monkeypatch.context() as earlier:
        earlier.setenv("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z")
        commit("old", "theirs")
    commit("work", "own")
    user_git(top, "merge", "-q", "--no-ff", "-m", "both", "old")
    work = user_git(top, "rev-parse", "HEAD")
    run.add(
        ev.TaskCompleted(task_id="b", attempt_id="b1", duration_s=1.0, commit=work),
        ev.CheckpointCreated(
            checkpoint_id="wb1", kind="after_attempt", commit=work, task_id="b", attempt_id="b1", changed=2
        ),
    )
    made = {
        name: lineage(run.log, run.project, name, run.run_id)["parts"][0]["task_id"] for name in ("own", "theirs", "f")
    }
    assert made == {"own": "b", "theirs": None, "f": None}
    run.close()


def test_work_that_never_came_in_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conflict, a rollback, a review that adds nothing, a picture that counts as one line, an unknown price."""
    run = HandmadeRun(tmp_path, monkeypatch, task("a"), task("b"), task("c"), task("d"), conflicts="abort")
    run.start("a", "b")
    run.end("a", {"f": "a\n", "p.png": b"\0one", "q.png": b"\0two"})
    run.end("b", {"f": "b\n"}, other="a")
    run.start("c")
    run.end("c", {})
    before = run.state.seq
    run.start("d")
    run.end("d", {"g": "d\n", "q.png": b"\0new"})
    for name, micros in (("a", 1_000_001), ("b", 200), ("c", 30), ("d", 4)):
        charge(run, f"{name}1", micros)
    run.add(ev.CostCharged(task_id="c", attempt_id="c1", usd_micros=None, source="unknown"))
    now = survival(run.log, run.run_id)
    picture = {one["path"]: one["lines_left"] for one in now["files"]}
    assert picture == {"f": 1, "p.png": 1, "g": 1, "q.png": 1}
    assert (now["survived_usd"], now["overwritten_usd"]) == (0.666672, 0.333333)
    assert (now["conflict_usd"], now["no_lines_usd"], now["failed_usd"]) == (0.0002, 0.00003, 0.0)
    assert now["unknown_attempts"] == 1
    commit = run.state.integration
    run.add(ev.RunRolledBack(to_seq=before, commit=_line_at(run, before)))
    after = survival(run.log, run.run_id)
    assert after["commit"] != commit
    assert (after["undone_usd"], after["survived_usd"], after["overwritten_usd"]) == (0.000004, 1.000001, 0.0)
    run.close()


def _line_at(run: HandmadeRun, seq: int) -> str | None:
    return Authorship(run.log, seq).runs[run.run_id].line
