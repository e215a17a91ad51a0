"""Removes a secret that was found later from all that a store keeps, and says where else it stands.

The chain covers digests of bodies, so a body can be changed where an event says so: ``SecretScrubbed`` names the event, its
old and its new digest, and ``verify`` accepts exactly that. A document (a plan, the state of a fork) and an archive are named
by digest in an event: they get another digest, and the event that names them is changed in the same way.

The steps, each of which can be done again: archives written anew under another name; all that lies in the database, in one
transaction; the archives put in place; files overwritten; the database's file rewritten from its tables. A note beside the
store says that this is under way, so that whoever is killed in between leaves nothing behind that the next call overlooks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from parallel_agents import imported
from parallel_agents.archived import announced
from parallel_agents.checkpoint.holding import commits_holding
from parallel_agents.eventstore import audit
from parallel_agents.eventstore.archive import archive_folder, digest_of_file
from parallel_agents.eventstore.chain import scrubs
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import ChainBroken, LeaseHeld, NotAllowed, ParallelAgentsError
from parallel_agents.eventstore.events import STORE_RUN, RunArchived, SecretScrubbed
from parallel_agents.eventstore.location import attempts_folder, files_home
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.secret_spellings import Secret
from parallel_agents.housekeeping import alone, repositories_of
from parallel_agents.packing import flush_folder
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.run_standing import living_attempt, places_of
from parallel_agents.scheduler.daemon import only_daemon
from parallel_agents.scheduler.process import holder_alive
from parallel_agents.scrub_bodies import NAMING, clean_document, clean_event, names_plan
from parallel_agents.scrub_files import PENDING, Looked, NewArchive, archive_without, holds, look

Told = Callable[[str, int, int], None]

_NOTE = ".scrub-under-way"


@dataclass(slots=True)
class Changes:
    """What there is to be changed in the database.

    Attributes:
        events: seq -> the new body; None where only the digests are known here, because it lies in an archive.
        digests: seq -> the digests of the body as it was recorded and as it will be, in hex.
        documents: old digest -> new digest and content.
        runs: whose plans are changed: what is tried again there is told ``[redacted]``.
        snapshots: how many hold it.
        left: where it stays, and why.
    """

    events: dict[int, str | None] = field(default_factory=dict)
    digests: dict[int, tuple[str, str]] = field(default_factory=dict)
    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    snapshots: int = 0
    left: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """What was found, or done."""

    changes: Changes
    archives: list[str]
    files: Looked
    elsewhere: list[str]  # Files that are not ours to change.

    @property
    def found(self) -> bool:
        """Whether there is anything to change."""
        changes = self.changes
        return bool(changes.events or changes.documents or changes.snapshots or self.archives or self.files.found)

    @property
    def left(self) -> dict[str, str]:
        """Where the secret stays although it is the store's: place -> why."""
        return {**self.changes.left, **self.files.left}

    def as_data(self) -> dict[str, Any]:
        """As scripts read it."""
        changes = self.changes
        return {
            "events": sorted(changes.events),
            "documents": [{"old": old, "new": new} for old, (new, _) in changes.documents.items()],
            "changed_plans": changes.runs,
            "snapshots": changes.snapshots,
            "archives": self.archives,
            "files": [{"path": path, "found": found} for path, found in sorted(self.files.found.items())],
            "left": [{"where": where, "why": why} for where, why in self.left.items()],
            "elsewhere": self.elsewhere,
        }


def secret_of(text: str) -> Secret:
    """A secret, in every spelling.

    Raises:
        InvalidUsage: it is too short to be told from other text.
    """
    return Secret(text)


def survey(log: Log, secret: Secret, progress: Told | None = None) -> Result:
    """Look where the secret stands. Nothing is changed."""
    told = progress or (lambda what, done, total: None)
    _refuse_imported(log)
    archives = _archives_anew(log, secret, keep=False)
    changes = _changes(log, secret, archives)
    files = look(log.path, secret, change=False, told=lambda done: told("files", done, done))
    return Result(changes, [one.path.name for one in archives], files, _elsewhere(log.path, secret))


def in_pages(store: Path, secret: Secret) -> bool:
    """Whether the bytes of the database's files hold it, free pages too. Not while this process has the store open.

    Whoever closes a file gives up all the locks that SQLite has on it in the same process.
    """
    return any(holds(Path(f"{store}{end}"), secret) for end in ("", "-wal", "-journal")) or _note(store).exists()


