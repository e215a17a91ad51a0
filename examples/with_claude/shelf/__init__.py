"""A shelf of books, kept in one JSON file."""
