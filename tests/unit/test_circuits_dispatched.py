"""Circuits in a dispatcher: what holds tasks back, what they pay for it, and what every process of a store knows of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from agentpaper import agent, agents_plan
from dispatching import Scene, ScriptedRunner
from paper import SECOND_US, plan_of, task

from parallel_agents import held_back, look, standpoint, steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.submission import RetryPolicy
from parallel_agents.scheduler.breaker import LONGEST, PROOF_US
from parallel_agents.why import why

CRASH = {"error": "its client crashed", "fault": "runner", "kind": "infrastructure"}
POLICY: dict[str, Any] = {"circuit_failures": 3, "circuit_reset_s": 30.0, "retry": RetryPolicy(delay_s=0.0)}


class Steady(Scene):
    """A scene that knows which attempts are alive, with a steady clock of its own."""

    def __init__(self, folder: Path, runner: str = "shell") -> None:
        super().__init__(folder)
        self.steady_us = 0
        self.runner = Living(runner)
        self.dispatcher = self.another("run", steady=lambda: self.steady_us)

    def wait(self, seconds: float) -> None:
        """Time passes, and a tick with it."""
        self.now_us += round(seconds * SECOND_US)
        self.steady_us += round(seconds * SECOND_US)
        self.tick()

    def why(self, run_id: str, task_id: str) -> dict[str, Any]:
        """What a user is told at this moment of the scene."""
        with pytest.MonkeyPatch.context() as patched:
            for module in (look, held_back, standpoint):
                patched.setattr(module, "wall_clock_us", lambda: self.now_us)
            return why(self.log, run_id, task_id)

    def limits(self) -> list[dict[str, Any]]:
        """The waits of this moment of the scene."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(held_back, "wall_clock_us", lambda: self.now_us)
            return held_back.limits(self.log)

    def lift(self, named: str) -> None:
        """Somebody has mended it."""
        held_back.lift(self.log, named, "mended")

    def circuits(self) -> list[str]:
        """What was said of runners, as types."""
        return [name for name in self.types() if name.startswith(("Runner", "Circuit"))]


class Living(ScriptedRunner):
    """Has processes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.alive: dict[str, int] = {}

    def live(self) -> dict[str, int]:
        """Those that a test lets live."""
        return self.alive


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    """One of them."""
    made = Steady(tmp_path)
    yield made
    made.end_of_story()


def crash_until_open(scene: Steady, *names: str) -> None:
    """Three attempts fail by their runner's fault, at once."""
    scene.tick()
    scene.runner.end(*names, **CRASH)
    scene.tick()


def test_tasks_wait_while_a_runner_is_broken_and_lose_no_more_than_two_retries(scene: Steady) -> None:
    """In one tick of a second: without a circuit the same attempts would have used up all retries in a moment."""
    run_id = scene.submit(task("a"), task("b"), task("c"), task("d"), **POLICY)
    scene.tick()
    scene.runner.end("a", "b", "c", "d", **CRASH)
    scene.tick()
    assert scene.circuits() == ["RunnerFailed", "RunnerFailed", "CircuitOpened"]
    state = scene.state(run_id)
    assert {name: one.failures for name, one in state.tasks.items()} == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert set(scene.statuses(run_id).values()) == {"queued"}
    scene.wait(29)
    assert len(scene.runner.launched) == 4
    why = scene.why(run_id, "a")
    assert why["code"] == "circuit_open"
    assert "the circuit of runner shell is open until" in why["why"]
    assert "its client crashed" in why["why"]
    assert why["settle"] == "parallel-agents limits --clear shell"
    (limit,) = scene.limits()
    assert (limit["runner"], limit["kind"], limit["failures"]) == ("shell", "circuit_open", 3)
    assert why["until"] == limit["until"]


def test_a_person_can_close_a_circuit(scene: Steady) -> None:
    """They know that it is mended; all of its tasks start again at once."""
    scene.submit(task("a"), task("b"), task("c"), **POLICY)
    crash_until_open(scene, "a", "b", "c")
    with pytest.raises(NotAllowed, match="provider or runner 'claude'"):
        scene.lift("claude")
    scene.lift("shell")
    scene.tick()
    assert scene.last(ev.CircuitClosed).reason == "mended"
    assert scene.limits() == []
    assert scene.runner.tasks()[3:] == ["a", "b", "c"]


