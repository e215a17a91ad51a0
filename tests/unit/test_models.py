"""Which model an attempt gets, and that it is said why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import genai_prices as prices
import pytest
from hypothesis import given
from hypothesis import strategies as some

from parallel_agents.eventstore.submission import PROFILES, AgentRole, AgentSettings, Task
from parallel_agents.scheduler.agents import models
from parallel_agents.scheduler.agents.models import Choice, cheaper, choose_model, stronger


def chosen(agent_type: str = "backend-engineer", description: str = "", settings: Any = None, **more: Any) -> Choice:
    """The choice for a task of that type."""
    task = Task(task_id="t", agent_type=agent_type, description=description, model=more.pop("model", None))
    return choose_model(task, AgentSettings(**(settings or {})), **more)


@pytest.mark.parametrize(
    ("agent_type", "alias"),
    [
        ("software-architect", "opus"),
        ("security-engineer", "opus"),
        ("backend-engineer", "sonnet"),
        ("ux-designer", "sonnet"),
        ("qa-engineer", "haiku"),
        ("documentation", "haiku"),
        ("somebody-else", "sonnet"),
    ],
)
def test_an_agent_type_has_a_model_of_its_own(agent_type: str, alias: str) -> None:
    """Claude's client takes the alias as its name."""
    found = chosen(agent_type)
    assert found[:2] == (alias, alias)
    assert alias in found.reason


def test_a_profile_moves_the_default() -> None:
    """Up for quality, down for speed, and to the smallest for those who want nothing but speed."""
    assert [chosen(settings={"profile": name}).model for name in PROFILES] == ["opus", "sonnet", "haiku", "haiku"]
    assert chosen("software-architect", settings={"profile": "ultra-fast"}).model == "haiku"
    assert chosen("software-architect", settings={"profile": "quality"}).model == "opus"
    assert "profile fast" in chosen(settings={"profile": "fast"}).reason


def test_words_of_the_description_move_it_by_one_step_at_most() -> None:
    """Whole words only; two of a kind count once, and one of each kind not at all."""
    assert chosen("qa-engineer", "Fix a race  condition and a deadlock").model == "sonnet"
    assert chosen("qa-engineer", "Fix a race  condition").reason.endswith(
        "one up for the word 'race condition': sonnet"
    )
    assert chosen(description="Correct a TYPO in the changelog").model == "haiku"
    assert chosen(description="A typo in the security page").model == "sonnet"
    assert chosen(description="insecurity, immigration, a commentary, a prototypo").model == "sonnet"


def test_what_is_said_more_clearly_wins() -> None:
    """The task before its agent type's own file, before the configuration, before the table."""
    role = {"x": AgentRole(name="x", model="haiku")}
    every = {"roles": role, "model_of": {"x": "opus"}}
    assert chosen("x", model="sonnet", settings=every).model == "sonnet"
    assert chosen("x", "migration", settings=every)[::2] == ("haiku", "the agent type x names haiku")
    inherits = {"x": AgentRole(name="x", model="inherit")}
    assert chosen("x", settings={"roles": inherits, "model_of": {"x": "opus"}}).model == "opus"
    assert chosen("x", settings={"roles": inherits}).model == "sonnet"


def test_near_a_limit_a_cheaper_model_is_chosen() -> None:
    """From the warning on and not before; never instead of what the task names."""
    assert chosen(tight=0.74).model == "sonnet"
    assert chosen(tight=0.75)[::2] == (
        "haiku",
        "backend-engineer gets sonnet; one down, because 75% of a budget is spent: haiku",
    )
    assert chosen(tight=0.75, warning=0.9).model == "sonnet"
    assert chosen(tight=0.99, model="opus").model == "opus"
    assert chosen("documentation", tight=0.99).model == "haiku"


def test_after_the_agents_own_failure_a_stronger_one_tries_where_that_is_wanted() -> None:
    """By one step, however often it has failed; near a limit the two cancel each other out, and both are told."""
    wanted = {"retry_stronger": True}
    assert chosen(failures_by_agent=3).model == "sonnet"
    assert chosen(settings=wanted, failures_by_agent=3).model == "opus"
    assert chosen(settings=wanted, model="haiku", failures_by_agent=1).model == "haiku"
    both = chosen(settings=wanted, failures_by_agent=1, tight=0.8)
    assert both.model == "sonnet"
    assert "one up" in both.reason
    assert "one down" in both.reason


