"""The verbs approve, conflicts and resolve: what waits for a person, told with the way out, and settled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from scratch import Scratch, in_state, shell, until_file
from terminal import quickly_on_terminal
from versioned import belongings, git, versioned

KINDS = {
    "added": "add/add", "binary": "binary", "content": "content", "gone": "modify/delete", "mode": "distinct types",
    "moved": "rename/rename", "moved-one": "rename/rename", "moved-two": "rename/rename", "naïve name": "add/add",
    "tool": "add/add",
}  # fmt: skip
START = {
    "content": "1\n2\n3\n", "gone": "x\n", "moved": "a\nb\nc\nd\ne\nf\n", "binary": b"a\0b", "mode": "m\n", "keep": "k\n",
}  # fmt: skip
ONE = """printf '1\\nONE\\n3\\n' > content; echo one > added; rm gone; mv moved moved-one; printf 'a\\0one' > binary
rm mode; ln -s content mode; echo same > tool; chmod +x tool; echo one > 'naïve name'; echo one > of-one"""
TWO = """printf '1\\nTWO\\n3\\n' > content; echo two > added; echo more >> gone; mv moved moved-two
printf 'a\\0two' > binary; echo changed > mode; echo same > tool; echo two > 'naïve name'; echo two > of-two"""


def clashing(cli: Scratch, first: str, second: str, *more: dict[str, Any], **head: Any) -> str:
    """A plan of two tasks that do not merge: the second one ends once the first one is merged, and has not seen its work."""
    (cli.root / "flags").mkdir(exist_ok=True)
    late = f"{second}; until git rev-parse -q --verify refs/heads/parallel-agents/$PARALLEL_AGENTS_RUN >/dev/null &&"
    late += " [ $(git rev-list --count $PARALLEL_AGENTS_BASE..parallel-agents/$PARALLEL_AGENTS_RUN) -gt 0 ]"
    late += "; do sleep 0.02; done"
    return cli.plan(shell("one", first), shell("two", late), *more, **head)


def run_id_of(cli: Scratch) -> str:
    """The latest run."""
    return str(cli.quick("runs", "--json").data[-1]["run_id"])


def tree(cli: Scratch, commit: str) -> dict[str, str]:
    """Mode and object of every path of a commit."""
    lines = git(cli, "-c", "core.quotePath=false", "ls-tree", "-r", commit).splitlines()
    return {path: about for about, path in (line.split("\t") for line in lines)}


@pytest.fixture(scope="module")
def story(make_project: Callable[[str], Scratch]) -> tuple[Scratch, str, dict[str, bytes]]:
    """A run that waits because of every kind of conflict at once, and what was the user's before it."""
    cli = versioned(make_project("kinds"), START)
    plan = clashing(cli, ONE, TWO, shell("heir", "cat content added > heard", "two"))
    before = belongings(cli)
    said = cli.quick("run", plan, code=5)
    run = run_id_of(cli)
    assert f"parallel-agents resolve {run} two --take SIDE" in said.out
    assert f"parallel-agents conflicts {run} --show" in said.out
    assert "⚠️ Conflict detected: added, binary" in said.err
    return cli, run, before


def test_every_kind_of_conflict_is_told_with_both_sides(story: tuple[Scratch, str, Any]) -> None:
    """The loser is not completed; whose work it is, what each side has, and how to settle it stand there."""
    cli, run, before = story
    (one,) = cli.quick("conflicts", run, "--show", "--json").data
    assert {path["path"]: path["kind"] for path in one["paths"]} == KINDS
    assert (one["task_id"], one["other_task_id"], one["status"]) == ("two", "one", "waiting")
    sides = {path["path"]: path for path in one["paths"]}
    assert sides["content"]["hunks"] == "1\n<<<<<<< ours\nONE\n=======\nTWO\n>>>>>>> theirs\n3\n"
    assert (sides["gone"]["ours"], sides["mode"]["ours"]["mode"]) == (None, "120000")
    assert git(cli, "cat-file", "-p", sides["binary"]["theirs"]["blob"]) == "a\0two"
    assert "+ONE" in git(cli, *one["show"]["ours"].split()[1:])
    assert "+TWO" in git(cli, *one["show"]["theirs"].split()[1:])
    found = cli.quick("status", run, "--json").data
    assert (in_state(found, "blocked"), in_state(found, "completed"), found["status"]) == ({"two"}, {"one"}, "paused")
    assert belongings(cli) == before