def test_one_attempt_tries_the_runner_and_the_others_follow_when_it_works(scene: Steady) -> None:
    """The dispatcher wakes for it by itself."""
    run_id = scene.submit(task("a"), task("b"), task("c"), **POLICY)
    crash_until_open(scene, "a", "b", "c")
    due = scene.tick()
    assert due == scene.now_us + 30 * SECOND_US
    scene.wait(30)
    assert scene.runner.tasks() == ["a", "b", "c", "a"]
    assert scene.circuits()[-1] == "CircuitHalfOpened"
    assert scene.why(run_id, "b")["why"].startswith("runner shell is tried by one")
    scene.wait(1)
    assert len(scene.runner.launched) == 4
    scene.runner.end("a")
    scene.wait(1)
    assert scene.circuits()[-1] == "CircuitClosed"
    assert scene.runner.tasks()[4:] == ["b", "c"]


def test_a_trial_that_runs_for_a_while_has_shown_enough(scene: Steady) -> None:
    """Nobody waits for the end of an hour's work to start the others."""
    scene.submit(task("a"), task("b"), task("c"), **POLICY)
    crash_until_open(scene, "a", "b", "c")
    scene.wait(30)
    trial = scene.runner.launched[-1].attempt_id
    scene.wait(PROOF_US / SECOND_US)  # Its checkout is still being made.
    assert scene.circuits()[-1] == "CircuitHalfOpened"
    scene.runner.alive[trial] = 7
    scene.wait(1)
    del scene.runner.alive[trial]  # Nobody can tell for a moment.
    scene.wait(1)
    scene.runner.alive[trial] = 7
    scene.wait(1)
    scene.wait(PROOF_US / SECOND_US - 1)
    assert len(scene.runner.launched) == 4
    scene.wait(1)
    assert scene.circuits()[-1] == "CircuitClosed"
    assert scene.runner.tasks()[4:] == ["b", "c"]


def test_a_trial_that_is_cancelled_tells_nothing(scene: Steady) -> None:
    """The next task tries."""
    run_id = scene.submit(task("a"), task("b"), task("c"), **POLICY)
    crash_until_open(scene, "a", "b", "c")
    scene.wait(30)
    steer.cancel(scene.log, run_id, "a")
    scene.runner.end("a", outcome="stopped", error="stopped")
    scene.wait(1)
    assert scene.statuses(run_id)["a"] == "cancelled"
    assert scene.circuits()[-2:] == ["CircuitHalfOpened", "CircuitHalfOpened"]
    assert scene.runner.tasks()[4:] == ["b"]


def test_every_dispatcher_of_a_store_knows_of_a_broken_runner(scene: Steady) -> None:
    """Also one that starts later; and two of them make one trial."""
    scene.submit(task("a"), task("b"), task("c"), **POLICY)
    crash_until_open(scene, "a", "b", "c")
    other_runner = Living("shell")
    other = scene.another("daemon", other_runner)
    run_id = steer_submit(scene, "x", "y")
    other.hold(run_id)
    other.tick()
    assert other_runner.launched == []
    scene.now_us += 30 * SECOND_US
    other.tick()
    scene.tick()
    assert [one.task_id for one in other_runner.launched] == ["x"]
    assert len(scene.runner.launched) == 3


def steer_submit(scene: Steady, *names: str) -> str:
    """A run that nobody holds yet."""
    from parallel_agents.submit import submit

    return submit(scene.log, plan_of(*map(task, names), **POLICY), workdir=scene.folder, environ={})


def test_a_tasks_own_failures_open_nothing(scene: Steady) -> None:
    """However many they are."""
    run_id = scene.submit(*(task(name, max_retries=0) for name in "abcdef"), **POLICY)
    scene.tick()
    scene.runner.end(*"abcdef", error="exit code 1")
    scene.tick()
    assert scene.circuits() == []
    assert scene.state(run_id).status == "failed"


def test_a_run_without_a_circuit_is_as_runs_have_always_been(scene: Steady) -> None:
    """Plans of releases that knew none, and of those who switch it off."""
    run_id = scene.submit(task("a", max_retries=3), retry=RetryPolicy(delay_s=0.0))
    for _ in range(4):
        scene.tick()
        scene.runner.end("a", **CRASH)
    scene.tick()
    assert scene.circuits() == []
    assert scene.statuses(run_id) == {"a": "failed"}


