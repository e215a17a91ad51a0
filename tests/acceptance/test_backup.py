"""The verbs backup and restore: all of a store in one file, and back from it, without touching what is the user's."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
from scratch import Scratch, shell, until_file, wait_until
from versioned import belongings, git, versioned


@pytest.fixture(scope="module")
def with_a_run(make_project: Callable[[str], Scratch]) -> Scratch:
    """A repository with one run: two tasks that made a file each, one after the other."""
    cli = versioned(make_project("project"), {"README.md": "hello\n"})
    cli.quick("run", cli.plan(shell("one", "echo 1 >one; echo said"), shell("two", "echo 2 >two", "one")))
    return cli.keep()


@pytest.fixture
def repo(with_a_run: Scratch) -> Iterator[Scratch]:
    """That repository, for one test."""
    yield from with_a_run.anew()


@pytest.fixture(scope="module")
def with_a_loss(make_project: Callable[[str], Scratch]) -> Scratch:
    """The same when there was a backup of it, and then all was lost."""
    cli = versioned(make_project("lost"), {"README.md": "hello\n"})
    cli.quick("run", cli.plan(shell("one", "echo 1 >one; echo said"), shell("two", "echo 2 >two", "one")))
    cli.quick("backup", str(cli.root / "home" / "backup.tar.gz"))
    lose_everything(cli)
    return cli.keep()


@pytest.fixture
def lost(with_a_loss: Scratch) -> Iterator[Scratch]:
    """That project, for one test."""
    yield from with_a_loss.anew()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a backup goes."""
    return tmp_path / "backup.tar.gz"


def whole(cli: Scratch) -> None:
    """Everything of the store matches everything else."""
    assert cli.quick("verify", "--deep", "--json").data["findings"] == []


def lose_everything(cli: Scratch) -> None:
    """The store, our refs and branches, and what only they held."""
    for path in cli.store.parent.glob("events.db*"):
        path.unlink()
    shutil.rmtree(cli.store.parent / "runs")
    for line in git(cli, "for-each-ref", "--format=%(refname)").splitlines():
        if "parallel-agents" in line:
            git(cli, "update-ref", "-d", line)
    git(cli, "reflog", "expire", "--expire=now", "--all")
    git(cli, "gc", "-q", "--prune=now")


def members(file: Path) -> dict[str, bytes]:
    """What is in a backup."""
    with tarfile.open(file) as tar:
        return {one.name: opened.read() for one in tar if (opened := tar.extractfile(one)) is not None}


def packed(file: Path, found: dict[str, bytes]) -> None:
    """Write a backup with this in it."""
    with tarfile.open(file, "w:gz") as tar:
        for name, content in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_what_was_lost_is_as_before_after_a_restore(repo: Scratch, file: Path) -> None:
    """History, outputs, commits and the branch; what is the user's is not touched, byte for byte."""
    before, history = belongings(repo), repo.quick("history", "--json").out
    refs = git(repo, "for-each-ref")
    said = repo.quick("backup", str(file), "--json").data
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (said["events"], said["runs"], said["left_out"]) == (repo.event_count(), 1, [])
    assert list(file.parent.glob(".backup*")) == []
    lose_everything(repo)
    mine = belongings(repo)
    done = repo.quick("restore", str(file), "--json").data
    assert (done["aside"], done["paused"], done["lost"]) == (None, [], [])
    assert belongings(repo) == mine
    assert {name: before[name] for name in before if not name.startswith(".git/")} == {
        name: mine[name] for name in mine if not name.startswith(".git/")
    }
    assert repo.quick("history", "--json").out == history
    assert git(repo, "for-each-ref") == refs
    assert repo.quick("logs", "one").out == "said\n"
    whole(repo)
    repo.quick("merge", "--yes")
    assert (repo.root / "two").read_text() == "2\n"


def test_a_file_and_a_store_that_are_there_stay_until_somebody_agrees(repo: Scratch, file: Path) -> None:
    """Also then the store is kept, beside the new one, and can be read."""
    repo.quick("backup", str(file))
    content = file.read_bytes()
    assert "exists already" in repo.quick("backup", str(file), code=2).err
    assert file.read_bytes() == content
    repo.quick("run", repo.plan(shell("later", "true"), name="later"))
    count, store = repo.event_count(), repo.store.read_bytes()
    assert "put it aside" in repo.quick("restore", str(file), code=2).err
    assert repo.store.read_bytes() == store
    aside = repo.quick("restore", str(file), "--yes", "--json").data["aside"]
    assert repo.event_count() < count
    assert len(repo.quick("history", "--json", "--store", aside, "latest").lines) > 0
    assert [run["name"] for run in repo.quick("runs", "--json", "--store", aside).data] == ["plan", "later"]
    repo.quick("backup", str(file), "--yes")
    assert file.read_bytes() != content


