"""The verbs export and import: a run is proved, replayed and forked on a machine that shares nothing with its own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any, NamedTuple

import pytest
from scratch import Scratch, shell
from versioned import belongings, git, versioned

SECRETS = ("hush", "described", "promised", "recorded-name", "shared-file")  # In texts, outputs, names and paths.


class Story(NamedTuple):
    """What was recorded, and the file of each export.

    Attributes:
        there: the project that it was recorded in.
        decided: what `replay --verify` said there, of the run and of its fork.
    """

    there: Scratch
    run: str
    fork: str
    file: Path
    of_fork: Path
    redacted: Path
    decided: dict[str, Any]


@pytest.fixture(scope="module")
def story(make_project: Callable[[str], Scratch], tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A run with failures, a conflict and a rollback, another one meanwhile, and a fork; each is exported."""
    there = versioned(make_project("recorded"), {"README.md": "hello\n", "shared-file": "1\n2\n3\n"})
    plan = there.plan(
        shell("base", "echo base >base; echo hush", description="described"),
        shell("flaky", 'test -e "$HOME/once" || { touch "$HOME/once"; exit 3; }; echo done >flaky', max_retries=1),
        shell("left", "printf 'left\n2\n3\n' >shared-file", "base", files=["shared-*"]),
        shell("right", "printf 'right\n2\n3\n' >shared-file; echo promised >&2", "base"),
        shell("broken", "echo hush >&2; exit 9", "base", allow_failure=True),
        name="recorded-name",
    )
    settings = ("--set=execution.retryPolicy.retryDelay=0.01", "--set=conflictResolution.strategy=theirs")
    there.quick("run", there.plan(shell("earlier", "true"), name="earlier"))
    there.quick("run", plan, *settings)
    run = there.quick("runs", "--json").data[-1]["run_id"]
    seq = next(one["seq"] for one in there.quick("history", run, "--json").lines if one["type"] == "TaskCompleted")
    there.quick("rollback", run, "--to", str(seq), "--yes", "--reason", "hush")
    there.quick("run", there.plan(shell("between", "true"), name="between"))
    there.quick("resume", run)
    fork = there.quick("fork", run, "--at", str(seq), "--json").data["run_id"]
    there.quick("resume", fork)
    folder = tmp_path_factory.mktemp("files")
    files = {"run": folder / "run.tar.gz", "fork": folder / "fork.tar.gz", "redacted": folder / "redacted.tar.gz"}
    there.quick("export", run, "-o", str(files["run"]))
    there.quick("export", fork, "-o", str(files["fork"]))
    there.quick("export", run, "-o", str(files["redacted"]), "--redact")
    decided = {one: there.quick("replay", one, "--verify", "--json").data["decisions"] for one in (run, fork)}
    return Story(there, run, fork, files["run"], files["fork"], files["redacted"], decided)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Scratch]:
    """Another project at another place, in a repository that has not one commit in common."""
    scratch = versioned(Scratch(tmp_path / "elsewhere" / "another"), {"unrelated": "x\n"})
    yield scratch
    scratch.close()


def members(file: Path) -> dict[str, bytes]:
    """What is in an export."""
    with tarfile.open(file) as tar:
        return {one.name: opened.read() for one in tar if (opened := tar.extractfile(one)) is not None}


