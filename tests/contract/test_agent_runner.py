"""What the runner of agents keeps beside what every runner does: prompts, sessions, bills, and clients that behave badly."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakeagent.installing import command_of
from stages import Agents
from waiting import wait_until

from parallel_agents.scheduler.agents import tail
from parallel_agents.scheduler.agents.bill import charges
from parallel_agents.scheduler.agents.clients import BUILT_IN, Client, clients, environment
from parallel_agents.scheduler.agents.finding import find_client
from parallel_agents.scheduler.agents.tail import Tail
from parallel_agents.scheduler.process import carriers
from parallel_agents.scheduler.runners import agent
from parallel_agents.scheduler.runners.protocol import Charge, Ended, Launch

ONE_CALL = 4_800  # Micro-dollars: 1000 tokens in and 100 out, of the model below.
MODEL = "claude-sonnet-4-5"


def told(launch: Launch, name: str) -> Any:
    """What lies in an attempt's folder as JSON."""
    return json.loads(Path(launch.folder, name).read_text())


def tokens(ended: Ended) -> list[tuple[int, int, bool]]:
    """Input, output, and whether that is all, by charge."""
    return [(one.input_tokens, one.output_tokens, one.partial) for one in ended.charges]


def kill(pid: int) -> None:
    """As the system does it when there is no memory left."""
    os.kill(pid, signal.SIGKILL)


def go_on(agents: Agents, before: Launch, *steps: str, **given: Any) -> Launch:
    """An errand that goes on with the session of another one."""
    given.setdefault("resume_prompt", "\n".join(["Go on.", *(f"@{step}" for step in steps)]))
    return agents.errand(resumes_folder=str(before.folder), **given)


# What it is told.


def test_a_prompt_of_100_kb_comes_whole(agents: Agents, tmp_path: Path) -> None:
    """More than a pipe holds, and than an argument may be; every dialect of a prompt by stdin."""
    prompt = "\n".join(f"Line {number} of a long tale, with ä and 日本." for number in range(3000))
    assert len(prompt.encode()) > 100_000
    for client in ("claude", "codex"):
        seen = tmp_path / f"seen-{client}"
        ended = agents.run(agents.errand(f"prompt {seen}", "say Read.", prompt=prompt, client=BUILT_IN[client]))
        assert (ended.error, ended.output) == (None, "Read.")
        assert seen.read_text() == prompt


def test_a_prompt_comes_as_a_file_or_as_an_argument(agents: Agents) -> None:
    """Rows of the configuration that read plain text and are known by what they print."""
    rows = {
        "by-file": {"command": ["cat", "{prompt_file}"], "prompt": "file"},
        "by-argument": {"command": ["echo", "said: {prompt}"], "prompt": "argument"},
        "by-stdin": {"command": ["cat"]},
    }
    table = clients(rows)
    said = {name: agents.run(agents.errand(client=table[name], prompt="Mend it.")).output for name in rows}
    assert said == {"by-file": "Mend it.", "by-argument": "said: Mend it.", "by-stdin": "Mend it."}


def test_a_prompt_that_is_no_argument_any_more_is_refused(agents: Agents) -> None:
    """The system allows 128 KiB; the error names the client and the way out, and it is not tried again."""
    client = Client(name="terse", command=("echo", "{prompt}"), prompt="argument")
    ended = agents.run(agents.errand(client=client, prompt="x" * 131_072))
    assert (ended.outcome, ended.retryable, ended.kind) == ("not_started", False, "configuration")
    assert ended.error == "terse takes its prompt as an argument, and 131,072 characters are too many for one"


def test_a_client_that_is_nowhere_is_refused(agents: Agents) -> None:
    """With what can be done about it; nothing of it stays."""
    launch = agents.errand("say no", client=replace(BUILT_IN["codex"], command=("codex-of-nowhere", "exec")))
    ended = agents.run(launch)
    assert (ended.outcome, ended.retryable, ended.kind) == ("not_started", False, "configuration")
    assert ended.error is not None
    assert "no such command: 'codex-of-nowhere'" in ended.error
    assert agents.runner.running() == 0


def test_a_directory_that_is_gone_is_a_failure_of_the_configuration(agents: Agents, tmp_path: Path) -> None:
    """The supervisor says so, and the folder for temporary files goes with the attempt."""
    launch = replace(agents.errand("say no"), workdir=tmp_path / "gone")
    ended = agents.run(launch)
    assert (ended.outcome, ended.kind) == ("not_started", "configuration")
    assert not Path(told(launch, "session.json")["temporary"]).exists()


