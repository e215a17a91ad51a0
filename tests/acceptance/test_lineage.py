"""The verb lineage: which attempt made a file or a line, on which model, for how much; and what of the money is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakeagent.installing import install
from scratch import Scratch, shell, until_file
from versioned import git, versioned

DEAR = "usage 1000000 20000 0 0"
COMMIT = "git -c user.name=agent -c user.email=agent@localhost commit -q -a -m"


def agent(task_id: str, *steps: str, **fields: Any) -> dict[str, Any]:
    """A task of an agent that does these steps."""
    description = "\n".join((f"Write {task_id}.", *(f"@{step}" for step in steps)))
    return {"task_id": task_id, "agent_type": "qa-engineer", "description": description, **fields}


def with_agents(cli: Scratch) -> Scratch:
    """A git project whose file ``f`` has nine lines, on a machine with clients."""
    folder = install(cli.root / "home" / "bin")
    cli.environment["PATH"] = f"{folder}:{cli.environment['PATH']}"
    return versioned(cli, {"f": "".join(f"line {number}\n" for number in range(1, 10)), "sub/keep": "k\n"})


def latest(cli: Scratch) -> str:
    """The id of the latest run."""
    name: str = cli.quick("runs", "--json").data[-1]["run_id"]
    return name


def makers(cli: Scratch, *words: str) -> list[tuple[Any, ...]]:
    """Lines, task and attempt of each part, and by what it was made."""
    found = cli.quick("lineage", *words, "--json").data
    return [(one["first"], one["last"], one["by"], one["task_id"], one["attempt"]) for one in found["parts"]]


def adds_up(found: dict[str, Any]) -> bool:
    """Whether the parts of a bill are the whole of it, to the micro-dollar."""
    parts = ("survived", "overwritten", "no_lines", "conflict", "failed", "undone", "discarded", "unsettled")

    def same(one: dict[str, Any]) -> bool:
        return sum(round(one[f"{part}_usd"] * 1e6) for part in parts) == round(one["cost_usd"] * 1e6)

    return same(found) and all(map(same, found["attempts"]))


@pytest.fixture(scope="module")
def squashed(make_project: Callable[[str], Scratch]) -> Scratch:
    """A run of agents, brought to the user's branch as one commit.

    ``first`` rewrites line 2; ``second``, whose first attempt fails, changes line 5 in a commit of its own, and line 8; then
    ``last`` writes over line 2 once more and adds a file.
    """
    cli = with_agents(make_project("squashed"))
    git(cli, "config", "user.name", "Ana")
    git(cli, "config", "user.email", "ana@localhost")
    own = f"sh -c \"sed -i 's/line 5/second five/' f; {COMMIT} five; sed -i 's/line 8/second eight/' f\""
    plan = cli.plan(
        agent("first", DEAR, "run sed -i 's/line 2/first two/' f", "say done"),
        agent(
            "second", f"once {cli.root}/home/tried exit 3", DEAR, f"run {own}", dependencies=["first"], max_retries=1
        ),
        agent("last", DEAR, "run sed -i 's/first two/last two/' f; printf 'x\\ny\\n' > new", dependencies=["second"]),
    )
    cli.quick("run", plan, "--set=execution.retryPolicy.retryDelay=0.05")
    cli.quick("merge", "--squash", "--yes")
    return cli


def test_lines_are_told_with_run_task_attempt_model_and_cost(squashed: Scratch) -> None:
    """Of a squash by the run's own commits, of an agent's own commits by where they led, of others as no run's."""
    expected = [
        (1, 1, "commit", None, None), (2, 2, "attempt", "last", 1), (3, 4, "commit", None, None),
        (5, 5, "attempt", "second", 2), (6, 7, "commit", None, None), (8, 8, "attempt", "second", 2),
        (9, 9, "commit", None, None),
    ]  # fmt: skip
    assert makers(squashed, "f") == expected
    assert makers(squashed, "f", "--run", latest(squashed)[:6]) == expected
    assert makers(squashed, "new") == [(1, 2, "attempt", "last", 1)]
    found = squashed.quick("lineage", "f", "--json").data
    assert (found["path"], found["lines"], found["kept"], found["run_id"]) == ("f", 9, "tracked", None)
    made, users = found["parts"][3], found["parts"][0]
    assert (made["run_id"], made["agent_type"], made["runner"], made["model"]) == (
        latest(squashed), "qa-engineer", "claude", "haiku",
    )  # fmt: skip
    assert made["summary"] == "five"
    assert made["cost_usd"] == squashed.quick("show", "second", "--json").data["attempt_list"][1]["cost_usd"] > 0
    assert (users["author"], users["commit"]) == ("A User", git(squashed, "rev-parse", "HEAD^"))
    page = squashed.quick("lineage", "f").out
    assert f"{latest(squashed)}/second" in page
    assert "no run: A User, commit" in page
    assert "2 attempts made it" in page


