"""What `verify --deep` finds that the quick `verify` does not look at, and that the command it names mends it."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scratch import Scratch, shell
from versioned import git, versioned

from parallel_agents.eventstore.log import Log
from parallel_agents.projections import at_hand, status
from parallel_agents.projections.projector import Projector


@pytest.fixture(scope="module")
def with_a_run(make_project: Callable[[str], Scratch]) -> Scratch:
    """A repository with one run: two tasks that made a file each, one after the other."""
    cli = versioned(make_project("project"), {"README.md": "hello\n"})
    cli.quick("run", cli.plan(shell("one", "echo 1 >one"), shell("two", "echo 2 >two", "one")))
    return cli.keep()


@pytest.fixture
def repo(with_a_run: Scratch) -> Iterator[Scratch]:
    """That repository, for one test."""
    yield from with_a_run.anew()


def deep(cli: Scratch, code: int = 8) -> list[dict[str, str]]:
    """What is found."""
    said = cli.quick("verify", "--deep", "--json", code=code)
    findings: list[dict[str, str]] = said.data["findings"]
    assert said.data["ok"] == (code == 0)
    return findings


def mend(cli: Scratch, finding: dict[str, str]) -> None:
    """Do what a finding's hint says."""
    subprocess.run(["sh", "-ec", finding["hint"]], cwd=cli.root, check=True, capture_output=True)


def the_run(cli: Scratch) -> str:
    """Its id."""
    run_id: str = cli.quick("status", "--json").data["run_id"]
    return run_id


