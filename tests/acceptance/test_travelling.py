"""Going back, redoing and branching off: queue, files and spend of one moment, as a user sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scratch import Scratch, shell, until_file, wait_until
from versioned import git, versioned


@pytest.fixture
def repo(cli: Scratch) -> Scratch:
    """The command line in a git repository."""
    return versioned(cli, {"readme": "one\n"})


@pytest.fixture(scope="module")
def with_a_run(make_project: Callable[[str], Scratch]) -> Scratch:
    """A repository with a run of two tasks, one after the other, that has completed."""
    repo = versioned(make_project("past"), {"readme": "one\n"})
    tasks = [shell("one", "echo 1 > one"), shell("two", "echo 2 > two; cat one >> two", "one")]
    repo.quick("run", repo.plan(*tasks))
    return repo.keep()


@pytest.fixture
def past(with_a_run: Scratch) -> Iterator[tuple[Scratch, str]]:
    """That repository for one test, and the id of the run."""
    for repo in with_a_run.anew():
        yield repo, str(repo.quick("runs", "--json").data[-1]["run_id"])


def statuses(cli: Scratch, run: str, *more: str) -> dict[str, str]:
    """Task by task."""
    return {task["task_id"]: task["status"] for task in cli.quick("status", run, "--json", *more).data["tasks"]}


def files_of(cli: Scratch, run: str) -> list[str]:
    """What the run's branch holds."""
    return git(cli, "ls-tree", "-r", "--name-only", f"parallel-agents/{run}").split("\n")


def seq_of(cli: Scratch, run: str, event_type: str, task: str = "") -> int:
    """The seq of the first such event."""
    found = [
        one["seq"] for one in cli.events(run) if one["type"] == event_type and one["data"].get("task_id", "") == task
    ]
    return int(found[0])


def test_a_rollback_takes_queue_and_files_back_and_resume_goes_on(past: tuple[Scratch, str]) -> None:
    """What was completed before that moment stays; the rest runs again."""
    cli, run = past
    seq = seq_of(cli, run, "TaskCompleted", "one")
    done = cli.quick("rollback", run, "--to", str(seq), "--yes", "--json").data
    assert (done["to_seq"], done["commit"]["then"]) == (seq, git(cli, "rev-parse", f"parallel-agents/{run}"))
    assert done["tasks"] == [{"task_id": "two", "now": "completed", "then": "pending"}]
    assert statuses(cli, run) == {"one": "completed", "two": "pending"}
    assert "two" not in files_of(cli, run)
    assert cli.quick("status", run, "--json").data["status"] == "paused"
    cli.quick("resume", run)
    assert statuses(cli, run) == {"one": "completed", "two": "completed"}
    assert {"one", "two"} <= set(files_of(cli, run))
    assert cli.quick("verify").code == 0


def test_going_back_to_an_undone_event_is_a_redo(past: tuple[Scratch, str]) -> None:
    """Also after a second rollback to before the first one."""
    cli, run = past
    last = cli.quick("status", run, "--json").data["seq"]
    tip = git(cli, "rev-parse", f"parallel-agents/{run}")
    cli.quick("rollback", run, "--to", str(seq_of(cli, run, "TaskCompleted", "one")), "--yes")
    cli.quick("rollback", run, "--to", str(seq_of(cli, run, "RunStarted")), "--yes")
    assert statuses(cli, run) == {"one": "pending", "two": "pending"}
    assert files_of(cli, run) == [".gitignore", "readme"]
    cli.quick("rollback", run, "--to", str(last), "--yes")
    found = cli.quick("status", run, "--json").data
    assert (found["status"], git(cli, "rev-parse", f"parallel-agents/{run}")) == ("completed", tip)


def test_the_checkpoint_after_a_run_is_its_end(past: tuple[Scratch, str]) -> None:
    """Going back to it leaves nothing to go on with."""
    cli, run = past
    cli.quick("rollback", run, "--to", "before two", "--yes")
    cli.quick("rollback", run, "--to", "after the run", "--yes")
    assert cli.quick("status", run, "--json").data["status"] == "completed"


def test_words_name_a_checkpoint_and_say_what_was_understood(past: tuple[Scratch, str]) -> None:
    """A dry run shows it and changes nothing."""
    cli, run = past
    before = cli.event_count()
    said = cli.quick("rollback", run, "--to", "before two", "--dry-run")
    assert "before two" in said.err
    assert "task two: completed -> queued" in said.err
    assert "D two" in said.err
    assert cli.event_count() == before
    cli.quick("rollback", run, "--to", "before two", "--yes")
    assert statuses(cli, run) == {"one": "completed", "two": "queued"}


@pytest.mark.parametrize(
    ("to", "code", "name"),
    [("99999", 3, "unknown_event"), ("-1", 3, "unknown_event"), ("nonsense words", 3, "unknown_checkpoint")],
)
def test_what_names_no_moment_changes_nothing(past: tuple[Scratch, str], to: str, code: int, name: str) -> None:
    """Never the nearest one instead."""
    cli, run = past
    before = cli.event_count()
    assert cli.quick("rollback", run, "--to", to, "--yes", "--json", code=code).complaint["code"] == name
    assert cli.event_count() == before


