"""What tokens cost by the price table that comes with ``genai-prices``. Nothing is asked over the network.

The package is imported at the first question: it takes a tenth of a second, and most commands have none.
"""

from __future__ import annotations

from decimal import Decimal
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
_USUAL_TOKENS = 100_000  # Of a call, well below the sizes that cost more.


@lru_cache(maxsize=1)
def prices_version() -> str:
    """Of the table, as an event names it."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


def price_of(model: str, tokens: Tokens, calls: int = 1) -> tuple[int, str] | None:
    """Micro-dollars for tokens of a model, and the version of the table that says so; None where it does not know the model.

    Several models ask more for a call of more than 200,000 tokens, so it matters how many calls the tokens are of. Tokens
    written to a cache are priced as those of the shorter kind (five minutes): outputs do not always tell which.

    Args:
        model: as an agent names it.
        tokens: of one call, or of all together.
        calls: that many equal ones; 0: nobody knows, then each is taken to be a usual one.
    """
    rate = _rate(model)
    if rate is None:
        return None
    parts = calls or -(-sum(tokens.kinds()) // _USUAL_TOKENS) or 1
    one = Tokens(*(kind // parts for kind in tokens.kinds()))
    last = Tokens(*(kind - (parts - 1) * (kind // parts) for kind in tokens.kinds()))
    usd = _usd_of_call(*rate, *last.kinds())
    if parts > 1:
        usd += (parts - 1) * _usd_of_call(*rate, *one.kinds())
    return round(usd * _MICROS), prices_version()


@lru_cache(maxsize=8192)  # Every call of a running agent is priced anew at each look.
def _usd_of_call(owner: str | None, name: str, given: int, made: int, read: int, written: int) -> Decimal:
    from genai_prices import Usage, calc_price

    usage = Usage(
        input_tokens=given + read + written,  # Theirs include those of the cache.
        output_tokens=made,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    return calc_price(usage, model_ref=name, provider_id=owner).total_price


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