def test_without_outputs_the_rest_is_there(repo: Scratch, file: Path) -> None:
    """And it is said of each task what it is."""
    repo.quick("backup", str(file), "--no-outputs")
    assert {name.split("/")[0] for name in members(file)} == {"events.db", "bundles", "manifest.json"}
    lose_everything(repo)
    repo.quick("restore", str(file))
    whole(repo)
    assert repo.quick("logs", "one", code=None).out == ""


def flipped(file: Path) -> None:
    """A bit in the midst of it: the first that counts, since deflate can say some things in two ways."""
    whole = file.read_bytes()
    for at in range(len(whole) // 2, len(whole)):
        spoiled = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        try:
            same = gzip.decompress(spoiled) == gzip.decompress(whole)
        except (OSError, EOFError, zlib.error):
            same = False
        if not same:
            file.write_bytes(spoiled)
            return
    raise AssertionError("no bit of it counts")


def cut(file: Path) -> None:
    """Its second half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def without_end(file: Path) -> None:
    """Its last member: as if whoever wrote it had been killed, and the tar had been closed all the same."""
    found = members(file)
    del found["manifest.json"]
    packed(file, found)


def with_more(file: Path) -> None:
    """A file that leads out of the folder."""
    packed(file, {"runs/../../../stolen": b"x", **members(file)})


def with_stranger(file: Path) -> None:
    """A file that the manifest does not name."""
    packed(file, {"runs/x/y/z/stdout.log": b"x", **members(file)})


def without_bundle(file: Path) -> None:
    """The commits."""
    packed(file, {name: content for name, content in members(file).items() if "bundle" not in name})


def with_link(file: Path) -> None:
    """Not a plain file."""
    found = members(file)
    with tarfile.open(file, "w:gz") as tar:
        link = tarfile.TarInfo("runs/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, content in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def renamed(found: dict[str, bytes], name: str, content: bytes) -> dict[str, bytes]:
    """Another content of a member, and a manifest that knows it."""
    import hashlib

    manifest = json.loads(found.pop("manifest.json"))
    manifest["members"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {**found, name: content, "manifest.json": json.dumps(manifest).encode()}


def with_changed_event(file: Path) -> None:
    """Somebody who changed an event, and the digests of files with it."""
    found = members(file)
    copy = file.with_name("changed.db")
    copy.write_bytes(found["events.db"])
    with closing(connect(copy)) as connection, connection:
        connection.execute("UPDATE events SET actor = 'nobody' WHERE seq = 5")
    packed(file, renamed(found, "events.db", copy.read_bytes()))


def with_poor_bundle(file: Path) -> None:
    """Somebody who took commits out, and the refs of them with it."""
    found = members(file)
    (name,) = [name for name in found if name.startswith("bundles/")]
    manifest = json.loads(found["manifest.json"])
    (entry,) = manifest["repositories"]
    folder = file.with_name("poor.git")
    bundle = file.with_name("poor.bundle")
    bundle.write_bytes(found[name])
    subprocess.run(["git", "init", "-q", "--bare", str(folder)], check=True)
    subprocess.run(["git", "fetch", "-q", str(bundle), "refs/*:refs/*"], cwd=folder, check=True)
    count = ("git", "rev-list", "--count")
    deep = {ref: int(subprocess.check_output([*count, ref], cwd=folder)) for ref in entry["refs"]}
    kept = {ref: commit for ref, commit in entry["refs"].items() if deep[ref] == min(deep.values())}
    subprocess.run(["git", "bundle", "create", "-q", str(bundle), *kept], cwd=folder, check=True)
    entry["refs"] = kept
    found["manifest.json"] = json.dumps(manifest).encode()
    packed(file, renamed(found, name, bundle.read_bytes()))


def no_tar(file: Path) -> None:
    """Something else, compressed."""
    file.write_bytes(gzip.compress(b"hello" * 500))


def no_archive(file: Path) -> None:
    """Something else."""
    file.write_text("hello")


@pytest.mark.parametrize(
    "damage",
    [
        flipped, cut, without_end, with_more, with_stranger, without_bundle, with_link, with_changed_event,
        with_poor_bundle, no_tar, no_archive,
    ],
)  # fmt: skip
def test_what_is_not_a_whole_backup_is_refused_and_nothing_is_changed(
    lost: Scratch, damage: Callable[[Path], None]
) -> None:
    """Whether by chance or by somebody who knows the format."""
    file = lost.root / "home" / "backup.tar.gz"
    damage(file)
    before = (belongings(lost), git(lost, "for-each-ref"))
    said = lost.quick("restore", str(file), "--json", code=2)
    assert said.complaint["code"] == "backup"
    assert said.complaint["hint"]
    assert (belongings(lost), git(lost, "for-each-ref")) == before
    assert not lost.store.exists()
    assert not (lost.root.parent / "stolen").exists()
    assert list(lost.store.parent.glob(".restoring*")) == []


def test_a_directory_without_git_comes_back_with_its_shadow_repository(cli: Scratch, file: Path) -> None:
    """In another folder, where its run finds its files; what is the user's there stays."""
    (cli.root / ".git").rmdir()
    cli.environment |= {"GIT_CONFIG_GLOBAL": os.devnull}
    cli.write("mine", "1\n")
    cli.quick("run", cli.plan(shell("one", "echo 2 >mine"), workspace="shared"))
    cli.quick("backup", str(file))
    shutil.rmtree(cli.store.parent)
    (cli.root / "mine").write_text("3\n")
    cli.quick("restore", str(file), "--into", str(cli.root))
    whole(cli)
    assert (cli.root / "mine").read_text() == "3\n"
    checkpoint = next(one for one in cli.quick("checkpoints", "--json").data if one["kind"] == "before_run")
    folder = cli.quick("checkpoint", "restore", checkpoint["checkpoint_id"], "--json").data
    assert "1\n" in [path.read_text() for path in Path(folder["folder"]).glob("mine")]


def tries(cli: Scratch) -> dict[str, int]:
    """The attempts of each task."""
    return {task["task_id"]: task["attempts"] for task in cli.quick("status", "--json").data["tasks"]}


def elsewhere(repo: Scratch, tmp_path: Path) -> Scratch:
    """Another clone of the project."""
    other = Scratch(tmp_path / "other" / "project")
    (other.root / ".git").rmdir()
    other.environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(
        ["git", "clone", "-q", "--branch", "main", "--single-branch", str(repo.root), str(tmp_path / "c")], check=True
    )
    for path in (tmp_path / "c").iterdir():
        path.rename(other.root / path.name)
    return other


@pytest.mark.slow
def test_a_backup_of_a_run_that_goes_on_can_go_on_elsewhere_and_nothing_of_the_first_is_touched(
    cli: Scratch, file: Path, tmp_path: Path
) -> None:
    """What ran there counts as lost here, and only a person lets the rest start; both come to their end."""
    versioned(cli, {"README.md": "hello\n"})
    flags = tmp_path / "flags"
    flags.mkdir()
    script = f"echo $PARALLEL_AGENTS_ATTEMPT >>{flags}/begun; {until_file(f'{flags}/go')}; echo 2 >two"
    plan = cli.plan(
        shell("one", "echo 1 >one"), shell("two", script, "one", max_retries=2), shell("end", "echo 3 >three", "two")
    )
    cli.quick("daemon", "start")
    run_id = cli.quick("submit", plan).out.strip()
    cli.until_running("two")
    cli.quick("backup", str(file))
    other = elsewhere(cli, tmp_path)
    try:
        done = other.quick("restore", str(file), "--json").data
        (first,) = (flags / "begun").read_text().split()
        assert (done["paused"], done["lost"]) == ([run_id], [first])
        found = other.quick("status", "--json").data
        assert found["status"] == "paused"
        whole(other)
        other.quick("daemon", "start")
        moved = other.quick("history", "--type", "RunMoved", "--json").lines
        assert [one["data"]["repository"] for one in moved] == [str(other.root)]
        other.quick("resume", run_id)
        wait_until(lambda: len((flags / "begun").read_text().split()) == 2, "the attempt of the copy")
        cli.until_running("two")
        (flags / "go").touch()
        other.until(lambda status: status["status"] == "completed", "the end of the copy")
        cli.until(lambda status: status["status"] == "completed", "the end of the first")
        assert tries(cli) == {"one": 1, "two": 1, "end": 1}
        assert tries(other) == {"one": 1, "two": 2, "end": 1}
        for each in (cli, other):
            each.quick("daemon", "stop")
            wait_until(lambda each=each: not each.ours(), "everything to end")
            whole(each)
            assert git(each, "show", f"parallel-agents/{run_id}:three") == "3"
    finally:
        other.close()


def test_an_attempt_that_lives_is_adopted_by_the_store_that_is_restored_in_its_place(
    cli: Scratch, file: Path, tmp_path: Path
) -> None:
    """The daemon was killed and its store spoiled; the attempt ran once."""
    versioned(cli, {"README.md": "hello\n"})
    flags = tmp_path / "flags"
    flags.mkdir()
    script = f"echo x >>{flags}/begun; {until_file(f'{flags}/go')}; echo 2 >two"
    cli.quick("daemon", "start")
    run_id = cli.quick("submit", cli.plan(shell("two", script))).out.strip()
    cli.until_running("two")
    assert "dispatches" in cli.quick("restore", str(cli.store), "--yes", code=2).err
    cli.quick("backup", str(file))
    os.kill(cli.quick("daemon", "status", "--json").data["pid"], signal.SIGKILL)
    wait_until(lambda: cli.quick("daemon", "status", code=None).code == 7, "the end of the daemon")
    cli.store.write_bytes(b"spoiled")
    done = cli.quick("restore", str(file), "--yes", "--json").data
    assert (done["paused"], done["lost"]) == ([run_id], [])
    assert Path(done["aside"]).read_bytes() == b"spoiled"
    (flags / "go").touch()
    cli.quick("resume", run_id)
    assert cli.quick("status", "--json").data["status"] == "completed"
    assert (flags / "begun").read_text() == "x\n"
    assert git(cli, "show", f"parallel-agents/{run_id}:two") == "2"
    whole(cli)


@pytest.mark.slow
def test_an_attempt_that_the_backup_does_not_know_is_not_orphaned(cli: Scratch, file: Path, tmp_path: Path) -> None:
    """It was started after the backup; nobody would answer for it. Its run is named."""
    versioned(cli, {"README.md": "hello\n"})
    flags = tmp_path / "flags"
    flags.mkdir()
    cli.quick("run", cli.plan(shell("one", "true")))
    cli.quick("backup", str(file))
    cli.quick("daemon", "start")
    run_id = cli.quick("submit", cli.plan(shell("two", until_file(f"{flags}/go")), name="second")).out.strip()
    cli.until_running("two")
    cli.quick("daemon", "stop")
    said = cli.quick("restore", str(file), "--yes", code=2)
    assert run_id in said.err
    assert "stop --now" in said.err
    (flags / "go").touch()
    wait_until(lambda: not cli.ours(), "the end of the attempt")
    cli.quick("restore", str(file), "--yes")
    whole(cli)


def test_nothing_is_restored_under_a_daemon_or_under_a_run_in_the_foreground(
    repo: Scratch, file: Path, tmp_path: Path
) -> None:
    """Each is named, with what to do."""
    repo.quick("backup", str(file))
    repo.quick("daemon", "start")
    assert "daemon stop" in repo.quick("restore", str(file), "--yes", code=2).err
    repo.quick("daemon", "stop")
    running = repo.begin("run", repo.plan(shell("wait", until_file(f"{tmp_path}/go")), name="waiting"))
    repo.until_running("wait")
    said = repo.quick("restore", str(file), "--yes", code=2)
    assert f"process {running.pid} dispatches run" in said.err
    (tmp_path / "go").touch()
    assert repo.said_by(running).code == 0
    repo.quick("restore", str(file), "--yes")
    whole(repo)


@pytest.mark.slow
def test_a_backup_of_a_busy_store_is_of_one_moment(cli: Scratch, file: Path, tmp_path: Path) -> None:
    """Whatever an event of it names is in it, while a daemon starts, merges and ends tasks all the time."""
    versioned(cli, {"README.md": "hello\n"})
    tasks: list[dict[str, Any]] = [shell(f"t{number}", f"echo {number} >f{number}") for number in range(30)]
    cli.quick("daemon", "start")
    run_id = cli.quick("submit", cli.plan(*tasks, max_parallel_agents=3)).out.strip()
    made = []
    ended = False
    while not ended:
        ended = cli.quick("status", run_id, "--json").data["status"] == "completed"
        made.append(tmp_path / f"{len(made)}.tar.gz")
        cli.quick("backup", str(made[-1]))
    assert len(made) > 2
    other = elsewhere(cli, tmp_path)
    try:
        counts = []
        for one in made:
            other.quick("restore", str(one), "--yes")
            whole(other)
            counts.append(sum(one["actor"] != "restore" for one in other.events()))  # That says what was cut off.
        assert counts == sorted(counts)
        assert len(set(counts)) > 1
    finally:
        other.close()


def test_a_timetable_does_not_come_back_by_itself(repo: Scratch, file: Path) -> None:
    """Whoever made the backup may have started what was due since; it is said how to have it again."""
    plan = repo.plan(shell("one", "true"), name="nightly")
    repo.quick("submit", plan, "--cron", "0 3 * * *", "--zone", "UTC")
    repo.quick("backup", str(file))
    said = repo.quick("restore", str(file), "--yes")
    assert "nightly does not run at '0 3 * * *' any more" in said.err
    assert repo.quick("schedules", "--json").data == []
    whole(repo)


@pytest.mark.parametrize(("words", "said"), [((".",), "is a folder"), (("no/such/b.tar.gz",), "no folder")])
def test_a_place_where_no_backup_can_be_is_named(repo: Scratch, words: tuple[str, ...], said: str) -> None:
    """Nothing is made there."""
    assert said in repo.quick("backup", *words, code=2).err


def test_what_is_no_backup_is_named(repo: Scratch) -> None:
    """With what a user may have meant."""
    said = repo.quick("restore", "nothing", "--yes", code=2)
    assert "no file nothing" in said.err
    assert "checkpoint restore" in said.err