def test_a_rollback_that_changes_nothing_is_no_success(past: tuple[Scratch, str]) -> None:
    """And one that nobody can be asked about needs --yes."""
    cli, run = past
    last = str(cli.quick("status", run, "--json").data["seq"])
    assert "changes nothing" in cli.quick("rollback", run, "--to", last, "--yes", code=2).err
    assert "--yes" in cli.quick("rollback", run, "--to", "before two", code=2).err


def test_an_event_of_another_run_is_refused(past: tuple[Scratch, str]) -> None:
    """Although the store has it."""
    cli, run = past
    cli.quick("run", cli.plan(shell("other", "true"), workspace="none", name="other"))
    later = str(cli.event_count())
    assert "another run" in cli.quick("rollback", run, "--to", later, "--yes", code=3).err


def test_a_rollback_stops_what_runs_and_keeps_what_it_had_done(repo: Scratch) -> None:
    """Under a checkpoint of its own, from where it can be had again."""
    flags = repo.root / "flags"
    flags.mkdir()
    long = f"echo half > half; touch {flags}/begun; {until_file(f'{flags}/never')}"
    process = repo.begin("run", repo.plan(shell("one", "echo 1 > one"), shell("long", long, "one")))
    wait_until(lambda: (flags / "begun").exists(), "the long task to begin")
    run = str(repo.quick("runs", "--json").data[-1]["run_id"])
    seq = seq_of(repo, run, "TaskCompleted", "one")
    done = repo.quick("rollback", run, "--to", str(seq), "--yes", "--json").data
    assert (done["stopped"], done["left"]) == (["long"], [])
    assert repo.said_by(process).code == 5
    assert statuses(repo, run) == {"one": "completed", "long": "pending"}
    kept = [one for one in repo.quick("checkpoints", run, "--json").data if "undone" in one["label"]]
    assert git(repo, "show", f"{kept[0]['commit']}:half") == "half"
    (flags / "never").touch()
    repo.quick("resume", run)
    assert statuses(repo, run) == {"one": "completed", "long": "completed"}


def test_a_shared_directory_is_made_what_it_was(cli: Scratch) -> None:
    """Without git too; what was there is kept first."""

    cli.write(".gitignore", "home/\n")  # What the test itself keeps there.

    def made_by_tasks() -> list[str]:
        return [name for name in ("one", "two") if (cli.root / name).exists()]

    cli.quick("run", cli.plan(shell("one", "echo 1 > one"), shell("two", "echo 2 > two; rm one", "one")))
    assert made_by_tasks() == ["two"]
    run = str(cli.quick("runs", "--json").data[-1]["run_id"])
    done = cli.quick("rollback", run, "--to", "before two", "--yes", "--json").data
    assert done["restored"]
    assert made_by_tasks() == ["one"]
    assert any(one["kind"] == "before_restore" for one in cli.quick("checkpoints", "--all", "--json").data)
    cli.quick("resume", run)
    assert made_by_tasks() == ["two"]


def test_a_shared_directory_is_not_taken_back_while_another_run_works_there(cli: Scratch) -> None:
    """Its files would go from under it; nothing is changed, in the log neither."""
    cli.write(".gitignore", "home/\nflags/\n")
    cli.quick("run", cli.plan(shell("one", "echo 1 > one"), shell("two", "rm one", "one")))
    first = str(cli.quick("runs", "--json").data[-1]["run_id"])
    (cli.root / "flags").mkdir()
    other = cli.begin("run", cli.plan(shell("busy", until_file("flags/go")), name="other"))
    cli.until_running("busy")
    count = cli.event_count()
    refused = cli.quick("rollback", first, "--to", "before two", "--yes", code=2)
    assert "attempts of another run work in the same directory" in refused.err
    assert not (cli.root / "one").exists()
    assert cli.event_count() == count
    (cli.root / "flags" / "go").touch()
    assert cli.said_by(other).code == 0
    cli.quick("rollback", first, "--to", "before two", "--yes")
    assert (cli.root / "one").exists()