def test_one_line_tells_its_whole_story(squashed: Scratch) -> None:
    """The task's words, attempt n of m, the model and why, the checkpoint, and the commands that say more."""
    run = latest(squashed)
    told = squashed.quick("lineage", "f:8", "--json").data["story"]
    assert (told["attempts"], told["outcome"], told["undone"]) == (2, "completed", False)
    assert told["model_reason"] == "qa-engineer gets haiku"
    checkpoints = squashed.quick("checkpoints", "--json").data
    assert told["work_commit"] in {
        one["commit"] for one in checkpoints if one["checkpoint_id"] == told["checkpoint_id"]
    }
    assert told["commands"][0] == f"parallel-agents show {run} second"
    page = squashed.quick("lineage", "f:8").out
    assert "attempt     2 of 2: completed" in page
    assert "haiku (claude-haiku-5-5): qa-engineer gets haiku" in page
    assert "Write second." in page
    assert "story" not in squashed.quick("lineage", "f:1", "--json").data
    assert [part[:3] for part in makers(squashed, "f:4-5")] == [(4, 4, "commit"), (5, 5, "attempt")]


def test_the_money_is_divided_over_lines_that_are_left_and_all_else(squashed: Scratch) -> None:
    """One line of ``first`` is gone, and with it all of its money; the failed attempt's is waste; nothing is lost or made."""
    found = squashed.quick("lineage", "--spend", "--json").data
    assert adds_up(found)
    assert found["cost_usd"] == squashed.quick("cost", "--json").data["cost_usd"]
    by_task = {(one["task_id"], one["fate"]): one for one in found["attempts"]}
    first, second = by_task["first", "useful"], by_task["second", "useful"]
    assert first["overwritten_usd"] == first["cost_usd"] > 0
    assert (first["lines_added"], first["lines_left"]) == (1, 0)
    assert second["survived_usd"] == second["cost_usd"] > 0
    assert (found["lines_added"], found["lines_left"]) == (6, 5)
    assert {one["path"]: one["lines_left"] for one in found["files"]} == {"f": 3, "new": 2}
    assert sum(round(one["cost_usd"] * 1e6) for one in found["files"]) == round(found["survived_usd"] * 1e6)
    page = squashed.quick("lineage", "--spend", latest(squashed)).out
    assert "5 of 6 lines that it added are left" in page
    here = squashed.quick("lineage", "--spend", "--here", "--json").data
    assert (here["against"], here["survived_usd"], here["lines_left"]) == ("branch", found["survived_usd"], 5)
    assert adds_up(here)


def test_a_moment_of_the_past_and_a_commit_made_anew_are_told_as_well(squashed: Scratch) -> None:
    """At the end of ``first`` line 2 was its own. Rebased work is known by its trailers, an amended squash by its run."""
    ended = next(
        event["seq"] for event in squashed.quick("history", "--json").lines
        if event["type"] == "TaskCompleted" and event["data"]["task_id"] == "first"
    )  # fmt: skip
    assert makers(squashed, "f:2", "--at", str(ended)) == [(2, 2, "attempt", "first", 1)]
    assert "no file 'new' in run" in squashed.quick("lineage", "new", "--at", str(ended), code=3).err
    before = git(squashed, "rev-parse", "HEAD")
    git(
        squashed,
        "commit",
        "-q",
        "--amend",
        "--date",
        "2001-01-01T00:00:00",
        "-m",
        git(squashed, "log", "-1", "--format=%B"),
    )
    assert git(squashed, "rev-parse", "HEAD") != before
    assert makers(squashed, "f:5-8")[0] == (5, 5, "attempt", "second", 2)
    git(squashed, "switch", "-qc", "picked", "HEAD^")
    git(squashed, "commit", "-q", "--allow-empty", "-m", "users")
    git(squashed, "cherry-pick", f"parallel-agents/{latest(squashed)}~3")
    found = squashed.quick("lineage", "f:2", "--json").data["parts"][0]
    assert (found["task_id"], found["joined"]) == ("first", "trailers")
    git(squashed, "switch", "-q", "main")


