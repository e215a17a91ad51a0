"""Standing in the past: every verb that looks at a moment, its files laid out, and two moments or two runs compared."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scratch import Scratch, shell, until_file
from versioned import belongings, git, versioned

LINKS = "ln -s ../outside link; printf '#!/bin/sh\\n' > tool; chmod +x tool"


class Past(NamedTuple):
    """A run of three tasks in checkouts, a fork of it that went another way, and a checkpoint by hand between the two."""

    cli: Scratch
    run: str
    fork: str
    events: list[dict[str, Any]]  # Of the run.

    def seq(self, event_type: str, task: str = "") -> int:
        """The first such event of the run."""
        found = (e["seq"] for e in self.events if e["type"] == event_type and e["data"].get("task_id", "") == task)
        return int(next(found))


@pytest.fixture(scope="module")
def past(make_project: Callable[[str], Scratch]) -> Past:
    """Made once: nothing here changes it."""
    cli = versioned(make_project("past"), {"readme": "one\n", "kept": "as it was\n"})
    tasks = [
        shell("one", f"echo 1 > made; {LINKS}"), shell("two", "echo two | tee made; rm tool", "one"),
        shell("last", "echo 3 > late", "two"),
    ]  # fmt: skip
    cli.quick("run", cli.plan(*tasks, workspace="worktree", budget_usd=5))
    run = str(cli.quick("runs", "--json").data[-1]["run_id"])
    cli.quick("checkpoint", "create", "a pause")
    events = cli.events(run)
    at = next(one["seq"] for one in events if one["type"] == "TaskCompleted" and one["data"]["task_id"] == "one")
    fork = str(cli.quick("fork", run, "--at", str(at), "--set", "two.timeout_s=7", "--json").data["run_id"])
    cli.quick("cancel", fork, "last", "--yes")
    cli.quick("resume", fork, code=None)
    return Past(cli, run, fork, events)


def layout(folder: Path) -> dict[str, tuple[str, str]]:
    """Every file below a folder: what kind it is, and its content or where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            kind = "program" if path.stat().st_mode & stat.S_IXUSR else "file"
            found[name] = (kind, path.read_text())
    return found


READING: tuple[tuple[str, ...], ...] = (
    ("runs",), ("status", "{run}"), ("queue",), ("queue", "{run}"), ("history", "{run}"), ("history", "--all"),
    ("show", "{run}", "one"), ("show", "{run}", "one", "--usage"), ("timeline", "{run}"), ("cost", "{run}"),
    ("cost", "--all"), ("why", "{run}", "two"), ("checkpoints", "{run}"), ("checkpoints", "--all"), ("conflicts", "{run}"),
    ("conflicts",), ("limits",), ("schedules",), ("budget", "{run}"), ("logs", "{run}", "one"), ("files", "{run}"),
)  # fmt: skip


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_every_verb_that_looks_takes_numbers_times_words_and_checkpoints(past: Past, words: tuple[str, ...]) -> None:
    """And each of them means the same moment: that of a checkpoint, as it was before anything else happened."""
    verb, *rest = (word.format(run=past.run) for word in words)
    found = next(one for one in past.cli.quick("checkpoints", past.run, "--json").data if one["label"] == "after one")
    wanted = past.cli.quick(verb, *rest, "--json", "--at", str(found["seq"])).out
    for text in (found["checkpoint_id"], found["checkpoint_id"][:6], "after one"):
        assert past.cli.quick(verb, *rest, "--json", "--at", text).out == wanted
    whole = past.cli.quick(verb, *rest, "--json", "--at", "now").out
    assert past.cli.quick(verb, *rest, "--json", "--at", "0 seconds ago").out == whole


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_no_position_is_ever_taken_for_the_nearest_one(past: Past, words: tuple[str, ...]) -> None:
    """Past the end, to come, before the beginning of all, or nothing of that name."""
    verb, *rest = (word.format(run=past.run) for word in words)
    for text in ("99999", "0", "2999-01-01", "2999-01-01T00:00:00Z", "300 weeks ago", "no such words at all"):
        said = past.cli.quick(verb, *rest, "--json", "--at", text, code=3)
        assert said.complaint["code"] in ("unknown_event", "unknown_checkpoint"), text