def test_conflicts_are_drawn_side_by_side_on_a_terminal_and_with_marks_elsewhere(
    story: tuple[Scratch, str, Any],
) -> None:
    """With the commands that settle them below."""
    cli, run, _ = story
    shown = quickly_on_terminal(cli, "conflicts", run, "--show", size=(80, 200)).screen.lines
    assert any(line.startswith("ONE ") and line.endswith("│ TWO") for line in shown)
    plain = cli.quick("conflicts", run, "--show").out
    assert "<<<<<<< ours\nONE\n=======\nTWO\n>>>>>>> theirs\n" in plain
    for words in ("ours: not there", "theirs: file, git cat-file -p ", "ours: executable file", "ours: link"):
        assert words in plain
    assert f"  parallel-agents resolve {run} two --take ours\n" in plain
    assert "--take both" not in plain


def test_where_a_task_waits_every_look_names_the_command_that_settles_it(story: tuple[Scratch, str, Any]) -> None:
    """For people and for scripts."""
    cli, run, _ = story
    command = f"parallel-agents resolve {run} two --take SIDE"
    for words in (("status", run), ("show", run, "two"), ("why", run, "two")):
        assert command in cli.quick(*words).out
    assert cli.quick("show", run, "two", "--json").data["settle"] == command
    assert cli.quick("show", run, "one", "--json").data["settle"] is None
    assert f"`{command}`" in cli.quick("approve", run, "two", code=2).err
    assert f"`{command}`" in cli.quick("merge", run, code=2).err
    assert "ConflictDetected" in cli.quick("history", run).out


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_each_side_can_be_taken_of_every_kind(story: tuple[Scratch, str, Any], side: str) -> None:
    """Whole, with its mode; what did not clash is of both. A fork takes the conflict along."""
    cli, run, before = story
    fork = cli.quick("fork", run).out.strip()
    (one,) = cli.quick("conflicts", fork, "--json").data
    assert (one["run_id"], one["status"]) == (fork, "waiting")
    done = cli.quick("resolve", fork, "two", "--take", side, "--json").data
    assert (done["status"], done["run_status"], done["how"]) == ("completed", "paused", side)  # As every fork is.
    merged, taken = tree(cli, done["commit"]), tree(cli, one["onto"] if side == "ours" else one["commit"])
    assert {path: merged.get(path) for path in KINDS} == {path: taken.get(path) for path in KINDS}
    assert {"keep", "of-one", "of-two"} <= set(merged)
    assert cli.quick("conflicts", fork, "--json").data == []
    assert git(cli, "rev-parse", f"parallel-agents/{fork}") == done["commit"]
    assert cli.quick("conflicts", run, "--json").data[0]["status"] == "waiting"
    assert belongings(cli) == before


def test_files_settle_what_no_side_has(story: tuple[Scratch, str, Any]) -> None:
    """Each path by its own answer, and the run goes on to its end on the result."""
    cli, run, _ = story
    fork = cli.quick("fork", run).out.strip()
    assert "binary cannot be taken from both sides" in cli.quick("resolve", fork, "two", "--take", "both", code=2).err
    cli.write("flags/mine", "1\nONE and TWO\n3\n")
    cli.write("flags/bytes", b"\0\1")
    cli.write("flags/marked", "<<<<<<< ours\n")
    files = ["--file", "content=flags/mine", "--file", "binary=flags/bytes", "--file", "mode=flags/mine"]
    assert "still in conflict: added, gone, moved" in cli.quick("resolve", fork, "two", *files, code=2).err
    assert "still holds marks" in cli.quick("resolve", fork, "two", "--file", "content=flags/marked", code=2).err
    gone = [word for path in ("gone", "moved", "moved-one") for word in ("--remove", path)]
    twice = ["--take", "both", "--file", "moved-two=flags/mine"]
    said = cli.quick("resolve", fork, "two", *files, *gone, *twice)
    assert f"the conflict of task two of run {fork} is resolved by hand" in said.out
    assert f"run {fork} is paused; `parallel-agents resume {fork}` goes on" in said.err
    assert "completed: 3/3" in cli.quick("resume", fork).out
    assert git(cli, "show", f"parallel-agents/{fork}:heard") == "1\nONE and TWO\n3\none\ntwo"
    assert not {"gone", "moved", "moved-one"} & set(tree(cli, f"parallel-agents/{fork}"))
    assert tree(cli, f"parallel-agents/{fork}")["tool"].startswith("100755")