def test_no_agent_starts_twice(agents: Agents, tmp_path: Path) -> None:
    """A second start is refused, and leaves what the first one has written as it is."""
    launch = agents.errand(f"run echo ran >> {tmp_path}/ran", "say Done.")
    agents.run(launch)
    before = told(launch, "session.json")
    agents.ends.clear()
    assert agents.run(launch).outcome == "not_started"
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert told(launch, "session.json") == before


def test_a_client_that_a_package_bundles_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PATH has none; one on PATH comes first, and a command of the configuration is never guessed."""
    bundled = tmp_path / "claude_agent_sdk" / "_bundled" / "claude"
    bundled.parent.mkdir(parents=True)
    (bundled.parents[1] / "__init__.py").touch()
    bundled.write_text("#!/bin/sh\n")
    bundled.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "claude_agent_sdk", raising=False)
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "claude").symlink_to(bundled)
    claude = BUILT_IN["claude"]
    assert find_client(claude, str(empty)) == str(bundled)
    assert find_client(claude, str(full)) == str(full / "claude")
    assert find_client(replace(claude, command=("my-claude", "-p")), str(empty)) is None


# What it has around it.


def test_an_agent_has_a_private_folder_for_temporary_files(agents: Agents, tmp_path: Path) -> None:
    """With a path that is short enough for sockets, outside of every project; it is gone with the attempt."""
    launch = agents.errand(
        f"environ {tmp_path}/environ", 'run touch "$TMPDIR/left"', f"write {tmp_path}/begun x", "hang"
    )
    agents.start(launch)
    wait_until((tmp_path / "begun").exists, "the agent to begin")
    environ = json.loads((tmp_path / "environ").read_text())
    folder = Path(environ["TMPDIR"])
    assert environ["CLAUDE_CODE_TMPDIR"] == str(folder)
    assert (folder / "left").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.parent == Path(tempfile.gettempdir())
    assert len(folder.name) <= 12
    agents.runner.stop(launch.attempt_id)
    agents.end_of(launch.attempt_id)
    assert not folder.exists()


def test_the_folder_of_whoever_dispatches_is_not_passed_on() -> None:
    """It has its own; only a folder that the plan names is in its environment."""
    for client in (BUILT_IN["claude"], BUILT_IN["codex"]):
        for said, wanted in (("/of/us", None), ("/of/the/plan", "/of/the/plan")):
            env = environment(client, {"TMPDIR": "/of/us"}, {"TMPDIR": said}, "/config")
            assert env.get("TMPDIR") == wanted


def test_a_folder_that_the_plan_names_stays(agents: Agents, tmp_path: Path) -> None:
    """And so does whatever an agent writes in place of the name of its own."""
    named, precious = tmp_path / "named", tmp_path / "pa-precious"
    named.mkdir()
    precious.mkdir()
    launch = agents.errand('run touch "$TMPDIR/left"', env={"TMPDIR": str(named)})
    agents.run(launch)
    assert (named / "left").exists()
    launch = agents.errand()
    forged = json.dumps({"temporary": str(precious)})
    agents.start(
        replace(launch, env={**launch.env, "FAKE_AGENT": f"write {launch.folder}/session.json {forged}\nhang"})
    )
    wait_until(lambda: "precious" in Path(launch.folder, "session.json").read_text(), "the forged file")
    agents.take_over(launch)
    agents.runner.stop(launch.attempt_id)
    agents.end_of(launch.attempt_id)
    assert precious.exists()


def test_what_a_client_keeps_of_its_sessions_is_private(agents: Agents) -> None:
    """Nobody else can look into the folder that it has from us."""
    agents.run(agents.errand("say Done."))
    assert stat.S_IMODE((agents.folder / "clients" / "claude").stat().st_mode) == 0o700


def test_setup_and_teardown_stand_around_an_agent(agents: Agents, tmp_path: Path) -> None:
    """In that order, and what comes on the standard input is for the agent alone."""
    log = tmp_path / "log"
    launch = agents.errand(
        f"run echo agent >> {log}", "say Done.",
        setup=("sh", "-c", f"echo setup $(cat) >> {log}"), teardown=("sh", "-c", f"echo teardown $(cat) >> {log}"),
    )  # fmt: skip
    ended = agents.run(launch)
    assert (ended.error, ended.output) == (None, "Done.")
    assert log.read_text() == "setup\nagent\nteardown\n"


def test_without_its_setup_no_agent_begins(agents: Agents) -> None:
    """It fails for what it is, and costs nothing."""
    ended = agents.run(agents.errand("say Done.", setup=("sh", "-c", "echo no disk >&2; exit 4")))
    assert (ended.outcome, ended.exit_code, ended.charges) == ("exited", 125, ())
    assert ended.error is not None
    assert "setup failed: exit 4" in ended.error
    assert (ended.kind, ended.retryable) == ("infrastructure", True)


def test_setup_and_teardown_have_times_of_their_own(agents: Agents, tmp_path: Path) -> None:
    """Longer than an agent may be silent, and than it may stay after its result."""
    took = ("sh", "-c", f"sleep 0.7; echo took >> {tmp_path}/log")
    ended = agents.run(agents.errand("say Done.", setup=took, teardown=took, silence_s=0.3, grace_s=0.2))
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "Done.")
    assert (tmp_path / "log").read_text() == "took\ntook\n"


# How it ends.


def test_the_last_of_two_results_counts(agents: Agents) -> None:
    """Once: the calls are charged as the sum of both says."""
    ended = agents.run(agents.errand("say Done.", "twice", model=MODEL))
    assert (ended.error, ended.output) == (None, "Done.")
    assert ended.charges == (Charge(MODEL, ONE_CALL - 300, "agent", 1000, 100, calls=1),)


def test_a_stream_that_breaks_off_is_a_failure_by_whatever_name_its_row_goes(agents: Agents) -> None:
    """What a client prints says how it ends; an end without a result is none of plain text's."""
    for name in ("claude", "mine"):
        ended = agents.run(agents.errand("say One.", "exit 0", client=replace(BUILT_IN["claude"], name=name)))
        assert (ended.exit_code, ended.kind) == (0, "infrastructure")
        assert ended.error


