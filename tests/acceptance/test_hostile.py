"""What a malicious plan, agent, repository or other user of the machine can do, seen from outside (docs/security.md)."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from scratch import Scratch, shell, until_file, wait_until
from terminal import on_terminal, quickly_on_terminal
from versioned import git, versioned

BAD = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[6n\x9b2J\u202egnp.exe"
OBEYED = ("\x1b]52", "\x07", "\x1b[2J", "\x1b[6n", "\x9b", "\u202e")


def test_no_verb_lets_a_terminal_obey_what_an_attempt_printed(cli: Scratch) -> None:
    """Its colours stay; to a pipe and with --raw it is what was printed."""
    cli.write("bad.txt", BAD)
    script = "printf '\\033[31mred\\033[0m\\n'; cat bad.txt; echo; cat bad.txt >&2; exit 3"
    plan = cli.plan(shell("a", script), shell("b", "true"))
    shown = on_terminal(cli, "run", plan, size=(120, 30))
    live = shown.raw
    assert shown.code == 1
    assert not [code for code in OBEYED[2:] if code in live.replace("\x1b[2K", "")]
    assert "\x1b]52" not in live
    for words in (("logs", "a"), ("show", "a"), ("status",), ("history",), ("timeline",), ("why", "a"), ("runs",), ("cost",),
                  ("status", "--json"), ("history", "--json"), ("logs", "a", "--json"), ("show", "a", "--json")):  # fmt: skip
        said = quickly_on_terminal(cli, *words, size=(120, 30)).raw
        assert not [code for code in OBEYED if code in said], words
        assert said.strip()
    assert "\x1b[31mred" in quickly_on_terminal(cli, "logs", "a").raw
    assert BAD in cli.quick("logs", "a").out
    assert "\x1b]52" in quickly_on_terminal(cli, "logs", "a", "--raw").raw
    assert json.loads(cli.quick("logs", "a", "--json").out)["stderr"].startswith(BAD)


def test_following_a_log_on_a_terminal_is_as_harmless(cli: Scratch) -> None:
    """Cut wherever the attempt writes."""
    script = f"printf '\\033'; {until_file('go')}; printf ']52;c;ZXZpbA==\\007end\\n'"
    cli.quick("submit", cli.plan(shell("a", script)))
    cli.quick("daemon", "start")
    cli.until_running("a")
    cli.write("go", "")
    said = quickly_on_terminal(cli, "logs", "a", "--follow").raw
    assert "\\x1b]52" in said
    assert "\x1b]52" not in said
    cli.quick("daemon", "stop")


def test_whatever_the_umask_nothing_of_ours_can_be_read_by_others(cli: Scratch) -> None:
    """Store, output, prompts, checkouts, sockets and the daemon's own files; attempts keep the user's umask."""
    versioned(cli, {"readme": "hello\n"})
    plan = cli.plan(shell("a", "umask > umask.txt; echo said"), shell("b", f"{until_file(str(cli.root / 'go'))}", "a"))
    cli("daemon", "start", script='umask 0; "$@"')
    cli("submit", plan, script='umask 0; "$@"')
    cli.until_running("b")
    home = cli.store.parent
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    open_ones = []
    for folder, folders, names in os.walk(home):
        if folder == str(home):
            folders.remove("worktrees")  # A checkout has the modes that its files have; the folder above it is private.
            assert stat.S_IMODE((home / "worktrees").stat().st_mode) & 0o077 == 0
        open_ones += [
            f"{name} {stat.S_IMODE(found.st_mode):o}"
            for name in (*folders, *names)
            if not stat.S_ISLNK((found := os.lstat(f"{folder}/{name}")).st_mode) and found.st_mode & 0o077
        ]
    assert [one for one in open_ones if not one.startswith(".gitignore ")] == []
    cli.write("go", "")
    cli.quick("wait")
    cli.quick("daemon", "stop")


@pytest.mark.parametrize("place", ["events.db", "."])
def test_a_store_that_others_can_write_is_not_opened(cli: Scratch, place: str) -> None:
    """By reading and by dispatching verbs; the way to have it again is said."""
    cli.quick("run", cli.plan(shell("a", "true")))
    target = cli.store.parent / place
    mode = stat.S_IMODE(target.stat().st_mode)
    target.chmod(mode | 0o022)
    for words in (("status",), ("run", str(cli.root / "plan.json")), ("verify",)):
        said = cli.quick(*words, code=2)
        assert "can be written by others" in said.err
        assert "chmod go-w" in said.err
    target.chmod(mode)
    cli.quick("status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_store_of_another_user_is_not_opened(cli: Scratch, tmp_path: Path) -> None:
    """Its plans would run as us."""
    cli.quick("run", cli.plan(shell("a", "true")))
    program = (
        "import os, sys; from pathlib import Path; from parallel_agents.eventstore.sqlite import _check_ours;"
        "os.setgid(65534); os.setuid(65534); _check_ours(Path(sys.argv[1]))"
    )
    copy = tmp_path / "events.db"
    copy.write_bytes(cli.store.read_bytes())
    copy.chmod(0o644)
    os.chown(copy, 1234, 1234)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    found = subprocess.run([sys.executable, "-c", program, str(copy)], capture_output=True, text=True, cwd="/")
    assert "belongs to another user (uid 1234)" in found.stderr


@pytest.mark.parametrize(
    "task",
    [
        {"task_id": "../../etc/cron.d/x"},
        {"task_id": "a/b"},
        {"task_id": "a\nb"},
        {"task_id": "$(touch pwned)x"},
        {"task_id": "ａ"},
        {"outputs": ["../../secret"]},
        {"outputs": ["/etc/passwd"]},
        {"files": ["../**"]},
        {"env": {"A=B": "x"}},
        {"command": ["a\0b"]},
    ],
)
def test_a_plan_that_reaches_out_of_the_project_is_refused(cli: Scratch, task: dict[str, object]) -> None:
    """By its field, before anything is written."""
    plan = cli.plan({**shell("a", "true"), **task})
    assert cli.quick("run", plan, code=2).err
    assert not cli.store.exists()
    assert not (cli.root / "pwned").exists()


def test_no_text_of_a_plan_is_read_by_a_shell(cli: Scratch) -> None:
    """Names, descriptions, variables and arguments come through as they are."""
    hostile = "$(touch pwned) `touch pwned`; touch pwned #'\"\\"
    task = {
        "task_id": "a", "command": ["printf", "%s", hostile], "description": hostile, "tags": [hostile],
        "env": {"HOSTILE": hostile}, "agent_type": hostile,
    }  # fmt: skip
    versioned(cli, {"readme": "hello\n"})
    cli.quick("run", cli.plan(task, name="hostile $(touch pwned)"))
    assert cli.quick("logs", "a").out == hostile
    for words in (("status",), ("show", "a"), ("timeline",), ("checkpoints",), ("merge", "--yes")):
        cli.quick(*words, code=None)
    assert not list(cli.root.rglob("pwned"))


def test_a_link_in_the_place_of_a_folder_of_ours_leads_nothing_elsewhere(cli: Scratch, tmp_path: Path) -> None:
    """An agent that replaces its checkout or its log by a link makes us write and remove nothing behind it."""
    versioned(cli, {"readme": "hello\n"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("mine\n")
    script = f"cd .. && mv a gone && ln -s {outside} a"
    cli.quick(
        "run",
        cli.plan(shell("a", script), shell("b", f"ln -s {outside} link; ln -s /etc/passwd passwd")),
        "--json",
        code=None,
    )
    cli.quick("gc", "--yes", code=None)
    assert (outside / "precious.txt").read_text() == "mine\n"
    assert [path.name for path in outside.iterdir()] == ["precious.txt"]


def test_a_flood_of_bells_from_a_process_of_ours_stops_no_dispatcher(cli: Scratch) -> None:
    """A bell says nothing but that there may be news."""
    from parallel_agents.eventstore.doorbell import doorbell_prefix

    cli.quick("daemon", "start")
    daemon = int(cli.quick("daemon", "status", "--json").data["pid"])
    folder = Path(cli.environment.get("XDG_RUNTIME_DIR") or f"/tmp/parallel-agents-{os.getuid()}")
    [bell] = folder.glob(f"{doorbell_prefix(cli.store)}{daemon}-*.sock")
    flood = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        'while True:\n  try: s.sendto(b\'{"rm": "-rf"}\' * 20, sys.argv[1])\n  except OSError: pass\n'
    )
    flooder = subprocess.Popen(["python3", "-c", flood, str(bell)])
    try:
        cli.quick("submit", cli.plan(shell("a", "true")))
        assert cli.quick("wait", "--json", "--timeout", "60").data["status"] == "completed"
    finally:
        flooder.kill()
        flooder.wait()
    wait_until(lambda: cli.quick("daemon", "stop").code == 0, "the daemon to end")


def test_a_store_that_came_with_a_repository_is_dispatched_by_no_daemon(cli: Scratch) -> None:
    """Whoever clones it has asked for nothing that is queued in there; reading it is fine."""
    versioned(cli, {"readme": "hello\n"})
    cli.quick("submit", cli.plan(shell("evil", "touch pwned"), workspace="none"))
    git(cli, "add", "-f", ".parallel-agents/events.db")
    git(cli, "commit", "-qm", "with a store")
    for verb in ("start", "run"):
        said = cli.quick("daemon", verb, code=None)
        assert said.code != 0
        assert "came with the repository" in said.err
    assert [line["status"] for line in cli.quick("runs", "--json").data] == ["submitted"]
    assert not (cli.root / "pwned").exists()
    git(cli, "rm", "-q", "--cached", ".parallel-agents/events.db")
    cli.quick("daemon", "start")
    cli.quick("wait")
    cli.quick("daemon", "stop")
