"""A backup: one file that holds a store, the commits of its runs and, if wanted, what attempts wrote.

A gzipped tar, in this order: ``events.db`` (SQLite's online backup, of one moment, while others go on writing), the files
below ``bundles/`` (a git bundle for each repository, made after that moment, so that it holds whatever an event of the copy
names), those below ``archive/`` and ``runs/``, and ``manifest.json``, whose being there says that the file is whole. The
format is in docs/adr/0021.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from parallel_agents.archived import announced
from parallel_agents.bundling import BUNDLES, bundles
from parallel_agents.eventstore import audit
from parallel_agents.eventstore.archive import archive_folder
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.named_commits import named_commits
from parallel_agents.packing import Kind, Told, put_in_place, room_for, written
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.run_standing import places_of
from parallel_agents.verification import verify
from parallel_agents.version import RELEASE, STORE_FORMAT

FORMAT = 1
DATABASE = "events.db"
OUTPUTS = "runs"
ARCHIVES = "archive"


class BackupFailed(ParallelAgentsError):
    """A backup cannot be made, or one cannot be used."""

    code = "backup"


KIND = Kind(
    name="a backup",
    format=FORMAT,
    files=frozenset({DATABASE}),
    folders=frozenset({ARCHIVES, BUNDLES, OUTPUTS}),
    manifest={"made_at": str, "root": str, "events": int, "head": str, "repositories": list, "left_out": list},
    failure=BackupFailed,
    unharmed="nothing was restored",
)


def back_up(
    log: Log,
    project: Project,
    target: Path,
    *,
    outputs: bool = True,
    overwrite: bool = False,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Write a backup, under another name first: a file of the name that was given is always a whole one.

    Args:
        outputs: with what attempts wrote and were told.
        overwrite: in place of a file that is there.
    Returns:
        ``{"file", "bytes", "sha256", "events", "head", "runs", "refs", "outputs", "left_out"}``.
    Raises:
        InvalidUsage: there is such a file, or no such folder.
        BackupFailed: the store is not what was written, or a commit that it names is gone.
        StoreError, GitFailed: it cannot be read, or not written.
    """
    told = progress or (lambda what, done, total: None)
    target = target.absolute()
    with room_for(target, KIND.noun, overwrite=overwrite) as scratch:
        return _written(log, project, target, scratch, outputs=outputs, told=told)


def _written(log: Log, project: Project, target: Path, scratch: Path, *, outputs: bool, told: Told) -> dict[str, Any]:
    copied = scratch / DATABASE
    audit.copy(log.path, copied, lambda done, total: told("pages", done, total))
    archives = _archives(log, copied)
    with Log(copied, create=False) as copy:
        found = verify(copy, lambda done, total: told("events", done, total))
        if not found["ok"]:
            raise BackupFailed(
                f"{log.path} is not what was written to it, so no backup is made of it", hint="`verify` says where"
            )
        runs = Projector(copy).runs()
        bundled, left_out = bundles(log, project, places_of(copy), named_commits(copy), scratch, told)
    made = scratch / "made"
    with written(made) as writing:
        writing.add_file(DATABASE, copied)
        for one in bundled:
            writing.add_file(one["file"], scratch / one["file"].rpartition("/")[2])
        for path in archives:
            writing.add_file(f"{ARCHIVES}/{path.name}", path)
        folders = [attempts_folder(log.path) / run_id for run_id in runs] if outputs else []
        for number, folder in enumerate(folders):
            told("runs' outputs", number, len(folders))
            writing.add_folder(folder, f"{OUTPUTS}/{folder.name}", left_out)
        writing.close(
            {
                "format": FORMAT,
                "release": RELEASE,
                "store_format": STORE_FORMAT,
                "made_at": rfc3339(wall_clock_us()),
                "store": str(log.path.absolute()),
                "root": str(project.root),
                "events": found["events"],
                "head": found["head"],
                "outputs": outputs,
                "repositories": bundled,
                "left_out": left_out,
            }
        )
    size, digest = put_in_place(made, target)
    return {
        "file": str(target),
        "bytes": size,
        "sha256": digest,
        "events": found["events"],
        "head": found["head"],
        "runs": len(runs),
        "refs": sum(len(one["refs"]) for one in bundled),
        "outputs": outputs,
        "left_out": left_out,
    }


def _archives(log: Log, copied: Path) -> list[Path]:
    """Put the archives that a copy of the log names beside it, where they are read. Gives them; one that is gone is none."""
    folder = archive_folder(copied)
    found = []
    with Log(copied, create=False) as copy:
        for event in announced(copy):
            source = archive_folder(log.path) / event.file
            if source.is_file():
                folder.mkdir(mode=0o700, exist_ok=True)
                found.append(Path(shutil.copyfile(source, folder / event.file)))
    return found
