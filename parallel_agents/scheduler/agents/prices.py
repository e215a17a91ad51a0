"""What tokens cost by the price table that comes with ``genai-prices``. Nothing is asked over the network.

The package is imported at the first question: it takes a tenth of a second, and most commands have none.
"""

from __future__ import annotations

from functools import lru_cache

from parallel_agents.scheduler.agents.reading import Tokens

_OWNERS = (  # Beginnings of models' names, and whose they are: another seller of the same model may ask another price.
    ("claude", "anthropic"),
    ("gpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("codex", "openai"),
    ("gemini", "google"),
)
_MICROS = 1_000_000


@lru_cache(maxsize=1)
def prices_version() -> str:
    """Of the table, as an event names it."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


def price_of(model: str, tokens: Tokens) -> tuple[int, str] | None:
    """Micro-dollars for tokens of a model, and the version of the table that says so; None where it does not know the model.

    Tokens written to a cache are priced as those of the shorter kind (five minutes): outputs do not always tell which.
    """
    rate = _rate(model)
    if rate is None:
        return None
    from genai_prices import Usage, calc_price

    owner, name = rate
    usage = Usage(
        input_tokens=tokens.input + tokens.cache_read + tokens.cache_write,  # Theirs include those of the cache.
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
    )
    price = calc_price(usage, model_ref=name, provider_id=owner).total_price
    return round(price * _MICROS), prices_version()


@lru_cache(maxsize=256)
def _rate(model: str) -> tuple[str | None, str] | None:
    """By whom and under which name the table knows a model."""
    from genai_prices import Usage, calc_price

    name = model.rsplit("/", 1)[-1].split("[", 1)[0]  # ``anthropic/claude-...`` and ``claude-...[1m]`` are said too.
    owner = next((owner for start, owner in _OWNERS if name.startswith(start)), None)
    try:
        calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=name, provider_id=owner)
    except (LookupError, ValueError):
        return None
    return owner, name
