"""A project as a command or a caller meets it: its root, its store, its configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_agents.eventstore.errors import InvalidUsage, StoreError
from parallel_agents.eventstore.location import find_project_root, make_home, store_path
from parallel_agents.eventstore.log import Log

if TYPE_CHECKING:
    from parallel_agents.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Project:
    """Where things are. Nothing is opened or made yet."""

    root: Path
    store: Path
    workdir: Path

    @classmethod
    def find(cls, *, start: Path | None = None, store: str | None = None, root: Path | None = None) -> Project:
        """The project of a folder.

        Args:
            start: the working directory; None is this process's own.
            store: a path or URL that takes the place of the project's store; else PARALLEL_AGENTS_STORE does.
            root: the project's root, where it is known.
        Raises:
            InvalidUsage: the store's URL is not supported, or the working directory is gone.
        """
        try:
            workdir = (start or Path.cwd()).resolve()
        except FileNotFoundError:
            raise InvalidUsage("the working directory does not exist any more", hint="change to another one") from None
        found = (root or find_project_root(workdir)).resolve()
        named = store or os.environ.get("PARALLEL_AGENTS_STORE")
        return cls(found, store_path(found, named), workdir)

    def open(self, *, create: bool = False, actor: str = "local") -> Log:
        """Open the store.

        Args:
            create: make it where there is none.
        Raises:
            StoreError: it cannot be opened, or there is none.
        """
        if create:
            make_home(self.store)
        return Log(self.store, create=create, actor=actor)

    def check_not_shipped(self) -> None:
        """Refuse a store that came with a repository: what is queued in it would run as the user, who never asked for it.

        For whoever dispatches runs that it was not given by name.

        Raises:
            StoreError: git tracks the store's file.
        """
        if not self.store.exists():
            return
        from parallel_agents.checkpoint.repository import is_tracked

        if is_tracked(self.store):
            raise StoreError(
                f"{self.store} came with the repository: git tracks it, and what is queued in it would run as you",
                hint=f"look at it with `parallel-agents runs`, then `git rm --cached {self.store}`, or name another --store",
            )

    def configuration(
        self,
        *,
        config_path: Path | None = None,
        flags: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Configuration:
        """The effective configuration (see ``load_configuration``)."""
        from parallel_agents.configuration import load_configuration  # Whoever only looks needs none.

        return load_configuration(self.root, config_path=config_path, flags=flags, environ=environ)
