"""The books of a shelf and the file that they are kept in."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


class ShelfError(Exception):
    """What a user has to be told."""


@dataclass(frozen=True)
class Book:
    """One copy of a book."""

    number: int
    title: str
    author: str


class Shelf:
    """All books, in the order in which they came. Every change is in the file when it returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.books: list[Book] = []
        if path.exists():
            self.books = [Book(**row) for row in json.loads(path.read_text(encoding="utf-8"))]

    def add(self, title: str, author: str) -> Book:
        """Put a book on the shelf.

        Raises:
            ShelfError: it has no title.
        """
        if not title.strip():
            raise ShelfError("a book needs a title")
        book = Book(max((book.number for book in self.books), default=0) + 1, title.strip(), author.strip())
        self.books.append(book)
        self._save()
        return book

    def find(self, number: int) -> Book:
        """The book of that number.

        Raises:
            ShelfError: there is none.
        """
        for book in self.books:
            if book.number == number:
                return book
        raise ShelfError(f"there is no book {number}")

    def _save(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps([asdict(book) for book in self.books], indent=1), encoding="utf-8")
        os.replace(part, self.path)
