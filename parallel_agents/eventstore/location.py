"""Where a project's store lies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from parallel_agents.eventstore.errors import InvalidUsage, StoreError

FOLDER = ".parallel-agents"
FILE = "events.db"


def find_project_root(start: Path) -> Path:
    """The nearest folder upwards that has a store, else the git root, else the folder itself."""
    start = start.resolve()
    chain = [start, *start.parents]
    for wanted in (f"{FOLDER}/{FILE}", ".git"):
        for folder in chain:
            if (folder / wanted).exists():
                return folder
    return start


def store_path(project_root: Path, named: str | None = None) -> Path:
    """The store's file: the one that was named (a path, or ``sqlite:///PATH``), else the project's own.

    Raises:
        InvalidUsage: the URL names a database that is not supported.
    """
    if not named:
        return project_root / FOLDER / FILE
    if "://" in named:
        scheme, _, rest = named.partition("://")
        if scheme != "sqlite" or not rest.strip("/"):
            raise InvalidUsage(f"no store can be opened at {named!r}", hint="use a path or sqlite:///PATH")
        named = rest[1:] if rest.startswith("/") else rest
    try:
        path = Path(named).expanduser()
    except RuntimeError:  # No user of that name.
        raise InvalidUsage(f"no store can be opened at {named!r}", hint="write the path out") from None
    return path / FILE if path.is_dir() else path


def make_home(store: Path) -> None:
    """Make the folder of a store, private and invisible to git.

    Raises:
        StoreError: it cannot be made.
    """
    home = store.parent
    ignore = home / ".gitignore"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.name == FOLDER and not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise StoreError(f"{home} cannot be made: {error.strerror}", hint="name another place with --store") from error


def files_home(store: Path) -> Path:
    """Where checkouts and the shadow repository lie: beside the store, in a folder that git leaves out."""
    home = Path(os.path.abspath(store.parent))
    return home if home.name == FOLDER else home / FOLDER


def attempts_folder(store: Path) -> Path:
    """Where the files of all attempts lie: ``runs/<run>/<task>/<attempt>/`` beside the store."""
    return Path(os.path.abspath(store.parent)) / "runs"


def user_folder(environ: Mapping[str, str]) -> Path | None:
    """The user's folder by the XDG rules (relative values count for nothing), or None where there is no home."""
    for name, below in (("XDG_CONFIG_HOME", ""), ("HOME", ".config")):
        if (value := environ.get(name, "")).startswith("/"):
            return Path(value, below, "parallel-agents")
    return None


def keys_folder(environ: Mapping[str, str]) -> Path | None:
    """Where the key lies that stores are sealed with, apart from all else, so that a sandbox can hide it."""
    home = user_folder(environ)
    return None if home is None else home / "keys"
