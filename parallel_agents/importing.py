"""Bringing an exported run into a project: all of it is looked at first, in a folder of its own, then put in place as a whole.

The rename of its folder is the moment that it is here. Refs are made before that: those of a run that nobody knows yet mean
nothing, and the next import of it finds them right.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from parallel_agents import imported
from parallel_agents.around import before_of
from parallel_agents.bundling import cloned, put_refs
from parallel_agents.checkpoint.reaching import OUR_REFS
from parallel_agents.checkpoint.repository import Repository, find_repository, shadow_repository
from parallel_agents.deep_verification import unheld
from parallel_agents.eventstore import carried
from parallel_agents.eventstore.carried import Carried, Link
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import ChainBroken, InvalidUsage, NotAllowed, StoreError, UnknownEventType
from parallel_agents.eventstore.events import RunForked, RunSubmitted
from parallel_agents.eventstore.location import FILE, files_home, make_home
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import decode_validated, rfc3339
from parallel_agents.eventstore.sqlite import explained
from parallel_agents.eventstore.submission import Plan
from parallel_agents.exporting import DOCUMENTS, EVENTS, KIND, OUTPUTS, ExportFailed
from parallel_agents.named_commits import Named, named_commits
from parallel_agents.packing import Told, flush_folder, unpack
from parallel_agents.project import Project
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.verification import verify

_RUN_ID: Final = re.compile(r"(?!store\Z)[a-z][a-z0-9]{1,39}\Z")  # It becomes a folder, and part of refs.
_LINE: Final = {"seq": int, "run_id": str, "version": int, "type": str, "at_us": int, "actor": str, "digest": str}
_ENVELOPE: Final = tuple(name for name in _LINE if name != "digest")
_TOO_LARGE: Final = 1 << 62  # For a column of SQLite.
REPORT_EVERY = 5_000  # Events between two reports of progress.


def bring_in(file: Path, project: Project, *, progress: Told | None = None) -> dict[str, Any]:
    """Import a run.

    Returns:
        ``{"run_id", "store", "from", "exported_at", "imported_at", "release", "redacted", "status", "events", "links",
        "head", "reduced", "refs", "left_out"}``.
    Raises:
        ExportFailed: the file is not a whole export, or not one that this release knows.
        ChainBroken: its events are not what was written.
        NotAllowed: a run of that id is here.
        InvalidUsage, StoreError, GitFailed: there is no such file, or what is here cannot be written.
    """
    told = progress or (lambda what, done, total: None)
    if not file.is_file():
        raise InvalidUsage(f"there is no file {file}", hint="`parallel-agents export RUN` makes one")
    make_home(project.store)
    with _in_words(file), staging(project.store) as folder:
        manifest = unpack(file, folder, KIND, told)
        about = _about(file, manifest, project)
        _refuse_second(project, about)
        _checked_names(file, folder, manifest)
        home = folder / about.run_id
        home.mkdir(mode=0o700)
        store = home / FILE
        _fill(file, folder, store, about, told)
        found, state = _proved(file, store, about, told)
        clones = _clones(file, folder, store, manifest, about, told)
        reach("import.checked")
        for number, entry in enumerate(manifest["repositories"]):
            told("repositories", number, len(clones))
            assert about.repository is not None
            put_refs(_home_of(project), clones[entry["file"]], entry["refs"])
        reach("import.held")
        outputs = folder / OUTPUTS
        if outputs.exists():
            os.rename(outputs, home / OUTPUTS)
        project.open(create=True).close()  # So that what is here is a project, also seen from a folder below.
        _put(home, imported.store_of(project.store, about.run_id).parent)
        reach("import.placed")
    return {
        "run_id": about.run_id,
        "store": str(imported.store_of(project.store, about.run_id)),
        **imported.as_json(about),
        "status": state.status,
        "events": state.version,
        "links": found["events"],
        "head": found["head"],
        "reduced": found["carried"]["reduced"],
        "refs": sum(len(one["refs"]) for one in manifest["repositories"]),
        "left_out": manifest["left_out"],
    }


@contextmanager
def _in_words(file: Path) -> Iterator[None]:
    """What the system refuses, in words."""
    try:
        yield
    except OSError as error:
        said = f"{error.filename or file}: {error.strerror or error}"
        raise StoreError(said, hint="nothing was imported; say it again once that is mended") from error


@contextmanager
def staging(store: Path) -> Iterator[Path]:
    """A folder beside the imported runs, for one who changes them at a time; what a killed one has left there goes.

    Raises:
        NotAllowed: somebody else is at it.
    """
    home = imported.folder_of(store)
    home.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(home / ".lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotAllowed(
                "another import into this project, or a removal, is under way", hint="wait for its end"
            ) from None
        for left in home.glob(f"{imported.STAGING}.*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = home / f"{imported.STAGING}.{os.urandom(4).hex()}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _about(file: Path, manifest: dict[str, Any], project: Project) -> Carried:
    """What the store is to say of itself. The run's files are here where they were there, as seen from the project.

    Raises:
        ExportFailed: the manifest cannot be.
    """
    try:
        hashes = [bytes.fromhex(manifest[name]) for name in ("before", "head", "run_head")]
    except ValueError:
        hashes = []
    numbers = (1, manifest["first"], manifest["last"], manifest["head_seq"])
    if (
        {len(one) for one in hashes} != {32}
        or not _RUN_ID.match(manifest["run_id"])
        or list(numbers) != sorted(numbers)
    ):
        raise KIND.spoiled(file, "its manifest says what cannot be")
    workdir, root = Path(manifest["workdir"]), Path(manifest["root"])
    here = project.root / workdir.relative_to(root) if root in workdir.parents else project.root
    versioned = bool(manifest.get("versioned")) and not manifest["redacted"]
    return Carried(
        run_id=manifest["run_id"], store=manifest["store"], root=manifest["root"], made_at=manifest["made_at"],
        imported_at=rfc3339(wall_clock_us()), release=manifest["release"], redacted=manifest["redacted"],
        first=manifest["first"], last=manifest["last"], before=manifest["before"], head_seq=manifest["head_seq"],
        head=manifest["head"], run_head=manifest["run_head"], workdir="" if manifest["redacted"] else str(here),
        repository=_named(_home_of(project)) if versioned else None, around=manifest["around"],
    )  # fmt: skip


def _home_of(project: Project) -> Repository:
    """Where the commits of imported runs go: the project's own repository, else the one beside the store."""
    found = find_repository(project.root)
    return shadow_repository(project.root, files_home(project.store)) if found is None else found