def test_lines_of_5_mb_and_garbage_are_survived(agents: Agents) -> None:
    """They are read as they come; what is kept of a text is bounded, and no call is missed."""
    ended = agents.run(agents.errand("garbage", "long 5000000", "garbage", model=MODEL))
    assert (ended.error, tokens(ended)) == (None, [(1000, 100, False)])
    assert 1000 < len(ended.output) < 30_000


def test_what_is_interrupted_tells_its_cost(agents: Agents, tmp_path: Path) -> None:
    """By a word on its standard input: a result comes, with the call in flight. It can be gone on with."""
    launch = agents.endless(tmp_path / "begun")
    agents.start(launch)
    wait_until((tmp_path / "begun").exists, "the agent to begin")
    agents.runner.stop(launch.attempt_id)
    ended = agents.end_of(launch.attempt_id)
    assert (ended.outcome, ended.exit_code, ended.resumable) == ("stopped", 1, True)  # By SIGTERM it would be 143.
    assert [(one.source, one.partial) for one in ended.charges] == [("agent", True)]
    assert '"control_response"' in Path(launch.folder, "stdout.log").read_text()


def test_who_is_stopped_in_the_middle_of_a_long_prompt_hears_it_to_its_end(agents: Agents, tmp_path: Path) -> None:
    """The word to stop comes behind it, not into it, and is understood."""
    client = replace(BUILT_IN["claude"], command=("sh", "-c", 'touch begun; sleep 0.3; exec "$@"', "sh", *CLAUDE))
    launch = agents.errand("hang", client=client, prompt="x" * 200_000)
    agents.start(launch)
    wait_until((tmp_path / "begun").exists, "the client to begin")
    agents.runner.stop(launch.attempt_id)
    ended = agents.end_of(launch.attempt_id)
    assert (ended.outcome, ended.exit_code) == ("stopped", 1)
    assert "JSONDecodeError" not in Path(launch.folder, "stderr.log").read_text()


def test_a_client_that_does_not_listen_is_no_harm(agents: Agents) -> None:
    """It closes its standard input, or never reads a long prompt: it ends as it ends."""
    for script in ("exec <&-; sleep 0.1; echo Done.", "echo Done."):
        client = Client(name="deaf", command=("sh", "-c", script), prompt="talk")
        ended = agents.run(agents.errand(client=client, prompt="x" * 200_000))
        assert (ended.outcome, ended.error, ended.output) == ("exited", None, "Done.")


