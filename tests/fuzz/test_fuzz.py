"""Spoiled plans, configurations, events, transcripts and files of attempts: an error of ours or an answer, never anything else.

Each example is a seed, so ``@reproduce_failure`` or the seed alone repeats it.
"""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from in_memory import temporary
from spoiling import spoiled_bytes, spoiled_value
from waiting import wait_until

from examples import examples
from parallel_agents import ParallelAgentsError
from parallel_agents.activity import words_of
from parallel_agents.cli.main import exit_code_of
from parallel_agents.configuration import DEFAULTS, load_configuration
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.record import Row, decode_validated, encode
from parallel_agents.eventstore.submission import load_plan
from parallel_agents.planfile import load_plan_file
from parallel_agents.scheduler.agents.bill import charges
from parallel_agents.scheduler.agents.reading import Reading
from parallel_agents.scheduler.agents.text_output import PARSERS
from parallel_agents.scheduler.agents.verdict import judge
from parallel_agents.scheduler.runners.folder import EXIT, PROCESS
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.scheduler.runners.shell import ShellRunner
from parallel_agents.submit import make_plan

TESTS = Path(__file__).parents[1]
SEED = st.integers(0, 2**32)
WHOLE: dict[str, Any] = {
    "name": "checkout", "strategy": "hybrid", "workspace": "worktree", "budget_usd": 5.0, "max_parallel_agents": 5,
    "sparse": ["src"], "include_uncommitted": True, "defaults": {"timeout_s": 900, "max_retries": 2},
    "tasks": [
        {"task_id": "arch", "agent_type": "software-architect", "description": "Design it", "priority": "high",
         "tags": ["design"], "files": ["docs/**"], "outputs": ["docs/api.yaml"], "context": {"a": [1, {"b": None}]}},
        {"task_id": "make", "command": ["sh", "-c", "true"], "dependencies": ["arch"], "env": {"STAGE": "test"},
         "env_from": ["API_TOKEN"], "timeout_s": 0.5, "max_retries": 3, "allow_failure": True, "approval": "required",
         "setup": ["true"], "teardown": ["true"]},
        {"task_id": "look", "description": "Look at it", "runner": "claude", "model": "opus", "budget_usd": 1.0},
    ],
}  # fmt: skip
CONFIGURATION: dict[str, Any] = {
    "enabled": True, "maxParallelAgents": 5, "execution": {"workerPool": {"minWorkers": 1}, "taskQueue": {"timeout": 60}},
    "strategies": {"hybrid": {"rules": [{"condition": "c", "strategy": "pipeline", "agents": ["a"]}]}},
    "dependencies": {"dependencyGraph": {"a": {"dependsOn": ["b"], "provides": ["c"]}}},
    "agents": {"runners": {"mine": {"command": ["x", "{prompt}"], "prompt": "argument", "output": "text"}}},
    "qualityGates": {"commands": [["make"], {"command": ["x"], "after": "task", "timeout": 5}]},
    "safetyFeatures": {"sandbox": ["env", "{workdir}"]},
    "notifications": {"agentStarted": {"format": "{agent_type}"}},
}  # fmt: skip


def spoiled_document(chance: Random, value: dict[str, Any], form: str) -> bytes:
    """A document that is spoiled in its values, its bytes, or both."""
    made = spoiled_value(chance, value) if chance.random() < 0.8 else value
    with contextlib.suppress(ValueError, yaml.YAMLError, RecursionError):
        text = json.dumps(made) if form == "json" else yaml.safe_dump(made, allow_unicode=True)
        content = text.encode("utf-8", "surrogatepass")
        return spoiled_bytes(chance, content) if chance.random() < 0.5 else content
    return b""


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(SEED)
def test_a_spoiled_plan_is_refused_or_can_be_stored(tmp_path: Path, seed: int) -> None:
    """What is accepted comes out of the store as it went in."""
    chance = Random(seed)
    form = chance.choice(["json", "yaml"])
    path = tmp_path / f"p.{form}"
    path.write_bytes(spoiled_document(chance, WHOLE, form))
    with contextlib.suppress(ParallelAgentsError):
        plan = make_plan(load_plan_file(path, DEFAULTS), DEFAULTS)
        assert json.loads(load_plan(plan.to_bytes()).to_bytes()) == json.loads(plan.to_bytes())


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(SEED)
def test_a_spoiled_configuration_is_refused_or_makes_a_plan(tmp_path: Path, seed: int) -> None:
    """One or the other."""
    chance = Random(seed)
    form = chance.choice(["json", "yaml"])
    path = tmp_path / f"c.{form}"
    tree = CONFIGURATION if form == "json" else {"max_parallel_agents": 3, "retry_policy": {"max_retries": 1}}
    path.write_bytes(spoiled_document(chance, tree, form))
    environ = {"HOME": str(tmp_path)}
    if chance.random() < 0.3:
        environ["PARALLEL_AGENTS_" + chance.choice(["MAX_PARALLEL_AGENTS", "ENABLED", "SAFETY_FEATURES__SANDBOX"])] = (
            str(spoiled_value(chance, [1]))
        )
    with contextlib.suppress(ParallelAgentsError):
        configuration = load_configuration(tmp_path, config_path=path, environ=environ)
        list(configuration.rows())


@cache
def frozen_rows() -> list[Row]:
    """The events of every release's frozen log."""
    rows: list[Row] = []
    for file in sorted((TESTS / "compat").glob("frozen_*.sql")):
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(file.read_text(encoding="utf-8"))
            found = connection.execute(
                "SELECT seq, run_id, version, type, at, actor, body, body_digest, prev_hash, hash FROM events"
            )
            rows += map(Row._make, found)
    return rows


