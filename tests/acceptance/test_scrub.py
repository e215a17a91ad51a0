"""The verb scrub: a secret that was found later is gone from every byte that we keep, and the log is still proven."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scratch import Said, Scratch, shell, until_file, wait_until
from terminal import quickly_on_terminal
from versioned import git, versioned

from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.secret_spellings import Secret
from parallel_agents.projections.projector import Projector

TEXT = 'correct"horse\\battery'
SPELLINGS = Secret(TEXT).needles
LEAK = f"printf '%s\\n' '{TEXT}'"


@pytest.fixture
def repo(cli: Scratch) -> Scratch:
    """A repository; the secret in a file of the user's, out of the project."""
    versioned(cli, {"README.md": "hello\n"})
    (cli.root / "home/secret").write_text(TEXT + "\n")
    return cli


def scrub(cli: Scratch, *more: str, code: int = 0) -> Said:
    """The verb, by the file."""
    return cli.quick("scrub", "--text-from", "home/secret", *more, code=code)


def holding(folder: Path) -> list[str]:
    """The files below a folder whose bytes hold the secret, in any spelling."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and any(one in path.read_bytes() for one in SPELLINGS)
    ]


def ours(cli: Scratch) -> list[str]:
    """The same of what we keep; checkouts are not ours to change."""
    return [name for name in holding(cli.store.parent) if not name.startswith("worktrees/")]


@contextmanager
def changed(cli: Scratch) -> Iterator[sqlite3.Connection]:
    """The store, behind our back."""
    with closing(sqlite3.connect(cli.store)) as connection, connection:
        yield connection


def leaking_run(cli: Scratch) -> str:
    """A run whose plan, outputs, errors and prompts hold it, taken back once and gone on with."""
    done = cli.root / "home/done"
    tasks = (
        shell("say", LEAK, description=f"Log in with {TEXT}"),
        shell("json", f"""printf '%s' '{json.dumps({"key": json.dumps(TEXT)})}' | tee kept.txt""", env={"LOGIN": TEXT}),
        shell("fails", f"{LEAK} >&2; test -e {done} || exit 3", "say"),
    )
    cli.quick("run", cli.plan(*tasks), code=1)
    run_id: str = cli.quick("runs", "--json").data[-1]["run_id"]
    return run_id


def test_it_is_gone_from_every_byte_and_the_log_is_proven(repo: Scratch) -> None:
    """Events, the plan, the state of a fork, snapshots, files, free pages, the write-ahead log. Seals from before hold."""
    run_id = leaking_run(repo)
    repo.quick("fork", run_id, "--at", str(repo.event_count()))
    with Log(repo.store) as log:
        projector = Projector(log)
        projector.save_snapshot(projector.state(run_id))
    with changed(repo) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE gone (text)")
        connection.executemany("INSERT INTO gone VALUES (?)", [(f"a page that is free later {TEXT}",)] * 500)
    with changed(repo) as connection:
        connection.execute("DROP TABLE gone")
    repo.quick("seal", "--out", "home/seal.json")
    before = repo.event_count()
    found = scrub(repo, "--dry-run", "--json").data
    assert (found["found"], found["dry_run"], repo.event_count()) == (True, True, before)
    assert {"events.db"} < {name.partition("/")[0] for name in ours(repo)} | {"runs"}
    done = scrub(repo, "--yes", "--json").data
    assert {name: value for name, value in done.items() if name != "dry_run"} == {
        name: value for name, value in found.items() if name != "dry_run"
    }
    assert (done["snapshots"], done["left"], len(done["documents"])) == (1, [], 3)
    assert len(done["events"]) >= 5
    assert done["changed_plans"][0] == run_id
    assert ours(repo) == []
    assert repo.event_count() == before + len(done["events"])
    said = repo.quick("verify", "--against", "home/seal.json")
    assert f"the bodies of {', '.join(map(str, done['events']))} were changed since" in said.out
    assert repo.quick("verify", "--deep", "--json").data["scrubbed"] == done["events"]
    log = repo.quick("logs", run_id, "say").out
    assert log == "[redacted]" + "*" * (len(TEXT) - 10) + "\n"
    assert repo.quick("status", run_id, "--json").data["tasks"][0]["output"] == "[redacted]"
    again = scrub(repo, "--yes", "--json").data
    assert (again["found"], again["events"], repo.event_count()) == (False, [], before + len(done["events"]))


def test_what_goes_on_afterwards_goes_on_from_the_plan_as_it_is_now(repo: Scratch) -> None:
    """It is told [redacted] where the secret stood; nothing else has changed."""
    run_id = leaking_run(repo)
    assert "what starts there from now on is told [redacted]" in scrub(repo, "--yes").out
    (repo.root / "home/done").touch()
    repo.quick("retry", run_id, "fails")
    repo.quick("resume", run_id)
    assert repo.quick("logs", run_id, "fails").out + repo.quick("logs", run_id, "fails").err == "[redacted]\n"
    assert repo.quick("verify", "--deep").code == 0


def test_commits_that_hold_it_are_named_and_left(repo: Scratch) -> None:
    """Those of the runs, and the user's own, with their files; their ids are in every event and every clone."""
    repo.write("notes.txt", f"{TEXT}\n")
    git(repo, "add", "notes.txt")
    git(repo, "commit", "-qm", "oops")
    mine = git(repo, "rev-parse", "HEAD")
    message = git(repo, "commit-tree", "-m", f"say {TEXT}", "main^{tree}")
    git(repo, "rm", "-q", "--cached", "notes.txt")
    git(repo, "commit", "-qm", "away")
    (repo.root / "notes.txt").unlink()
    run_id = leaking_run(repo)
    done = scrub(repo, "--yes", "--json").data
    by_commit = {one["commit"]: one for one in done["commits"]}
    assert by_commit[mine]["paths"] == ["notes.txt"]
    assert by_commit[message]["paths"] == []
    (work,) = [one for one in done["commits"] if "kept.txt" in one["paths"]]
    assert any(run_id in ref for ref in work["refs"])
    assert done["left"] == []
    said = scrub(repo, "--dry-run")
    assert "it stands nowhere in this store" in said.out
    assert f"stays: commit {mine} of {repo.root}: notes.txt" in said.err
    assert "backups" in said.err