@pytest.mark.slow
@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize(
    ("deaf_to", "exit_code", "least_s"), [((), 7, 0.0), (("word",), 8, 3.0), (("word", "TERM"), -9, 4.0)]
)
def test_the_ladder_has_three_rungs(
    agents: Agents, tmp_path: Path, deaf_to: tuple[str, ...], exit_code: int, least_s: float, adopted: bool
) -> None:
    """The word (SIGINT where there is no standard input any more), after three seconds SIGTERM, after the grace SIGKILL."""
    on_term = "signal.SIG_IGN" if "TERM" in deaf_to else "lambda *_: os._exit(8)"
    on_int = "signal.SIG_IGN" if deaf_to else "lambda *_: os._exit(7)"
    then = "time.sleep(600)" if deaf_to or adopted else "sys.stdin.readline()"  # For ever, or until the word comes.
    program = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, {on_term})
signal.signal(signal.SIGINT, {on_int})
sys.stdin.readline()
open("begun", "w").close()
{then}
sys.exit(7)
"""
    client = Client(name="stubborn", command=(sys.executable, "-c", program), prompt="talk")
    launch = agents.errand(client=client)
    agents.start(launch)
    wait_until((tmp_path / "begun").exists, "the client to begin")
    if adopted:
        agents.take_over(launch)
    begun_s = time.monotonic()
    agents.runner.stop(launch.attempt_id, grace_s=1.0)
    ended = agents.end_of(launch.attempt_id)
    assert (ended.outcome, ended.exit_code) == ("stopped", exit_code)
    assert time.monotonic() - begun_s >= least_s  # Which rung it was, its exit code says.


def test_who_stays_after_its_result_is_sent_home(agents: Agents) -> None:
    """A command in the background keeps it: it is stopped after a while, and has succeeded."""
    ended = agents.run(agents.errand("say Done.", "linger", grace_s=0.1, model=MODEL))
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "Done.")
    assert tokens(ended) == [(1000, 100, False)]


def test_who_stays_until_its_time_is_up_has_succeeded_too(agents: Agents) -> None:
    """What counts is that there is a result and nothing after it."""
    ended = agents.run(agents.errand("say Done.", "linger", timeout_s=1.0))
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "Done.")


def test_who_hangs_until_its_time_is_up_has_failed(agents: Agents) -> None:
    """By its task's own time, which is none of its silence."""
    ended = agents.run(agents.errand("hang", timeout_s=1.0))
    assert (ended.outcome, ended.error) == ("timed_out", "timed out after 1 s")


def test_who_waits_for_an_agent_of_its_own_is_not_sent_home(agents: Agents) -> None:
    """A first result says that it waits; the grace begins when nobody works any more."""
    started = {"type": "system", "subtype": "task_started", "task_id": "t1", "task_type": "local_agent"}
    notified = {"type": "system", "subtype": "task_notification", "task_id": "t1"}
    result = {"type": "result", "subtype": "success", "is_error": False, "result": "Waiting."}
    lines = [started, result, notified, {**result, "result": "All done."}]
    first, second = ("\n".join(map(json.dumps, part)) for part in (lines[:2], lines[2:]))
    client = replace(
        BUILT_IN["claude"], command=("sh", "-c", f"echo '{first}'; sleep 0.5; echo '{second}'; sleep 600", "sh")
    )
    ended = agents.run(agents.errand(client=client, grace_s=0.2, silence_s=30.0))
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "All done.")


def test_silence_is_taken_for_a_hang(agents: Agents) -> None:
    """Stopped, a failure of the infrastructure, and tried again."""
    ended = agents.run(agents.errand("say One.", "hang", silence_s=0.8, model=MODEL))
    assert (ended.outcome, ended.error) == ("exited", "it gave no sign for 0.8 s and was stopped")
    assert (ended.kind, ended.retryable, ended.resumable) == ("infrastructure", True, True)
    assert ended.charges[0].input_tokens == 2000


def test_a_key_that_is_refused_is_not_tried_for_minutes(agents: Agents) -> None:
    """The client would; the third time in a row is enough. Once in a while it renews a token, which is no refusal."""
    again = ["retry unauthorized"] * 3
    ended = agents.run(agents.errand("say One.", *again, "sleep 600"))
    assert (ended.outcome, ended.kind, ended.retryable) == ("exited", "authentication", False)
    assert ended.error == "its provider refuses its key, time and again"
    renewing = [step for number in range(4) for step in ("retry unauthorized", f"say Part {number}.")]
    assert agents.run(agents.errand(*renewing)).output == "Part 3."


