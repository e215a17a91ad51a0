"""What an attempt is charged with: the agent's own figures where it gave some, else its tokens times a price table.

Whatever nobody knows is charged as unknown, never as nothing. A session that went on from an earlier attempt is charged with
the difference only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from parallel_agents.scheduler.agents.reading import Reading, Reported, Spent, Tokens
from parallel_agents.scheduler.runners.protocol import Charge, ChargeSource

Price = Callable[[str, Tokens, int], tuple[int, str] | None]
"""Micro-dollars of tokens of a model in so many calls (0: nobody knows how many), and the version of the price table.

None where it does not know the model. Large calls cost more, so each message is priced alone where it is known.
"""

_MICROS = 1_000_000
_NOTHING = Tokens()


def charges(
    reading: Reading, before: Reported | None, finished: bool, price: Price, *, model: str | None = None
) -> tuple[Charge, ...]:
    """What an attempt has cost so far, by model. Also while it runs: then it is an estimate, cut off where it stands.

    Args:
        reading: what its output says.
        before: the totals that the session's last process to tell any had told (``Reading.reported``); None for a new session.
        finished: nothing can have been spent that its output does not tell of: it ended by itself, or ``reading.concluded``.
        price: what the price table says.
        model: that it was told to use, for a client that does not name it.
    """
    told = reading.own if reading.own is not None else _difference(reading.reported, before)
    cut_off = not finished or (reading.result is not None and reading.result.terminal_reason.startswith("aborted"))
    model = model or reading.model
    messages = list(reading.messages.values())
    if told is None:
        if not messages and reading.asked and not _refused(reading):
            return (Charge(model, None, "unknown", partial=not finished),)
        return tuple(_estimated(name, found, price) for name, found in _by_model(messages, model).items())
    settled = messages if finished else messages[: reading.settled]
    calls_of = _calls(settled, told.models)
    found = {
        name or model or "": _reported(name or model or "", spent, calls_of[name], price, cut_off)
        for name, spent in told.models.items()
        if spent.tokens != _NOTHING or spent.usd
    }
    # What came after the last result was told by none.
    for name, more in _by_model(messages[len(settled) :], model).items():
        estimate = _estimated(name, more, price)
        found[name] = _joined(found[name], estimate) if name in found else estimate
    return tuple(found.values())


def _difference(reported: Reported | None, before: Reported | None) -> Reported | None:
    """What the session's totals have grown by.

    Where one would be negative the totals are no continuation of those before (Claude Code forgets what a killed process
    had spent, and begins at 0 if that was the first): then they are this process's own.
    """
    if reported is None or before is None:
        return reported
    grown: dict[str, Spent] = {}
    for model, spent in reported.models.items():
        earlier = before.models.get(model)
        if earlier is None:
            grown[model] = spent
            continue
        tokens = spent.tokens.minus(earlier.tokens)
        usd = None if spent.usd is None or earlier.usd is None else spent.usd - earlier.usd
        if tokens is None or (usd is not None and usd < -1e-9):
            return reported
        grown[model] = Spent(tokens, usd if usd is None else max(0.0, usd), spent.guessed)
    if any(model not in reported.models and spent.tokens != _NOTHING for model, spent in before.models.items()):
        return reported
    return Reported(grown)


def _refused(reading: Reading) -> bool:
    """The provider refused all that was asked: that costs nothing."""
    return reading.result is not None and reading.result.is_error and not reading.answered


def _by_model(messages: Iterable[tuple[str | None, Tokens]], otherwise: str | None) -> dict[str, list[Tokens]]:
    """The messages' tokens."""
    found: dict[str, list[Tokens]] = {}
    for name, tokens in messages:
        found.setdefault(name or otherwise or "", []).append(tokens)
    return found


def _calls(messages: Iterable[tuple[str | None, Tokens]], models: Mapping[str, Spent]) -> Counter[str]:
    """How many of the messages belong to each model of a result, which may name them shorter or longer than they do."""
    calls: Counter[str] = Counter()
    largest = max(models, key=lambda known: models[known].tokens.kinds(), default="")
    for name, found in _by_model(messages, largest).items():
        alike = (known for known in models if known and (name.startswith(known) or known.startswith(name)))
        calls[name if name in models else next(alike, largest)] += len(found)
    return calls


def _reported(name: str, spent: Spent, calls: int, price: Price, partial: bool) -> Charge:
    if spent.usd is not None and not spent.guessed:
        return _charge(name or None, round(spent.usd * _MICROS), "agent", spent.tokens, calls, partial)
    priced = price(name, spent.tokens, calls) if name else None
    if priced is None:
        return _charge(name or None, None, "unknown", spent.tokens, calls, partial)
    return _charge(name, priced[0], "estimated", spent.tokens, calls, partial, priced[1])


def _estimated(name: str, messages: Sequence[Tokens], price: Price) -> Charge:
    """Of an agent that was cut off: what its messages say so far."""
    tokens = _NOTHING
    for message in messages:
        tokens = tokens.plus(message)
    priced = [price(name, message, 1) for message in messages] if name else [None]
    known = [one for one in priced if one is not None]
    if len(known) < len(priced):
        return _charge(name or None, None, "unknown", tokens, len(messages), True)
    return _charge(name, sum(usd for usd, _ in known), "estimated", tokens, len(messages), True, known[-1][1])


def _joined(one: Charge, other: Charge) -> Charge:
    """One charge for a model of which a part is reported and a part estimated."""
    usd = None if one.usd_micros is None or other.usd_micros is None else one.usd_micros + other.usd_micros
    tokens = _tokens_of(one).plus(_tokens_of(other))
    source: ChargeSource = "unknown" if usd is None else "estimated"
    return _charge(one.model, usd, source, tokens, one.calls + other.calls, True, other.prices or one.prices)


def _tokens_of(charge: Charge) -> Tokens:
    return Tokens(charge.input_tokens, charge.output_tokens, charge.cache_read_tokens, charge.cache_write_tokens)


def _charge(
    model: str | None,
    usd_micros: int | None,
    source: ChargeSource,
    tokens: Tokens,
    calls: int,
    partial: bool,
    prices: str = "",
) -> Charge:
    return Charge(
        model,
        usd_micros,
        source,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
        calls=max(0, calls),
        partial=partial,
        prices=prices,
    )