def scrub(log: Log, secret: Secret, progress: Told | None = None) -> Result:
    """Remove the secret. ``in_pages`` says afterwards, once the log is closed, whether the file is rid of it.

    Raises:
        LeaseHeld: a process dispatches runs of this store: it may hold the secret in memory, and write it again.
        NotAllowed: an attempt lives, somebody else is cleaning here, or this is the store of an imported run.
        ChainBroken: what holds the secret is not what was written; to change it would hide that.
    """
    told = progress or (lambda what, done, total: None)
    _refuse_imported(log)
    store = log.path
    with alone(store), only_daemon(store):
        _refuse_the_living(log)
        _finish_archives(log)
        _note(store).touch(mode=0o600)
        archives = _archives_anew(log, secret, keep=True)
        reach("scrub.prepared")
        changes = _change_log(log, secret, archives)
        reach("scrub.recorded")
        for one in archives:
            os.replace(one.pending, one.path)
        flush_folder(archive_folder(store))
        reach("scrub.archives-replaced")
        files = look(store, secret, change=True, told=lambda done: told("files", done, done))
        reach("scrub.files-overwritten")
        if log.rewrite():
            reach("scrub.rewritten")
            _note(store).unlink()
        else:
            changes.left[f"{store}-wal"] = "somebody goes on looking at an old moment of the store; say it again later"
        return Result(changes, [one.path.name for one in archives], files, _elsewhere(store, secret))


def _note(store: Path) -> Path:
    return store.with_name(store.name + _NOTE)


def _refuse_imported(log: Log) -> None:
    if log.carried is not None:
        raise NotAllowed(
            f"run {log.carried.run_id} was imported: what it says is the log of another store",
            hint="scrub it there, remove its folder here, and import it again",
        )


def _refuse_the_living(log: Log) -> None:
    for run in Projector(log).runs().values():
        if run.holder is not None and holder_alive(run.holder):
            raise LeaseHeld(
                f"process {run.holder.get('pid')} dispatches run {run.run_id}, and may write the secret again",
                hint="end it first (`parallel-agents daemon stop --drain`, or Ctrl-C where it runs)",
            )
    if alive := living_attempt(attempts_folder(log.path)):
        raise NotAllowed(
            f"attempt {alive} lives, and may write the secret again",
            hint="wait for its end, or `parallel-agents stop --now`",
        )


def _change_log(log: Log, secret: Secret, archives: list[NewArchive]) -> Changes:
    """All that lies in the database, in one transaction: nobody can append between what is looked at and what is changed."""
    changes = Changes()

    def decide(draft: Draft) -> None:
        nonlocal changes
        _refuse_the_living(log)  # Somebody may have begun since.
        changes = _changes(log, secret, archives)
        for seq, body in changes.events.items():
            if body is not None:
                draft.replace_body(seq, body)
            old, new = changes.digests[seq]
            draft.add(STORE_RUN, SecretScrubbed(seq=seq, old_digest=old, new_digest=new))
        for old, (new, content) in changes.documents.items():
            draft.add_blob(new, content)
            draft.drop_blob(old)
        if changes.events or changes.documents or changes.snapshots:
            draft.drop_caches()

    log.overwrite_deleted()
    log.transact(decide, actor="scrub")
    return changes


def _changes(log: Log, secret: Secret, archives: list[NewArchive]) -> Changes:
    """What is to be changed, as the log is now."""
    changes = Changes()
    _documents(log, secret, changes)
    renamed = {old: new for old, (new, _) in changes.documents.items()}
    of_archives = {one.path.name: one for one in archives}
    known = scrubs(log.rows(run_id=STORE_RUN, where="type = 'SecretScrubbed'"))
    for seq, type_, body, recorded in audit.bodies_with(log.path, secret.core, *NAMING, "RunArchived"):
        if not body:
            continue  # It lies in an archive.
        cleaned, left = _cleaned(seq, type_, body, secret, renamed)
        if type_ == "RunArchived":
            cleaned = _of_new_archive(cleaned, of_archives)
        changes.left |= {f"event {seq}: {name}": _REFERRED_TO for name in left}
        if cleaned != body:
            _check(seq, recorded.hex(), _hex(body), known)
            changes.events[seq] = cleaned
            changes.digests[seq] = recorded.hex(), _hex(cleaned)
    for one in archives:
        changes.left |= {f"{one.path.name}: {where}": _REFERRED_TO for where in one.left}
        for seq, (before, after) in one.bodies.items():
            row = next(log.rows(seq - 1, seq, stored=True))
            _check(seq, row.body_digest.hex(), before, known)
            changes.events[seq] = None
            changes.digests[seq] = row.body_digest.hex(), after
    changes.left |= {
        f"event {seq}: its run or its actor": _REFERRED_TO for seq in audit.envelopes_with(log.path, secret.core)
        if _in_envelope(log, seq, secret)
    }  # fmt: skip
    changes.snapshots = sum(secret.is_in_bytes(state) for state in audit.snapshot_states(log.path))
    changes.runs = _runs_with(log, changes)
    return changes


_REFERRED_TO = "others refer to it by that text"


def _cleaned(seq: int, type_: str, body: str, secret: Secret, renamed: dict[str, str]) -> tuple[str, list[str]]:
    try:
        return clean_event(type_, body, secret, renamed)
    except ValueError:
        raise ChainBroken(
            f"event {seq} is damaged, so nothing is taken out of the log", hint="`parallel-agents verify` says more"
        ) from None


def _check(seq: int, recorded: str, found: str, known: dict[int, tuple[str, str]]) -> None:
    """Refuse to change what is not what was written: an announcement of ours would vouch for it.

    Raises:
        ChainBroken: it is not.
    """
    if found != recorded and known.get(seq) != (recorded, found):
        raise ChainBroken(
            f"event {seq} was changed by somebody, so nothing is taken out of the log",
            hint="`parallel-agents verify` says more; restore it from a backup first",
        )


