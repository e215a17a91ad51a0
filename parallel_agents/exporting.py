"""An export: one run as one file, with what proves it and what its decisions depended on.

A gzipped tar as ``packing`` writes it. ``events.ndjson`` has a line for every event of the store from the run's first one to
the head: with its body where it is the run's own, reduced to what decisions depend on where it is another's that held a slot,
money or a circuit meanwhile, and as a mere link of the chain everywhere else. ``documents/`` holds plans and states by digest,
``bundles/`` the commits of its checkpoints, ``runs/`` what its attempts wrote. The format is in docs/adr/0034.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from parallel_agents import around
from parallel_agents.archived import at_hand
from parallel_agents.bundling import BUNDLES, bundles
from parallel_agents.eventstore.chain import scrubs
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import ChainBroken, NotAllowed, ParallelAgentsError, UnknownEvent
from parallel_agents.eventstore.links import event_hash
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import Row, rfc3339
from parallel_agents.named_commits import Named, named_commits
from parallel_agents.packing import Kind, Told, put_in_place, room_for, written
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector, unknown_run
from parallel_agents.run_standing import places_of
from parallel_agents.scheduler.accounts import has_agents
from parallel_agents.version import RELEASE
from parallel_agents.withholding import Withholding

FORMAT = 1
EVENTS = "events.ndjson"
DOCUMENTS = "documents"
OUTPUTS = "runs"
REPORT_EVERY = 5_000  # Events between two reports of progress.


class ExportFailed(ParallelAgentsError):
    """A run cannot be exported, or a file is no export that can be imported."""

    code = "export"


KIND = Kind(
    name="an export",
    format=FORMAT,
    files=frozenset({EVENTS}),
    folders=frozenset({DOCUMENTS, BUNDLES, OUTPUTS}),
    manifest={
        "kind": str, "release": str, "made_at": str, "run_id": str, "store": str, "root": str, "workdir": str,
        "redacted": bool, "first": int, "last": int, "before": str, "head_seq": int, "head": str, "run_head": str,
        "around": dict, "repositories": list, "left_out": list,
    },
    failure=ExportFailed,
    unharmed="nothing was imported",
)  # fmt: skip


@dataclass(slots=True)
class _Span:
    """Where a run lies in the log, and what of the rest goes with it."""

    run_id: str
    first: Row
    last: Row
    end: int  # The last event of the store.
    head: str = ""
    agents: bool = False
    scrubbed: dict[int, tuple[str, str]] = field(default_factory=dict)
    working: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def export(
    log: Log, project: Project, run_id: str, target: Path, *, redact: bool = False, overwrite: bool = False,
    progress: Told | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a run to a file of its own, as it stands now. Others, and the run itself, may go on meanwhile.

    Args:
        redact: leave out what people described, what agents and commands wrote, and all files.
        overwrite: in place of a file that is there.
    Returns:
        ``{"file", "run_id", "bytes", "sha256", "redacted", "events", "links", "first", "last", "head_seq", "head", "refs",
        "left_out"}``: ``events`` are the run's own, ``links`` all that the chain needs.
    Raises:
        UnknownRun: there is no such run.
        NotAllowed: it was imported itself.
        ChainBroken: it is not what was written.
        InvalidUsage, StoreError, GitFailed: the file cannot be made.
    """
    told = progress or (lambda what, done, total: None)
    target = target.absolute()
    if log.carried is not None:
        raise NotAllowed(f"run {run_id} was imported", hint="pass on the file that it came in")
    end = log.last_seq()
    ends = log.ends_of_run(run_id, end)
    if ends is None:
        raise unknown_run(log, run_id)
    first, last = ends
    span = _Span(run_id, first, last, end, agents=has_agents(Projector(log).state(run_id, end)))
    with room_for(target, KIND.noun, overwrite=overwrite) as scratch:
        return _written(log, project, span, target, scratch, redact, told)


