"""The verbs checkpoints and checkpoint: what is kept can be looked at, compared and had again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scratch import Scratch, shell, until_file
from terminal import quickly_on_terminal
from versioned import git, versioned

SHAPE = {"checkpoint_id", "seq", "kind", "label", "commit", "at"}  # What scripts rely on.


@pytest.fixture
def repo(cli: Scratch) -> Scratch:
    """The command line in a git repository."""
    return versioned(cli, {"readme": "one\n"})


@pytest.fixture(scope="module")
def story(make_project: Callable[[str], Scratch]) -> Scratch:
    """A checkpoint by hand, a run of one task, and another one by hand."""
    cli = versioned(make_project("story"), {"readme": "one\n"})
    cli.quick("checkpoint", "create", "the start", "--description", "nothing is done yet")
    tasks = [shell("build", "echo built > made; echo more >> readme", agent_type="backend-engineer")]
    cli.quick("run", cli.plan(*tasks, workspace="worktree", name="feature"))
    cli.write("readme", "two\n")
    cli.write("new file", "new\n")
    cli.quick("checkpoint", "create", "Bug fix of the readme")
    return cli


def test_the_checkpoints_of_a_run_and_those_made_by_hand_are_listed(story: Scratch) -> None:
    """Oldest first; of a run alone where one is named, and as they were at a moment of the past."""
    found = story.quick("checkpoints", "--json").data
    assert all(set(one) >= SHAPE for one in found)
    assert [one["kind"] for one in found] == [
        "manual", "before_run", "before_attempt", "after_attempt", "after_run", "manual",
    ]  # fmt: skip
    assert [one["seq"] for one in found] == sorted(one["seq"] for one in found)
    assert (found[3]["task_id"], found[3]["changed"], found[3]["undone"]) == ("build", 2, False)
    assert all(git(story, "cat-file", "-t", one["commit"]) == "commit" for one in found)
    assert story.quick("checkpoints", "--all", "--json").data == found
    assert story.quick("checkpoints", "latest", "--json").data == found[1:-1]
    assert story.quick("checkpoints", found[1]["run_id"][:4], "--json").data == found[1:-1]
    assert story.quick("checkpoints", "store", "--json").data == [found[0], found[-1]]
    assert story.quick("checkpoints", "--at", str(found[0]["seq"]), "--json").data == found[:1]
    assert story.quick("checkpoints", "nonsense", "--json", code=3).complaint["code"] == "unknown_run"
    assert "exclude each other" in story.quick("checkpoints", "latest", "--all", code=2).err


def test_the_list_is_drawn_as_a_table(story: Scratch) -> None:
    """A line each, on a narrow terminal too."""
    lines = story.quick("checkpoints").out.splitlines()
    assert lines[0].split() == ["CHECKPOINT", "SEQ", "TIME", "KIND", "RUN", "TASK", "CHANGED", "WHAT"]
    assert re.search(r"^\S{10} +1 .* manual +by hand .* the start$", lines[1])
    assert len(lines) == 7
    narrow = quickly_on_terminal(story, "checkpoints", size=(60, 20))
    assert narrow.code == 0


def test_a_project_without_checkpoints_says_how_to_make_one(repo: Scratch) -> None:
    """And has an empty list."""
    assert repo.quick("checkpoints", "--json").data == []
    assert "checkpoint create" in repo.quick("checkpoints").err
    assert not repo.store.exists()
    assert repo.quick("checkpoint", "show", "anything", "--json", code=3).complaint["hint"]


def test_what_a_checkpoint_holds_can_be_shown(story: Scratch) -> None:
    """By label, id, beginning of an id, number or words; words are said back on stderr."""
    found = story.quick("checkpoints", "--json").data
    last = found[-1]
    by_label = story.quick("checkpoint", "show", "bug fix of the readme", "--json")
    assert by_label.err == ""
    seen = by_label.data
    assert (seen["checkpoint_id"], seen["files_count"], seen["branch"]) == (last["checkpoint_id"], 3, "main")
    assert [(file["path"], file["mode"], file["size"]) for file in seen["files"]] == [
        (".gitignore", "100644", 20), ("new file", "100644", 4), ("readme", "100644", 4),
    ]  # fmt: skip
    assert seen["changed_files"] == [{"path": "new file", "status": "A"}, {"path": "readme", "status": "M"}]
    assert seen["total_size_bytes"] == 28
    for name in (last["checkpoint_id"], last["checkpoint_id"][:6], str(last["seq"])):
        assert story.quick("checkpoint", "show", name, "--json").data == seen
    by_words = story.quick("checkpoint", "show", "before the bug fix", "--json")
    assert by_words.data["checkpoint_id"] == found[0]["checkpoint_id"]
    assert by_words.err.startswith("understood as the one before the checkpoint that fits 'bug fix'")
    of_agent = story.quick("checkpoint", "show", "last backend-engineer checkpoint", "--json").data
    assert (of_agent["checkpoint_id"], of_agent["agent_type"]) == (found[3]["checkpoint_id"], "backend-engineer")
    assert {change["path"] for change in of_agent["changed_files"]} == {"made", "readme"}
    page = story.quick("checkpoint", "show", last["checkpoint_id"]).out
    assert "Bug fix of the readme" in page
    assert re.search(r"^A +4 B +new file$", page, re.MULTILINE)


def test_a_checkpoint_is_looked_for_in_one_run_or_up_to_a_moment(story: Scratch) -> None:
    """Where the whole store would give another one."""
    found = story.quick("checkpoints", "--json").data
    assert story.quick("checkpoint", "show", "1 step", "--json").data["checkpoint_id"] == found[-1]["checkpoint_id"]
    of_run = story.quick("checkpoint", "show", "1 step", "--run", "latest", "--json").data
    assert of_run["checkpoint_id"] == found[4]["checkpoint_id"]
    then = story.quick("checkpoint", "show", "1 step", "--at", str(found[3]["seq"]), "--json").data
    assert then["checkpoint_id"] == found[3]["checkpoint_id"]
    assert "no checkpoint" in story.quick("checkpoint", "show", "bug fix", "--run", "latest", code=3).err


def test_two_checkpoints_are_compared_or_one_with_the_files_there_are(story: Scratch) -> None:
    """As a patch that git takes."""
    between = story.quick("checkpoint", "diff", "the start", "bug fix of the readme").out
    assert "-one\n+two\n" in between
    assert "new file mode 100644" in between
    assert story.quick("checkpoint", "diff", "bug fix of the readme").out == ""
    as_json = story.quick("checkpoint", "diff", "the start", "--json").data
    assert (as_json["patch"], as_json["same"], as_json["to"]) == (between, False, None)
    backwards = story.quick("checkpoint", "diff", "bug fix of the readme", "after build").out
    assert "+one\n+more\n" in backwards


def test_words_that_fit_two_are_refused_with_both(repo: Scratch) -> None:
    """Exit code 2, and how to say it."""
    repo.quick("checkpoint", "create", "docs of the api")
    repo.quick("checkpoint", "create", "docs of the cli")
    said = repo.quick("checkpoint", "show", "docs", "--json", code=2).complaint
    assert said["code"] == "ambiguous"
    assert '"docs of the api"' in said["message"]
    assert '"docs of the cli"' in said["message"]
    assert repo.quick("checkpoint", "show", "last docs", "--json").data["label"] == "docs of the cli"


def test_files_are_restored_into_a_new_folder(story: Scratch, tmp_path: Path) -> None:
    """One beside the store where none is named; never into one that holds something."""
    before = (story.root / "readme").read_text()
    said = story.quick("checkpoint", "restore", "the start")
    folder = Path(said.out.strip())
    assert folder.parent == story.store.parent / "restored"
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "readme"]
    assert (folder / "readme").read_text() == "one\n"
    assert "is not empty" in story.quick("checkpoint", "restore", "the start", code=2).err
    data = story.quick("checkpoint", "restore", "after build", "--into", str(tmp_path / "there"), "--json").data
    assert (data["folder"], data["in_place"], data["files"], data["before"]) == (
        str(tmp_path / "there"),
        False,
        3,
        None,
    )
    assert (tmp_path / "there" / "made").read_text() == "built\n"
    assert (story.root / "readme").read_text() == before
    restored = [
        event for event in story.quick("history", "--all", "--json").lines if event["type"] == "CheckpointRestored"
    ]
    assert [event["data"]["into"] for event in restored] == [str(folder), str(tmp_path / "there")]


def test_in_place_nothing_is_replaced_before_it_is_kept_and_agreed_to(repo: Scratch) -> None:
    """Where nobody can be asked, --yes has to be said; what was there is a checkpoint afterwards."""
    repo.quick("checkpoint", "create", "start")
    repo.write("readme", "two\n")
    repo.write("untracked", "x\n")
    refused = repo.quick("checkpoint", "restore", "start", "--in-place", code=2)
    assert "--yes" in refused.err
    no = quickly_on_terminal(
        repo, "checkpoint", "restore", "start", "--in-place", typing=lambda shown: b"n\n" if "[y/N]" in shown else b""
    )
    assert (no.code, "removed  untracked" in no.raw, "changed  readme" in no.raw) == (130, True, True)
    assert (repo.root / "readme").read_text() == "two\n"
    assert len(repo.quick("checkpoints", "--json").data) == 1
    data = repo.quick("checkpoint", "restore", "start", "--in-place", "--yes", "--json").data
    assert (data["in_place"], data["files"], data["folder"]) == (True, 2, str(repo.root))
    assert (repo.root / "readme").read_text() == "one\n"
    assert not (repo.root / "untracked").exists()
    assert git(repo, "status", "--porcelain") == ""
    found = repo.quick("checkpoints", "--json").data
    assert [(one["kind"], one["undone"]) for one in found] == [("manual", False), ("before_restore", True)]
    assert "(undone)" in repo.quick("checkpoints").out
    repo.quick("checkpoint", "restore", data["before"], "--in-place", "--yes")
    assert (repo.root / "untracked").read_text() == "x\n"
    assert "exclude each other" in repo.quick("checkpoint", "restore", "start", "--in-place", "--into", "x", code=2).err


def test_in_place_ignored_files_are_left_alone(repo: Scratch) -> None:
    """Those in the way are named, and nothing is changed."""
    repo.write("out/result", "kept\n")
    repo.quick("checkpoint", "create", "with a result")
    repo.write(".gitignore", "home/\n*.log\n*.json\nout/\n")
    repo.write("out/result", "precious\n")
    before = repo.event_count()
    said = repo.quick("checkpoint", "restore", "with a result", "--in-place", "--yes", "--json", code=2).complaint
    assert (said["code"], "out/result" in said["message"], "--into" in said["hint"]) == ("in_the_way", True, True)
    assert (repo.root / "out/result").read_text() == "precious\n"
    assert repo.event_count() == before


def test_in_place_running_attempts_of_the_directory_are_not_disturbed(repo: Scratch) -> None:
    """Until they have ended."""
    repo.write(".gitignore", "home/\n*.json\ngo\n")
    repo.quick("checkpoint", "create", "start")
    process = repo.begin("run", repo.plan(shell("worker", until_file("go")), workspace="shared"), "--json")
    repo.until_running("worker")
    said = repo.quick("checkpoint", "restore", "start", "--in-place", "--yes", "--json", code=2).complaint
    assert (said["code"], "/worker" in said["message"]) == ("in_use", True)
    repo.write("go", "")
    assert repo.said_by(process).code == 0
    repo.quick("checkpoint", "restore", "start", "--in-place", "--yes")


def test_a_checkpoint_of_a_run_keeps_what_the_run_has_merged(repo: Scratch) -> None:
    """Its number stands in the run's own history; a run whose files are not versioned has none."""
    repo.quick("run", repo.plan(shell("build", "echo built > made"), workspace="worktree"))
    repo.write("readme", "of the user\n")
    made = repo.quick("checkpoint", "create", "by hand", "--run", "latest", "--json").data
    assert (made["kind"], made["label"]) == ("manual", "by hand")
    assert repo.quick("history", "--json").lines[-1]["seq"] == made["seq"]
    assert git(repo, "rev-parse", f"refs/parallel-agents/{made['run_id']}/{made['checkpoint_id']}") == made["commit"]
    assert git(repo, "show", f"{made['commit']}:made") == "built"
    assert git(repo, "show", f"{made['commit']}:readme") == "one"
    repo.quick("run", repo.plan(shell("quick", "true"), workspace="none"))
    assert "not versioned" in repo.quick("checkpoint", "create", "--run", "latest", code=2).err
    assert repo.quick("checkpoint", "create", "--run", "nonsense", "--json", code=3).complaint["code"] == "unknown_run"


def test_a_checkpoint_of_a_shared_run_keeps_the_directory_as_it_is(repo: Scratch) -> None:
    """Changes of the user's among them."""
    repo.quick("run", repo.plan(shell("build", "echo built > made"), workspace="shared"))
    repo.write("readme", "of the user\n")
    made = repo.quick("checkpoint", "create", "--run", "latest", "--json").data
    assert git(repo, "show", f"{made['commit']}:made") == "built"
    assert git(repo, "show", f"{made['commit']}:readme") == "of the user"


def test_other_words_lead_to_these_verbs(repo: Scratch) -> None:
    """As people who know other tools write them."""
    assert "'checkpoints'" in repo.quick("snapshots", code=2).err
    assert "`checkpoint restore`" in repo.quick("restore", "one", code=2).err
    assert repo.quick("checkpoint", code=2).err.startswith("Usage: parallel-agents checkpoint")
