"""The verb archive as it is used: every answer of a run stays, beside a daemon too, and a later retry goes on from it."""

from __future__ import annotations

import zipfile

import pytest
from scratch import Scratch, shell, until_file, wait_until
from versioned import versioned

VERBS = (
    ("history", "{run}", "--json"), ("history", "{run}"), ("status", "{run}", "--json"), ("status", "{run}", "--at", "6"),
    ("show", "{run}", "a", "--json"), ("logs", "{run}", "a"), ("logs", "{run}", "a", "--json"),
    ("timeline", "{run}", "--json"), ("cost", "{run}", "--json"), ("checkpoints", "{run}", "--json"),
    ("why", "{run}", "a", "--json"), ("conflicts", "{run}", "--json"), ("runs", "--json"),
)  # fmt: skip


@pytest.fixture
def repo(cli: Scratch) -> Scratch:
    """The command line in a git repository."""
    return versioned(cli, {"readme": "one\n"})


def answers(repo: Scratch, run_id: str) -> list[str]:
    """What every reading verb says of a run."""
    return [repo.quick(*(word.format(run=run_id) for word in verb)).out for verb in VERBS]


def test_every_verb_answers_as_before_and_a_retry_goes_on(repo: Scratch) -> None:
    """Outputs, paths, logs: out of a file that any unzip reads."""
    many = "mkdir d; for n in $(seq 40); do echo $n > d/file-with-a-long-name-$n; done; seq 3000"
    once = f"seq 500; test -e {repo.root / 'done'} || exit 3"
    repo.quick("run", repo.plan(shell("a", many), shell("b", once, "a", max_retries=0)), code=1)
    run_id = repo.quick("runs", "--json").data[0]["run_id"]
    before = answers(repo, run_id)
    done = repo.quick("archive", run_id[:6], "--json").data
    (one,) = done["archived"]
    assert (one["run_id"], one["files"] > 8, one["events"] > 2, done["left"]) == (run_id, True, True, [])
    assert answers(repo, run_id) == before
    assert not (repo.store.parent / "runs" / run_id).exists()
    (path,) = (repo.store.parent / "archive").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert zipfile.ZipFile(path).testzip() is None
    assert "ok:" in repo.quick("verify").out
    assert "there is nothing to archive" in repo.quick("archive", "--older-than", "0").err
    (repo.root / "done").touch()
    repo.quick("retry", run_id, "b")
    repo.quick("resume", run_id)
    assert repo.quick("status", run_id, "--json").data["status"] == "completed"
    repo.quick("archive", run_id)
    assert len(list((repo.store.parent / "archive").iterdir())) == 2
    assert repo.quick("logs", run_id, "b", "--attempt", "1").out == "".join(f"{number}\n" for number in range(1, 501))


def test_beside_a_daemon_what_goes_on_stays_and_what_is_over_goes(cli: Scratch) -> None:
    """It goes on dispatching; without a run or an age nothing is done."""
    cli.quick("run", cli.plan(shell("a", "seq 300"), workspace="none"))
    old = cli.quick("runs", "--json").data[0]["run_id"]
    cli.quick("daemon", "start")
    cli.quick("submit", cli.plan(shell("long", f"touch begun; {until_file('go')}"), workspace="none"))
    wait_until((cli.root / "begun").exists, "it begins")
    done = cli.quick("archive", "--older-than", "0", "--json").data
    assert ([one["run_id"] for one in done["archived"]], done["left"]) == ([old], [])
    new = cli.quick("runs", "--json").data[-1]["run_id"]
    assert f"run {new} cannot be archived: its run is running" in cli.quick("archive", new, code=2).err
    (cli.root / "go").touch()
    cli.quick("wait", new)
    assert "say which runs" in cli.quick("archive", code=2).err
    assert "say which runs" in cli.quick("archive", new, "--older-than", "1d", code=2).err
    assert cli.quick("archive", "--older-than", "0", "--compact", "--json").data["free_bytes"] == 0
    assert cli.quick("verify").code == 0


def test_archives_are_verified_backed_up_and_restored(cli: Scratch) -> None:
    """With the store that needs them; a changed one is named, and one that is gone is told."""
    cli.quick("run", cli.plan(shell("a", "seq 3000; printf 'x%.0s' $(seq 500)"), workspace="none"))
    run_id = cli.quick("runs", "--json").data[0]["run_id"]
    before = answers(cli, run_id)
    assert cli.quick("archive", run_id, "--json").data["archived"][0]["events"] == 1
    assert "ok:" in cli.quick("verify", "--deep").out
    cli.quick("backup", str(cli.root / "saved.tar.gz"))
    (path,) = (cli.store.parent / "archive").iterdir()
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    for verb in (("verify",), ("verify", "--deep")):
        assert path.name in (said := cli.quick(*verb, code=8)).out + said.err
    path.unlink()
    assert f"{path.name} is not there" in cli.quick("verify").err
    assert f"{path.name} is not there" in cli.quick("verify", "--deep").out
    assert "put" in cli.quick("logs", run_id, "a", code=2).err
    cli.quick("restore", str(cli.root / "saved.tar.gz"), "--yes")
    assert answers(cli, run_id) == before
    assert path.read_bytes() == content