def _written(
    log: Log, project: Project, span: _Span, target: Path, scratch: Path, redact: bool, told: Told
) -> dict[str, Any]:
    withholding = Withholding()
    documents = _documents(log, span, withholding, redact=redact)
    lines = scratch / EVENTS
    with open(lines, "xb") as file:
        _write_lines(log, span, file, withholding if redact else None, withholding, told)
    bundled, left_out = ([], []) if redact else _bundled(log, project, span, scratch, told)
    state = Projector(log).state(span.run_id, span.end)
    made = scratch / "made"
    with written(made) as writing:
        writing.add_file(EVENTS, lines)
        for digest, content in documents.items():
            writing.add_bytes(f"{DOCUMENTS}/{digest}", content)
        for one in bundled:
            writing.add_file(one["file"], scratch / one["file"].rpartition("/")[2])
        for number, (task_id, attempt_id) in enumerate([] if redact else _attempts(log, span)):
            told("attempts", number, number + 1)
            folder = attempts_folder(log.path) / span.run_id / task_id / attempt_id
            with at_hand(log.path, folder) as found:
                writing.add_folder(found, f"{OUTPUTS}/{span.run_id}/{task_id}/{attempt_id}", left_out)
        manifest = {
            "kind": KIND.noun,
            "format": FORMAT,
            "release": RELEASE,
            "made_at": rfc3339(wall_clock_us()),
            "run_id": span.run_id,
            "store": "" if redact else str(log.path.absolute()),
            "root": "" if redact else str(project.root),
            "workdir": "" if redact else state.workdir,
            "versioned": state.repository is not None,
            "redacted": redact,
            "first": span.first.seq,
            "last": span.last.seq,
            "before": span.first.prev_hash.hex(),
            "head_seq": span.end,
            "head": span.head,
            "run_head": span.last.hash.hex(),
            "around": around.dumped(log, span.first.seq - 1, agents=span.agents, working=span.working),
            "repositories": bundled,
            "left_out": left_out,
        }
        writing.close(manifest)
    reach("export.written")
    size, digest = put_in_place(made, target)
    return {
        "file": str(target), "run_id": span.run_id, "bytes": size, "sha256": digest, "redacted": redact,
        "events": span.last.version, "links": span.end - span.first.seq + 1, "first": span.first.seq,
        "last": span.last.seq, "head_seq": span.end, "head": span.head,
        "refs": sum(len(one["refs"]) for one in bundled), "left_out": left_out,
    }  # fmt: skip


def _documents(log: Log, span: _Span, withholding: Withholding, *, redact: bool) -> dict[str, bytes]:
    """The plans and states that the run's events name, by digest.

    Raises:
        ChainBroken: one is not what was written.
    """
    found: dict[str, bytes] = {}
    named = log.briefs(span.run_id, 0, span.end, where="type IN ('RunSubmitted', 'RunForked')")
    for brief in named:
        body = orjson.loads(brief[4])
        for name, add in (("plan_digest", withholding.add_plan), ("state_digest", withholding.add_state)):
            digest = body.get(name)
            if not digest:
                continue
            if name == "state_digest":
                begun_with = orjson.loads(_document(log, digest))["plan_digest"]
                if begun_with and begun_with not in found:
                    found[begun_with] = _document(log, begun_with)
                    if redact:
                        withholding.add_plan(begun_with, found[begun_with])
            found[digest] = _document(log, digest)
            if redact:
                add(digest, found[digest])
    return dict(withholding.documents.values()) if redact else found


def _document(log: Log, digest: str) -> bytes:
    try:
        content = log.blob(digest)
    except UnknownEvent:
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise ChainBroken(
            f"document {digest[:12]} is gone or changed",
            hint="`parallel-agents verify` says more; nothing was exported",
        )
    return content


def _is_carried(log: Log, span: _Span, seq: int) -> bool:
    """Whether an event is one of the run."""
    row = log.row(seq)
    return row is not None and row.run_id == span.run_id


