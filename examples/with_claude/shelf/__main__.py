"""``python3 -m shelf add TITLE AUTHOR`` and ``python3 -m shelf list``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shelf.store import Shelf, ShelfError


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; gives the exit code."""
    parser = argparse.ArgumentParser(prog="shelf", description="A shelf of books.")
    parser.add_argument("--file", type=Path, default=Path("shelf.json"))
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add", help="put a book on the shelf")
    add.add_argument("title")
    add.add_argument("author")
    verbs.add_parser("list", help="print all books")
    given = parser.parse_args(argv)
    shelf = Shelf(given.file)
    try:
        if given.verb == "add":
            print(shelf.add(given.title, given.author).number)
        else:
            for book in shelf.books:
                print(f"{book.number:>4}  {book.title} - {book.author}")
    except ShelfError as error:
        print(f"shelf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
