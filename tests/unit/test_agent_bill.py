"""What an attempt is charged with: by difference, by estimate where nothing was told, and never as nothing where nobody knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.scheduler.agents.bill import charges
from parallel_agents.scheduler.agents.prices import price_of, prices_version
from parallel_agents.scheduler.agents.reading import ApiFailure, Reading, Reported, Result, Spent, Tokens
from parallel_agents.scheduler.runners.protocol import Charge


def price(model: str, tokens: Tokens, calls: int) -> tuple[int, str] | None:
    """A table that knows one model: a micro-dollar for each token."""
    return (sum(tokens.kinds()), "table 1") if model == "known" else None


def told(*models: tuple[str, int, float | None]) -> Reported:
    """Totals of input tokens and dollars."""
    return Reported({model: Spent(Tokens(tokens), usd) for model, tokens, usd in models})


def finished(reported: Reported | None, own: Reported | None = None) -> Reading:
    """Of an agent that ended well."""
    return Reading(reported=reported, own=own, result=Result("success"), results=1, asked=True, answered=True)


def test_the_agents_own_figure_is_preferred() -> None:
    """In micro-dollars, with its source."""
    (charge,) = charges(finished(told(("known", 10, 0.0123456))), None, True, price)
    assert charge == Charge("known", 12_346, "agent", input_tokens=10)


def test_a_resumed_session_is_charged_by_difference() -> None:
    """Where the client tells totals only: a model at a time, and none that it did not ask again."""
    before = told(("a", 100, 1.0), ("b", 50, 0.5))
    found = charges(finished(told(("a", 130, 1.25), ("b", 50, 0.5), ("c", 5, 0.1))), before, True, price)
    assert [(charge.model, charge.input_tokens, charge.usd_micros) for charge in found] == [
        ("a", 30, 250_000),
        ("c", 5, 100_000),
    ]


def test_a_difference_that_the_client_tells_needs_no_totals() -> None:
    """It is right where these are not, as after a process that was killed."""
    reading = finished(told(("a", 130, 1.25)), own=told(("a", 20, 0.2)))
    (charge,) = charges(reading, told(("a", 999, 9.0)), True, price)
    assert (charge.input_tokens, charge.usd_micros) == (20, 200_000)


def test_totals_that_shrank_are_no_continuation() -> None:
    """The client has forgotten what was before: nothing is subtracted, and nothing is negative."""
    for smaller in (told(("a", 30, 0.3)), told(("a", 100, 0.3)), told(("c", 30, 0.3))):
        found = charges(finished(smaller), told(("a", 100, 1.0)), True, price)
        assert [charge.usd_micros for charge in found] == [300_000]


def test_a_guessed_price_is_not_the_agents_word() -> None:
    """The table's is taken; where it knows none, nobody does."""
    for model, usd, source in (("known", 10, "estimated"), ("new", None, "unknown")):
        reported = Reported({model: Spent(Tokens(10), 0.006, guessed=True)})
        (charge,) = charges(finished(reported), None, True, price)
        assert (charge.usd_micros, charge.source, charge.input_tokens) == (usd, source, 10)


def test_tokens_without_dollars_are_priced_under_the_name_that_was_asked_for() -> None:
    """Codex names no model."""
    (charge,) = charges(finished(told(("", 10, None))), None, True, price, model="known")
    assert (charge.model, charge.usd_micros, charge.source, charge.prices) == ("known", 10, "estimated", "table 1")
    (nameless,) = charges(finished(told(("", 10, None))), None, True, price)
    assert (nameless.model, nameless.usd_micros, nameless.source) == (None, None, "unknown")


def cut_off() -> Reading:
    """Of an agent that was killed, after two calls."""
    reading = Reading()
    reading.count("a", "known", Tokens(10, 5))
    reading.count("b", "known", Tokens(20, 1))
    return reading


def test_an_agent_cut_off_is_charged_for_what_was_seen() -> None:
    """Marked as partial."""
    (charge,) = charges(cut_off(), None, False, price)
    assert charge == Charge("known", 36, "estimated", 30, 6, calls=2, partial=True, prices="table 1")