def test_who_says_something_now_and_then_does_not_hang(agents: Agents) -> None:
    """Words that come are a sign, however long it takes."""
    ended = agents.run(agents.errand("stream 1.0", "say Done.", silence_s=0.8))
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "Done.")


@pytest.mark.parametrize("way", ["client", "codex"])
def test_nothing_of_an_agent_lives_on(agents: Agents, tmp_path: Path, way: str) -> None:
    """A process in a session of its own, whose parent has gone."""
    client = BUILT_IN["claude" if way == "client" else way]
    ended = agents.run(agents.errand(f"daemon {tmp_path}/pid", "say Done.", client=client))
    pid = int((tmp_path / "pid").read_text())
    assert (ended.error, ended.output) == (None, "Done.")
    assert carriers([ended.attempt_id]) == {}
    assert not Path(f"/proc/{pid}").exists()


# Sessions, and what they cost.


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_who_goes_on_is_charged_with_the_difference(agents: Agents, client: str) -> None:
    """Its client tells the total of the session; both together are what was used."""
    first = agents.errand("say One.", "say Two.", client=BUILT_IN[client], model=MODEL)
    before = agents.run(first)
    again = go_on(agents, first, "say Three.", client=BUILT_IN[client], model=MODEL)
    after = agents.run(again)
    assert (tokens(before), tokens(after)) == ([(2000, 200, False)], [(1000, 100, False)])
    assert after.output == "Three."
    assert told(first, "session.json")["session"] == told(again, "session.json")["session"]
    third = go_on(agents, again, "say Four.", client=BUILT_IN[client], model=MODEL)
    assert tokens(agents.run(third)) == [(1000, 100, False)]


def test_who_is_killed_in_mid_call_goes_on_where_it_was(agents: Agents, tmp_path: Path) -> None:
    """What it has told so far is charged, marked as a part; the next one does the rest only."""
    begun = tmp_path / "begun"
    first = agents.errand(f"write {begun} x", "fresh die 9", "say Done.", model=MODEL)
    before = agents.run(first)
    assert (before.outcome, before.exit_code, before.kind) == ("exited", -9, "infrastructure")
    assert (before.resumable, before.retryable) == (True, True)
    assert tokens(before) == [(2000, 101, True)]  # Of the call in flight, what it began with.
    after = agents.run(go_on(agents, first, resume_prompt="Go on.", model=MODEL))
    assert (after.error, after.output, tokens(after)) == (None, "Done.", [(1000, 100, False)])


def test_who_goes_on_and_gets_no_answer_can_go_on_still(agents: Agents) -> None:
    """The session is there as it was before; only an attempt that began anew and got no answer has none."""
    first = agents.errand("say One.", "exit 3")
    assert agents.run(first).resumable
    second = go_on(agents, first, "fail server-error")
    assert agents.run(second).resumable
    ended = agents.run(go_on(agents, second, "say Two.", model=MODEL))
    assert (ended.output, tokens(ended)) == ("Two.", [(1000, 100, False)])
    assert not agents.run(agents.errand("fail server-error")).resumable


def test_a_session_that_is_gone_is_begun_anew(agents: Agents) -> None:
    """Its client says so at once: another attempt follows, and does not ask for the session again."""
    first = agents.errand("say One.")
    agents.run(first)
    for file in (agents.folder / "clients" / "claude").rglob("*.json"):
        file.unlink()
    ended = agents.run(go_on(agents, first, "say Two."))
    assert ended.error is not None
    assert "No conversation found" in ended.error
    assert (ended.retryable, ended.resumable, ended.charges) == (True, False, ())


def test_an_attempt_that_left_no_session_is_not_resumed(agents: Agents, tmp_path: Path) -> None:
    """It never came so far; the whole prompt is told."""
    never = replace(agents.errand(), folder=tmp_path / "runs" / "never")
    ended = agents.run(agents.errand("fresh say Anew.", resumes_folder=str(never.folder), resume_prompt="Go on."))
    assert ended.output == "Anew."


# Whoever takes over.


