"""The verb gc as it is used: looked at, agreed to, at the side of a daemon, and twice at once. And a disk that is full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakeagent.installing import install
from scratch import Scratch, shell, until_file, wait_until
from terminal import quickly_on_terminal
from versioned import belongings, git, versioned

LIMIT = {"resourceManagement": {"disk": {"minFreeMB": 1 << 30}}}  # No machine has so much.


@pytest.fixture
def repo(cli: Scratch) -> Scratch:
    """The command line in a git repository."""
    return versioned(cli, {"readme": "one\n"})


def failed_run(repo: Scratch) -> Path:
    """A run with a task that has failed; its checkout, which stays to be looked at."""
    repo.quick(
        "run", repo.plan(shell("bad", "echo said; echo work > work; exit 3"), shell("good", "echo g > g")), code=1
    )
    return next((repo.store.parent / "worktrees").glob("*/bad"))


def test_what_is_left_of_a_run_is_shown_and_goes_once_somebody_agrees(repo: Scratch) -> None:
    """Where nobody can be asked, --yes has to be said. Nothing of the user's is touched."""
    checkout = failed_run(repo)
    (checkout / "afterthought").write_text("mine\n")
    before = belongings(repo)
    assert "nobody needs" in repo.quick("doctor").out
    seen = repo.quick("gc", "--dry-run", "--json").data
    (item,) = seen["items"]
    assert (item["kind"], item["path"], item["kept_first"]) == ("checkout", str(checkout), True)
    assert seen["bytes"] == item["bytes"] > 0
    assert (seen["dry_run"], seen["removed"], seen["stays"]) == (True, [], [])
    page = repo.quick("gc", "--dry-run").out
    assert "its run has ended: failed, and what it holds becomes a checkpoint first" in page
    assert "checkpoints are kept: " in page
    refused = repo.quick("gc", code=2)
    assert "--yes" in refused.err
    no = quickly_on_terminal(repo, "gc", typing=lambda shown: b"n\n" if "[y/N]" in shown else b"")
    assert (no.code, str(checkout.parent.name) in no.raw) == (130, True)
    assert checkout.exists()
    yes = quickly_on_terminal(repo, "gc", typing=lambda shown: b"y\n" if "[y/N]" in shown else b"")
    assert (yes.code, "removed 1 thing" in yes.raw) == (0, True)
    assert not checkout.exists()
    assert belongings(repo) == before
    kept = repo.quick("checkpoints", "--json").data[-1]
    assert (kept["kind"], kept["label"]) == ("manual", "what the checkout of bad held when it was cleared away")
    assert git(repo, "show", f"{kept['commit']}:afterthought") == "mine"
    assert "nobody needs" not in repo.quick("doctor").out
    assert repo.quick("gc").out.startswith("there is nothing to remove")


def test_sessions_of_agents_go_with_their_attempts(repo: Scratch, tmp_path: Path) -> None:
    """What else a client keeps in the folder that it has from us stays."""
    repo.environment |= {
        "PATH": f"{install(tmp_path / 'programs')}:{repo.environment['PATH']}",
        "ANTHROPIC_API_KEY": "-".join(("key", "of", "nobody")),
    }
    for name in ("one", "two"):
        env = {"FAKE_AGENT": f"write {name} x\nsay Done."}
        repo.quick(
            "run", repo.plan({"task_id": name, "agent_type": "backend-engineer", "description": "Do it.", "env": env})
        )
    clients = repo.store.parent / "clients"
    (clients / "claude" / "settings.json").write_text("{}")
    assert len(list(clients.rglob("projects/*.json"))) == 2
    repo.quick("gc", "--yes", "--older-than", "0")
    assert [str(path.relative_to(clients)) for path in clients.rglob("*.json")] == ["claude/settings.json"]


def test_logs_of_a_run_are_kept_for_a_week_unless_another_age_is_named(repo: Scratch) -> None:
    """And are said to be gone afterwards; the run goes on from where it stands all the same."""
    failed_run(repo)
    repo.quick("gc", "--yes")
    assert repo.quick("logs", "bad").out == "said\n"
    done = repo.quick("gc", "--older-than", "0", "--yes", "--json").data
    assert [(one["kind"], one["count"]) for one in done["removed"]] == [("attempts", 2)]
    said = repo.quick("logs", "bad")
    assert (said.out, "nothing is left of what attempt" in said.err) == ("", True)
    assert "said" in repo.quick("show", "bad").out
    repo.quick("retry", "latest", "bad")
    repo.quick("resume", "latest", code=1)
    assert repo.quick("logs", "bad").out == "said\n"
    wrong = repo.quick("gc", "--older-than", "old", "--json", code=2).complaint
    assert "'old' is no age" in wrong["message"]


def test_a_project_without_a_store_has_nothing_to_clear(repo: Scratch) -> None:
    """And none is made for that."""
    assert repo.quick("gc", "--yes").out == "there is nothing to remove\n"
    assert repo.quick("gc", "--json").data["items"] == []
    assert not repo.store.exists()