def test_wrong_answers_are_refused_with_the_right_ones(story: tuple[Scratch, str, Any]) -> None:
    """Nothing is decided by them."""
    cli, run, _ = story
    count = cli.event_count()
    cli.write("flags/mine", "mine\n")
    for words, message, hint in (
        ((), "nothing says how to resolve it", "take ours, theirs or both"),
        (("--take", "mine"), "there is no file 'mine'", "ours, theirs, both, or a file"),
        (("--take", "flags/mine"), "10 paths of task two are in conflict", "--file PATH=FILE"),
        (("--file", "contents=flags/mine"), "'contents' is no path of the merge", "did you mean 'content'?"),
        (("--file", "content"), "is not PATH=FILE", "--remove PATH"),
        (("--edit", "--take", "ours"), "--edit goes with no other way", "leave one of them out"),
        (("--edit",), "neither VISUAL nor EDITOR is set", "--take or --file"),
    ):
        complaint = cli.quick("resolve", run, "two", *words, "--json", code=2).complaint
        assert message in complaint["message"]
        assert hint in complaint["hint"]
    assert (
        "does not wait for a person: it is completed" in cli.quick("resolve", run, "one", "--take", "ours", code=2).err
    )
    assert "an editor needs a terminal" in cli.quick("resolve", run, "two", "--edit", code=2, env={"EDITOR": "vi"}).err
    cli.quick("resolve", run, "nobody", "--take", "ours", code=3)
    assert cli.event_count() == count


def test_an_editor_settles_it_on_a_terminal(story: tuple[Scratch, str, Any]) -> None:
    """In a checkout of the whole merge; what is left unfinished there is gone on with."""
    cli, run, before = story
    fork = cli.quick("fork", run).out.strip()
    editor = cli.write(
        "flags/editor", '#!/bin/sh\nsed -i "/^[<=>]\\{7\\}/d" added content "naïve name"\necho "$#" > edited\n'
    )
    editor.chmod(0o755)
    shown = quickly_on_terminal(cli, "resolve", fork, "two", "--edit", env={"VISUAL": str(editor), "EDITOR": "false"})
    assert shown.code == 2
    assert "still in conflict: mode~" in " ".join(shown.screen.lines)
    editor.write_text("#!/bin/sh\nrm -f *~* mode; cat edited > mode\n")
    shown = quickly_on_terminal(cli, "resolve", fork, "two", "--edit", env={"EDITOR": str(editor)})
    assert shown.code == 0, shown.raw
    branch = f"parallel-agents/{fork}"
    assert git(cli, "show", f"{branch}:content") == "1\nONE\nTWO\n3"
    assert int(git(cli, "show", f"{branch}:mode")) >= 7
    assert cli.quick("history", fork, "--type", "ConflictResolved", "--json").lines[-1]["data"]["how"] == "files"
    assert belongings(cli) == before


def test_a_conflict_over_one_line_is_settled_by_one_word(cli: Scratch) -> None:
    """Both, or a file; what depends on it sees the result, and the user's tree stays as it was."""
    versioned(cli, {"f": "start\n"})
    plan = clashing(cli, "echo one > f", "echo two > f", shell("heir", "cat f > heard", "two"))
    before = belongings(cli)
    run = cli.quick("run", plan, "--json", code=5).data["run_id"]
    fork = cli.quick("fork", run).out.strip()
    cli.write("flags/mine", "mine\n")
    cli.quick("resolve", fork, "two", "--take", "flags/mine")
    assert git(cli, "show", f"parallel-agents/{fork}:f") == "mine"
    cli.quick("resolve", "two", "--take", "both", code=2)  # The latest run is the fork.
    said = cli.quick("resolve", run, "two", "--take", "both")
    assert f"no process dispatches run {run}; `parallel-agents resume {run}` does" in said.err
    assert cli.quick("resume", run, "--json").data["status"] == "completed"
    assert git(cli, "show", f"parallel-agents/{run}:heard") == "one\ntwo"
    assert belongings(cli) == before