def test_a_successor_reads_what_was_said_before_it_came(agents: Agents, tmp_path: Path) -> None:
    """Its runner lets go in the middle: all agents work on and go home by themselves, and their bills are whole."""
    steps = ("say One.", f"run until test -e {tmp_path}/gate; do sleep 0.01; done", "say Three.")
    launches = [agents.errand(*steps, model=MODEL, grace_s=600.0) for _ in range(3)]
    for launch in launches:
        agents.start(launch)
    outs = [Path(launch.folder, "stdout.log") for launch in launches]
    wait_until(lambda: all(out.exists() and b"tool_use" in out.read_bytes() for out in outs), "their commands")
    agents.take_over(*launches)
    (tmp_path / "gate").touch()
    for launch in launches:
        ended = agents.end_of(launch.attempt_id)
        assert (ended.error, ended.output, tokens(ended)) == (None, "Three.", [(3000, 300, False)])
        assert not Path(told(launch, "session.json")["temporary"]).exists()


def test_a_successor_finds_the_end_of_who_ended_meanwhile(agents: Agents) -> None:
    """Nobody was there when it ended; nothing of it is lost."""
    launch = agents.errand("say Done.", model=MODEL)
    agents.start(launch)
    agents.runner.close()
    wait_until(Path(launch.folder, "exit.json").exists, "the end")
    agents.take_over(launch)
    ended = agents.end_of(launch.attempt_id)
    assert (ended.error, ended.output, tokens(ended)) == (None, "Done.", [(1000, 100, False)])


def test_an_adopted_agent_is_interrupted_by_a_signal(agents: Agents, tmp_path: Path) -> None:
    """There is no standard input any more; it tells what it has cost all the same."""
    launch = agents.endless(tmp_path / "begun")
    agents.start(launch)
    wait_until((tmp_path / "begun").exists, "the agent to begin")
    agents.take_over(launch)
    agents.runner.stop(launch.attempt_id)
    ended = agents.end_of(launch.attempt_id)
    assert ended.outcome == "stopped"
    assert [one.source for one in ended.charges] == ["agent"]


@pytest.mark.parametrize("way", ["ours", "adopted"])
def test_who_breaks_a_limit_fails_for_that_and_is_charged(agents: Agents, tmp_path: Path, way: str) -> None:
    """It is not asked to stop first: it might take more meanwhile. What it has told of its cost counts."""
    launch = agents.endless(tmp_path / "begun")
    agents.start(launch)
    wait_until((tmp_path / "begun").exists, "the agent to begin")
    if way == "adopted":
        agents.take_over(launch)
    agents.runner.end(launch.attempt_id, error="used too much", kind="memory", grace_s=0.5)
    agents.runner.stop(launch.attempt_id, grace_s=60.0)
    ended = agents.end_of(launch.attempt_id)
    assert (ended.outcome, ended.error, ended.kind, ended.retryable) == ("exited", "used too much", "memory", False)
    assert ended.charges
    assert agents.count(launch.attempt_id) == 1


def test_who_has_done_its_work_is_held_to_no_limit_any_more(agents: Agents) -> None:
    """Its result came first."""
    launch = agents.errand("say Done.", "linger", grace_s=600.0)
    agents.start(launch)
    out = Path(launch.folder, "stdout.log")
    wait_until(lambda: out.exists() and b'"result"' in out.read_bytes(), "its result")
    agents.runner.end(launch.attempt_id, error="used too much", kind="memory", grace_s=0.0)
    ended = agents.end_of(launch.attempt_id)
    assert (ended.outcome, ended.error, ended.kind, ended.output) == ("exited", None, "", "Done.")


def test_why_it_was_stopped_is_known_to_a_successor(agents: Agents) -> None:
    """One that has been sent home after its result has succeeded, whoever sees its end."""
    launch = agents.errand("say Done.", "linger", grace_s=0.1)
    agents.start(launch)
    wait_until(Path(launch.folder, "exit.json").exists, "the end")
    agents.runner.close()
    agents.take_over(launch)
    ended = agents.end_of(launch.attempt_id)
    assert (ended.outcome, ended.error, ended.output) == ("exited", None, "Done.")


def test_an_agent_that_vanished_with_its_supervisor_is_charged_with_what_it_told(
    agents: Agents, tmp_path: Path
) -> None:
    """Lost, marked as a part, and its session can be gone on with."""
    launch = replace(agents.endless(tmp_path / "begun"))
    agents.start(launch)
    wait_until((tmp_path / "begun").exists, "the agent to begin")
    process = told(launch, "process.json")
    kill(process["supervisor"]["pid"])
    kill(process["pid"])
    ended = agents.end_of(launch.attempt_id)
    assert (ended.outcome, ended.kind, ended.retryable, ended.resumable) == ("lost", "infrastructure", True, True)
    assert [one.partial for one in ended.charges] == [True]
    assert ended.charges[0].input_tokens in (1000, 2000)  # The next call may have begun.


