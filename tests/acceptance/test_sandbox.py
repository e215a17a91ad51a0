"""Attempts behind a sandbox: what they can see and write there, and that they end, time out and are adopted as ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from scratch import Scratch, in_state, shell, until_file, wait_until
from versioned import git, versioned

from parallel_agents.scheduler.sandbox import before_command, places, problem

SANDBOX = "PARALLEL_AGENTS_SAFETY_FEATURES__SANDBOX"


def behind(cli: Scratch, name: str, tmp_path: Path) -> Scratch:
    """The project, with this sandbox around its attempts; skipped where there is none."""
    if why := problem((name,), str(tmp_path)):
        pytest.skip(f"{name}: {why}")
    cli.environment[SANDBOX] = name
    return cli


@pytest.mark.parametrize("name", ["namespaces", "bwrap"])
def test_an_attempt_sees_no_process_but_its_own(cli: Scratch, name: str, tmp_path: Path) -> None:
    """And cannot signal those of others; what it leaves behind ends with it."""
    behind(cli, name, tmp_path)
    leave = "setsid sleep 600 > /dev/null 2>&1 & echo left"
    look = f"kill -0 {os.getpid()} 2>/dev/null || echo alone $(ls /proc | grep -c '^[0-9]')"
    found = cli.quick("run", cli.plan(shell("look", look), shell("leave", leave)), "--json").data
    assert in_state(found, "completed") == {"look", "leave"}
    said = cli.quick("logs", "look").out.split()
    assert said[0] == "alone"
    assert int(said[1]) < 12
    assert cli.ours() == {}


@pytest.mark.parametrize("name", ["namespaces", "bwrap"])
def test_it_times_out_is_cancelled_and_is_adopted_like_any_other(cli: Scratch, name: str, tmp_path: Path) -> None:
    """By the whole tree."""
    behind(cli, name, tmp_path)
    endless = "sh -c 'sleep 600' & sleep 600"
    found = cli.quick("run", cli.plan(shell("late", endless, timeout_s=0.5)), "--json", code=1).data
    assert "timed out" in found["tasks"][0]["error"]
    plan = cli.plan(shell("kept", f"echo x >> kept.txt; {until_file('go')}"), shell("ended", endless))
    cli.quick("submit", plan)
    first = cli.start("daemon", "run")
    cli.until_running("kept", "ended")
    wait_until((cli.root / "kept.txt").exists, "the command to begin")
    first.send_signal(signal.SIGKILL)
    first.wait()
    cli.quick("daemon", "start")
    cli.quick("cancel", "latest", "ended")
    cli.write("go", "")
    found = cli.quick("wait", "--json").data
    assert (in_state(found, "completed"), in_state(found, "cancelled")) == ({"kept"}, {"ended"})
    assert (cli.root / "kept.txt").read_text() == "x\n"
    cli.quick("daemon", "stop")
    assert cli.ours() == {}


def test_behind_bwrap_only_its_checkout_can_be_written(cli: Scratch, tmp_path: Path) -> None:
    """Not the store, the user's tree, the repository or the home; its work is merged as ever."""
    versioned(behind(cli, "bwrap", tmp_path), {"readme": "hello\n"})
    places = {
        "store": str(cli.store), "tree": str(cli.root / "readme"), "hook": str(cli.root / ".git" / "hooks" / "post-commit"),
        "home": str(cli.root / "home" / "x"),
    }  # fmt: skip
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    tries = "; ".join(f"( echo bad >> {path} ) 2>/dev/null && echo wrote {name}" for name, path in places.items())
    script = (
        f"{tries}; git log --oneline | head -1; git status --short; echo mine > mine.txt; touch $TMPDIR/ok && echo tmp"
    )
    found = cli.quick("run", cli.plan(shell("a", script, env={"TMPDIR": str(temporary)})), "--json").data
    said = cli.quick("logs", "a").out
    assert "wrote" not in said
    assert "first" in said
    assert said.endswith("tmp\n")
    assert git(cli, "show", f"parallel-agents/{found['run_id']}:mine.txt") == "mine"
    assert cli.quick("verify", "--json").data["ok"]


def test_in_a_shared_directory_the_store_is_kept_from_it(cli: Scratch, tmp_path: Path) -> None:
    """Although it lies in there."""
    behind(cli, "bwrap", tmp_path)
    script = f"( echo bad >> {cli.store} ) 2>/dev/null && echo wrote; echo mine > mine.txt"
    cli.quick("run", cli.plan(shell("a", script), workspace="none"))
    assert cli.quick("logs", "a").out == ""
    assert (cli.root / "mine.txt").read_text() == "mine\n"


def test_behind_bwrap_the_key_that_the_log_is_sealed_with_is_nowhere(cli: Scratch, tmp_path: Path) -> None:
    """Or an agent could change the log and seal it anew."""
    behind(cli, "bwrap", tmp_path)
    cli.quick("run", cli.plan(shell("a", "true"), workspace="none"))
    cli.quick("seal", "--out", "seal.json")
    cli.quick("run", cli.plan(shell("a", "ls -A ~/.config/parallel-agents/keys; cat ~/.config/parallel-agents/keys/seal.pem"),
                        workspace="none"), code=1)  # fmt: skip
    assert cli.quick("logs", "a").out.splitlines()[:1] != ["seal.pem"]
    assert "PRIVATE KEY" not in cli.quick("logs", "a").out
    assert cli.quick("verify", "--against", "seal.json").code == 0


def test_the_key_is_hidden_behind_all_that_is_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wherever the user's configuration lies; a folder that is not there is not to be hidden."""
    where = places("/work", "/attempt", "/store", "a", {"HOME": str(tmp_path)})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert "--tmpfs" not in before_command(("bwrap",), where)
    folders = [tmp_path / "xdg/parallel-agents/keys", tmp_path / ".config/parallel-agents/keys"]
    for folder in folders:
        folder.mkdir(parents=True)
    words = before_command(("bwrap",), where)
    hidden = [word for folder in folders for word in ("--tmpfs", str(folder))]
    assert list(words[-len(hidden) - 3 :]) == [*hidden, "--chdir", "/work", "--"]


def test_words_of_ones_own_go_before_the_command(cli: Scratch) -> None:
    """With places filled in."""
    words = '["env", "WHO={attempt}", "WHERE={workdir}", "BRACES={x}"]'
    cli.environment[SANDBOX] = words
    cli.quick("run", cli.plan(shell("a", "echo $WHO $WHERE $BRACES")))
    attempt = cli.quick("status", "--json").data["tasks"][0]["attempt_id"]
    assert cli.quick("logs", "a").out == f"{attempt} {cli.root} {{x}}\n"


def test_a_sandbox_that_is_not_there_is_refused_and_nothing_runs_without_it(cli: Scratch) -> None:
    """With the reason, and where it was asked for."""
    plan = cli.plan(shell("a", "true"))
    said = cli.quick("run", plan, code=2, env={SANDBOX: '["no-such-jail", "--"]'})
    assert "no 'no-such-jail' on PATH" in said.err
    assert SANDBOX in said.err
    said = cli.quick("run", plan, code=2, env={SANDBOX: '["false"]'})
    assert "exit code 1" in said.err
    assert "not" in cli.quick("run", plan, code=2, env={SANDBOX: "prison"}).err
    assert cli.quick("runs", "--json").data == []
    assert "can be had here" in cli.quick("doctor", code=None).out
