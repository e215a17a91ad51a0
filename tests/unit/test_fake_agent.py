"""The fake agent prints what the real ones do, and keeps their books as they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakeagent.failures import FAILURES
from fakeagent.installing import command_of, install
from waiting import line_with, wait_until

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"
STREAMS = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
CLAUDE = [*command_of("claude"), *STREAMS, "--include-partial-messages", "--model", "sonnet"]
CODEX = [
    *command_of("codex"),
    "exec",
    "--json",
    "--skip-git-repo-check",
    "-m",
    "gpt-5.5",
    "--sandbox",
    "workspace-write",
]
SESSION = "7f2c1f0e-1111-4222-8333-444455556666"


class Agent:
    """Starts the fake agent in a place of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def start(self, command: list[str], prompt: str | None, **env: str) -> subprocess.Popen[bytes]:
        """Start it; stdin stays open where there is no prompt yet."""
        places = {"CLAUDE_CONFIG_DIR": str(self.place / "config"), "CODEX_HOME": str(self.place / "config")}
        pipe = subprocess.PIPE
        environment = {"PATH": os.defpath, **places, **env}
        process = subprocess.Popen(command, cwd=self.place, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
        if prompt is not None:
            assert process.stdin
            process.stdin.write(prompt.encode())
            process.stdin.close()
            process.stdin = None
        return process

    def claude(self, *more: str, steps: str, **env: str) -> tuple[int, list[dict[str, Any]]]:
        """Let it be claude, to its end; give its exit code and lines."""
        return ended(self.start([*CLAUDE, *more], said(steps), **env))

    def codex(self, *more: str, steps: str) -> tuple[int, list[dict[str, Any]]]:
        """Let it be codex, to its end; give its exit code and lines."""
        return ended(self.start([*CODEX, *more, "-"], steps))


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """An agent in a fresh place."""
    return Agent(tmp_path)


def said(steps: str) -> str:
    """A prompt as claude reads it."""
    return json.dumps({"type": "user", "message": {"role": "user", "content": steps}}) + "\n"


def ended(process: subprocess.Popen[bytes]) -> tuple[int, list[dict[str, Any]]]:
    """Its exit code, and its lines."""
    output, _ = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in output.splitlines()]


def shapes(value: dict[str, Any], kind: str = "") -> Iterator[tuple[str, frozenset[str]]]:
    """The keys of a line and of what lies in it, by the kind of line."""
    for key in ("type", "subtype", "is_error", "error"):
        if isinstance(value.get(key), str | bool) and not (key == "type" and kind.endswith("message")):
            kind += f" {key}={value[key]}"
    yield kind, frozenset(value)
    for key in ("message", "event", "usage", "rate_limit_info", "item"):
        if isinstance(inner := value.get(key), dict):
            yield from shapes(inner, f"{kind} {key}")
    for usages in (value.get("modelUsage") or {}).values():
        yield f"{kind} modelUsage", frozenset(usages)


def recorded(client: str) -> dict[str, list[frozenset[str]]]:
    """The shapes of all lines that were recorded from a real client."""
    found = defaultdict(list)
    for file in TRANSCRIPTS.glob(f"{client}-*.jsonl"):
        for line in file.read_text().splitlines():
            for kind, keys in shapes(json.loads(line)):
                found[kind].append(keys)
    return found


def check_shapes(lines: list[dict[str, Any]], client: str) -> None:
    """Every line has all the keys that the real lines of its kind share, and none that no real one has."""
    real = recorded(client)
    for line in lines:
        for kind, keys in shapes(line):
            assert kind in real, f"no real client has printed a line of the kind {kind}"
            assert keys <= frozenset.union(*real[kind]), kind
            assert keys >= frozenset.intersection(*real[kind]), kind


def test_its_lines_have_the_shape_of_real_ones(agent: Agent) -> None:
    """All kinds of steps, compared with transcripts of the real claude."""
    steps = (
        "@write a.txt x\n@run echo hi\n@deny Bash\n@subagent haiku Found.\n@retry rate-limit\n@stream 0.05\n@say Done."
    )
    code, lines = agent.claude(steps=steps)
    assert code == 0
    assert lines[-1]["result"] == "Done."
    check_shapes(lines, "claude")


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_failures_are_told_as_the_real_claude_tells_them(agent: Agent, name: str) -> None:
    """Exit code, status, kind and text of each failure, and the shape of its lines."""
    code, lines = agent.claude(steps="@limit 3600" if name == "limit" else f"@fail {name}")
    [real] = [
        json.loads(line)
        for line in (TRANSCRIPTS / f"claude-{NAMES.get(name, name)}.jsonl").read_text().splitlines()
        if '"type":"result"' in line
    ]
    assert code == 1
    check_shapes(lines, "claude")
    for key in ("subtype", "is_error", "terminal_reason", "api_error_status", "api_error", "api_error_type"):
        assert lines[-1].get(key) == real.get(key), key
    fake_text, real_text = (
        text.replace("claude-sonnet-5-5", "MODEL").partition("resets")[0]
        for text in (lines[-1]["result"], real["result"])
    )
    assert real_text.replace("claude-sonnet-4-5", "MODEL")[:40] == fake_text[:40]


