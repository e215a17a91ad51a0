"""Gates on what a person lets be merged: they see the merge, their word counts, and nothing of them stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gitrepos import belongings
from handmade import HandmadeRun, Make, commit_of
from paper import task
from waiting import wait_until

from parallel_agents import gates_here, settling
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed, StaleRun
from parallel_agents.eventstore.submission import Gate
from parallel_agents.scheduler.work import Gated

# Passes where a file holds one line only: what a merge of two lines does not, that each side by itself does.
ONE_LINE = Gate(
    command=("sh", "-c", 'echo "$PARALLEL_AGENTS_TASK: $(wc -l <f) lines"; test $(wc -l <f) = 1'), after="task"
)
NEVER_BOTH = Gate(command=("sh", "-c", "! { test -e a && test -e b; } || { echo both; exit 3; }"), after="task")


def awaiting(make: Make, **more: Any) -> HandmadeRun:
    """Work of a that waits for an approval, and work of b that was merged since."""
    run = make(task("a", approval="result"), task("b"), gates=(NEVER_BOTH,), **more)
    run.start("a", "b")
    run.end("a", {"a": "a\n"})
    run.end("b", {"b": "b\n"})
    return run


def checked(run: HandmadeRun) -> list[tuple[str, bool, int | None, str]]:
    """The gates that the log tells of."""
    return [
        (one.event.scope, one.event.passed, one.event.exit_code, one.event.output)
        for one in run.log.read()
        if isinstance(one.event, ev.GateChecked)
    ]


def test_approved_work_that_does_not_pass_on_the_merge_is_a_conflict(make: Make) -> None:
    """Textually clean, and not what both meant; a person may merge it all the same."""
    run = awaiting(make)
    before, said = belongings(run.repository), list[str]()
    done = settling.approve(run.log, run.run_id, "a", say=said.append)
    assert (done["status"], done["reason"].startswith("conflict: sh -c")) == ("blocked", True)
    assert checked(run) == [("merge", False, 3, "both\n")]
    assert said == [f"gate: {' '.join(NEVER_BOTH.command)}"]
    assert belongings(run.repository) == before
    done = settling.resolve(run.log, run.run_id, "a", "both")
    assert (done["status"], run.read("a"), run.read("b")) == ("completed", "a\n", "b\n")
    assert len(checked(run)) == 1, "the person has said that it does not matter"


def test_approved_work_that_passes_is_merged_and_the_log_says_so(make: Make) -> None:
    """Nothing of the checkout stays."""
    run = make(task("a", approval="result"), task("b"), gates=(ONE_LINE,))
    run.start("a", "b")
    run.end("a", {"a": "a\n"})
    run.end("b", {"b": "b\n"})
    assert settling.approve(run.log, run.run_id, "a")["status"] == "completed"
    assert [(scope, passed, output.strip()) for scope, passed, _, output in checked(run)] == [
        ("merge", True, "a: 1 lines")
    ]
    assert not list((run.project.store.parent / "worktrees").glob("*/*"))


def test_work_that_needs_no_merge_is_not_checked_twice(make: Make) -> None:
    """The gates after its task have seen the very same commit."""
    run = make(task("a", approval="result"), gates=(NEVER_BOTH,))
    run.start("a")
    run.end("a", {"a": "a\n"})
    assert settling.approve(run.log, run.run_id, "a")["status"] == "completed"
    assert checked(run) == []


def test_gates_that_decide_nothing_are_told_of_all_the_same(make: Make) -> None:
    """With ``fail_on_gates`` off."""
    run = awaiting(make, fail_on_gates=False)
    assert settling.approve(run.log, run.run_id, "a")["status"] == "completed"
    assert checked(run) == [("merge", False, 3, "both\n")]


def test_a_resolution_that_does_not_pass_is_refused_until_it_is_said_that_it_may(make: Make) -> None:
    """Its output is named, the task waits on, and nothing is merged."""
    run = make(gates=(ONE_LINE,))
    run.start("a", "b")
    run.end("a", {"f": "A\n"})
    run.end("b", {"f": "B\n"}, other="a")
    line = run.state.integration
    with pytest.raises(NotAllowed, match=r"does not pass on the merge .*: b: 2 lines") as refused:
        settling.resolve(run.log, run.run_id, "b", "both")
    assert "--no-gates" in refused.value.hint
    assert (run.state.tasks["b"].status, run.state.integration) == ("blocked", line)
    assert [passed for _, passed, _, _ in checked(run)] == [False]
    done = settling.resolve(run.log, run.run_id, "b", "theirs")
    assert (done["status"], run.read("f")) == ("completed", "B\n")
    assert [passed for _, passed, _, _ in checked(run)] == [False, True]


def test_gates_may_be_left_out(make: Make) -> None:
    """As a person knows best."""
    run = make(gates=(ONE_LINE,))
    run.start("a", "b")
    run.end("a", {"f": "A\n"})
    run.end("b", {"f": "B\n"}, other="a")
    assert settling.resolve(run.log, run.run_id, "b", "both", gates=False)["status"] == "completed"
    assert checked(run) == []


def test_mended_files_are_checked_where_a_gate_was_the_conflict(make: Make) -> None:
    """To say that a file is mended is not to say that the gate does not matter."""
    run = make(gates=(ONE_LINE,))
    run.start("a", "b")
    run.end("a", {"f": "A\n"})
    failed = Gated("merge", " ".join(ONE_LINE.command), 1, 0.1, "b: 2 lines\n")
    run.end("b", {"new": "b\n"}, other="a", gates=(failed,))
    with pytest.raises(NotAllowed, match="does not pass"):
        settling.resolve(run.log, run.run_id, "b", files={"f": b"not\nmended\n"})
    assert settling.resolve(run.log, run.run_id, "b", files={"f": b"mended\n"})["status"] == "completed"


def test_gates_are_not_run_while_everybody_else_waits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that the line moves they are run anew, three times at most; the store is never locked for them."""
    run = awaiting(make)
    append, ran = run.log.append, list[str | None]()

    def raced(run_id: str, version: int, events: Any, **more: Any) -> Any:
        moved = commit_of(run.repository, run.base, {"other": f"{len(ran)}\n"})
        append(run_id, run.state.version, [ev.CheckpointRestored(checkpoint_id="x", commit=moved)])
        raise StaleRun("lost")

    def gates(log: Any, repository: Any, state: Any, *_: Any) -> tuple[Gated, ...]:
        ran.append(state.integration)
        return ()

    monkeypatch.setattr(run.log, "append", raced)
    monkeypatch.setattr(gates_here, "run_gates", gates)
    with pytest.raises(NotAllowed, match="each time that the gates were run"):
        settling.approve(run.log, run.run_id, "a")
    assert len(set(ran)) == 3


def test_an_interrupted_gate_is_stopped_and_its_checkout_goes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is for the gate and for us."""
    endless = Gate(command=("sh", "-c", "echo $$ > ../pid; exec sleep 600"), after="task")
    run = make(task("a", approval="result"), task("b"), gates=(endless,))
    run.start("a", "b")
    run.end("a", {"a": "a\n"})
    run.end("b", {"b": "b\n"})
    pids, pid = list[int](), run.project.store.parent / "worktrees" / run.run_id / "pid"

    class Interrupted(gates_here.ShellRunner):
        def poll(self) -> Any:
            if not pids:
                wait_until(lambda: pid.exists() and pid.read_text().strip(), "the gate runs")
                pids.append(int(pid.read_text()))
                raise KeyboardInterrupt
            return super().poll()

    monkeypatch.setattr(gates_here, "ShellRunner", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        settling.approve(run.log, run.run_id, "a")
    assert not Path(f"/proc/{pids[0]}").exists()
    assert [path.name for path in (run.project.store.parent / "worktrees").glob("*/*")] == ["pid"]
    assert run.state.tasks["a"].status == "blocked"