def test_archives_are_written_anew(repo: Scratch) -> None:
    """Bodies and files; the log names what they are now, and every verb reads them as before."""
    many = "mkdir d; for n in $(seq 40); do echo $n > d/file-with-a-long-name-$n; done"
    repo.quick("run", repo.plan(shell("a", f"{many}; seq 3000; {LEAK}")))
    run_id = repo.quick("runs", "--json").data[0]["run_id"]
    logs = repo.quick("logs", run_id, "a").out
    repo.quick("archive", run_id)
    (path,) = (repo.store.parent / "archive").iterdir()
    done = scrub(repo, "--yes", "--json").data
    assert (done["archives"], done["left"], ours(repo)) == ([path.name], [], [])
    assert list((repo.store.parent / "archive").iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600
    assert repo.quick("logs", run_id, "a").out == logs.replace(TEXT, "[redacted]" + "*" * (len(TEXT) - 10))
    (completed,) = repo.events(run_id, "--type", "TaskCompleted")
    assert "[redacted]" in json.dumps(completed["data"])
    assert repo.quick("verify", "--deep", "--json").data["findings"] == []
    repo.quick("backup", "home/saved.tar.gz")
    repo.quick("restore", "home/saved.tar.gz", "--yes")
    assert repo.quick("verify", "--deep").code == 0


def test_a_second_secret_in_the_same_event_is_removed_as_well(repo: Scratch) -> None:
    """The last announcement counts, and only that body passes."""
    repo.quick("run", repo.plan(shell("a", f"{LEAK}; echo another-secret"), workspace="none"))
    first = scrub(repo, "--yes", "--json").data["events"]
    env = {"OTHER": "another-secret"}
    second = repo.quick("scrub", "--env", "OTHER", "--yes", "--json", env=env).data["events"]
    assert set(first) & set(second)
    assert repo.quick("verify", "--deep").code == 0
    assert "another-secret" not in repo.quick("history", "--json").out
    with changed(repo) as connection:
        connection.execute(
            f"UPDATE events SET body = replace(body, '[redacted]', '[Redacted]') WHERE seq = {second[-1]}"
        )
    assert f"event {second[-1]} was changed" in repo.quick("verify", code=8).err


def running(repo: Scratch) -> Callable[[], Any]:
    """A run that goes on; gives what ends it."""
    process = repo.begin("run", repo.plan(shell("a", f"{LEAK}; touch begun; {until_file('go')}"), workspace="none"))
    wait_until((repo.root / "begun").exists, "it begins")

    def end() -> None:
        (repo.root / "go").touch()
        repo.said_by(process)

    return end


def daemon(repo: Scratch) -> Callable[[], Any]:
    """A daemon without work."""
    repo.quick("daemon", "start")
    return lambda: repo.quick("daemon", "stop")


def detached(repo: Scratch) -> Callable[[], Any]:
    """An attempt that nobody dispatches any more."""
    repo.quick("daemon", "start")
    repo.quick("submit", repo.plan(shell("a", f"touch begun; {until_file('go')}"), workspace="none"))
    wait_until((repo.root / "begun").exists, "it begins")
    repo.quick("daemon", "stop")

    def end() -> None:
        (repo.root / "go").touch()
        repo.quick("resume")

    return end


@pytest.mark.parametrize("living", [running, daemon, detached])
def test_nothing_is_removed_beside_somebody_who_may_write_it_again(
    repo: Scratch, living: Callable[[Scratch], Callable[[], Any]]
) -> None:
    """A dispatcher has it in memory, an attempt in its output. To look is fine; afterwards it is removed."""
    repo.quick("run", repo.plan(shell("a", LEAK), workspace="none"))
    end = living(repo)
    before, held = repo.event_count(), ours(repo)
    said = scrub(repo, "--yes", "--json", code=2)
    assert said.complaint["code"] in ("lease_held", "not_allowed")
    assert (repo.event_count(), ours(repo)) == (before, held)
    assert scrub(repo, "--dry-run", "--json").data["found"]
    end()
    scrub(repo, "--yes")
    assert ours(repo) == []


def test_what_somebody_has_changed_is_not_vouched_for(repo: Scratch) -> None:
    """An event that says how it was scrubbed would hide that it is another one."""
    repo.quick("run", repo.plan(shell("a", LEAK), workspace="none"))
    with changed(repo) as connection:
        connection.execute(
            "UPDATE events SET body = replace(body, 'exit_code', 'exit_kode') WHERE type = 'TaskCompleted'"
        )
    before = repo.event_count()
    assert "was changed by somebody" in scrub(repo, "--yes", code=8).err
    assert repo.event_count() == before


def test_a_name_that_is_the_secret_stays_and_is_told(repo: Scratch) -> None:
    """With exit code 1; what else holds it is clean."""
    repo.plan(shell("battery-staple", "echo the battery-staple"), workspace="none")
    repo.quick("run", "plan.json")
    env = {"PASSWORD": "battery-staple"}
    done = repo.quick("scrub", "--env", "PASSWORD", "--yes", "--json", env=env, code=1).data
    assert any("task_id" in one["where"] for one in done["left"])
    task = repo.quick("status", "--json").data["tasks"][0]
    assert (task["task_id"], task["output"]) == ("battery-staple", "the [redacted]")
    assert repo.quick("verify", "--deep").code == 0


def test_the_secret_is_read_from_where_nobody_sees_it(repo: Scratch) -> None:
    """Never from the command line; what cannot be one is refused, and nothing of it is printed."""
    repo.quick("run", repo.plan(shell("a", LEAK), workspace="none"))
    for words, env in (
        ((), {}), (("--env", "NOTHING"), {}), (("--env", "SHORT"), {"SHORT": "abc"}), (("--text-from", "nowhere"), {}),
        (("--text-from", "home/secret", "--env", "PATH"), {}), (("--text-from", "."), {}), (("--text-from", "home/raw"), {}),
        (("--text-from", "home/secret"), {}),
    ):  # fmt: skip
        (repo.root / "home/raw").write_bytes(b"\xff" * 20)
        said = repo.quick("scrub", *words, env=env, code=2)
        assert (said.out, TEXT in said.err) == ("", False)
    assert "--yes" in said.err
    for source in ({"script": 'printf "%s" "$SECRET" | "$@"', "env": {"SECRET": TEXT}}, {}):
        words = ("scrub", "--text-from", "-" if source else "home/secret", "--dry-run", "--json")
        assert repo(*words, **source).data["events"] != []
    said = repo.quick("scrub", "--env", "SECRET", "--yes", env={"SECRET": TEXT})
    assert (ours(repo), TEXT in said.out + said.err) == ([], False)


def test_a_scrubbed_run_travels_and_an_imported_one_is_told(repo: Scratch) -> None:
    """What is exported afterwards is proven elsewhere; what was imported before is another store's to scrub."""
    run_id = leaking_run(repo)
    repo.quick("export", run_id, "-o", "home/before.tar.gz")
    scrub(repo, "--yes")
    repo.quick("export", run_id, "-o", "home/after.tar.gz")
    for name, clean in (("before", False), ("after", True)):
        there = repo.root.parent / name
        git(repo, "init", "-q", str(there))
        repo.quick("import", str(repo.root / f"home/{name}.tar.gz"), cwd=there)
        assert repo.quick("verify", run_id, cwd=there).code == 0
        assert (holding(there / ".parallel-agents") == []) == clean
    there = repo.root.parent / "before"
    words = ("scrub", "--text-from", str(repo.root / "home/secret"), "--yes", "--json")
    store = str(there / f".parallel-agents/imported/{run_id}/events.db")
    assert "was imported" in repo.quick("--store", store, *words, cwd=there, code=2).complaint["message"]
    repo.quick("run", repo.plan(shell("a", "true"), workspace="none"), cwd=there)
    assert store in repo.quick(*words, cwd=there).data["elsewhere"]


@pytest.mark.parametrize(("answer", "code"), [("n", 130), ("y", 0)])
def test_on_a_terminal_it_asks_for_the_secret_unseen_and_shows_what_it_found(
    repo: Scratch, answer: str, code: int
) -> None:
    """Before anything is removed."""
    repo.quick("run", repo.plan(shell("a", LEAK), workspace="none"))
    before, answers = ours(repo), {"Secret:": f"{TEXT}\n", "[y/N]": f"{answer}\n"}

    def typing(shown: str) -> bytes:
        asked = next((words for words in answers if words in shown), None)
        return answers.pop(asked).encode() if asked else b""

    shown = quickly_on_terminal(repo, "scrub", "--text-from", "-", typing=typing)
    assert (shown.code, TEXT in shown.raw, "stdout.log (1)" in "".join(shown.screen.lines)) == (code, False, True)
    assert ours(repo) == (before if code else [])
