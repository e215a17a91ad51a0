"""What is gone through one after the other and is too much to hold, such as the tasks of a run that has 100,000 of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Passing(Generic[T]):
    """Values that are made anew by each who goes through them, as long as the log that they are read from is open."""

    make: Callable[[], Iterator[T]]

    def __iter__(self) -> Iterator[T]:
        return self.make()