def test_what_is_not_committed_is_said_and_what_is_not_there_is_refused(squashed: Scratch) -> None:
    """From a folder below as from the top: 2 for what makes no sense, 3 for what is not there."""
    below = squashed.root / "sub"
    try:
        squashed.write("f", (squashed.root / "f").read_text().replace("line 1\n", "mine\n"))
        squashed.write("loose", "a\nb\n")
        assert [part[2] for part in makers(squashed, "f:1-2")] == ["uncommitted", "attempt"]
        assert squashed.quick("lineage", "../f:2", "--json", cwd=below).data["parts"][0]["task_id"] == "last"
        assert "is in no commit: git does not track it" in squashed.quick("lineage", "loose").out
        found = squashed.quick("lineage", "../plan.json", "--json", cwd=below).data
        assert (found["kept"], {part["by"] for part in found["parts"]}) == ("ignored", {"uncommitted"})
        squashed.write("odd:3", "a\n")
        assert squashed.quick("lineage", "odd:3", "--json").data["path"] == "odd:3"
    finally:
        git(squashed, "checkout", "-q", "f")
    outside = squashed.quick("lineage", "../../elsewhere", "--json", cwd=below, code=2).complaint
    assert "lies outside of" in outside["message"]
    for words, code, said in (
        (["nothing"], 3, "there is no file 'nothing'"),
        (["f:99"], 3, "f has no line 99"),
        (["f:8-99"], 3, "f has no lines 8-99"),
        (["f:0"], 2, "names no lines"),
        (["f:5-2"], 2, "names no lines"),
        (["sub"], 2, "is a folder"),
        (["."], 2, "is a folder"),
        ([], 2, "a PATH is missing"),
        (["f", "--here"], 2, "goes with --spend"),
        (["f", "--run", "zzz"], 3, "there is no run 'zzz'"),
        (["f", "--at", "99999"], 3, "there is no event 99999"),
        (["--spend", "--here", "--at", "3"], 2, "exclude each other"),
    ):
        assert said in squashed.quick("lineage", *words, code=code).err, words


def test_a_directory_without_git_and_one_that_runs_share_are_followed_through_what_was_kept(cli: Scratch) -> None:
    """Each run's lines are its own, though no commit of the user's ever held them; what was there before is no run's."""
    cli.write("f", "old\n")
    (cli.root / ".git").rmdir()
    cli.quick("run", cli.plan(shell("one", "echo one >> f"), workspace="shared"))
    first = latest(cli)
    cli.write("f", "old\none\nmine\n")
    cli.quick("run", cli.plan(shell("two", "echo two >> f"), workspace="shared"))
    cli.write("f", "old\none\nmine\ntwo\nloose\n")
    found = cli.quick("lineage", "f", "--json").data
    assert [(part["by"], part["run_id"], part["task_id"]) for part in found["parts"]] == [
        ("before", first, None), ("attempt", first, "one"), ("before", latest(cli), None),
        ("attempt", latest(cli), "two"), ("uncommitted", None, None),
    ]  # fmt: skip
    assert "no run: not committed when run" in cli.quick("lineage", "f").out
    show = cli.quick("lineage", "f:4", "--json").data["story"]["commands"][-1]
    assert show.startswith(f"git --git-dir={cli.store.parent}/shadow.git show ")
    cli.quick("run", cli.plan(shell("none", "true"), workspace="none"))
    for words in (["f", "--run", latest(cli)], ["--spend"]):
        refused = cli.quick("lineage", *words, "--json", code=2).complaint
        assert "keeps no files (workspace none)" in refused["message"]


def test_what_a_shared_run_left_is_its_own_before_and_after_the_user_commits_it(cli: Scratch) -> None:
    """A new file too."""
    versioned(cli, {"f": "old\n"})
    cli.quick("run", cli.plan(shell("one", "echo one >> f; echo new > new"), workspace="shared"))
    for committed in (False, True):
        if committed:
            git(cli, "add", "f", "new")
            git(cli, "commit", "-qm", "mine")
        assert makers(cli, "f") == [(1, 1, "commit", None, None), (2, 2, "attempt", "one", 1)]
        assert makers(cli, "new") == [(1, 1, "attempt", "one", 1)]


def test_a_conflict_that_a_person_settled_is_told_as_theirs(cli: Scratch) -> None:
    """The lines that they wrote; those of either side stay whose they were. A fork has them all from its parent."""
    versioned(cli, {"f": "1\n2\n3\n"})
    met = [f"touch {cli.root}/home/{name}; {until_file(f'{cli.root}/home/{other}')}" for name, other in ("ab", "ba")]
    scripts = [
        shell(name, f"{wait}; printf '{name}\\n2\\n{name}\\n' > f") for name, wait in zip("ab", met, strict=True)
    ]
    cli.quick("run", cli.plan(*scripts), code=5)
    (one,) = cli.quick("conflicts", "--json").data
    other = one["other_task_id"]
    cli.write("settled.txt", f"both\n2\n{other}\n")
    cli.quick("resolve", one["task_id"], "--file", f"f={cli.root}/settled.txt")
    cli.quick("resume", code=None)
    run, expected = latest(cli), [("settled", one["task_id"]), ("commit", None), ("attempt", other)]
    assert [part[2:4] for part in makers(cli, "f", "--run", run)] == expected
    fork = cli.quick("fork", run, "--json").data["run_id"]
    assert [part[2:4] for part in makers(cli, "f", "--run", fork)] == expected
    assert cli.quick("lineage", "f", "--run", fork, "--json").data["parts"][0]["run_id"] == run
    assert cli.quick("lineage", "--spend", fork, "--json").data["attempts"] == []