NAMES = {"connection": "connection-refused", "limit": "usage-limit"}


def test_a_resumed_session_tells_the_total_of_all_its_processes(agent: Agent) -> None:
    """And the difference apart, as the real one does."""
    agent.claude("--session-id", SESSION, steps="@say One.")
    code, lines = agent.claude("--resume", SESSION, steps="@usage 50 5 0 0\n@say Two.")
    [used] = lines[-1]["modelUsage"].values()
    [since] = lines[-1]["model_usage_since_last_result"].values()
    assert (code, used["inputTokens"], since["inputTokens"]) == (0, 1050, 50)
    assert lines[-1]["total_cost_usd"] == pytest.approx(1050 * 2e-6 + 105 * 10e-6)


def test_a_killed_process_is_missing_from_the_total_of_its_session(agent: Agent) -> None:
    """What was left to do is done by the process that goes on."""
    code, lines = agent.claude("--session-id", SESSION, steps="@say One.\n@die 9\n@say Three.")
    assert (code, lines[-1]["type"]) == (-9, "stream_event")
    _, lines = agent.claude("--resume", SESSION, steps="Go on.")
    [used] = lines[-1]["modelUsage"].values()
    assert (lines[-1]["result"], used["inputTokens"]) == ("Three.", 1000)


def test_a_process_that_is_killed_after_its_result_is_missing_too(agent: Agent) -> None:
    """The total of a session is kept at the end of a process; only the difference can be trusted."""
    process = agent.start([*CLAUDE, "--session-id", SESSION], said("@linger\n@say One."))
    line_with('"type":"result"', process.stdout)
    process.kill()
    ended(process)
    _, lines = agent.claude("--resume", SESSION, steps="@usage 50 5 0 0\n@say Two.")
    for told in ("modelUsage", "model_usage_since_last_result"):
        assert [usage["inputTokens"] for usage in lines[-1][told].values()] == [50]


def test_a_session_that_nobody_knows_is_refused(agent: Agent) -> None:
    """And so is one that exists already."""
    code, lines = agent.claude("--resume", SESSION, steps="Go on.")
    assert (code, lines[-1]["errors"]) == (1, [f"No conversation found with session ID: {SESSION}"])
    check_shapes(lines, "claude")
    assert agent.claude("--session-id", SESSION, steps="@say One.")[0] == 0
    assert agent.claude("--session-id", SESSION, steps="@say One.") == (1, [])


@pytest.mark.parametrize("step", ["@hang", "@run sleep 600"])
def test_a_request_to_stop_ends_it_with_a_result(agent: Agent, step: str) -> None:
    """It tells the cost so far, and ends as soon as stdin does."""
    process = agent.start(CLAUDE, None)
    assert process.stdin
    process.stdin.write(said(f"@say One.\n{step}").encode())
    process.stdin.flush()
    line_with("long answer" if step == "@hang" else '"stop_reason":"tool_use"', process.stdout)
    stop = {"type": "control_request", "request_id": "stop-1", "request": {"subtype": "interrupt"}}
    output, _ = process.communicate(json.dumps(stop).encode() + b"\n", timeout=60)
    told = [json.loads(line) for line in output.splitlines()]
    assert process.returncode == 1
    assert told[-1]["subtype"] == "error_during_execution"
    assert told[-1]["total_cost_usd"] > 0.003
    check_shapes(told, "claude")


@pytest.mark.parametrize(("number", "code", "results"), [(signal.SIGINT, 0, 1), (signal.SIGTERM, 143, 0)])
def test_signals_end_it_as_they_end_the_real_one(agent: Agent, number: int, code: int, results: int) -> None:
    """SIGINT with a result and exit code 0, SIGTERM without a word; both keep the calls that were finished."""
    process = agent.start([*CLAUDE, "--session-id", SESSION], said("@say One.\n@hang\n@say Two."))
    line_with("long answer", process.stdout)
    process.send_signal(number)
    got, lines = ended(process)
    assert (got, [line["type"] for line in lines].count("result")) == (code, results)
    _, lines = agent.claude("--resume", SESSION, steps="Go on.")
    [used], [since] = (lines[-1][key].values() for key in ("modelUsage", "model_usage_since_last_result"))
    assert (lines[-1]["result"], used["inputTokens"], since["inputTokens"]) == ("Two.", 2000, 1000)


