"""Taking an imported run away, which is a copy: its store, what its attempts wrote, and the refs that came with it.

The refs go first and the rename of its folder last: whoever is killed before that finds the run here, and takes it away again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from parallel_agents import imported
from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.reaching import unreached
from parallel_agents.checkpoint.repository import Repository, find_repository
from parallel_agents.eventstore.carried import Carried
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import ParallelAgentsError, StoreError, UnknownRun
from parallel_agents.eventstore.location import FILE, files_home
from parallel_agents.importing import staging
from parallel_agents.packing import flush_folder
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.stale_refs import at_work_elsewhere


def look_ahead(project: Project, named: str) -> dict[str, Any]:
    """What would be taken away.

    Returns:
        ``{"run_id", "from", "exported_at", "imported_at", "release", "redacted", "store", "bytes", "refs", "alone", "kept",
        "forks"}``: ``refs`` are those that go, and ``alone`` is how many of the commits that they name nothing else reaches;
        ``kept`` says why the refs stay, where they do; ``forks`` are runs of the project's own that were forked from it. Of a
        store that cannot be read any more nothing says where it is from.
    Raises:
        UnknownRun: no imported run is called so.
        InvalidUsage: several are.
    """
    store = imported.meant(project.store, named)
    if store is None:
        own = project.store.exists() and _is_own(project, named)
        hint = "it is a run of your own, and its history stays; `archive` makes it small" if own else ""
        raise UnknownRun(
            f"no imported run is called {named!r}", hint=hint or "`parallel-agents runs --imported` lists them"
        )
    run_id, about = store.parent.name, _about(store)
    repository = _repository(project, about)
    held = {} if repository is None else refs.held(repository, run_id)
    kept = _kept(run_id, about, repository, files_home(project.store)) if repository is not None and held else ""
    going = {} if kept else held
    alone = set() if repository is None else unreached(repository, set(going.values()), going)
    return {
        "run_id": run_id,
        **({} if about is None else imported.as_json(about)),
        "store": str(store),
        "bytes": sum(
            path.stat().st_size for path in store.parent.rglob("*") if path.is_file() and not path.is_symlink()
        ),
        "refs": sorted(going),
        "alone": len(alone),
        "kept": kept,
        "forks": _forks(project, run_id),
    }


def remove(project: Project, named: str) -> dict[str, Any]:
    """Take an imported run away. Gives and raises what ``look_ahead`` does, as it was before.

    Raises:
        NotAllowed: an import into this project is under way.
        GitFailed: its refs cannot be deleted; then it stays.
    """
    with staging(project.store) as folder:
        seen = look_ahead(project, named)
        home = Path(seen["store"]).parent
        repository = _repository(project, _about(home / FILE))
        if repository is not None and seen["refs"]:
            refs.drop(repository, seen["refs"])
        reach("import.unheld")
        os.rename(home, folder / home.name)
        flush_folder(imported.folder_of(project.store))
        reach("import.taken-away")
        shutil.rmtree(folder / home.name)
    return seen


def _is_own(project: Project, named: str) -> bool:
    with project.open() as log:
        return any(run_id.startswith(named) for run_id in Projector(log).runs())


def _about(store: Path) -> Carried | None:
    """What it says of itself; None where it can say nothing any more."""
    with contextlib.suppress(StoreError):
        return imported.about(store)
    return None


def _repository(project: Project, about: Carried | None) -> Repository | None:
    """Where its commits are; None where none came along, or where they were is gone."""
    if about is None:
        return find_repository(project.root)
    with contextlib.suppress(ParallelAgentsError):
        return None if about.repository is None else open_repository(about.repository, Path(about.workdir))
    return None


def _kept(run_id: str, about: Carried | None, repository: Repository, home: Path) -> str:
    """Why refs of that run are left alone: it may be at home in this very repository, in another store."""
    working = at_work_elsewhere(repository, home)
    if run_id in working:
        return f"the run works in {working[run_id]}"
    if about is None:
        return "its store cannot be read, so nothing says where it is at home"
    if not about.store or not Path(about.store).exists():
        return ""
    there = find_repository(Path(about.root)) if Path(about.root).is_dir() else None
    if there is not None and os.path.realpath(there.git_dir) == os.path.realpath(repository.git_dir):
        return f"the store that it came from, {about.store}, has its files in the same repository"
    return ""


def _forks(project: Project, run_id: str) -> list[str]:
    """The runs of the project's own store that were forked from it."""
    if not project.store.exists():
        return []
    with project.open() as log:
        return [one for one, run in Projector(log).runs().items() if run.parent == run_id]