@settings(max_examples=examples(400), deadline=None)
@given(SEED)
def test_a_spoiled_event_is_read_as_an_event_or_named_as_damaged(seed: int) -> None:
    """By the way that checks; what it accepts can be written again."""
    chance = Random(seed)
    row = chance.choice(frozen_rows())
    if chance.random() < 0.7:
        try:
            body = json.dumps(spoiled_value(chance, json.loads(row.body)))
        except (ValueError, RecursionError):
            return
    else:
        body = spoiled_bytes(chance, row.body.encode()).decode("utf-8", "replace")
    type_ = row.type if chance.random() < 0.9 else chance.choice([*ev.EVENT_TYPES, "Nothing", ""])
    with contextlib.suppress(StoreError):
        found = decode_validated(row._replace(body=body, type=type_))
        with contextlib.suppress(UnicodeEncodeError, TypeError):  # Half a surrogate: no log can have held it.
            encode(found.event)


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(SEED)
@example(1796)  # Its last event has a word in place of its number.
def test_a_spoiled_store_is_named_as_that_or_answers(seed: int) -> None:
    """Bytes changed anywhere in the file: a reading verb ends with an answer or with an error of ours, never with a traceback."""
    chance = Random(seed)
    file = chance.choice(sorted((TESTS / "compat").glob("frozen_*.sql")))
    with temporary() as folder:
        path = Path(folder) / "events.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(file.read_text(encoding="utf-8"))
        path.chmod(0o600)
        content = bytearray(path.read_bytes())
        for _ in range(chance.randint(1, 30)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        words = chance.choice([["status", "alphaalpha"], ["history", "--all"], ["runs"], ["verify"], ["timeline", "alphaalpha"],
                               ["cost", "alphaalpha"], ["why", "alphaalpha", "build"], ["show", "alphaalpha", "lint"],
                               ["queue"], ["checkpoints", "alphaalpha"]])  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert exit_code_of(["--store", str(path), *words]) in (0, 2, 3, 8), words


@cache
def transcripts() -> list[tuple[str, list[bytes]]]:
    """What real clients printed: the name of its form, and its lines."""
    files = sorted((TESTS / "data" / "transcripts").glob("*.jsonl"))
    return [(file.name.split("-")[0], file.read_bytes().splitlines()) for file in files]


@settings(max_examples=examples(200), deadline=None)
@given(SEED)
def test_a_spoiled_transcript_has_a_verdict_a_bill_and_words(seed: int) -> None:
    """Lines lost, doubled, swapped, spoiled in bytes or values; no figure is negative, no text would move a cursor."""
    chance = Random(seed)
    client, lines = chance.choice(transcripts())
    lines = list(lines)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(lines))
        match chance.randrange(4):
            case 0:
                lines[at] = spoiled_bytes(chance, lines[at])
            case 1:
                with contextlib.suppress(ValueError, RecursionError):
                    lines[at] = json.dumps(spoiled_value(chance, json.loads(lines[at]))).encode()
            case 2:
                lines.insert(chance.randrange(len(lines)), lines[at])
            case _ if len(lines) > 1:
                del lines[at]
            case _:
                pass
    reading = Reading()
    for line in lines:
        PARSERS[client].feed(reading, line)
        for words in words_of(line, client):
            assert words.isprintable()
    verdict = judge(
        reading, client, chance.choice(["exited", "lost", "stopped", "timed_out"]), chance.randint(-15, 160)
    )
    assert verdict.error is None or verdict.error.isprintable()
    for finished in (True, False):
        for charge in charges(reading, None, finished, lambda model, tokens, calls: (sum(tokens.kinds()), "table")):
            assert charge.usd_micros is None or charge.usd_micros >= 0
            assert min(charge.input_tokens, charge.output_tokens, charge.cache_read_tokens, charge.calls) >= 0


EXITED = {
    "attempt_id": "a", "outcome": "exited", "exit_code": 0, "error": None, "output": "said", "started_at_us": 1,
    "ended_at_us": 2, "cpu_s": 0.5, "peak_memory_bytes": 3,
}  # fmt: skip
BEGUN = {
    "attempt_id": "a", "pid": 2**22 - 1, "start_time": 5, "boot_id": "b", "state": "running",
    "supervisor": {"pid": 2**22 - 2, "start_time": 6, "boot_id": "b"},
}  # fmt: skip


@pytest.fixture(scope="module")
def runner() -> Iterator[ShellRunner]:
    """One that takes attempts over."""
    made = ShellRunner(lambda: None)
    yield made
    made.close()


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(SEED)
def test_an_attempt_whose_files_are_spoiled_is_taken_over_and_ends_once(runner: ShellRunner, seed: int) -> None:
    """With whatever its files can be understood to say, or as lost."""
    chance = Random(seed)
    with temporary() as folder:
        for name, value in ((EXIT, {**EXITED, "attempt_id": f"a{seed}"}), (PROCESS, BEGUN)):
            if chance.random() < 0.8:
                with contextlib.suppress(ValueError, RecursionError):
                    text = json.dumps(spoiled_value(chance, value)).encode("utf-8", "surrogatepass")
                    content = text if chance.random() < 0.6 else spoiled_bytes(chance, text)
                    Path(folder, name).write_bytes(content)
        attempt_id = f"a{seed}"
        runner.adopt([Launch("run", "task", attempt_id, folder, Path(folder), ("true",))])
        ends: list[Ended] = []

        def ended_once() -> bool:
            ends.extend(runner.poll())
            return bool(ends)

        wait_until(ended_once, "the end of the attempt")
        [ended] = ends
        assert ended.attempt_id == attempt_id
        assert ended.outcome in ("exited", "timed_out", "stopped", "not_started", "lost")
        assert ended.cpu_s >= 0
        assert ended.error is None or isinstance(ended.error, str)