def _named(repository: Repository) -> str:
    """A repository as an event names it."""
    return str(repository.git_dir if repository.shadow else repository.top)


def _refuse_second(project: Project, about: Carried) -> None:
    """A run is here once.

    Raises:
        NotAllowed: one of that id is here.
    """
    there = imported.store_of(project.store, about.run_id)
    if there.exists():
        other = imported.about(there)
        same = other is not None and (other.run_head, other.redacted) == (about.run_head, about.redacted)
        what = "is imported already, and is the same" if same else "is imported already, from another export of it"
        way_out = f"`parallel-agents import --remove {about.run_id}` takes it away first"
        hint = f"`parallel-agents status {about.run_id}` shows it" if same else way_out
        raise NotAllowed(f"run {about.run_id} {what}", hint=hint)
    if not project.store.exists():
        return
    with project.open() as log:
        *_, last = [None, *log.briefs(about.run_id)]
        if last is None:
            return
        row = log.row(last[0])
        same = row is not None and row.hash.hex() == about.run_head
        what = "is in this store already, and is the same" if same else "is in this store already, with other events"
        raise NotAllowed(f"run {about.run_id} {what}", hint=f"`parallel-agents status {about.run_id}` shows it")


def _checked_names(file: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Whether what the manifest names besides its members fits them.

    Raises:
        ExportFailed: it does not.
    """
    mine = f"{OUR_REFS}{manifest['run_id']}/"
    for entry in manifest["repositories"]:
        try:
            whole = isinstance(entry["path"], str) and (folder / entry["file"]).is_file() and "lacking" in entry
            fits = whole and all(ref.startswith(mine) and ".." not in ref for ref in entry["refs"])
        except (KeyError, TypeError):
            fits = False
        if not fits:
            raise KIND.spoiled(file, "it names refs that are not those of its run")
    for name in manifest["members"]:
        if name.startswith(f"{OUTPUTS}/") and not name.startswith(f"{OUTPUTS}/{manifest['run_id']}/"):
            raise KIND.spoiled(file, f"it holds {name!r}, which is of another run")


def _fill(file: Path, folder: Path, store: Path, about: Carried, told: Told) -> None:
    Log(store).close()  # Makes the tables.
    documents = folder / DOCUMENTS
    names = sorted(path.name for path in documents.iterdir()) if documents.exists() else []
    blobs = ((name, (documents / name).read_bytes()) for name in names)
    carried.fill(store, _links(file, folder / EVENTS, about, told), blobs, about)


def _links(file: Path, lines: Path, about: Carried, told: Told) -> Iterator[Link]:
    """The lines of an export.

    Raises:
        ExportFailed: one cannot be read.
    """
    total = about.head_seq - about.first + 1
    with open(lines, "rb") as opened:
        for number, text in enumerate(opened, start=1):
            if number % REPORT_EVERY == 0:
                told("events", number, total)
            try:
                line = orjson.loads(text)
                body, reduced = line.get("body"), line.get("reduced", False)
                fits = all(type(line[name]) is of for name, of in _LINE.items()) and isinstance(body, str | None)
                digest = bytes.fromhex(line["digest"])
            except (ValueError, KeyError, TypeError, AttributeError):
                fits, digest = False, b""
            envelope = tuple(line.get(name) for name in _ENVELOPE) if fits else ()
            small = all(0 <= one < _TOO_LARGE for one in envelope if isinstance(one, int))
            if not fits or not small or len(digest) != 32 or number > total or not isinstance(reduced, bool):
                raise KIND.spoiled(file, f"line {number} of {EVENTS} cannot be read")
            yield Link._make((*envelope, digest, body or None, reduced))


def _proved(file: Path, store: Path, about: Carried, told: Told) -> tuple[dict[str, Any], st.RunState]:
    """Follow the chain, and read the run as anybody will.

    Raises:
        ChainBroken: it does not hold.
        ExportFailed: the run in it is not the one that its manifest names.
    """
    with Log(store, create=False) as log:
        found = verify(log, lambda done, total: told("events", done, total))
        if not found["ok"]:
            broken = found["broken"]
            what = f"event {broken['seq']}: {broken['what']}" if broken else "a plan or state is gone or changed"
            raise ChainBroken(f"{file} is not what was written: {what}", hint="nothing was imported; use another one")
        first, last = log.row(about.first), log.row(about.last)
        ends = [row is not None and row.run_id == about.run_id for row in (first, last)]
        whole = all(ends) and _has_no_gap(log, about)
        if not whole or last is None or last.hash.hex() != about.run_head:
            raise KIND.spoiled(file, f"its events of run {about.run_id} are not those that its manifest names")
        if not about.redacted and any(
            link.reduced for link, _, _ in carried.stored_links(store) if link.run_id == about.run_id
        ):
            raise KIND.spoiled(file, "something was left out of its events, and its manifest does not say so")
        return found, _read(file, log, about)


def _has_no_gap(log: Log, about: Carried) -> bool:
    """Whether the events of the run are numbered one by one, and end where its manifest says."""
    last = 0
    for number, brief in enumerate(log.briefs(about.run_id), start=1):
        if brief[1] != number:
            return False
        last = brief[0]
    return last == about.last


def _read(file: Path, log: Log, about: Carried) -> st.RunState:
    """The state of the run, with everything checked that readers trust: nobody of this store has validated it.

    Raises:
        ExportFailed: it cannot be read.
        UnknownEventType: a newer release wrote it.
    """
    try:
        for row in log.rows(run_id=about.run_id):
            event = decode_validated(row).event
            if isinstance(event, RunSubmitted | RunForked) and event.plan_digest:
                Plan.model_validate_json(log.blob(event.plan_digest))
        before_of(about.around)
        return Projector(log, use_snapshots=False).state(about.run_id)
    except UnknownEventType:
        raise
    except Exception as error:
        raise KIND.spoiled(file, f"its run cannot be read: {error}".splitlines()[0]) from error


def _clones(
    file: Path, folder: Path, store: Path, manifest: dict[str, Any], about: Carried, told: Told
) -> dict[str, Repository]:
    """The bundles as repositories of their own, with every commit in them that the events name.

    Raises:
        ExportFailed: one is not what was written, or lacks a commit.
    """
    clones = {}
    with Log(store, create=False) as log:
        named = named_commits(log).get(about.run_id, Named())
    for number, entry in enumerate(manifest["repositories"]):
        told("repositories", number, len(manifest["repositories"]))
        clone = clones[entry["file"]] = cloned(folder, number, entry, KIND.noun, ExportFailed)
        if lost := unheld(clone, about.run_id, named) - set(entry["lacking"]):
            raise KIND.spoiled(file, f"it lacks commit {min(lost)}, which the run's events name")
    return clones


def _put(home: Path, target: Path) -> None:
    with (
        explained(target),
        closing(sqlite3.connect(home / FILE)) as connection,
    ):  # Until now a part of it may lie beside it.
        connection.execute("PRAGMA journal_mode = DELETE")
    with open(home / FILE, "rb") as file:
        os.fsync(file.fileno())
    flush_folder(home)
    os.rename(home, target)
    flush_folder(target.parent)
