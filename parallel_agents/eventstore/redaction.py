"""Secrets are taken out of free text before it is appended, and refused as literals in a plan.

A short list of rules for the providers that users of agents hold keys of; a repository scanner would be slower and would
find too much in ordinary output.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from parallel_agents.eventstore.events import Event

REDACTED = "[redacted]"
MIN_LENGTH = 8  # Shorter values of secret-named variables are too likely to be ordinary words.

_RULES: tuple[tuple[str, str], ...] = (
    ("Anthropic key", r"sk-ant-[A-Za-z0-9_-]{8,}"),
    ("OpenAI key", r"sk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,}"),
    ("GitHub token", r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    ("GitLab token", r"glpat-[A-Za-z0-9_-]{16,}"),
    ("AWS key id", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    ("Google key", r"AIza[A-Za-z0-9_-]{30,}"),
    ("Slack token", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("Hugging Face token", r"hf_[A-Za-z0-9]{20,}"),
    ("Stripe key", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("npm token", r"npm_[A-Za-z0-9]{30,}"),
    ("JSON web token", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("private key", r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[\s\S]*?(?:-----END (?:[A-Z]+ )?PRIVATE KEY-----|\Z)"),
)
_AUTHORIZATION = r"(?P<kept>authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?)[^\s\"',;]+"
_ANY = re.compile(
    "|".join([_AUTHORIZATION, *(rf"(?<![A-Za-z0-9])(?:{pattern})" for _, pattern in _RULES)]), re.IGNORECASE
)
_EACH = tuple(
    [("Authorization header", re.compile(_AUTHORIZATION, re.IGNORECASE))]
    + [(name, re.compile(rf"(?<![A-Za-z0-9]){pattern}")) for name, pattern in _RULES]
)
_SECRET_NAME = re.compile(r"secret|passw(?:or)?d|passphrase|token|credential|api_?key|(?:^|_)key(?:$|_)", re.IGNORECASE)
_CHEAP = re.compile(
    r"sk-|sk_|rk_|gh[pousr]_|github_pat|glpat|AKIA|ASIA|AIza|xox|hf_|npm_|eyJ|BEGIN|authoriz", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is taken to hold a secret (password, token, key and the like)."""
    return bool(_SECRET_NAME.search(name))


def find_secret(text: str) -> str | None:
    """The name of the first rule that finds a secret in the text, or None."""
    if not _CHEAP.search(text):
        return None
    return next((name for name, pattern in _EACH if pattern.search(text)), None)


class Redactor:
    """Takes secrets out of text: provider keys, Authorization values, and the values of secret-named variables."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        values = (os.environ if environ is None else environ).items()
        secrets = {value for name, value in values if is_secret_name(name) and len(value.strip()) >= MIN_LENGTH}
        # Longest first, so that a secret that contains another one goes whole.
        ordered = sorted(secrets, key=len, reverse=True)
        self._values = re.compile("|".join(re.escape(secret) for secret in ordered)) if ordered else None

    def text(self, text: str) -> str:
        """The text with every secret replaced by ``[redacted]``."""
        if self._values is not None:
            text = self._values.sub(REDACTED, text)
        if _CHEAP.search(text):
            text = _ANY.sub(lambda match: (match["kept"] or "") + REDACTED, text)
        return text

    def value(self, value: Any) -> Any:
        """The same for every text inside a JSON value."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(key): self.value(item) for key, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
            case _:
                return value

    def event(self, event: Event) -> Event:
        """The event with its free text redacted. Ids are never touched, or the log could not be folded."""
        changed = {}
        for name in event.free_text:
            before = getattr(event, name)
            if before and (after := self.value(before)) != before:
                changed[name] = after
        return event.model_copy(update=changed) if changed else event