def test_a_fork_goes_on_from_the_past_and_leaves_its_parent(past: tuple[Scratch, str]) -> None:
    """With completed work kept, refs of its own, and its own settings."""
    cli, run = past
    parent, tip = cli.events(run), git(cli, "rev-parse", f"parallel-agents/{run}")
    seq = seq_of(cli, run, "TaskCompleted", "one")
    words = ("--set", "max_parallel_agents=1", "--set", "two.timeout_s=7", "--set", "task.max_retries=1")
    made = cli.quick("fork", run, "--at", str(seq), *words, "--json").data
    child = made["run_id"]
    assert (made["parent"], made["seq"], made["status"]) == (run, seq, "paused")
    assert statuses(cli, child) == {"one": "completed", "two": "pending"}
    assert cli.quick("status", child, "--json").data["max_parallel_agents"] == 1
    shown = cli.quick("show", child, "two", "--json").data
    assert (shown["timeout_s"], shown["max_retries"]) == (7.0, 1)
    cli.quick("resume", child)
    assert statuses(cli, child) == {"one": "completed", "two": "completed"}
    assert {"one", "two"} <= set(files_of(cli, child))
    assert (cli.events(run), git(cli, "rev-parse", f"parallel-agents/{run}")) == (parent, tip)
    assert cli.quick("verify").code == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [("colour=red", "nothing of that name"), ("two.timeout_s=soon", "number of seconds"), ("two.task_id=x", "cannot"),
     ("max_parallel_agents=0", "max_parallel_agents"), ("nobody.timeout_s=5", "nothing of that name"), ("x", "no '='")],
)  # fmt: skip
def test_a_setting_that_cannot_be_makes_no_fork(past: tuple[Scratch, str], setting: str, said: str) -> None:
    """Nothing is appended, no ref is made."""
    cli, run = past
    before = cli.event_count(), git(cli, "for-each-ref")
    assert said in cli.quick("fork", run, "--set", setting, code=2).err
    assert (cli.event_count(), git(cli, "for-each-ref")) == before


def test_a_fork_of_a_shared_run_works_in_checkouts_of_its_own(cli: Scratch) -> None:
    """The directory is the parent's, and stays as it is."""
    cli.quick("run", cli.plan(shell("one", "echo 1 > one"), shell("two", "pwd > two; cat one", "one")))
    run = str(cli.quick("runs", "--json").data[-1]["run_id"])
    before = (cli.root / "two").read_text()
    child = cli.quick("fork", run, "--at", "before two", "--json").data["run_id"]
    cli.quick("resume", child)
    assert (cli.root / "two").read_text() == before
    assert cli.quick("show", child, "two", "--json").data["output"] == "1"


def test_a_diff_tells_tasks_files_and_configuration_apart(past: tuple[Scratch, str]) -> None:
    """Between any two moments, by number or by words."""
    cli, run = past
    found = cli.quick("diff", run, "before one", "after two", "--json").data
    assert {one["task_id"]: one["status"] for one in found["tasks"]} == {
        "one": {"a": "running", "b": "completed"}, "two": {"a": "pending", "b": "completed"},
    }  # fmt: skip
    assert found["files"] == [{"path": "one", "change": "A"}, {"path": "two", "change": "A"}]
    patch = cli.quick("diff", run, "before one", "after two", "--patch").out
    assert "+++ b/two" in patch
    text = cli.quick("diff", run, "before one", "after two").out
    assert "task two: status pending -> completed" in text
    assert "A two" in text


def test_the_past_of_a_forked_run_can_be_asked_at_every_event(past: tuple[Scratch, str]) -> None:
    """Its first event has its parent's whole state in it."""
    cli, run = past
    child = cli.quick("fork", run, "--at", "before two", "--json").data["run_id"]
    first: dict[str, Any] = cli.events(child)[0]
    assert (first["type"], first["version"], first["data"]["parent"]) == ("RunForked", 1, run)
    at_first = cli.quick("status", child, "--json", "--at", str(first["seq"])).data
    assert {task["task_id"]: task["status"] for task in at_first["tasks"]} == {"one": "completed", "two": "running"}
    assert statuses(cli, child) == {"one": "completed", "two": "queued"}


def test_the_users_own_state_is_not_touched(make_project: Callable[[str], Scratch]) -> None:
    """Branch, index, working tree, stash, configuration, hooks and reflogs stay byte by byte, through all of it."""
    cli = versioned(make_project("untouched"), {"readme": "one\n"})
    cli.write("readme", "changed\n")
    git(cli, "stash")
    cli.write("readme", "dirty\n")
    cli.write("staged", "1\n")
    git(cli, "add", "staged")

    def state() -> dict[str, bytes]:
        kept = ("HEAD", "index", "config", "packed-refs", "refs/heads/main", "refs/stash", "description")
        files = [cli.root / ".git" / name for name in kept]
        files += [path for path in (cli.root / ".git").glob("logs/**/*") if path.is_file()]
        files += [path for path in (cli.root / ".git" / "hooks").glob("*") if path.is_file()]
        files += [cli.root / name for name in ("readme", "staged", ".gitignore")]
        return {str(path): path.read_bytes() for path in files if path.exists()}

    before = state()
    cli.quick("run", cli.plan(shell("one", "echo 1 > one"), shell("two", "echo 2 > readme", "one")))
    run = str(cli.quick("runs", "--json").data[-1]["run_id"])
    cli.quick("rollback", run, "--to", "before two", "--yes")
    cli.quick("resume", run)
    cli.quick("resume", str(cli.quick("fork", run, "--at", "first before two", "--json").data["run_id"]))
    assert state() == before