def _write_lines(
    log: Log, span: _Span, file: BinaryIO, own: Withholding | None, others: Withholding, told: Told
) -> None:
    """Every event from the run's first one to the end of the store, as it is carried.

    Raises:
        ChainBroken: the chain does not hold there.
    """
    types = around.types_around(agents=span.agents)
    span.scrubbed = scrubs(log.rows(span.first.seq, span.end, where="type = 'SecretScrubbed'"))
    prev, expected = span.first.prev_hash, span.first.seq
    for row in _rows(log, span, told):
        link = event_hash(prev, row.seq, row.run_id, row.version, row.type, row.at_us, row.actor, row.body_digest)
        if row.seq != expected or link != row.hash:
            raise _changed(row.seq)
        prev, expected = link, expected + 1
        line: dict[str, Any] = {
            "seq": row.seq, "run_id": row.run_id, "version": row.version, "type": row.type, "at_us": row.at_us,
            "actor": row.actor, "digest": row.body_digest.hex(),
        }  # fmt: skip
        mine = row.run_id == span.run_id
        if mine or row.type == "SecretScrubbed" or (row.type in types and row.seq < span.last.seq):
            body = _body(log, row, span)
            if not mine and row.type == "SecretScrubbed" and not _is_carried(log, span, orjson.loads(body)["seq"]):
                body = ""
            elif not mine and row.type == "TaskStarted":
                span.working[row.run_id].add(orjson.loads(body)["task_id"])
            withholding = own if mine else others
            shown = body if withholding is None or not body else withholding.body(row.type, body)
            if shown:
                line["body"] = shown
            if shown != body:
                line["reduced"] = True
        file.write(orjson.dumps(line) + b"\n")
    span.head = prev.hex()
    for attempt_id, run_id in Projector(log).occupancy(span.first.seq - 1).slots.items():
        if span.agents:
            span.working[run_id] |= _task_of(log, run_id, attempt_id)


def _rows(log: Log, span: _Span, told: Callable[[str, int, int], None]) -> Iterator[Row]:
    total = span.end - span.first.seq + 1
    for number, row in enumerate(log.rows(span.first.seq - 1, span.end, stored=True)):
        if number % REPORT_EVERY == 0:
            told("events", number, total)
        yield row


def _body(log: Log, row: Row, span: _Span) -> str:
    """The body of a row, also where it lies in an archive.

    Raises:
        ChainBroken: it is not the one that was recorded.
    """
    whole = row if row.body else log.row(row.seq) or row
    digest = hashlib.sha256(whole.body.encode("utf-8", "surrogateescape")).digest()
    if digest != row.body_digest and span.scrubbed.get(row.seq) != (row.body_digest.hex(), digest.hex()):
        raise _changed(row.seq)
    return whole.body


def _changed(seq: int) -> ChainBroken:
    return ChainBroken(
        f"event {seq} is not what was written", hint="`parallel-agents verify` says more; nothing was exported"
    )


def _task_of(log: Log, run_id: str, attempt_id: str) -> set[str]:
    for brief in log.briefs(run_id, where="type = 'TaskStarted'"):
        body = orjson.loads(brief[4])
        if body["attempt_id"] == attempt_id:
            return {body["task_id"]}
    return set()


def _attempts(log: Log, span: _Span) -> list[tuple[str, str]]:
    """The run's attempts, with their tasks; also those that a rollback has undone."""
    started = log.briefs(span.run_id, 0, span.end, where="type = 'TaskStarted'")
    bodies = [orjson.loads(brief[4]) for brief in started]
    return [(body["task_id"], body["attempt_id"]) for body in bodies]


def _bundled(
    log: Log, project: Project, span: _Span, scratch: Path, told: Told
) -> tuple[list[dict[str, Any]], list[str]]:
    """The commits of the run's checkpoints, whose refs were made before the events that name them."""
    named = {span.run_id: named_commits(log).get(span.run_id, Named())}
    place = places_of(log).get(span.run_id)
    places = {} if place is None else {span.run_id: place}
    return bundles(log, project, places, named, scratch, told, branches=False)