def test_nothing_of_what_a_daemon_works_on_goes(repo: Scratch) -> None:
    """However often it is said, with no age at all: every task ends well, and all of their work is merged."""
    (repo.root / "flags").mkdir()
    repo.write("parallel-agents.yaml", "execution: {retry_policy: {retry_delay: 0}}\n")
    repo.quick("daemon", "start")
    runs = []
    for number in range(2):
        names = [f"f{number}-{at}" for at in range(2)]
        once = repo.root / "flags"
        tasks = [
            shell(name, f"test -e {once}/{name} || {{ touch {once}/{name}; exit 1; }}; echo x > {name}")
            for name in names
        ]
        plan = repo.plan(*tasks, name=f"plan{number}", defaults={"max_retries": 2})
        runs.append(repo.quick("submit", plan).out.strip())

    def all_over() -> bool:
        repo.quick("gc", "--older-than", "0", "--yes")
        return all(one["status"] in ("completed", "failed") for one in repo.quick("runs", "--json").data)

    wait_until(all_over, "every run to end")
    found = repo.quick("runs", "--json").data
    assert {line["run_id"]: line["status"] for line in found} == dict.fromkeys(runs, "completed")
    for number, run_id in enumerate(runs):
        names = git(repo, "ls-tree", "--name-only", f"parallel-agents/{run_id}").split()
        assert {f"f{number}-{at}" for at in range(2)} <= set(names)
    repo.quick("gc", "--older-than", "0", "--yes")
    assert list((repo.store.parent / "worktrees").glob("*")) == []


def test_two_at_once_remove_everything_once(repo: Scratch) -> None:
    """One of them may be told that somebody else is at it; what nobody had kept is kept by one checkpoint."""
    checkout = failed_run(repo)
    (checkout / "afterthought").write_text("mine\n")
    both = [repo.begin("gc", "--yes", "--older-than", "0", "--json") for _ in range(2)]
    said = [repo.said_by(process) for process in both]
    assert {one.code for one in said} <= {0, 2}
    assert [one.complaint["message"] for one in said if one.code and "somebody else is cleaning" not in one.err] == []
    assert not any(one["failed"] for each in said if not each.code for one in each.data["left"])
    assert not checkout.exists()
    labels = [one["label"] for one in repo.quick("checkpoints", "--json").data]
    assert labels.count("what the checkout of bad held when it was cleared away") == 1


def test_nothing_starts_while_the_disk_has_less_than_the_limit(repo: Scratch) -> None:
    """The run waits and says why; one that keeps no files goes on; the limit is the one of its submission."""
    repo.write(".claude/config/parallel-agents-config.json", json.dumps(LIMIT))
    tasks = [shell("a", "touch ran"), shell("b", "true")]
    waiting = repo.begin("run", repo.plan(*tasks))
    run_id = repo.until(lambda found: found["status"] == "running", "the run to begin")["run_id"]
    told = wait_until(
        lambda: repo.quick("history", run_id, "--type", "DispatchThrottled", "--json").lines, "it to be told"
    )
    assert len(told) == 1
    for task_id in ("a", "b"):
        why = repo.quick("why", run_id, task_id, "--json").data
        assert (why["code"], "below 1,073,741,824 MB" in why["why"]) == ("disk", True)
    repo.quick("run", repo.plan(*tasks, name="plain", workspace="none"))
    assert (repo.root / "ran").exists()
    (repo.root / ".claude" / "config" / "parallel-agents-config.json").unlink()
    repo.quick("run", repo.plan(shell("c", "true"), name="later"))
    assert {task["status"] for task in repo.quick("status", run_id, "--json").data["tasks"]} == {"queued"}
    assert len(repo.quick("history", run_id, "--type", "DispatchThrottled", "--json").lines) == 1
    repo.quick("cancel", run_id, "--yes")
    said = repo.said_by(waiting)
    assert said.code == 1
    assert "the disk is nearly full" in said.err
    assert {task["attempts"] for task in repo.quick("status", run_id, "--json").data["tasks"]} == {0}


def test_a_run_that_waits_for_a_person_keeps_its_checkouts(repo: Scratch) -> None:
    """It has not ended, however long that takes."""
    flag = str(repo.root / "flags" / "go")
    (repo.root / "flags").mkdir()
    slow = repo.begin("run", repo.plan(shell("slow", f"echo x > x; {until_file(flag)}")))
    repo.until_running("slow")
    assert repo.quick("gc", "--older-than", "0", "--dry-run", "--json").data["items"] == []
    repo.quick("pause", "latest")
    assert repo.quick("gc", "--older-than", "0", "--dry-run", "--json").data["items"] == []
    Path(flag).touch()
    assert repo.said_by(slow).code in (0, 5)
    repo.quick("resume", "latest", code=None)
    assert repo.quick("status", "--json").data["status"] == "completed"
