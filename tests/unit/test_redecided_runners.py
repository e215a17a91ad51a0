"""What is recorded of runners and providers otherwise than it was decided is named, by an event of a run or of none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from agentpaper import agent, agents_plan
from dispatching import Scene, ScriptedRunner
from paper import SECOND_US, task
from planting import Change, altered, gone, with_facts

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import RetryPolicy
from parallel_agents.replaying import Verdict, redecide

CRASH: Final = {"error": "its client crashed", "fault": "runner", "kind": "infrastructure"}
POLICY: Final[dict[str, Any]] = {"circuit_failures": 3, "circuit_reset_s": 30.0, "retry": RetryPolicy(delay_s=0.0)}
FULL: Final[dict[str, Any]] = {"error": "too many requests", "kind": "rate_limit", "provider": "anthropic"}
SECOND: Final = "1970-01-01T00:00:01.000000Z"


class Store(Scene):
    """A store with one run of one runner."""

    run_id: str

    def __init__(self, folder: Path, runner: ScriptedRunner) -> None:
        super().__init__(folder)
        self.runner = runner
        self.dispatcher = self.another("run", steady=lambda: self.now_us)

    def later(self, seconds: float = 0) -> None:
        """Time passes, and a tick with it."""
        self.now_us += round(seconds * SECOND_US)
        self.tick()

    def verdict(self) -> Verdict:
        """Of the run."""
        return redecide(self.log, self.run_id)


class Living(ScriptedRunner):
    """Has a process for every attempt."""

    def live(self) -> dict[str, int]:
        """All that were launched."""
        return {launch.attempt_id: 4242 for launch in self.launched}


def broken(folder: Path) -> Store:
    """Three attempts have failed by the fault of their runner, which is left alone for half a minute."""
    made = Store(folder, Living())
    made.run_id = made.submit(*map(task, "abc"), **POLICY)
    made.tick()
    made.runner.end("a", "b", "c", **CRASH)
    made.later()
    return made


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Store]:
    """A runner that is tried twice, and works the second time."""
    made = broken(tmp_path)
    made.later(30)
    made.runner.end("a", **CRASH)
    made.later()
    made.later(60)
    made.runner.end("a")
    made.later()
    made.runner.end("b", "c")
    made.later()
    yield made
    made.end_of_story()


def test_all_that_is_said_of_a_runner_is_decided_again(outage: Store) -> None:
    """Its failures, how long it is left alone, who tries it, and that it works."""
    found = outage.verdict()
    names = "RunnerFailed", "CircuitOpened", "CircuitHalfOpened", "CircuitClosed"
    assert {name: found.decisions[name] for name in names} == dict(zip(names, (2, 2, 2, 1), strict=True))
    assert found.sampled == {}


PLANTED: Final[dict[str, tuple[str, Change, tuple[str, str]]]] = {
    "a circuit is open for longer": (
        "CircuitOpened", lambda body: {**body, "until": SECOND}, ("CircuitOpened", "until"),
    ),
    "another count of failures has opened it": (
        "CircuitOpened", lambda body: {**body, "failures": 9}, ("CircuitOpened", "failures"),
    ),
    "a failure is one of an attempt that vanished": (
        "RunnerFailed", lambda body: {**body, "lost": True}, ("RunnerFailed", "lost"),
    ),
    "another runner has failed": (
        "RunnerFailed", lambda body: {**body, "runner": "codex"}, ("RunnerFailed", "runner"),
    ),
    "a failure that opened it is not told": ("RunnerFailed", gone, ("CircuitOpened", "type")),
    "that it opened is not told": ("CircuitOpened", gone, ("TaskRetryScheduled", "failures")),
    "a runner is tried, and that is not told": ("CircuitHalfOpened", gone, ("TaskStarted", "before")),
    "another runner is tried": (
        "CircuitHalfOpened", lambda body: {**body, "runner": "codex"}, ("CircuitHalfOpened", "runner"),
    ),
    "that it works is not told": ("CircuitClosed", gone, ("TaskCompleted", "before")),
    "it is trusted again before that was shown": (
        "CircuitClosed", lambda body: {**body, "facts": {"alive_s": 1.0}}, ("CircuitClosed", "type"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_recorded_otherwise_of_a_runner_is_named(name: str, outage: Store) -> None:
    """In whichever event shows it first."""
    type_, change, named = PLANTED[name]
    rows = list(outage.log.rows(where=f"type = '{type_}'"))
    found = [one for row in rows[:1] for one in altered(outage.log, row, change)]
    assert [(one.type, one.field) for one in found] == [named]
    assert found[0].recorded != found[0].now


def test_what_an_older_release_has_said_of_a_runner_is_judged_by_whose_end_came_with_it(outage: Store) -> None:
    """It did not say whose that was."""
    (row,) = outage.log.rows(where="type = 'CircuitClosed'")

    def older(body: dict[str, Any]) -> dict[str, Any]:
        return {"runner": body["runner"], "reason": body["reason"]}

    assert altered(outage.log, row, older) == []


def test_a_trial_that_runs_for_long_is_judged_by_how_long_it_was_seen_to(tmp_path: Path) -> None:
    """Where that is recorded."""
    scene = broken(tmp_path)
    for seconds in (30, 1, 30):
        scene.later(seconds)
    closed = scene.last(ev.CircuitClosed)
    assert closed.facts == {"alive_s": 30.0}
    assert scene.verdict().decisions["CircuitClosed"] == 1
    (row,) = scene.log.rows(where="type = 'CircuitClosed'")
    (said,) = altered(scene.log, row, with_facts(alive_s=29.0))
    assert (said.type, said.field, said.recorded, said.now) == ("CircuitClosed", "type", "CircuitClosed", None)
    older = altered(scene.log, row, lambda body: {"runner": "shell", "reason": body["reason"]})
    assert older == []
    scene.end_of_story()


def test_what_a_person_has_said_of_a_runner_is_no_decision(outage: Store) -> None:
    """They may say so at any time."""
    before = outage.verdict()
    outage.log.append("store", outage.log.version("store"), [ev.CircuitClosed(runner="shell", reason="mended")])
    assert outage.verdict().decisions == before.decisions


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[Store]:
    """A provider that refuses twice, and then lets an agent work."""
    made = Store(tmp_path, ScriptedRunner("claude"))
    made.run_id = made.submit(plan=agents_plan(agent("a", max_retries=9), retry=RetryPolicy(delay_s=0.0)))
    made.tick()
    for until_us in (made.now_us + 90 * SECOND_US, None):
        made.runner.end("a", **FULL, until_us=until_us)
        made.later()
        made.later(120)
    made.runner.end("a", got_through=True, provider="anthropic")
    made.later()
    yield made
    made.end_of_story()


OF_PROVIDERS: Final[dict[str, tuple[str, Change, tuple[str, str]]]] = {
    "a provider refused once more": (
        "ProviderLimited", lambda body: {**body, "count": 7}, ("ProviderLimited", "count"),
    ),
    "a provider was guessed to refuse for longer": (
        "ProviderLimited", lambda body: {**body, "until": SECOND, "stated": False}, ("ProviderLimited", "until"),
    ),
    "another model was refused": (
        "ProviderLimited", lambda body: {**body, "model": "gpt"}, ("ProviderLimited", "model"),
    ),
    "it was refused for another reason": (
        "ProviderLimited", lambda body: {**body, "kind": "overload"}, ("ProviderLimited", "kind"),
    ),
    "a refusal is not told": ("ProviderLimited", gone, ("TaskFailed", "before")),
    "another provider lets agents work again": (
        "ProviderFreed", lambda body: {**body, "provider": "openai"}, ("ProviderFreed", "type"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_PROVIDERS)
def test_what_is_recorded_otherwise_of_a_provider_is_named(name: str, refused: Store) -> None:
    """Each by itself."""
    type_, change, named = OF_PROVIDERS[name]
    rows = list(refused.log.rows(where=f"type = '{type_}'"))
    assert rows
    for row in rows:
        (found,) = altered(refused.log, row, change)
        assert (found.type, found.field) == named
        assert found.recorded != found.now


def test_all_that_is_said_of_a_provider_is_decided_again(refused: Store) -> None:
    """Also as an older release has recorded it."""
    assert {"ProviderLimited": 2, "ProviderFreed": 1}.items() <= refused.verdict().decisions.items()
    (row,) = refused.log.rows(where="type = 'ProviderFreed'")
    assert altered(refused.log, row, lambda body: {"provider": body["provider"], "reason": ""}) == []