def test_a_moment_before_a_run_or_a_checkpoint_of_another_one_is_refused_by_name(past: Past) -> None:
    """What was typed is said, and what to type instead."""
    cli, before = past.cli, str(past.seq("RunCompleted"))
    for verb in ("status", "history", "timeline", "cost", "checkpoints", "budget", "files"):
        said = cli.quick(verb, past.fork, "--at", before, "--json", code=3).complaint
        assert (said["code"], said["message"]) == ("unknown_run", f"run {past.fork} had not begun at event {before}")
    of_parent = cli.quick("checkpoints", past.run, "--json").data[1]["checkpoint_id"]
    said = cli.quick("status", past.fork, "--at", of_parent, "--json", code=3).complaint
    assert said["message"] == f"checkpoint {of_parent} is of run {past.run}, not of run {past.fork}"
    for words in (("rollback", past.fork, "--yes", "--to", of_parent), ("fork", past.fork, "--at", of_parent)):
        assert f"is of run {past.run}" in cli.quick(*words, code=3).err
    assert cli.quick("status", past.run, "--at", "a pause", "--json").data["status"] == "completed"
    assert "made by hand" in cli.quick("rollback", past.run, "--yes", "--to", "a pause", code=3).err


def test_the_latest_run_is_that_of_the_moment_which_is_looked_at(past: Past) -> None:
    """Not the fork that came later, and never what belongs to no run."""
    assert past.cli.quick("status", "--json").data["run_id"] == past.fork
    assert past.cli.quick("status", "latest", "--json", "--at", "a pause").data["run_id"] == past.run
    assert past.cli.quick("status", "store", "--json", code=3).complaint["code"] == "unknown_run"


def test_the_files_of_a_moment_are_listed_with_whose_work_they_are(past: Past) -> None:
    """Of what no task has changed nobody's; a fork has what its parent had done by then."""
    cli = past.cli
    at_one = cli.quick("files", past.run, "--at", str(past.seq("TaskCompleted", "one")), "--json").data
    assert {file["path"]: (file["mode"], file["task_id"]) for file in at_one["files"]} == {
        ".gitignore": ("100644", None), "kept": ("100644", None), "link": ("120000", "one"), "made": ("100644", "one"),
        "readme": ("100644", None), "tool": ("100755", "one"),
    }  # fmt: skip
    now = cli.quick("files", past.run, "--json").data
    whose = {file["path"]: file["task_id"] for file in now["files"]}
    assert whose == {".gitignore": None, "kept": None, "link": "one", "made": "two", "readme": None, "late": "last"}
    made = next(file for file in now["files"] if file["path"] == "made")
    assert (made["run_id"], made["seq"], made["size"]) == (past.run, past.seq("TaskCompleted", "two"), 4)
    assert (now["files_count"], now["total_size_bytes"]) == (6, sum(file["size"] for file in now["files"]))
    of_fork = {file["path"]: (file["run_id"], file["task_id"]) for file in cli.quick("files", "--json").data["files"]}
    assert (of_fork["link"], of_fork["made"]) == ((past.run, "one"), (past.fork, "two"))
    lines = cli.quick("files", past.run)
    assert "  two   made" in lines.out.splitlines()[-2]
    assert "6 files" in lines.err


def test_the_files_of_a_moment_are_laid_out_in_a_new_folder(past: Past, tmp_path: Path) -> None:
    """Links and modes as they were, nothing beside it, and nothing of the user's is touched."""
    cli, before = past.cli, belongings(past.cli)
    (tmp_path / "outside").write_text("mine")
    folder = tmp_path / "deep" / "down"
    said = cli.quick("files", past.run, "--at", "after one", "--out", str(folder))
    assert said.out.strip() == str(folder)
    assert layout(folder) == {
        ".gitignore": ("file", "home/\nflags/\n*.json\n"), "kept": ("file", "as it was\n"), "link": ("link", "../outside"),
        "made": ("file", "1\n"), "readme": ("file", "one\n"), "tool": ("program", "#!/bin/sh\n"),
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "outside"]
    assert belongings(cli) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    done = cli.quick(
        "files", past.run, "--out", "empty", "--json", cwd=tmp_path, env={"PARALLEL_AGENTS_STORE": str(cli.store)}
    )
    assert done.data | {"seq": 0, "commit": ""} == {
        "run_id": past.run, "seq": 0, "commit": "", "folder": str(empty), "files_count": 6,
    }  # fmt: skip


def test_nothing_is_laid_out_over_what_is_there(past: Past, tmp_path: Path) -> None:
    """Not even a hidden file, and not through a link to such a folder."""
    full = tmp_path / "full"
    full.mkdir()
    (full / ".mine").write_text("mine")
    (tmp_path / "link").symlink_to(full)
    (tmp_path / "file").write_text("mine")
    for name in ("full", "link", "file"):
        said = past.cli.quick("files", past.run, "--out", str(tmp_path / name), code=2)
        assert "is not empty" in said.err
    assert layout(tmp_path) == {"full/.mine": ("file", "mine"), "link": ("link", str(full)), "file": ("file", "mine")}


