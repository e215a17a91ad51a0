"""The shelf keeps what it is given."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from shelf.__main__ import main
from shelf.store import Shelf, ShelfError


class TheShelf(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "shelf.json"

    def test_a_book_is_still_there_when_the_file_is_read_again(self) -> None:
        number = Shelf(self.path).add("Middlemarch", "George Eliot").number
        self.assertEqual(Shelf(self.path).find(number).title, "Middlemarch")

    def test_a_book_without_a_title_is_refused(self) -> None:
        with self.assertRaises(ShelfError):
            Shelf(self.path).add(" ", "nobody")

    def test_a_wrong_number_is_told(self) -> None:
        with self.assertRaisesRegex(ShelfError, "no book 7"):
            Shelf(self.path).find(7)

    def test_the_command_adds(self) -> None:
        self.assertEqual(main(["--file", str(self.path), "add", "Emma", "Jane Austen"]), 0)
        self.assertEqual([book.title for book in Shelf(self.path).books], ["Emma"])


if __name__ == "__main__":
    unittest.main()
