"""Agents that are killed, limited and turned away, through the whole program: nothing runs twice, and the bill is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from daemons import DEADLINE_S, Store, plan_of, wait_until
from fakeagent.installing import install

from parallel_agents import submit as submit_module
from parallel_agents.checkpoint.repository import find_repository
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.scheduler.process import ProcessIdentity, identity_of, is_alive, processes, send_signal
from parallel_agents.scheduler.runners.folder import read_object
from parallel_agents.versioning import Start

COMMAND = str(Path(sys.executable).with_name("parallel-agents"))
MODEL = "claude-sonnet-4-5"


class Agents(Store):
    """A store in a git repository, and the fake agent on PATH."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.path.parent / ".gitignore").write_text("*\n")
        self.git("init", "-q", "-b", "main")
        self.git("commit", "-q", "--allow-empty", "-m", "first")

    def git(self, *args: str) -> str:
        """A command of the user's."""
        who = ("-c", "user.name=A User", "-c", "user.email=user@localhost")
        return subprocess.run(["git", *who, *args], cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def run(self, steps: dict[str, list[str]], **fields: Any) -> str:
        """A run of agents, each in a worktree of its own; gives its id."""
        fields = {"max_retries": 1, "model": MODEL, **fields}
        tasks = [
            Task(
                task_id=name, agent_type="backend-engineer", description=f"Do {name}.", runner="claude",
                env={"FAKE_AGENT": "\n".join(of)}, **fields,
            )
            for name, of in steps.items()
        ]  # fmt: skip
        repository = find_repository(self.folder)
        assert repository is not None
        plan = Plan(**{**dict(plan_of(tasks)), "workspace": "worktree"})
        return submit_module.submit(self.log, plan, workdir=self.folder, start=Start("worktree", repository))

    def merged(self, run_id: str, name: str) -> str:
        """A file of the run's branch."""
        return self.git("show", f"parallel-agents/{run_id}:{name}")

    def attempts(self, run_id: str) -> Counter[str]:
        """How often each task was started."""
        return Counter(event.task_id for event in self.events(run_id, ev.TaskStarted))

    def charged(self, run_id: str) -> list[tuple[str, int, int, bool]]:
        """Task, input, output, and whether it is only a part, of each charge."""
        events = self.events(run_id, ev.CostCharged)
        return [(one.task_id, one.input_tokens, one.output_tokens, one.partial) for one in events]

    def process_of(self, run_id: str, task_id: str) -> dict[str, Any]:
        """Who runs the last attempt of a task, and who supervises it."""
        attempt_id = self.state(run_id).tasks[task_id].attempt_id
        found = read_object(str(self.path.parent / "runs" / run_id / task_id / str(attempt_id)), "process.json")
        assert found is not None
        return found

    @staticmethod
    def kill_pid(pid: int) -> None:
        """And wait until it is gone, or a zombie."""
        who = identity_of(pid)
        assert who is not None
        send_signal(who, signal.SIGKILL)
        wait_until(lambda: pid not in (table := processes()) or table[pid].zombie, "the process to go")


def read_object_of(file: Path) -> dict[str, Any]:
    """What a file of an attempt says."""
    return read_object(str(file.parent), file.name) or {}


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agents]:
    """An empty store, without a daemon."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("PATH", f"{install(tmp_path / 'programs')}:{os.environ['PATH']}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "-".join(("key", "of", "nobody")))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # Whatever is killed here leaves nothing elsewhere.
    folder = tmp_path / "project"
    folder.mkdir()
    made = Agents(folder)
    yield made
    made.close()


def test_an_agent_that_is_killed_goes_on_in_the_same_files(agents: Agents) -> None:
    """Its session and its worktree are as it left them; what it had told is charged as a part, the rest exactly."""
    steps = ["write one.txt 1", "fresh die 9", "run ls > seen.txt", "say Done."]
    run_id = agents.run({"a": steps}, setup=("echo", "set up"), teardown=("echo", "torn down"))
    agents.daemon()
    assert agents.ended(run_id) == "completed"
    assert [one.output for one in agents.events(run_id, ev.TaskCompleted)] == ["Done."]
    first, second = agents.events(run_id, ev.TaskStarted)
    assert second.resumes == first.attempt_id
    assert agents.merged(run_id, "seen.txt").split() == ["one.txt", "seen.txt"]
    assert agents.charged(run_id) == [("a", 2000, 101, True), ("a", 2000, 200, False)]
    [failed] = agents.events(run_id, ev.TaskFailed)
    assert (failed.kind, failed.resumable) == ("infrastructure", True)


def test_five_agents_outlive_their_daemon(agents: Agents) -> None:
    """Whoever comes next takes them over: none runs twice, and every token is on the bill."""
    folder = agents.folder
    wait = f"run echo $PARALLEL_AGENTS_TASK >> {folder}/lines; until test -e {folder}/go; do sleep 0.02; done"
    run_id = agents.run({f"t{number}": [wait, f"write t{number}.txt x", "say Done."] for number in range(5)})
    daemon = agents.daemon()
    wait_until(lambda: len(agents.lines("lines")) == 5, "five agents to work")
    agents.kill(daemon)
    agents.daemon()
    (folder / "go").touch()
    assert agents.ended(run_id) == "completed"
    names = [f"t{number}" for number in range(5)]
    assert sorted(agents.lines("lines")) == names
    assert agents.attempts(run_id) == Counter(names)
    assert sorted(agents.charged(run_id)) == [(name, 3000, 300, False) for name in names]


@pytest.mark.slow
def test_daemons_that_are_killed_at_any_moment_lose_no_token(agents: Agents) -> None:
    """Whatever each was about: making a checkout, starting, reading on, keeping, merging. No task has a retry to spare."""
    work = f"run echo $PARALLEL_AGENTS_TASK >> {agents.folder}/lines; sleep 0.1"
    names = [f"t{number}" for number in range(10)]
    run_id = agents.run({name: ["say One.", work, f"write {name}.txt x", "say Done."] for name in names}, max_retries=0)
    agents.kill_daemons("lines", 1, 3, 6, 9)
    assert agents.ended(run_id) == "completed"
    assert sorted(agents.lines("lines")) == sorted(names)
    assert sorted(agents.charged(run_id)) == sorted((name, 4000, 400, False) for name in names)
    temporary = [told["temporary"] for told in map(read_object_of, agents.path.parent.rglob("session.json"))]
    assert len(temporary) == len(names)
    assert [one for one in temporary if Path(one).exists()] == []


def test_an_agent_outlives_its_supervisor_in_nothing(agents: Agents) -> None:
    """Killed alone, it leaves a client that nobody supervises: that is ended, and its session gone on with."""
    run_id = agents.run({"a": ["write a.txt 1", "fresh hang", "say Done."]})
    agents.daemon()
    out = wait_until(lambda: list((agents.path.parent / "runs" / run_id).rglob("stdout.log")), "the agent")[0]
    wait_until(lambda: b"I begin a long answer" in out.read_bytes(), "the middle of a call")
    who = agents.process_of(run_id, "a")
    agents.kill_pid(who["supervisor"]["pid"])
    assert agents.ended(run_id) == "completed"
    assert not is_alive(ProcessIdentity.from_dict(who))
    assert [one.task_id for one in agents.events(run_id, ev.AttemptLost)] == ["a"]
    assert [one[1] for one in agents.charged(run_id)] == [2000, 1000]
    assert agents.merged(run_id, "a.txt") == "1\n"


def test_agents_that_died_with_their_daemon_are_resumed(agents: Agents) -> None:
    """One with its supervisor, which makes it lost, and one whose supervisor tells of its end; both go on."""
    run_id = agents.run({name: [f"write {name}.txt 1", "fresh hang", "say Done."] for name in ("a", "b")})
    daemon = agents.daemon()
    runs = agents.path.parent / "runs" / run_id

    def hanging() -> int:
        return sum(b"I begin a long answer" in out.read_bytes() for out in runs.rglob("stdout.log"))

    wait_until(lambda: hanging() == 2, "both to be in the middle of a call")
    agents.kill(daemon)
    who = [agents.process_of(run_id, name) for name in ("a", "b")]
    agents.kill_pid(who[0]["pid"])
    wait_until(lambda: list((runs / "a").glob("*/exit.json")), "the end of one")
    agents.kill_pid(who[1]["supervisor"]["pid"])
    agents.kill_pid(who[1]["pid"])
    agents.daemon()
    assert agents.ended(run_id) == "completed"
    assert agents.attempts(run_id) == {"a": 2, "b": 2}
    assert len([one for one in agents.events(run_id, ev.TaskStarted) if one.resumes]) == 2
    assert [one.task_id for one in agents.events(run_id, ev.AttemptLost)] == ["b"]
    for name in ("a", "b"):
        bill = [one for one in agents.charged(run_id) if one[0] == name]
        assert bill == [(name, 2000, 101, True), (name, 1000, 100, False)]


def test_an_agent_that_dies_at_once_fails_after_its_retries(agents: Agents) -> None:
    """It has asked nothing, so it has cost nothing."""
    run_id = agents.run({"a": ["exit 7"]})
    agents.daemon()
    assert agents.ended(run_id) == "failed"
    assert agents.attempts(run_id) == {"a": 2}
    assert agents.charged(run_id) == []


def test_a_usage_limit_is_waited_for_and_counts_for_nothing(agents: Agents) -> None:
    """Nobody starts before it is over, then all goes on by itself; no retry was allowed, and none was needed."""
    met = agents.folder / "met"
    steps = [f"once {met} limit 2", "say Done."]
    run_id = agents.run({"a": steps, "b": [f"run until test -e {met}; do sleep 0.01; done", *steps]}, max_retries=0)
    agents.daemon()
    assert agents.ended(run_id) == "completed"
    [limited] = [one.event for one in agents.log.read() if isinstance(one.event, ev.ProviderLimited)]
    assert (limited.provider, limited.kind, limited.stated) == ("anthropic", "usage_limit", True)
    starts = [one for one in agents.records(run_id) if isinstance(one.event, ev.TaskStarted)]
    assert len(starts) == 3
    assert starts[-1].at_us >= datetime.fromisoformat(limited.until).timestamp() * 1e6
    assert agents.state(run_id).tasks["a"].failures == 0


def test_a_key_that_is_refused_pauses_the_run(agents: Agents) -> None:
    """With an exit code of its own; the other agents are not sent into the same refusal."""
    (agents.folder / "plan.yaml").write_text(
        "name: keyless\nmax_parallel_agents: 1\ndefaults: {agent_type: backend-engineer, env: {FAKE_AGENT: fail unauthorized}}\n"
        "tasks:\n  - {task_id: a, description: Do a.}\n  - {task_id: b, description: Do b.}\n"
    )
    said = subprocess.run(
        [COMMAND, "run", "plan.yaml"], cwd=agents.folder, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert said.returncode == 4, said.stderr
    [run_id] = {one.run_id for one in agents.log.read()} - {"store"}
    state = agents.state(run_id)
    assert (state.status, state.tasks["a"].failures) == ("paused", 0)
    assert agents.attempts(run_id) == {"a": 1}
    assert "Invalid API key" in str(state.reason)