def test_what_came_after_the_last_result_is_added_to_it() -> None:
    """A second prompt in the same process, killed in the middle; had it ended, its result would have told."""
    reading = cut_off()
    reading.settled, reading.own, reading.result = 1, told(("known", 10, 0.001)), Result("success")
    (charge,) = charges(reading, None, False, price)
    assert (charge.usd_micros, charge.source, charge.calls, charge.partial) == (1021, "estimated", 2, True)
    (whole,) = charges(reading, None, True, price)
    assert (whole.usd_micros, whole.source, whole.calls, whole.partial) == (1000, "agent", 2, False)


def test_a_request_of_which_nothing_was_heard_is_unknown() -> None:
    """Unless it was refused, or there was none."""
    assert charges(Reading(), None, False, price) == ()
    asked = Reading(asked=True, model="known")
    assert charges(asked, None, False, price) == (Charge("known", None, "unknown", partial=True),)
    asked.result = Result("turn.failed", is_error=True)
    asked.fail(ApiFailure("429"))
    assert charges(asked, None, True, price) == ()


def test_calls_are_shared_out_to_the_models_of_a_result() -> None:
    """Whose names may be the longer or the shorter ones; what fits none is the largest one's."""
    reading = finished(told(("claude-x", 100, 1.0), ("claude-y-20260101", 5, 0.1)))
    for number, model in enumerate(("claude-x", "claude-x", "claude-y", "other", None)):
        reading.count(str(number), model, Tokens(1))
    assert [charge.calls for charge in charges(reading, None, True, price)] == [4, 1]


Amounts = dict[str, tuple[int, float]]
AMOUNTS = st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 10**6), st.floats(0, 100)), max_size=3)


@given(AMOUNTS, AMOUNTS)
def test_charges_of_a_session_add_up_to_its_totals(first: Amounts, second: Amounts) -> None:
    """To a micro-dollar for each model and attempt, whatever the dollars are."""
    totals = told(*((model, *row) for model, row in first.items()))
    more = told(*((model, *row) for model, row in second.items()))
    end = totals.plus(more)
    found = [*charges(finished(totals), None, True, price), *charges(finished(end), totals, True, price)]
    reported = sum(spent.usd or 0 for spent in end.models.values())
    assert sum(charge.input_tokens for charge in found) == sum(spent.tokens.input for spent in end.models.values())
    assert abs(sum(charge.usd_micros or 0 for charge in found) - reported * 1_000_000) <= len(found) + 1


@given(AMOUNTS, AMOUNTS)
def test_no_charge_is_negative(first: Amounts, second: Amounts) -> None:
    """Whatever was told before."""
    before = told(*((model, *row) for model, row in first.items()))
    for charge in charges(finished(told(*((model, *row) for model, row in second.items()))), before, True, price):
        assert (charge.usd_micros or 0) >= 0
        assert charge.input_tokens >= 0


def test_the_price_table_counts_tokens_of_the_cache_once() -> None:
    """Its own figure of input tokens includes them, ours does not."""
    model, kinds = "claude-sonnet-4-5", ("input", "output", "cache_read", "cache_write")
    rates = [price_of(model, Tokens(**{kind: 10_000})) for kind in kinds]
    assert rates == [(usd, prices_version()) for usd in (30_000, 150_000, 3_000, 37_500)]
    assert price_of(model, Tokens(10_000, 10_000, 10_000, 10_000)) == (220_500, prices_version())


def test_many_small_calls_are_not_priced_as_a_large_one() -> None:
    """One of more than 200,000 tokens costs twice as much for each."""
    model, tokens = "claude-sonnet-4-5", Tokens(1_000_003)
    assert price_of(model, tokens) == (6_000_018, prices_version())
    for calls in (10, 0):
        assert price_of(model, tokens, calls) == (3_000_009, prices_version())
    reading = Reading()
    for number in range(10):
        reading.count(str(number), model, Tokens(100_000))
    (charge,) = charges(reading, None, False, price_of)
    assert charge.usd_micros == 3_000_000


def test_a_model_is_priced_under_all_of_its_names() -> None:
    """With its date, its seller before it, its context behind it."""
    tokens = Tokens(1000, 1000)
    plain = price_of("claude-sonnet-4-5", tokens)
    for name in ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5[1m]"):
        assert price_of(name, tokens) == plain
    assert plain
    assert price_of("gpt-5", tokens) != plain


def test_a_model_that_the_table_does_not_know_has_no_price() -> None:
    """It is not 0."""
    for name in ("model-of-no-price", "claude-of-another-world", "", "<synthetic>"):
        assert price_of(name, Tokens(1000, 1000)) is None
