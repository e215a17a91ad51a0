"""Moves the bulk of runs that are over into one compressed file a run, and gives back the room that it took.

What is removed is removed only after its copy was written, synced, read back, compared, and named by an event. The steps:
the file under another name; read back; a note that this is under way; its own name; the event ``RunArchived``; the bodies out
of the table, some thousands a commit; the folders of the attempts; the note. Whoever is killed loses nothing: a note without
an event means that nothing was removed, one with an event that the rest is to be done, and the next call does either first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from parallel_agents.archived import announced
from parallel_agents.eventstore.archive import (
    BODIES,
    BULKY,
    MANIFEST,
    archive_folder,
    bodies_in,
    contents,
    digest_of_contents,
    digest_of_file,
    parts_of,
)
from parallel_agents.eventstore.chain import scrubs
from parallel_agents.eventstore.errors import NotAllowed, StoreError
from parallel_agents.eventstore.events import STORE_RUN, RunArchived
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.housekeeping import alone, attempt_folders, remove_attempts, remove_empty
from parallel_agents.leftovers import Item
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.runs import RunSummary
from parallel_agents.run_standing import needed
from parallel_agents.scheduler.runners.folder import LOCK

_PART, _NOTE = ".part", ".under-way"


@dataclass(slots=True)
class Bulk:
    """What there is to be moved of one run."""

    run_id: str
    version: int
    bodies: dict[int, str] = field(default_factory=dict)  # By seq.
    folders: list[Path] = field(default_factory=list)  # Of attempts.
    files: dict[str, tuple[Path, int, int]] = field(default_factory=dict)  # By name: path, size and time of writing.


def ended_before(log: Log, age_s: float) -> list[str]:
    """The runs that have ended so long ago, oldest first."""
    limit_us = wall_clock_us() - int(age_s * 1e6)
    runs = Projector(log).runs().values()
    return [run.run_id for run in runs if run.status in st.ENDED and (run.ended_at_us or 0) <= limit_us]


def archive(log: Log, run_ids: list[str], *, named: bool) -> dict[str, Any]:
    """Archive runs, one after the other.

    Args:
        named: somebody has named these runs: that one of them cannot be archived is an error.
    Returns:
        ``{"archived": [...], "left": [{"run_id", "why"}]}``.
    Raises:
        NotAllowed: somebody else is cleaning here, or a run that was named is not over, or still built on.
    """
    done, left = [], []
    with alone(log.path):
        _finish(log)
        runs = Projector(log).runs()
        for run_id in run_ids:
            why = _why_not(log, run_id, runs)
            if why and named:
                raise NotAllowed(f"run {run_id} cannot be archived: {why}", hint="archive it once that is over")
            if why:
                left.append({"run_id": run_id, "why": why})
                continue
            made = _archive(log, run_id)
            if made is not None:
                done.append(made.model_dump())
    return {"archived": done, "left": left}


def _why_not(log: Log, run_id: str, runs: dict[str, RunSummary]) -> str:
    """What speaks against archiving a run; an empty text where nothing does."""
    for fork in runs.values():
        if fork.parent == run_id and fork.status not in st.ENDED:
            return f"run {fork.run_id}, which is {fork.status}, was forked from it"
    return needed(log, run_id, attempts_folder(log.path) / run_id)


def _archive(log: Log, run_id: str) -> RunArchived | None:
    """One run that is over; None where it has nothing that would have to move."""
    bulk = _bulk_of(log, run_id)
    if not bulk.bodies and not bulk.files:
        return None
    folder = archive_folder(log.path)
    folder.mkdir(mode=0o700, exist_ok=True)
    final = folder / f"{run_id}-{bulk.version}.zip"
    part, note = final.with_suffix(_PART), final.with_suffix(_NOTE)
    if any(
        event.file == final.name for event in announced(log)
    ):  # It was archived as it stands; files came back since.
        return None
    _write(part, bulk)
    _compare(part, bulk)
    note.touch(mode=0o600)
    _sync_folder(folder)
    os.replace(part, final)
    _sync_folder(folder)
    event = RunArchived(
        run_id=run_id, version=bulk.version, file=final.name, sha256=digest_of_file(final), bytes=final.stat().st_size,
        events=len(bulk.bodies), files=len(bulk.files),
    )  # fmt: skip

    def decide(draft: Draft) -> None:
        draft.expect(run_id, bulk.version)  # Somebody may have opened it again meanwhile.
        draft.add(STORE_RUN, event)

    log.transact(decide)
    log.empty_bodies(run_id, bulk.bodies.keys())
    _remove_folders(log, bulk)
    note.unlink()
    return event


def _bulk_of(log: Log, run_id: str) -> Bulk:
    """What is to move of a run, as of now.

    Raises:
        StoreError: a body is not the one that was recorded.
    """
    bulk = Bulk(run_id, log.version(run_id))
    for row in log.rows(run_id=run_id, where=BULKY, stored=True):
        digest = hashlib.sha256(row.body.encode("utf-8", "surrogateescape")).digest()
        if digest != row.body_digest and not _is_scrubbed(log, row.seq, row.body_digest.hex(), digest.hex()):
            raise StoreError(
                f"event {row.seq} of run {run_id} was changed", hint="`parallel-agents verify` looks closer"
            )
        bulk.bodies[row.seq] = row.body
    home = attempts_folder(log.path)
    for folder in attempt_folders(home / run_id):
        found = dict(_files_in(folder, home.parent))
        if found:
            bulk.folders.append(folder)
            bulk.files.update(found)
    return bulk


def _is_scrubbed(log: Log, seq: int, old: str, new: str) -> bool:
    return scrubs(log.rows(where="type = 'SecretScrubbed'")).get(seq) == (old, new)


def _files_in(folder: Path, home: Path) -> Iterator[tuple[str, tuple[Path, int, int]]]:
    """The files of an attempt; none where it holds anything that is neither a file nor a folder: that stays where it is."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return
        if path.is_file():
            stat = path.stat()
            found.append((path.relative_to(home).as_posix(), (path, stat.st_size, stat.st_mtime_ns)))
    yield from found