def test_the_files_of_a_shared_directory_without_git_can_be_had_again(cli: Scratch, tmp_path: Path) -> None:
    """From the shadow repository, as each task had left them."""
    cli.write(".gitignore", "home/\n")
    cli.quick("run", cli.plan(shell("one", "echo 1 > one"), shell("two", "echo 2 > two; rm one", "one")))
    found = cli.quick("files", "--at", "after one", "--json").data
    assert (found["workspace"], {file["path"]: file["task_id"] for file in found["files"]}["one"]) == ("shared", "one")
    cli.quick("files", "--at", "after one", "--out", str(tmp_path / "then"))
    assert layout(tmp_path / "then")["one"] == ("file", "1\n")
    assert "two" not in layout(tmp_path / "then")
    assert not (cli.root / "one").exists()


def test_a_run_without_versioned_files_has_none_to_list(cli: Scratch, tmp_path: Path) -> None:
    """It is refused by name, with what would have had them."""
    cli.quick("run", cli.plan(shell("one", "true"), workspace="none"))
    run = cli.quick("runs", "--json").data[-1]["run_id"]
    for more in ((), ("--out", str(tmp_path / "out"))):
        assert f"the files of run {run} are not versioned" in cli.quick("files", *more, code=2).err
    assert not (tmp_path / "out").exists()


def test_a_fork_and_its_parent_are_compared_in_all_that_they_are(past: Past) -> None:
    """As they stand now, or each at a moment of its own; tasks, cost, configuration and files."""
    cli = past.cli
    found = cli.quick("diff", past.run, past.fork, "--json").data
    assert (found["a"]["run_id"], found["b"]["run_id"], found["status"][0]) == (past.run, past.fork, "completed")
    assert {one["task_id"]: one["status"] for one in found["tasks"] if "status" in one} == {
        "last": {"a": "completed", "b": "cancelled"}
    }
    assert found["configuration"]["two.timeout_s"] == {"a": 600.0, "b": 7.0}
    assert found["files"] == [{"path": "late", "change": "D"}]
    assert cli.quick("diff", past.run[:6], past.fork[:6], "--json").data == found
    one = str(past.seq("TaskCompleted", "one"))
    apart = cli.quick("diff", f"{past.run}@{one}", f"{past.fork}@before two", "--json").data
    assert (apart["a"]["seq"], apart["files"], apart["tasks"][0]["task_id"]) == (int(one), [], "two")
    assert [one["change"] for one in cli.quick("diff", f"{past.run}@{one}", "now", "--json").data["files"]] == [
        "A",
        "M",
        "D",
    ]
    page = cli.quick("diff", past.run, past.fork).out
    assert f"run {past.run}: where it stands now -> run {past.fork}: where it stands now" in page
    assert "two.timeout_s: 600.0 -> 7.0" in page
    assert "-3" in cli.quick("diff", past.run, past.fork, "--patch").out
    assert "3 moments" not in cli.quick("diff", past.run, code=2).err
    assert cli.quick("diff", f"{past.fork}@{one}", past.run, code=3).err.count("had not begun")


def test_runs_whose_files_have_nothing_to_do_with_each_other_are_compared_in_all_else(cli: Scratch) -> None:
    """It says why the files are not."""
    cli.quick("run", cli.plan(shell("one", "true"), workspace="none"))
    cli.quick("run", cli.plan(shell("other", "true"), workspace="none", name="second"))
    first, second = (run["run_id"] for run in cli.quick("runs", "--json").data)
    found = cli.quick("diff", first, second, "--json").data
    assert {one["task_id"]: one["status"] for one in found["tasks"]} == {
        "other": {"a": None, "b": "completed"}, "one": {"a": "completed", "b": None},
    }  # fmt: skip
    assert (found["configuration"]["name"], found["files"]) == ({"a": "plan", "b": "second"}, [])
    assert found["files_unknown"] == f"the files of run {first} are not versioned"
    assert "not versioned" in cli.quick("diff", first, second, "--patch", code=2).err


