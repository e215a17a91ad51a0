"""The release of this package."""

RELEASE = "0.1.0"
STORE_FORMAT = 1  # Of the tables; grows when an older release could no longer write to the store.
VIEWS = 2
"""Of the SQL views of a store: one with a lower number gets those of this release from whoever opens it to write."""
