"""What a value from outside must be. The generated records in contract.py call these."""

from __future__ import annotations

import re


class Invalid(ValueError):
    """A value that the contract does not allow; the message names the field."""


def check_integer(name: str, value: object, low: int, high: int) -> None:
    # JSON's true is an int to Python, and no number to a customer.
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Invalid(f"{name} must be a whole number from {low} to {high}")


def check_text(name: str, value: object, pattern: str, longest: int) -> None:
    if not isinstance(value, str) or len(value) > longest or not re.fullmatch(pattern, value):
        raise Invalid(f"{name} must be text like {pattern}, at most {longest} characters")