def test_what_an_attempt_had_printed_by_then_is_refused_where_nobody_knows_it(cli: Scratch) -> None:
    """Until its end it could be any part of what is there now; a whole output is never passed off for that part."""
    flags = cli.root / "flags"
    flags.mkdir()
    script = f"echo early; touch flags/begun; {until_file('flags/go')}; echo late"
    process = cli.begin("run", cli.plan(shell("talk", script), workspace="none"))
    cli.until_running("talk")
    started = next(one["seq"] for one in cli.events() if one["type"] == "TaskStarted")
    (flags / "go").touch()
    assert cli.said_by(process).code == 0
    ended = next(one["seq"] for one in cli.events() if one["type"] == "TaskCompleted")
    for more in ((), ("--json",)):
        said = cli.quick("logs", "latest", "talk", "--at", str(started), *more, code=2)
        assert "was running at event" in said.err
    assert cli.quick("logs", "latest", "talk", "--at", str(ended)).out == "early\nlate\n"
    assert cli.quick("logs", "latest", "talk", "--at", str(started - 1)).out == ""


def test_a_rollback_to_where_a_run_stands_already_changes_nothing_and_says_so(cli: Scratch) -> None:
    """Also where events lie between that change nothing, such as an earlier rollback to the same place."""
    versioned(cli, {"readme": "one\n"})
    cli.quick("run", cli.plan(shell("one", "echo 1 > one"), shell("two", "echo 2 > two", "one")))
    cli.quick("rollback", "--to", "before two", "--yes")
    before = cli.event_count()
    stood = next(one["data"]["to_seq"] for one in cli.events() if one["type"] == "RunRolledBack")
    for to in (str(stood), str(before - 1), "now"):
        for more in ("--yes", "--dry-run"):
            assert "changes nothing" in cli.quick("rollback", "--to", to, more, code=2).err
    assert cli.event_count() == before


def test_an_archived_run_is_forked_at_an_event_in_its_middle(past: Past) -> None:
    """Its plan, its queue and its files are those of that moment, and the fork goes on from there."""
    cli, run = past.cli, past.run
    at = past.seq("TaskStarted", "two")
    then = cli.quick("status", run, "--json", "--at", str(at)).data
    queue = cli.quick("queue", run, "--json", "--at", str(at - 1)).data
    files = cli.quick("files", run, "--json", "--at", str(at)).data["files"]
    assert cli.quick("archive", run, "--json").data["archived"][0]["run_id"] == run
    assert cli.quick("status", run, "--json", "--at", str(at)).data == then
    assert cli.quick("queue", run, "--json", "--at", str(at - 1)).data == queue
    fork = cli.quick("fork", run, "--at", str(at), "--json").data["run_id"]
    found = cli.quick("status", fork, "--json").data
    assert {task["task_id"]: (task["status"], task["output"]) for task in found["tasks"]} == {
        "one": ("completed", then["tasks"][0]["output"]), "two": ("queued", None), "last": ("pending", None),
    }  # fmt: skip
    assert [line["task_id"] for line in cli.quick("queue", fork, "--json").data] == ["two"]
    assert cli.quick("files", fork, "--json").data["files"] == files
    assert cli.quick("show", fork, "last", "--json").data["command"] == ["sh", "-c", "echo 3 > late"]
    cli.quick("resume", fork)
    assert cli.quick("status", fork, "--json").data["status"] == "completed"
    assert {"made", "late"} <= {file["path"] for file in cli.quick("files", fork, "--json").data["files"]}
    assert cli.quick("verify").code == 0


def test_files_that_are_gone_are_missed_by_name(cli: Scratch, tmp_path: Path) -> None:
    """Neither listed, laid out nor gone on from; nothing is appended, and no folder is made."""
    versioned(cli, {"readme": "one\n"})
    cli("run", cli.plan(shell("one", "echo 1 > one"), shell("two", "echo 2 > two", "one"), workspace="worktree"))
    at = next(one["seq"] for one in cli.events() if one["type"] == "TaskCompleted")
    commit = cli.quick("diff", str(at), "now", "--json").data["a"]["commit"]
    for ref in git(
        cli, "for-each-ref", "--format=%(refname)", "refs/parallel-agents", "refs/heads/parallel-agents"
    ).split():
        git(cli, "update-ref", "-d", ref)
    git(cli, "prune", "--expire=now")
    before = cli.event_count()
    for words in (("files",), ("files", "--out", str(tmp_path / "out")), ("fork",)):
        said = cli.quick(*words, "--at", str(at), code=2)
        assert commit[:12] in said.err
        assert "verify --deep" in said.err
    assert (cli.event_count(), (tmp_path / "out").exists()) == (before, False)