def _write(part: Path, bulk: Bulk) -> None:
    """The file, synced, with what it holds by digest at its end."""
    from zipfile import ZIP_DEFLATED, ZipFile

    manifest: dict[str, Any] = {
        "run_id": bulk.run_id,
        "version": bulk.version,
        "events": len(bulk.bodies),
        "files": {},
        "holes": {},
    }
    with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        with ZipFile(out, "w", ZIP_DEFLATED) as archive:
            with archive.open(BODIES, "w", force_zip64=True) as lines:
                for one in bulk.bodies.items():
                    lines.write(orjson.dumps(one) + b"\n")
            for name, (path, _, _) in bulk.files.items():
                digest = hashlib.sha256()
                with open(path, "rb") as source, archive.open(name, "w", force_zip64=True) as copy:
                    parts = parts_of(source)
                    for chunk in contents(source, parts):
                        digest.update(chunk)
                        copy.write(chunk)
                manifest["files"][name] = digest.hexdigest()
                if len(parts) > 1:
                    manifest["holes"][name] = parts
            archive.writestr(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        out.flush()
        os.fsync(out.fileno())


def _compare(part: Path, bulk: Bulk) -> None:
    """Read it back from the disk.

    Raises:
        StoreError: it does not hold what it should.
    """
    from zipfile import ZipFile

    if dict(bodies_in(part)) != bulk.bodies:
        raise StoreError(f"{part} does not hold what was written to it", hint="look at the disk; nothing was removed")
    with ZipFile(part) as archive:
        manifest = orjson.loads(archive.read(MANIFEST))
        for name, (path, _, _) in bulk.files.items():
            with archive.open(name) as copy:
                found = hashlib.file_digest(copy, "sha256").hexdigest()  # type: ignore[arg-type]
            if not found == manifest["files"][name] == digest_of_contents(path):
                raise StoreError(f"{path} was changed while it was archived", hint="try again; nothing was removed")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_folders(log: Log, bulk: Bulk) -> None:
    """Remove those folders of attempts in which everything is as it was archived."""
    home = attempts_folder(log.path)
    parts = [folder for folder in bulk.folders if _is_unchanged(folder, bulk, home.parent)]
    item = Item("attempts", str(home / bulk.run_id), "archived", run_id=bulk.run_id, parts=tuple(map(str, parts)))
    remove_attempts(log, item, home.parent)
    remove_empty(log, log.path, [home / bulk.run_id])


def _is_unchanged(folder: Path, bulk: Bulk, home: Path) -> bool:
    found = dict(_files_in(folder, home))
    if not found and any(folder.iterdir()):  # Something in it is no file.
        return False
    return all(bulk.files.get(name) == one for name, one in found.items())


def _finish(log: Log) -> None:
    """Bring to an end what was under way when somebody was killed."""
    folder = archive_folder(log.path)
    named = {event.file: event for event in announced(log)}
    for part in folder.glob(f"*{_PART}"):
        part.unlink()
    for note in sorted(folder.glob(f"*{_NOTE}")):
        final = note.with_suffix(".zip")
        event = named.get(final.name)
        if event is None:
            final.unlink(missing_ok=True)  # No event names it, so nothing was removed yet.
        else:
            log.empty_bodies(event.run_id, {seq for seq, _ in bodies_in(final)})
            _remove_folders(log, _bulk_in(log, event.run_id, final))
        note.unlink()


def _bulk_in(log: Log, run_id: str, final: Path) -> Bulk:
    """The files of a run that lie in their place and are in an archive as they lie there."""
    from zipfile import ZipFile

    home = attempts_folder(log.path)
    with ZipFile(final) as archive:
        digests = orjson.loads(archive.read(MANIFEST))["files"]
    bulk = Bulk(run_id, 0)
    for folder in attempt_folders(home / run_id):
        found = dict(_files_in(folder, home.parent))
        if all(_is_in(digests, name, path, size) for name, (path, size, _) in found.items()):
            bulk.folders.append(folder)
            bulk.files.update(found)
    return bulk


def _is_in(digests: dict[str, str], name: str, path: Path, size: int) -> bool:
    """Whether an archive holds a file as it lies there; a lock that was taken to remove its folder holds nothing."""
    return (path.name == LOCK and not size) or digests.get(name) == digest_of_contents(path)
