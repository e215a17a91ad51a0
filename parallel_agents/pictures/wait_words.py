"""Waits in words: each reason in a few of them, and the families that share a colour and a line of a legend. Pure."""

from __future__ import annotations

from typing import Final

PHRASES: Final = {
    "dependencies": "for what it depends on", "stage": "for its stage", "barrier": "for the checkpoint of a stage",
    "no_slot": "for a slot", "lower_rank": "for a slot, behind others", "one_by_one": "its stage runs one by one",
    "queue_full": "the queue is full", "scope": "its files are taken", "not_before": "rest before a retry",
    "provider": "its provider lets nobody work", "requests": "for requests a minute", "budget": "for money",
    "circuit_open": "its runner is broken", "paused": "its run is paused", "blocked": "for a person",
    "approval": "for a person", "disk": "the disk is full", "cpu": "the processors are busy", "memory": "for memory",
    "workers": "for a worker", "no_dispatcher": "nobody dispatches", "due": "its turn", "skipping": "to be skipped",
    "cancelling": "to be cancelled", "run_ended": "its run had ended",
}  # fmt: skip
"""What a task waited for, in few words, by the code of the reason."""


def phrase(code: str) -> str:
    """A reason in few words."""
    return PHRASES.get(code, code.replace("_", " "))


FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "dependencies": ("dependencies",), "stage": ("stage", "barrier"),
    "slot": ("no_slot", "lower_rank", "one_by_one", "queue_full", "workers"), "files": ("scope",), "rest": ("not_before",),
    "provider": ("provider", "requests", "circuit_open"), "money": ("budget",), "machine": ("disk", "cpu", "memory"),
    "paused": ("paused", "no_dispatcher", "run_ended"), "person": ("blocked", "approval"),
    "turn": ("due", "skipping", "cancelling"),
}  # fmt: skip
"""Waits that share a colour, by the codes of their reasons."""
FAMILY_WORDS: Final = {
    "dependencies": "dependencies", "stage": "stage", "slot": "slot", "files": "files of others", "rest": "rest before a retry",
    "provider": "provider or runner", "money": "budget", "machine": "machine", "paused": "paused, or nobody dispatches",
    "person": "a person", "turn": "its turn",
}  # fmt: skip
_FAMILY_OF: Final = {code: family for family, codes in FAMILIES.items() for code in codes}


def family(code: str) -> str:
    """The family of a wait."""
    return _FAMILY_OF.get(code, "turn")