def test_who_dispatches_goes_on_at_once_when_the_conflict_is_settled(cli: Scratch) -> None:
    """The pause was for it; what ran meanwhile has gone on, and is in the result."""
    versioned(cli, {"f": "start\n"})
    flag = cli.root / "flags" / "go"
    slow = shell("slow", f"{until_file(str(flag))}; echo slow > slow")
    plan = clashing(
        cli, "echo one > f", "echo two > f", slow, shell("heir", "cat f > heard", "two"), max_parallel_agents=3
    )
    process = cli.begin("run", plan, "--json")
    cli.until(lambda found: in_state(found, "blocked") == {"two"}, "the conflict")
    said = cli.quick("resolve", "two", "--take", "theirs")
    assert "goes on" in said.err
    cli.until(lambda found: "heir" in in_state(found, "completed"), "the heir to be completed")
    flag.write_text("")
    done = cli.said_by(process)
    assert (done.code, done.data["status"]) == (0, "completed")
    run = done.data["run_id"]
    assert git(cli, "show", f"parallel-agents/{run}:heard") == "two"
    assert git(cli, "show", f"parallel-agents/{run}:slow") == "slow"


def test_nothing_starts_and_nothing_is_merged_before_it_is_approved(cli: Scratch) -> None:
    """An approval may name the work that was looked at, and is for that alone."""
    versioned(cli, {"f": "start\n"})
    plan = cli.plan(
        shell("start", "echo started > started", approval="required"),
        shell("result", "echo result > f", approval="result"), shell("heir", "cat f started > heard", "start", "result"),
    )  # fmt: skip
    said = cli.quick("run", plan, code=5)
    run = run_id_of(cli)
    for name in ("start", "result"):
        assert f"settle: parallel-agents approve {run} {name}" in said.out
    shown = cli.quick("show", run, "result", "--json").data
    assert (shown["status"], shown["reason"]) == ("blocked", "approval of its result")
    assert "+result" in git(cli, *shown["look"].split()[1:])
    assert git(cli, "show", f"parallel-agents/{run}:f") == "start"
    head = git(cli, "rev-parse", "HEAD")
    assert "the work of task 'result' is" in cli.quick("approve", run, "result", "--commit", head, code=2).err
    assert "has done nothing yet" in cli.quick("approve", run, "start", "--commit", head, code=2).err
    assert (
        "still waiting for a person: start" in cli.quick("approve", run, "result", "--commit", shown["work_commit"]).err
    )
    assert git(cli, "show", f"parallel-agents/{run}:f") == "result"
    done = cli.quick("approve", run, "start", "--json").data
    assert (done["approved"], done["status"], done["waiting"], done["dispatched"]) == ("start", "pending", [], False)
    assert cli.quick("resume", run, "--json").data["status"] == "completed"
    assert git(cli, "show", f"parallel-agents/{run}:heard") == "result\nstarted"


def test_approved_work_that_does_not_merge_is_a_conflict_like_any_other(cli: Scratch) -> None:
    """Nothing of it is merged by the approval."""
    versioned(cli, {"f": "start\n"})
    cli.quick("run", cli.plan(shell("one", "echo one > f"), shell("two", "echo two > f", approval="result")), code=5)
    said = cli.quick("approve", "two")
    assert "and now waits because of a conflict: f" in said.out
    assert [one["status"] for one in cli.quick("conflicts", "--json").data] == ["waiting"]
    cli.quick("resolve", "two", "--take", "both")
    assert cli.quick("resume", "--json").data["status"] == "completed"


def test_a_resolution_that_does_not_pass_the_gates_needs_a_second_word(cli: Scratch) -> None:
    """What a gate says of it is shown, kept, and asked about; to leave gates out is said by name."""
    versioned(cli, {"f": "1\n"})
    gate = {"command": ["sh", "-c", "test $(wc -l <f) = 1 || { echo two lines; exit 4; }"], "after": "task"}
    gates = f"qualityGates.commands={json.dumps([gate])}"
    cli.quick("run", clashing(cli, "echo one > f", "echo two > f"), "--set", gates, code=5)
    run = run_id_of(cli)
    refused = cli.quick("resolve", run, "two", "--take", "both", code=2)
    assert "gate: sh -c" in refused.err
    assert "does not pass on the merge" in refused.err
    assert ": two lines" in refused.err
    told = [one["data"]["passed"] for one in cli.events(run) if one["type"] == "GateChecked"]
    assert told == [True, True, False]
    assert in_state(cli.quick("status", run, "--json").data, "blocked") == {"two"}
    cli.quick("resolve", run, "two", "--take", "both", "--no-gates")
    cli.quick("resume", run)
    assert git(cli, "show", f"parallel-agents/{run}:f") == "one\ntwo"


def test_without_conflicts_it_says_so(cli: Scratch) -> None:
    """Before there is a store, too."""
    assert cli.quick("conflicts").err == "no conflicts\n"
    assert cli.quick("conflicts", "--json").data == []