def packed(file: Path, found: dict[str, bytes], *, honest: bool = True) -> Path:
    """Write an export with this in it; an honest one has a manifest that fits its members."""
    found = dict(found)
    if honest:
        manifest = json.loads(found.pop("manifest.json"))
        manifest["members"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in found.items()
        }
        found["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(file, "w:gz") as tar:
        for name, content in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def nothing_came(here: Scratch) -> None:
    """No run, no file and no ref."""
    assert here.quick("runs", "--imported", "--json").data == []
    home = here.store.parent / "imported"
    assert [path.name for path in home.iterdir() if path.name != ".lock"] == []
    assert git(here, "for-each-ref", "refs/parallel-agents") == ""


def test_a_run_is_proved_replayed_and_forked_elsewhere(story: Story, here: Scratch) -> None:
    """Its history is the same letter by letter, its decisions are the same, and a fork of it runs to its end."""
    assert stat.S_IMODE(story.file.stat().st_mode) == 0o600
    types = {one["type"] for one in story.there.quick("history", story.run, "--json").lines}
    assert types >= {"TaskFailed", "TaskRetryScheduled", "ConflictDetected", "RunRolledBack"}
    mine = belongings(here)
    said = here.quick("import", str(story.file), "--json").data
    assert (said["run_id"], said["redacted"], said["left_out"]) == (story.run, False, [])
    assert belongings(here) == mine
    asked = ("history", story.run, "--json")
    assert here.quick(*asked).out == story.there.quick(*asked).out
    assert here.quick("verify", story.run, "--json").data["ok"]
    assert here.quick("verify", story.run, "--deep", "--json").data["findings"] == []
    proof = here.quick("replay", story.run, "--verify", "--json").data
    assert proof["decisions"] == story.decided[story.run]
    assert proof["decisions"]["divergence"] is None
    assert proof["decisions"]["same"]["TaskStarted"] >= 10
    assert here.quick("logs", story.run, "base").out == "hush\n"
    moved = next(
        one["seq"] for one in story.there.quick("history", story.run, "--json").lines if one["type"] == "TaskCompleted"
    )
    fork = here.quick("fork", story.run, "--at", str(moved), "--json").data
    assert fork["status"] == "paused"
    here.write("home/once", "")
    here("resume", fork["run_id"])
    assert here.quick("status", fork["run_id"], "--json").data["status"] == "completed"
    assert git(here, "show", f"parallel-agents/{fork['run_id']}:shared-file") in ("left\n2\n3", "right\n2\n3")
    assert here.quick("verify", "--deep", "--json").data["findings"] == []
    assert here.quick("replay", fork["run_id"], "--verify", "--json").data["ok"]


def test_a_fork_is_carried_without_its_parent(story: Story, here: Scratch) -> None:
    """What it began with came along, and it can be forked in its turn."""
    here.quick("import", str(story.of_fork))
    proof = here.quick("replay", story.fork, "--verify", "--json").data
    assert (proof["ok"], proof["decisions"]) == (True, story.decided[story.fork])
    assert (
        here.quick("status", story.fork, "--json").data["tasks"]
        == story.there.quick("status", story.fork, "--json").data["tasks"]
    )
    again = here.quick("fork", story.fork, "--json").data["run_id"]
    assert here.quick("status", again, "--json").data["status"] == "completed"


def test_an_imported_run_is_named_as_one_and_only_looked_at(story: Story, here: Scratch) -> None:
    """It is never the latest, no verb that changes runs takes it, and nobody dispatches it."""
    here.quick("import", str(story.file))
    assert here.quick("runs", "--json").data == []
    assert here.quick("status", code=3).out == ""
    (line,) = here.quick("runs", "--imported", "--json").data
    assert (line["run_id"], line["imported"]["from"]) == (story.run, str(story.there.store))
    assert str(story.there.store) in here.quick("status", story.run[:5]).err
    assert here.quick("status", story.run, "--json").data["imported"] == line["imported"]
    for words in (("retry",), ("cancel",), ("rollback", "--to", "9", "--yes"), ("pause",)):
        said = here.quick(words[0], story.run, *words[1:], code=2)
        assert "was imported" in said.err
        assert f"fork {story.run}" in said.err
    assert "pass on the file" in here.quick("export", story.run, code=2).err
    said = here.quick("import", str(story.file), code=2)
    assert "imported already, and is the same" in said.err
    assert "another export of it" in here.quick("import", str(story.redacted), code=2).err
    assert "in this store already, and is the same" in story.there.quick("import", str(story.file), code=2).err
    refs = git(here, "for-each-ref")
    here.quick("gc", "--lost-refs", "--older-than", "0s", "--yes", code=None)
    assert git(here, "for-each-ref") == refs


def test_a_folder_without_git_takes_it_too(story: Story, cli: Scratch) -> None:
    """Its commits lie in the repository beside the store, and a fork works on their files."""
    cli.quick("import", str(story.file))
    fork = cli.quick("fork", story.run, "--json").data["run_id"]
    assert cli.quick("verify", story.run, "--deep", "--json").data["findings"] == []
    assert cli.quick("verify", "--deep", "--json").data["findings"] == []
    assert cli.quick("status", fork, "--json").data["status"] == "completed"


def test_a_redacted_run_shows_its_shape_and_nothing_that_anybody_wrote(story: Story, here: Scratch) -> None:
    """Every byte of the file is searched. The chain is proved, decisions are made again, and a fork is refused."""
    found = members(story.redacted)
    assert {name.split("/")[0] for name in found} == {"events.ndjson", "documents", "manifest.json"}
    content = b"\n".join(found.values()).decode()
    for word in (*SECRETS, str(story.there.root), "earlier", os.fspath(Path.home())):
        assert word not in content
    here.quick("import", str(story.redacted))
    asked = ("history", story.run, "--json")
    there, shown = story.there.quick(*asked).lines, here.quick(*asked).lines
    shape = ("seq", "type", "at", "version", "actor", "hash")
    assert [[one[name] for name in shape] for one in shown] == [[one[name] for name in shape] for one in there]
    started = [one for one in there if one["type"] == "TaskStarted"]
    assert [one for one in shown if one["type"] == "TaskStarted"] == started
    said = here.quick("verify", story.run, "--json").data
    assert said["ok"]
    assert said["carried"]["reduced"] > 0
    assert here.quick("replay", story.run, "--verify", "--json").data["decisions"] == story.decided[story.run]
    assert "without commands, prompts and files" in here.quick("fork", story.run, code=2).err
    assert here.quick("status", story.run).code == 0


def changed_line(found: dict[str, bytes], change: Callable[[list[dict[str, Any]]], None]) -> dict[str, bytes]:
    """The members, with other events."""
    lines = [json.loads(line) for line in found["events.ndjson"].splitlines()]
    change(lines)
    return {**found, "events.ndjson": b"".join(json.dumps(line).encode() + b"\n" for line in lines)}


def with_body(lines: list[dict[str, Any]], type_: str) -> dict[str, Any]:
    """The first event of a type whose body came along."""
    return next(line for line in lines if line["type"] == type_ and "body" in line)


FORGERIES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "a body": lambda lines: with_body(lines, "TaskFailed").update(body='{"task_id":"base"}'),
    "a body that is called reduced": lambda lines: with_body(lines, "TaskFailed").update(body="{}", reduced=True),
    "a time": lambda lines: lines[7].update(at_us=lines[7]["at_us"] + 1),
    "an order": lambda lines: lines.insert(5, lines.pop(6)),
    "an event less": lambda lines: lines.pop(9),
    "an end less": lambda lines: lines.pop(),
    "an event twice": lambda lines: lines.insert(9, lines[9]),
    "another run's": lambda lines: lines[4].update(run_id="abcdefghij"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_events_that_are_not_what_was_written_are_found_though_every_digest_of_the_file_fits(
    story: Story, here: Scratch, tmp_path: Path, what: str
) -> None:
    """The chain says so, and nothing came in."""
    forged = changed_line(members(story.file), FORGERIES[what])
    said = here.quick("import", str(packed(tmp_path / "forged.tar.gz", forged)), code=None)
    assert said.code == (2 if what in ("a body that is called reduced", "an event twice") else 8), said.err
    nothing_came(here)


def test_a_file_that_is_no_whole_export_is_named(story: Story, here: Scratch, tmp_path: Path) -> None:
    """Cut, altered, of another kind or release, with a link or a way out of its folder: nothing of it comes in."""
    found, bad = members(story.file), tmp_path / "bad.tar.gz"
    whole = story.file.read_bytes()

    def refused(word: str, content: bytes | None = None) -> None:
        if content is not None:
            bad.write_bytes(content)
        said = here.quick("import", str(bad), "--json", code=2)
        assert word in said.complaint["message"], said.complaint
        nothing_came(here)

    refused("no whole export", b"")
    refused("no whole export", b"not gzip at all")
    refused("no whole export", whole[: len(whole) // 2])
    refused("no whole export", gzip.compress(gzip.decompress(whole)[:-15000]))
    manifest = json.loads(found["manifest.json"])
    for name in ("events.ndjson", next(name for name in found if name.startswith("runs/"))):
        packed(bad, {**found, name: found[name] + b" "}, honest=False)
        refused(f"{name} is not what was written")
    packed(bad, {name: content for name, content in found.items() if name != "manifest.json"}, honest=False)
    refused("manifest.json, its last file, is missing")
    packed(bad, {**found, "manifest.json": json.dumps({**manifest, "format": 99}).encode()})
    refused("format 99")
    for name in ("../out", "/etc/out", "runs/../../out", "events.db"):
        packed(bad, {name: b"x", **found}, honest=False)
        refused("belongs in no export")
    with tarfile.open(bad, "w:gz") as tar:
        link = tarfile.TarInfo(f"runs/{story.run}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    refused("belongs in no export")
    foreign = {**manifest, "repositories": [{**manifest["repositories"][0], "refs": {"refs/heads/main": "0" * 40}}]}
    packed(bad, {**found, "manifest.json": json.dumps(foreign).encode()})
    refused("refs that are not those of its run")
    for name, value in (("run_id", "../../../x"), ("around", {}), ("head", "zz"), ("last", 1)):
        packed(bad, {**found, "manifest.json": json.dumps({**manifest, name: value}).encode()})
        refused("no whole export")
    bundle = next(name for name in found if name.startswith("bundles/"))
    spoiled = bytearray(found[bundle])
    spoiled[-40] ^= 1
    packed(bad, {**found, bundle: bytes(spoiled)})
    refused("cannot be read from the export")
    assert "there is no file" in here.quick("import", str(tmp_path / "none"), code=2).err


@pytest.mark.parametrize("point", ["import.checked", "import.held", "import.placed", "log.in-transaction"])
def test_whoever_is_killed_in_the_midst_has_imported_all_or_nothing(story: Story, here: Scratch, point: str) -> None:
    """And the next import finds nothing in its way."""
    here("import", str(story.file), code=None, env={"PARALLEL_AGENTS_CRASH_AT": point})
    came = [line["run_id"] for line in here.quick("runs", "--imported", "--json").data]
    if not came:
        assert here.quick("status", story.run, code=3).out == ""
        here.quick("import", str(story.file))
    assert came in ([], [story.run])
    assert (point == "import.placed") <= bool(came)
    here.quick("import", str(story.of_fork))  # What a killed one has left there goes with the next one.
    assert list((here.store.parent / "imported").glob(".importing*")) == []
    assert here.quick("verify", story.run, "--deep", "--json").data["findings"] == []


def test_an_export_that_is_killed_leaves_no_file_of_that_name(story: Story, tmp_path: Path) -> None:
    """A file that is there stays until somebody agrees."""
    file = tmp_path / "run.tar.gz"
    words = ("export", story.run, "-o", str(file))
    said = story.there(*words, code=None, env={"PARALLEL_AGENTS_CRASH_AT": "export.written"})
    assert said.code == -signal.SIGKILL
    assert not file.exists()
    story.there.quick(*words)
    before = file.read_bytes()
    assert "exists already" in story.there.quick(*words, code=2).err
    assert file.read_bytes() == before
    story.there.quick(*words, "--yes")
    assert "there is no run" in story.there.quick("export", "nosuchrun", "-o", str(tmp_path / "x"), code=3).err


def test_a_changed_log_is_not_exported(story: Story, tmp_path: Path) -> None:
    """The event is named, and there is no file."""
    copy = tmp_path / "copy" / "events.db"
    copy.parent.mkdir()
    shutil.copy(story.there.store, copy)
    with closing(connect(copy)) as connection:
        connection.execute("UPDATE events SET actor = 'somebody' WHERE run_id = ? AND version = 5", (story.run,))
        (seq,) = connection.execute("SELECT seq FROM events WHERE run_id = ? AND version = 5", (story.run,)).fetchone()
        connection.commit()
    file = tmp_path / "run.tar.gz"
    said = story.there.quick("export", story.run, "-o", str(file), "--store", str(copy), code=8)
    assert f"event {seq} is not what was written" in said.err
    assert not file.exists()


def test_an_imported_run_that_is_changed_afterwards_is_found(story: Story, here: Scratch) -> None:
    """In its own rows, and in the links that lie between them."""
    store = Path(here.quick("import", str(story.file), "--json").data["store"])
    for table in ("events", "skeleton"):
        with closing(connect(store)) as connection:
            (seq,) = connection.execute(f"SELECT max(seq) FROM {table}").fetchone()
            connection.execute(f"UPDATE {table} SET at = at + 1 WHERE seq = ?", (seq,))
            connection.commit()
            assert f"event {seq}" in here.quick("verify", story.run, code=8).err
            connection.execute(f"UPDATE {table} SET at = at - 1 WHERE seq = ?", (seq,))
            connection.commit()
    here.quick("verify", story.run)


def test_a_disk_that_takes_no_more_is_told_and_nothing_half_is_left(
    story: Story, here: Scratch, tmp_path: Path
) -> None:
    """Wherever in the writing it happens."""
    file = tmp_path / "run.tar.gz"
    for blocks in (1, 8, 40, 100):  # Of 512 bytes, that a file may have; a store has some hundred of them.
        script = f'ulimit -f {blocks}; exec "$@"'
        said = story.there("export", story.run, "-o", str(file), code=None, script=script)
        assert said.code in (0, 2)
        assert file.exists() == (said.code == 0)
        assert [path.name for path in tmp_path.glob(".run*")] == []
        file.unlink(missing_ok=True)
        said = here("import", str(story.file), code=2, script=script)
        assert said.err.startswith("error: ")
        nothing_came(here)
    here.quick("import", str(story.file))


def test_an_archived_run_is_carried_whole(cli: Scratch, here: Scratch, tmp_path: Path) -> None:
    """Bodies and outputs are taken out of its archive."""
    cli.quick("run", cli.plan(shell("one", "echo said; echo hush; seq 200")))
    run = cli.quick("runs", "--json").data[0]["run_id"]
    body = cli.quick("history", run, "--json").lines
    cli.quick("archive", run)
    file = tmp_path / "run.tar.gz"
    cli.quick("export", run, "-o", str(file))
    here.quick("import", str(file))
    assert here.quick("history", run, "--json").lines == body
    assert here.quick("logs", run, "one").out.startswith("said\nhush\n")
    assert here.quick("verify", run, "--json").data["ok"]


def test_a_seal_of_the_store_that_a_run_came_from_proves_it_elsewhere(
    cli: Scratch, here: Scratch, tmp_path: Path
) -> None:
    """Whatever lies between the run's last event and the seal; one of before the run says nothing of it."""

    def sealed(name: str) -> tuple[str, str]:
        cli.quick("seal", "--out", str(tmp_path / name))
        return "--against", str(tmp_path / name)

    cli.quick("run", cli.plan(shell("one", "true")))
    early = sealed("early.json")
    cli.quick("run", cli.plan(shell("two", "true"), shell("three", "true", "two")))
    run = cli.quick("runs", "--json").data[-1]["run_id"]
    cli.quick("run", cli.plan(shell("four", "true")))
    late = sealed("late.json")
    key = next(one["fingerprint"] for one in cli.quick("verify", *late, "--json").data["seals"])
    cli.quick("run", cli.plan(shell("five", "true")))
    cli.quick("export", run, "-o", str(tmp_path / "run.tar.gz"))
    store = Path(here.quick("import", str(tmp_path / "run.tar.gz"), "--json").data["store"])
    trusting = ("--trust-key", key)
    (said,) = here.quick("verify", run, *late, *trusting, "--json").data["seals"]
    assert (said["ok"], said["code"]) == (True, "")
    assert "the key" in here.quick("verify", run, *late, *trusting).out
    cut = cli.quick("history", run, "--json").lines[0]["seq"]
    (said,) = here.quick("verify", run, *early, *trusting, "--json", code=None).data["seals"]
    sealed_at = {name: json.loads((tmp_path / name).read_text())["seq"] for name in ("early.json", "late.json")}
    assert said["ok"] == (sealed_at["early.json"] == cut - 1)
    with closing(connect(store)) as connection:
        connection.execute("UPDATE skeleton SET hash = zeroblob(32) WHERE seq = ?", (sealed_at["late.json"],))
        connection.commit()
    here.quick("verify", run, *late, *trusting, code=8)


def test_an_imported_run_is_compared_with_its_fork(story: Story, here: Scratch) -> None:
    """Whichever comes first; each moment is one of its own store."""
    here.quick("import", str(story.file))
    seq = next(one["seq"] for one in here.quick("history", story.run, "--json").lines if one["type"] == "TaskCompleted")
    fork = here.quick("fork", story.run, "--at", str(seq), "--set", "left.timeout_s=77", "--json").data["run_id"]
    found = here.quick("diff", f"{story.run}@{seq}", fork, "--json").data
    assert (found["a"]["run_id"], found["a"]["seq"], found["b"]["run_id"]) == (story.run, seq, fork)
    assert (found["files"], found["files_unknown"]) == ([], None)
    assert found["configuration"]["left.timeout_s"] == {"a": 600.0, "b": 77.0}
    back = here.quick("diff", fork, story.run[:4], "--json").data
    assert (back["a"]["run_id"], back["b"]["run_id"]) == (fork, story.run)
    assert {"change": "A", "path": "flaky"} in back["files"]
    assert "+done" in here.quick("diff", fork, story.run, "--patch").out
    assert here.quick("conflicts", fork, "--json").data == []


def test_an_imported_run_is_taken_away(story: Story, here: Scratch) -> None:
    """With what came along; a fork of it stays with its files, and it can be imported again."""
    mine = belongings(here)
    here.quick("import", str(story.file))
    assert "nobody is here to be asked" in here.quick("import", "--remove", story.run, code=2).err
    assert here.quick("runs", "--imported", "--json").data != []
    said = here.quick("import", "--remove", story.run[:4], "--yes", "--json").data
    assert (said["run_id"], said["forks"], said["kept"]) == (story.run, [], "")
    assert len(said["refs"]) >= said["alone"] > 0
    assert said["bytes"] > 0
    nothing_came(here)
    assert belongings(here) == mine
    assert "no imported run is called" in here.quick("import", "--remove", story.run, "--yes", code=3).err

    here.quick("import", str(story.file))
    fork = here.quick("fork", story.run, "--json").data["run_id"]
    said = here.quick("import", "--remove", story.run, "--yes", "--json").data
    assert said["forks"] == [fork]
    assert " flaky\n" in here.quick("files", fork).out
    assert here.quick("verify", "--deep", "--json").data["findings"] == []
    assert here.quick("gc", "--json", "--dry-run").data["removed"] == []
    gone = here.quick("diff", story.run, fork, code=3).err
    assert f"run {story.run} is not here; run {fork} was forked from it" in gone
    own = here.quick("import", "--remove", fork, "--yes", code=3).err
    assert "it is a run of your own, and its history stays" in own
    for words in ((), (str(story.file), "--remove", story.run)):
        assert "`parallel-agents import FILE` brings a run in" in here.quick("import", *words, code=2).err


def test_refs_stay_where_the_run_is_at_home_in_the_same_repository(story: Story, tmp_path: Path) -> None:
    """Imported into a second store there, it is taken away without what the first one stands on."""
    there, second = story.there, ("--store", str(tmp_path / "second" / "events.db"))
    held = git(there, "for-each-ref", f"refs/parallel-agents/{story.run}")
    there.quick("import", str(story.file), *second)
    said = there.quick("import", "--remove", story.run, "--yes", *second)
    assert said.err.startswith("its refs stay: ")
    assert there.quick("runs", "--imported", "--json", *second).data == []
    assert git(there, "for-each-ref", f"refs/parallel-agents/{story.run}") == held


def test_what_came_into_a_folder_without_git_is_taken_away(story: Story, cli: Scratch) -> None:
    """From the repository beside the store, also where a repository was made around it since."""
    cli.quick("import", str(story.file))
    git(cli, "init", "--quiet")
    assert len(cli.quick("import", "--remove", story.run, "--yes", "--json").data["refs"]) > 5
    cli.quick("import", str(story.redacted))
    said = cli.quick("import", "--remove", story.run, "--yes", "--json").data
    assert (said["refs"], said["redacted"]) == ([], True)
    assert cli.quick("runs", "--imported", "--json").data == []


def test_an_imported_run_that_cannot_be_read_any_more_is_taken_away(story: Story, here: Scratch) -> None:
    """Its refs stay, because nothing says where it is at home."""
    here.quick("import", str(story.file))
    held = git(here, "for-each-ref", "refs/parallel-agents")
    (here.store.parent / "imported" / story.run / "events.db").write_bytes(b"spoiled" * 1000)
    said = here.quick("import", "--remove", story.run, "--yes")
    assert "its refs stay: its store cannot be read" in said.err
    assert here.quick("runs", "--imported", "--json").data == []
    assert git(here, "for-each-ref", "refs/parallel-agents") == held
    here.quick("import", str(story.file))


@pytest.mark.parametrize("point", ["refs.before-drop", "refs.dropped", "import.unheld", "import.taken-away"])
def test_whoever_is_killed_while_one_is_taken_away_leaves_nothing_in_the_way(
    story: Story, here: Scratch, point: str
) -> None:
    """Until its folder is moved it is here and can be taken away again; afterwards its files go with the next one."""
    here.quick("import", str(story.file))
    here("import", "--remove", story.run, "--yes", code=None, env={"PARALLEL_AGENTS_CRASH_AT": point})
    there = here.quick("runs", "--imported", "--json").data
    assert bool(there) == (point != "import.taken-away")
    if there:
        here.quick("import", "--remove", story.run, "--yes")
        nothing_came(here)
    here.quick("import", str(story.file))
    assert list((here.store.parent / "imported").glob(".importing*")) == []
    assert here.quick("verify", story.run, "--deep", "--json").data["findings"] == []