def change(cli: Scratch, *statements: str) -> None:
    """Change the store behind our back."""
    with closing(sqlite3.connect(cli.store)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def commits(cli: Scratch, kind: str) -> list[str]:
    """The commits of checkpoints of a kind."""
    return [one["commit"] for one in cli.quick("checkpoints", "--json").data if one["kind"] == kind]


def test_nothing_is_found_where_nothing_is_wrong_and_it_says_what_was_looked_at(repo: Scratch) -> None:
    """Also after a rollback, for which nothing is deleted."""
    repo.quick("rollback", "--to", "8", "--yes")
    assert deep(repo, code=0) == []
    looked_at = repo.quick("verify", "--deep", "--json").data["looked_at"]
    assert looked_at["events"] == repo.event_count()
    assert (looked_at["runs"], looked_at["commits"]) == (1, 3)
    assert looked_at["refs"] > 3
    repo.quick("resume")
    assert deep(repo, code=0) == []
    assert "all is as the log says" in repo.quick("verify", "--deep").out


@pytest.mark.parametrize("workspace", ["shared", "none"])
def test_nothing_is_found_of_runs_without_checkouts(cli: Scratch, workspace: str) -> None:
    """Those whose files are kept in a repository of ours, and those whose files nobody keeps."""
    (cli.root / ".git").rmdir()
    cli.environment |= {"GIT_CONFIG_GLOBAL": "/dev/null"}
    cli.quick("run", cli.plan(shell("one", "echo 1 >one"), shell("two", "echo 2 >two", "one"), workspace=workspace))
    assert deep(cli, code=0) == []
    looked_at = cli.quick("verify", "--deep", "--json").data["looked_at"]
    assert (looked_at["commits"] > 0) == (workspace == "shared")


def test_a_changed_event_is_found_and_nothing_is_concluded_from_it(repo: Scratch) -> None:
    """Folds of events that are not what was written would only be noise."""
    change(
        repo,
        """UPDATE events SET body = replace(body, '"exit_code":0', '"exit_code":7') WHERE type = 'TaskCompleted'""",
    )
    (found,) = deep(repo)
    assert (found["check"], " was changed: its body" in found["detail"]) == ("chain", True)
    said = repo.quick("verify", "--deep", code=8)
    assert " was changed: its body" in said.out
    assert "1 thing does not match" in said.err


def test_a_changed_document_is_found(repo: Scratch) -> None:
    """Of those that no event names too."""
    change(repo, "INSERT INTO blobs VALUES ('" + "0" * 64 + "', x'00')")
    assert repo.quick("verify").code == 0
    (found,) = deep(repo)
    assert (found["check"], "000000000000" in found["detail"]) == ("documents", True)


def test_a_snapshot_that_is_not_what_its_events_say_is_found(repo: Scratch) -> None:
    """And it alone; what its hint says mends it. A right one is none, nor one that nobody reads any more."""
    run_id = the_run(repo)
    with Log(repo.store) as log:
        projector = Projector(log)
        for seq in (6, 12):
            projector.save_snapshot(projector.state(run_id, seq))
        assert deep(repo, code=0) == []
        wrong = projector.state(run_id, 9)
        next(iter(wrong.tasks.values())).attempts = 5
        projector.save_snapshot(wrong)
        log.save_snapshot(run_id, status.NAME, status.VERSION - 1, 9, b"{}")
    (found,) = deep(repo)
    assert (found["check"], f"run {run_id} at event 9" in found["detail"]) == ("snapshots", True)
    mend(repo, found | {"hint": found["hint"].split("`")[1].replace("STORE", str(repo.store))}) if _has_sqlite3() else (
        change(repo, "DELETE FROM snapshots")
    )
    assert deep(repo, code=0) == []


def test_a_light_snapshot_that_is_not_what_its_events_say_is_found(repo: Scratch) -> None:
    """A letter of it, a task that it holds, or all of its bytes; those before and behind a rollback that are right are none."""
    run_id = the_run(repo)
    with Log(repo.store) as log:
        projector = Projector(log)
        repo.quick("rollback", "--to", "8", "--yes")
        for seq in range(4, log.last_seq() + 1):
            state = projector.state(run_id, seq)
            projector.save_light_snapshot(run_id, state.seq, at_hand.dump(state))
        assert deep(repo, code=0) == []
        for seq, status in ((5, "skipped"), (9, "running")):
            wrong = projector.state(run_id, seq)
            next(iter(wrong.tasks.values())).status = status
            projector.save_light_snapshot(run_id, seq, at_hand.dump(wrong))
        projector.save_light_snapshot(run_id, 7, b"nothing")
    found = deep(repo)
    assert {one["detail"].partition(" at event ")[2][:2].strip() for one in found} == {"5", "7", "9"}


def _has_sqlite3() -> bool:
    return subprocess.run(["sh", "-c", "command -v sqlite3"], capture_output=True, check=False).returncode == 0


def test_a_snapshot_behind_a_rollback_is_compared_with_what_a_reader_saw_then(repo: Scratch) -> None:
    """Not with what counts today."""
    run_id = the_run(repo)
    with Log(repo.store) as log:
        projector = Projector(log)
        before = projector.state(run_id)
        repo.quick("rollback", "--to", "8", "--yes")
        for state in (before, projector.state(run_id)):
            projector.save_snapshot(state)
        assert deep(repo, code=0) == []
        before.status = "failed"
        projector.save_snapshot(before)
    (found,) = deep(repo)
    assert f"at event {before.seq}" in found["detail"]


def test_a_page_that_is_damaged_is_found(repo: Scratch) -> None:
    """In an index, which no event would show."""
    with closing(sqlite3.connect(repo.store)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'events_run_level'"
        (page,) = connection.execute(query).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(repo.store.read_bytes())
    content[page * size - 200 : page * size] = bytes(200)
    repo.store.write_bytes(content)
    found = deep(repo)
    assert {one["check"] for one in found} == {"database"}


def lose_refs(repo: Scratch) -> str:
    """The refs and the branch that hold the work of the second task."""
    (_, work) = commits(repo, "after_attempt")
    for line in git(repo, "for-each-ref", "--format=%(objectname) %(refname)").splitlines():
        commit, ref = line.split(" ")
        if commit == work:
            git(repo, "update-ref", "-d", ref)
    return work


def move_checkpoint(repo: Scratch) -> str:
    """One checkpoint to the commit of another one."""
    first = next(one for one in repo.quick("checkpoints", "--json").data if one["kind"] == "after_attempt")
    git(repo, "update-ref", f"refs/parallel-agents/{first['run_id']}/{first['checkpoint_id']}", "main")
    return str(first["checkpoint_id"])


def move_branch(repo: Scratch) -> str:
    """The branch of the run to where it began."""
    git(repo, "branch", "-f", f"parallel-agents/{the_run(repo)}", "main")
    return "and its run at"


def foreign_branch(repo: Scratch) -> str:
    """The branch of the run to a commit that has nothing to do with it."""
    tree = git(repo, "write-tree")
    git(repo, "branch", "-f", f"parallel-agents/{the_run(repo)}", git(repo, "commit-tree", tree, "-m", "mine"))
    return "somebody put"


@pytest.mark.parametrize(
    ("damage", "check"),
    [(lose_refs, "refs"), (move_checkpoint, "refs"), (move_branch, "branch"), (foreign_branch, "branch")],
)
def test_refs_that_are_not_as_the_log_says_are_found_and_the_command_mends_them(
    repo: Scratch, damage: Callable[[Scratch], str], check: str
) -> None:
    """Each is named with what it should be. A lost branch is one that a user may have deleted: named, and no error."""
    word = damage(repo)
    assert repo.quick("verify").code == 0
    found = deep(repo)
    (wrong,) = [one for one in found if one["level"] == "error"]
    assert wrong["check"] == check
    assert word in wrong["detail"]
    for one in found:
        mend(repo, one)
    assert [one for one in deep(repo, code=0) if one["level"] == "error"] == []


def test_a_commit_that_is_gone_is_found_with_where_it_may_be(repo: Scratch, tmp_path: Path) -> None:
    """A clone has it."""
    subprocess.run(["git", "clone", "--mirror", "-q", str(repo.root), str(tmp_path / "clone")], check=True)
    work = lose_refs(repo)
    (repo.root / ".git/objects" / work[:2] / work[2:]).unlink()
    found = deep(repo)
    (gone,) = [one for one in found if one["level"] == "error"]
    assert (gone["check"], work in gone["detail"]) == ("commits", True)
    mend(repo, gone | {"hint": gone["hint"].partition(": ")[2].replace("CLONE", str(tmp_path / "clone"))})
    assert {one["check"] for one in deep(repo)} == {"refs", "branch"}


def test_a_ref_that_no_event_names_is_named_and_is_no_error(repo: Scratch) -> None:
    """Whoever made it was killed before the event; the command takes it away."""
    git(
        repo,
        "update-ref",
        f"refs/parallel-agents/{the_run(repo)}/stranger",
        git(repo, "commit-tree", "-m", "x", "main^{tree}"),
    )
    (found,) = deep(repo, code=0)
    assert (found["level"], "stranger" in found["detail"]) == ("warning", True)
    mend(repo, found | {"hint": found["hint"].partition(": ")[2]})
    assert deep(repo, code=0) == []


def test_a_repository_that_is_gone_is_found(repo: Scratch, tmp_path: Path) -> None:
    """Moved away, say."""
    (repo.root / ".git").rename(tmp_path / "elsewhere")
    found: list[dict[str, Any]] = deep(repo)
    assert [(one["check"], the_run(repo) in one["detail"]) for one in found] == [("refs", True)]