def test_what_is_not_there_any_more_is_waited_for_where_it_was_there_before(scene: Steady) -> None:
    """And a run that never had it fails at once, as ever."""
    gone = {"error": "no such command: 'claude'", "outcome": "not_started", "fault": "installation", "retryable": False}
    new = scene.submit(task("n"), **POLICY)
    scene.tick()
    scene.runner.end("n", **gone)
    scene.tick()
    assert scene.statuses(new) == {"n": "failed"}
    run_id = scene.submit(task("a"), *(task(name, "a") for name in "bcd"), **POLICY)
    scene.tick()
    scene.runner.end("a")
    scene.tick()
    scene.runner.end(*"bcd", **gone)
    scene.tick()
    assert {scene.statuses(run_id)[name] for name in "bcd"} == {"queued"}
    assert scene.circuits()[-1] == "CircuitOpened"


def test_another_client_stands_in_for_one_that_is_broken(tmp_path: Path) -> None:
    """As it does where a provider lets nobody work; once the first is whole again it is the first's work again."""
    scene = Steady(tmp_path, "claude")
    codex = Living("codex")
    scene.dispatcher.runners = {"claude": scene.runner, "codex": codex}  # type: ignore[assignment]
    scene.dispatcher.attempts._runners = scene.dispatcher.runners
    plan = agents_plan(*(agent(name) for name in "abc"), agents={"failover": ("codex",)}, **POLICY)
    scene.submit(plan=plan)
    scene.tick()
    assert [one.task_id for one in codex.launched] == []
    scene.runner.end("a", "b", "c", **CRASH)
    scene.tick()
    assert sorted(one.task_id for one in codex.launched) == ["a", "b", "c"]
    codex.end("a", "b", "c", **CRASH)
    scene.tick()
    assert [limit["runner"] for limit in scene.limits()] == ["claude", "codex"]
    assert len(codex.launched) == 3
    scene.end_of_story()


def test_a_commit_that_failed_counts_nothing(scene: Steady) -> None:
    """It is decided anew from the log."""
    scene.submit(task("a"), task("b"), task("c"), **POLICY)
    scene.tick()
    scene.runner.end("a", "b", **CRASH)
    scene.log.refusals = 1
    with pytest.raises(Exception, match="full"):
        scene.dispatcher.tick()
    scene.tick()
    assert scene.circuits() == ["RunnerFailed", "RunnerFailed"]


@pytest.mark.parametrize("seed", range(6))
def test_an_outage_costs_no_task_its_life(seed: int, tmp_path: Path) -> None:
    """A store on made-up time: its runner breaks and is mended at random; the run ends well soon after the last time.

    While it is broken few attempts are made, and at most one at a time once its circuit is open.
    """
    chance = random.Random(seed)
    scene = Steady(tmp_path)
    run_id = scene.submit(*(task(f"t{number}", max_retries=3) for number in range(10)), max_parallel_agents=4, **POLICY)
    begin_s = chance.randint(0, 60)
    outage = range(begin_s, begin_s + chance.randint(30, 400))
    wasted = 0
    for second in range(outage.stop + LONGEST * 30 + 300):
        scene.wait(1)
        if scene.state(run_id).ended:
            break
        for task_id in scene.state(run_id).running.values():
            if second in outage:
                scene.runner.end(task_id, **CRASH)
                wasted += 1
            elif chance.random() < 0.2:
                scene.runner.end(task_id, **({"error": "exit code 1"} if chance.random() < 0.02 else {}))
    trials = scene.circuits().count("CircuitHalfOpened")
    assert scene.state(run_id).status == "completed", f"seed {seed}"
    assert wasted <= 4 + 4 + trials, f"seed {seed}"
    assert trials <= 8, f"seed {seed}"
    scene.end_of_story()


def test_a_task_that_brings_its_client_down_comes_to_its_end(scene: Steady) -> None:
    """Alone in its store it looks like a broken runner; after a few trials they cost it retries all the same."""
    run_id = scene.submit(task("poison", max_retries=3), **POLICY)
    for _ in range(200):
        if scene.runner.launched and scene.statuses(run_id)["poison"] == "running":
            scene.runner.end("poison", **CRASH)
        scene.wait(30)
        if scene.state(run_id).ended:
            break
    assert scene.statuses(run_id) == {"poison": "failed"}
    starts = [one for one in scene.log.read() if isinstance(one.event, ev.TaskStarted)]
    assert len(starts) == 8  # Two that cost, the one that opens the circuit, three trials, and two that cost again.