def test_its_own_limits_end_it(agent: Agent) -> None:
    """Dollars after the call that reaches them, turns after the last of them."""
    code, lines = agent.claude("--max-budget-usd", "0.004", steps="@run echo 1\n@run echo 2\n@run echo 3")
    assert (code, lines[-1]["subtype"], lines[-1]["total_cost_usd"]) == (1, "error_max_budget_usd", 0.006)
    check_shapes(lines, "claude")
    code, lines = agent.claude("--max-turns", "2", steps="@run echo 1\n@run echo 2\n@run echo 3")
    assert (code, lines[-1]["subtype"], lines[-1]["num_turns"]) == (1, "error_max_turns", 3)
    check_shapes(lines, "claude")


def test_codex_lines_have_the_shape_of_real_ones(agent: Agent) -> None:
    """And input tokens include those from the cache."""
    code, lines = agent.codex(steps="@usage 100 10 900 0\n@write a.txt x\n@run echo hi\n@say Done.")
    assert (code, lines[-1]["usage"]["input_tokens"], lines[-1]["usage"]["cached_input_tokens"]) == (0, 3000, 2700)
    check_shapes(lines, "codex")
    code, lines = agent.codex(steps="@retry rate-limit\n@fail rate-limit")
    assert (code, lines[-1]["type"]) == (1, "turn.failed")
    check_shapes(lines, "codex")


def test_a_codex_thread_counts_what_a_killed_process_has_finished(agent: Agent) -> None:
    """Unlike a session of claude."""
    code, lines = agent.codex(steps="@say One.\n@die 9\n@usage 50 5 0 0\n@say Three.")
    assert code == -9
    code, lines = agent.codex("resume", lines[0]["thread_id"], steps="Go on.")
    assert (code, lines[-1]["usage"]["input_tokens"]) == (0, 1050)


def test_steps_come_from_the_environment_or_a_script(agent: Agent) -> None:
    """The environment wins; a script is asked for a word of the prompt."""
    script = agent.place / "script.json"
    script.write_text(json.dumps({"apples": ["say Apples."], "": ["say Anything."]}))
    results = [
        agent.claude(steps="Pick apples.", **env)[1][-1]["result"]
        for env in ({"FAKE_AGENT": "say Env."}, {"FAKE_AGENT_SCRIPT": str(script)}, {})
    ]
    assert results == ["Env.", "Apples.", "Done."]


def test_it_does_odd_things_when_told(agent: Agent) -> None:
    """Lines of 5 MB, lines that are none, a process that stays behind."""
    process = agent.start(CLAUDE, said("@daemon pid\n@garbage\n@long 5000000\n@twice"))
    output, _ = process.communicate(timeout=60)
    lines = output.splitlines()
    pid = int(wait_until((agent.place / "pid").read_text, "the process left behind"))
    os.kill(pid, signal.SIGKILL)
    assert max(map(len, lines)) > 5_000_000
    assert b'{"cut":' in lines
    assert sum(b'"type":"result"' in line for line in lines) == 2


def test_it_keeps_what_a_test_wants_to_see(agent: Agent) -> None:
    """Prompt, environment and arguments in files; a step is done once by however many processes are told it."""
    steps = "@prompt p\n@environ e\n@arguments a\n@once mark exit 7\n@sleep 0.01\n@fresh stderr new\n@model haiku\n@say Done."
    process = agent.start(CLAUDE, said(steps), COLOUR="red")
    code, lines = ended(process)
    assert (code, [line["type"] for line in lines]) == (7, ["system"])
    process = agent.start(CLAUDE, said(steps))
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"new\n")
    assert (agent.place / "p").read_text() == steps
    assert "COLOUR" not in json.loads((agent.place / "e").read_text())
    assert json.loads((agent.place / "a").read_text())[:2] == ["claude", "-p"]


def test_it_can_be_found_under_the_names_of_real_clients(tmp_path: Path) -> None:
    """With a PATH that holds nothing else."""
    folder = install(tmp_path / "bin with space")
    for name in ("claude", "codex"):
        assert subprocess.run([folder / name, "--version"], capture_output=True, env={}, check=True).stdout