def test_an_attempt_whose_runner_is_not_here_any_more_does_end(agents: Agents, tmp_path: Path) -> None:
    """To start it is refused; one that runs already is seen to its end as the command that it is."""
    launch = replace(agents.errand("say no"), errand=None)
    assert agents.run(launch).error == "its runner is not installed here"
    other = agents.endless(tmp_path / "begun")
    agents.start(other)
    wait_until((tmp_path / "begun").exists, "the agent to begin")
    agents.take_over()
    agents.runner.adopt([replace(other, errand=None)])
    agents.runner.stop(other.attempt_id)
    assert agents.end_of(other.attempt_id).outcome == "stopped"
    Path(told(other, "session.json")["temporary"]).rmdir()  # Nobody knew what else there was to do.


# Secrets.


def test_what_an_agent_leaves_holds_no_secret(agents: Agents, tmp_path: Path) -> None:
    """Whatever its client has printed, been told or kept; the transcript can still be read."""
    key = "-".join(("sk", "ant", "canary0123456789abcdef"))
    agents.runner.close()
    agents.runner = type(agents.runner)(agents._on_end, redact=lambda text: text.replace(key, "[redacted]"))
    launch = agents.errand(f"say It is {key}, keep it.", f"stderr {key}", f"run echo {key}", "exit 3", role_prompt=key)
    ended = agents.run(launch)
    assert ended.exit_code == 3
    for file in (*Path(launch.folder).iterdir(), *(agents.folder / "clients").rglob("*")):
        assert not file.is_file() or key not in file.read_text(), file
    lines = Path(launch.folder, "stdout.log").read_text().splitlines()
    assert all(json.loads(line)["type"] for line in lines)
    assert any("It is [redacted], keep it." in line for line in lines)


def test_what_is_the_users_own_is_left_as_it_is(agents: Agents, tmp_path: Path) -> None:
    """Sessions in a folder that is not from us, whatever it is called, are nothing that we write to."""
    agents.runner.close()
    agents.runner = type(agents.runner)(agents._on_end, redact=lambda text: text.replace("canary", "[redacted]"))
    mine = tmp_path / "clients" / "mine"
    agents.run(agents.errand("say canary", env={"CLAUDE_CONFIG_DIR": str(mine)}))
    [session] = mine.rglob("*.json")
    assert "canary" in session.read_text()


# What it costs us.


def test_agents_that_say_nothing_cost_next_to_nothing(
    agents: Agents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at each now and then, in which nothing is opened and no bill is reckoned."""
    launches = [agents.errand(f"write {tmp_path}/{number} x", "hang", model=MODEL) for number in range(10)]
    for launch in launches:
        agents.start(launch)
    two = 2 * 3_000  # Of the call that was made and of the one that hangs.
    wait_until(
        lambda: [used >= two for used in agents.runner.spending().values()] == [True] * 10, "all of them to hang"
    )
    looked: Counter[str] = Counter()
    done: list[str] = []
    read = Tail.read

    def counted(tail: Tail) -> Iterator[bytes]:
        looked[tail.path] += 1
        return read(tail)

    def opened(path: str, *rest: Any, **more: Any) -> Any:
        done.append(f"open {path}")
        return open(path, *rest, **more)

    def reckoned(*given: Any, **more: Any) -> tuple[Charge, ...]:
        done.append("reckon")
        return charges(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(tail, "open", opened, raising=False)
        patched.setattr(agent, "charges", reckoned)
        begun_s = time.monotonic()
        patched.setattr(Tail, "read", counted)
        wait_until(lambda: len(looked) == 10 and min(looked.values()) >= 4, "four looks at each")
        rounds, took_s = max(looked.values()), time.monotonic() - begun_s
    for launch in launches:
        agents.runner.stop(launch.attempt_id, grace_s=0.0)
    assert done == []
    assert (rounds - 1) * agent.LOOK_S <= took_s  # However slow the machine: it only looks more seldom, then.


CLAUDE = (*command_of("claude"), *BUILT_IN["claude"].command[1:])