def _in_envelope(log: Log, seq: int, secret: Secret) -> bool:
    row = next(log.rows(seq - 1, seq, stored=True))
    return any(map(secret.is_in, (row.run_id, row.actor, row.type)))


def _documents(log: Log, secret: Secret, changes: Changes) -> None:
    """Plans first: states name them."""
    renamed: dict[str, str] = {}
    for states in (False, True):
        for digest, content in audit.blobs(log.path):
            if not (secret.may_be_in(content) or (states and renamed)) or names_plan(content) != states:
                continue
            cleaned, left = _cleaned_document(digest, content, secret, renamed)
            changes.left |= {f"document {digest[:12]}: {where}": _REFERRED_TO for where in left}
            if cleaned != content:
                renamed[digest] = digest_of(cleaned)
                changes.documents[digest] = renamed[digest], cleaned


def _cleaned_document(digest: str, content: bytes, secret: Secret, renamed: dict[str, str]) -> tuple[bytes, list[str]]:
    if digest_of(content) != digest:
        raise ChainBroken(
            f"document {digest[:12]} was changed by somebody, so nothing is taken out of the log",
            hint="restore it from a backup first",
        )
    return clean_document(content, secret, renamed)


def _runs_with(log: Log, changes: Changes) -> list[str]:
    """The runs, and the timetables, of which a document is changed."""
    found = []
    for seq in sorted(changes.events):
        row = next(log.rows(seq - 1, seq, stored=True))
        if row.type in NAMING and any(old in row.body for old in changes.documents):
            named = orjson.loads(row.body).get("schedule_id")
            found.append(f"schedule {named}" if row.run_id == STORE_RUN else row.run_id)
    return found


def _of_new_archive(body: str, archives: dict[str, NewArchive]) -> str:
    values = orjson.loads(body)
    one = archives.get(values["file"])
    if one is None:
        return body
    return orjson.dumps({**values, "sha256": one.sha256, "bytes": one.bytes}).decode()


def _archives_anew(log: Log, secret: Secret, *, keep: bool) -> list[NewArchive]:
    """Every archive that holds the secret, written anew under another name.

    Args:
        keep: False to learn only what would be changed.
    Raises:
        ChainBroken: one of them is not what was written.
    """
    made = []
    for event in announced(log):
        path = archive_folder(log.path) / event.file
        if not path.is_file():
            continue  # It was taken away, with the secret.
        _check_archive(path, event)
        types = _types(log, event.run_id)

        def clean(seq: int, body: str, types: dict[int, str] = types) -> tuple[str, list[str]]:
            return _cleaned(seq, types.get(seq, ""), body, secret, {})

        one = archive_without(path, secret, clean, keep=keep)
        if one is not None:
            made.append(one)
    return made


def _check_archive(path: Path, event: RunArchived) -> None:
    if digest_of_file(path) != event.sha256:
        raise ChainBroken(
            f"{path} is not what was written, so nothing is taken out", hint="restore it from a backup first"
        )


def _types(log: Log, run_id: str) -> dict[int, str]:
    return {row.seq: row.type for row in log.rows(run_id=run_id, where="body = ''", stored=True)}


def _finish_archives(log: Log) -> None:
    """Put archives in place that the log names already, and forget those that it does not: somebody was killed in between."""
    folder = archive_folder(log.path)
    named = {event.file: event.sha256 for event in announced(log)}
    for pending in sorted(folder.glob(f"*{PENDING}")):
        path = pending.with_name(pending.name.removesuffix(PENDING))
        if named.get(path.name) == digest_of_file(pending):
            os.replace(pending, path)
        else:
            pending.unlink()


def _elsewhere(store: Path, secret: Secret) -> list[str]:
    """Files beside the store that are not ours to change: stores that were put aside, imported runs, and checkouts."""
    aside = sorted(store.parent.glob(f"{store.stem}.before-*"))
    below = (*_files_below(imported.folder_of(store)), *_files_below(files_home(store) / "worktrees"))
    return [str(path) for path in (*aside, *below) if holds(path, secret)]


def _files_below(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def commits_with(
    log: Log, project: Project, secret: Secret, progress: Told | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The commits that hold the secret, as scripts read them: no scrub changes those. Reads every object.

    Returns:
        Them, and the repositories that could not be read, each with why.
    """
    told = progress or (lambda what, done, total: None)
    found, unusable = [], list[tuple[str, str, str]]()
    for repository in repositories_of(project, places_of(log), unusable).values():
        name = str(repository.git_dir if repository.shadow else repository.top)
        try:
            some = commits_holding(repository, secret.needles, lambda done: told("objects of git", done, done))
            found += [{"repository": name, **one._asdict()} for one in some]
        except ParallelAgentsError as error:
            unusable.append((name, error.message, error.hint))
    return found, [{"where": name, "why": why} for name, why, _ in unusable]


def _hex(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()