def test_each_client_is_told_a_name_that_it_knows() -> None:
    """From the table, which the configuration extends; a name that is no alias goes through as it stands."""
    assert chosen(settings={"runner": "codex"})[:2] == ("sonnet", "gpt-6.1-sol")
    more = {"runner": "gemini", "models": {"sonnet": {"gemini": "some-model"}, "opus": {"claude": "claude-opus-4-8"}}}
    assert chosen(settings=more)[:2] == ("sonnet", "some-model")
    assert chosen("software-architect", settings=more, runner="claude")[:2] == ("opus", "claude-opus-4-8")
    assert chosen(model="claude-sonnet-4-6")[:2] == ("claude-sonnet-4-6", "claude-sonnet-4-6")


def test_a_client_without_a_model_for_the_alias_chooses_itself() -> None:
    """And it is said; an alias that a task names itself is refused before it runs."""
    assert chosen(settings={"runner": "aider"})[:2] == (None, None)
    assert "no sonnet for aider" in chosen(settings={"runner": "aider"}).reason
    assert chosen(takes_model=False, model="opus")[:2] == (None, None)
    assert "takes no model" in chosen(takes_model=False).reason
    assert chosen(settings={"choose_models": False})[:2] == (None, None)
    task, settings = Task(task_id="t", model="opus", runner="aider"), AgentSettings()
    assert models.unnamed(task, settings) == "the table of models has no 'opus' for the runner 'aider'"
    assert models.unnamed(task.model_copy(update={"model": "gpt-4.1"}), settings) is None
    assert models.unnamed(task.model_copy(update={"runner": "codex"}), settings) is None


def test_steps_end_at_the_ends() -> None:
    """And what stands on none stays where it is."""
    assert [stronger(name) for name in models.LADDER] == ["sonnet", "opus", "opus"]
    assert [cheaper(name) for name in models.LADDER] == ["haiku", "haiku", "sonnet"]
    assert stronger("gpt-4.1") == cheaper("gpt-4.1") == "gpt-4.1"


@given(
    description=some.text(max_size=60) | some.sampled_from([*models.HARD_WORDS, *models.EASY_WORDS]),
    profile=some.sampled_from(PROFILES),
    agent_type=some.sampled_from([*models.MODEL_OF, "other"]),
    tight=some.floats(0, 2),
    failures=some.integers(0, 3),
)
def test_a_tighter_budget_never_makes_it_dearer(
    description: str, profile: Any, agent_type: str, tight: float, failures: int
) -> None:
    """Whatever else speaks for what; and there is always a reason."""
    settings = AgentSettings(profile=profile, retry_stronger=True)
    task = Task(task_id="t", agent_type=agent_type, description=description.replace("\0", ""))
    loose = choose_model(task, settings, failures_by_agent=failures)
    tightened = choose_model(task, settings, failures_by_agent=failures, tight=tight)
    weights = [models.price_weight(one.model, "claude") for one in (tightened, loose)]
    assert weights[0] is not None
    assert weights[1] is not None
    assert weights[0] <= weights[1]
    assert tightened.reason


def test_the_weights_are_those_of_the_price_table() -> None:
    """Of the models that the aliases lead to: the clients' newest for Claude, the named ones for Codex."""
    names = {
        "claude": {alias: f"claude-{alias}-5-5" for alias in models.LADDER},
        "codex": {alias: models.MODELS[alias]["codex"] for alias in models.LADDER},
    }

    def dollars(name: str, tokens: Any) -> float:
        when = datetime(2026, 11, 1, tzinfo=UTC)
        return float(prices.calc_price(tokens, model_ref=name, genai_request_timestamp=when).total_price)

    for tokens in (prices.Usage(input_tokens=100_000), prices.Usage(output_tokens=100_000)):
        for runner, known in names.items():
            one = dollars(known["sonnet"], tokens)
            found = {alias: dollars(name, tokens) / one for alias, name in known.items()}
            assert found == pytest.approx(models.PRICE_WEIGHTS[runner])
