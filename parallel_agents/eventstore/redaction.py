"""Secrets are taken out of free text before it is appended, and refused as literals in a plan.

A short list of rules for the providers that users of agents hold keys of; a repository scanner would be slower and would
find too much in ordinary output.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from parallel_agents.eventstore.events import Event

REDACTED = "[redacted]"
MIN_LENGTH = 8  # Shorter values of secret-named variables are too likely to be ordinary words.

# (name, texts of which every find holds at least one, pattern)
_RULES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Anthropic key", ("sk-",), r"sk-ant-[A-Za-z0-9_-]{8,}"),
    ("OpenAI key", ("sk-",), r"sk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,}"),
    ("GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{20,}"),
    ("GitHub token", ("github_pat_",), r"github_pat_[A-Za-z0-9_]{20,}"),
    ("GitLab token", ("glpat-",), r"glpat-[A-Za-z0-9_-]{16,}"),
    ("AWS key id", ("AKIA", "ASIA"), r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    ("Google key", ("AIza",), r"AIza[A-Za-z0-9_-]{30,}"),
    ("Slack token", ("xox",), r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("Hugging Face token", ("hf_",), r"hf_[A-Za-z0-9]{20,}"),
    ("Stripe key", ("k_live_", "k_test_"), r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("npm token", ("npm_",), r"npm_[A-Za-z0-9]{30,}"),
    ("Groq key", ("gsk_",), r"gsk_[A-Za-z0-9]{20,}"),
    ("xAI key", ("xai-",), r"xai-[A-Za-z0-9]{20,}"),
    ("JSON web token", ("eyJ",), r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    (
        "private key",
        ("PRIVATE KEY",),
        r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[\s\S]*?(?:-----END (?:[A-Z]+ )?PRIVATE KEY-----|\Z)",
    ),
)
_HEADER_NAME = r"(?i:authorization)\\*[\"']?\s*[:=]\s*\\*[\"']?"
_SCHEME = r"(?i:bearer|basic|token)\s+"
# Of a known scheme the one word after it is the secret; of any other header everything that may be its value.
_VALUE = r"[^\s\"',;\\]+(?(scheme)|(?:[ \t]+[A-Za-z0-9._~+/=-]{8,})?)"
_HEADER = rf"(?P<kept>{_HEADER_NAME}(?P<scheme>{_SCHEME})?){_VALUE}"
# In a plan only a literal counts: neither a variable nor prose, which has no digits or capitals within its words.
_LITERAL_HEADER = rf"{_HEADER_NAME}(?:{_SCHEME})?(?=\S*(?:\d|[a-z][A-Z]|=))[A-Za-z0-9._~+/=-]{{8,}}"
_SECRET_NAME = re.compile(r"secret|passw(?:or)?d|passphrase|token|credential|api_?key|(?:^|_)key(?:$|_)", re.IGNORECASE)
# Every mark holds one of these, which ordinary text holds seldom: a look for each of them ends nearly every search.
_SELDOM = "_-JKzxS"
_MARKS: dict[str, list[str]] = {}
for _mark in sorted({mark for _, marks, _ in _RULES for mark in marks}):
    _MARKS.setdefault(next(one for one in _SELDOM if one in _mark), []).append(_mark)
_BY_CHARACTER = tuple(_MARKS.items())


def _may_hold_one(text: str) -> bool:
    """A look at the marks alone: twenty times faster than the patterns, and nearly every text ends here."""
    for character, marks in _BY_CHARACTER:
        if character in text:
            for mark in marks:
                if mark in text:
                    return True
    return ("z" in text or "Z" in text) and "authorization" in text.lower()


@cache  # Compiled when a mark is met for the first time, which most processes never do.
def _any() -> re.Pattern[str]:
    return re.compile("|".join([_HEADER, *(rf"(?<![A-Za-z0-9]){pattern}" for _, _, pattern in _RULES)]))


@cache
def _each() -> list[tuple[str, re.Pattern[str]]]:
    rules = [(name, re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})")) for name, _, pattern in _RULES]
    return [("Authorization header", re.compile(_LITERAL_HEADER)), *rules]


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is taken to hold a secret (password, token, key and the like)."""
    return bool(_SECRET_NAME.search(name))


def find_secret(text: str) -> str | None:
    """The name of the first rule that finds a secret in the text, or None."""
    if not _may_hold_one(text):
        return None
    return next((name for name, pattern in _each() if pattern.search(text)), None)


class Redactor:
    """Takes secrets out of text: provider keys, Authorization values, and the values of secret-named variables."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        values = (os.environ if environ is None else environ).items()
        secrets = {value.strip() for name, value in values if is_secret_name(name)}
        secrets |= {
            json.dumps(secret, ensure_ascii=False)[1:-1] for secret in secrets
        }  # As it stands in lines of JSON.
        # Longest first, so that a secret that contains another one goes whole.
        ordered = sorted((secret for secret in secrets if len(secret) >= MIN_LENGTH), key=len, reverse=True)
        self._values = re.compile("|".join(re.escape(secret) for secret in ordered)) if ordered else None

    def text(self, text: str) -> str:
        """The text with every secret replaced by ``[redacted]``."""
        if len(text) < MIN_LENGTH:
            return text
        if self._values is not None:
            text = self._values.sub(REDACTED, text)
        if _may_hold_one(text):
            text = _any().sub(lambda match: (match["kept"] or "") + REDACTED, text)
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
            if before:
                after = self.text(before) if type(before) is str else self.value(before)
                if after != before:
                    changed[name] = after
        return event.model_copy(update=changed) if changed else event
