"""What the money of a run bought: lines that are still there, lines that are gone, and work that never came in.

The cost of each attempt is divided evenly over the lines that it added. What of it falls on lines that stand in the result
has survived; the rest is counted by what became of it. Micro-dollars are divided by largest remainder, so that the parts of
an attempt, and with them those of the run, add up to the bill exactly.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from parallel_agents.authorship import Attempt, Authorship
from parallel_agents.checkpoint import blaming
from parallel_agents.checkpoint.blaming import Binary
from parallel_agents.checkpoint.repository import Repository, head_commit
from parallel_agents.costs import usd
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.log import Log
from parallel_agents.lineage import repository_of, standing_in
from parallel_agents.project import Project
from parallel_agents.projections.passing import Passing
from parallel_agents.projections.projector import Projector

PARTS: Final = {
    "survived": "lines that stand in the result",
    "overwritten": "lines of completed attempts that are gone from it",
    "no_lines": "completed attempts that added no line: reviews, tests that were run, deletions",
    "conflict": "attempts whose work met a conflict and was not taken",
    "failed": "attempts that failed, or whose task was done once more",
    "undone": "attempts that a rollback took back",
    "discarded": "attempts that a rollback took back while they ran",
    "unsettled": "attempts that run, or wait for a person",
}
"""What a dollar of a bill can have gone to."""

_GONE: Final = {"useful": "overwritten"}  # By what became of the attempt; any other fate is a part of its own name.


_NOTHING: Final[dict[str, int]] = {}  # One for all attempts that have none: there may be very many.


def _nothing() -> dict[str, int]:
    return _NOTHING


@dataclass(slots=True)
class Share:
    """One attempt: its cost, the lines it added, and those that are left by path."""

    attempt_id: str
    task_id: str
    usd_micros: int
    fate: str  # One of ``bill.FATES``; empty where nothing was charged.
    added: int = 0
    left: dict[str, int] = field(default_factory=_nothing)
    unknown: bool = False
    clashed: bool = False  # Its work met a conflict at its merge.

    def leave(self, path: str, lines: int) -> None:
        """So many lines of it are left in a file."""
        self.left = {**self.left, path: self.left.get(path, 0) + lines}


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number by weights, by largest remainder (Hamilton): the parts add up to it exactly.

    Args:
        total: >= 0.
        weights: >= 0 each, and not all 0. Of equal remainders the first ones are rounded up.
    """
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda at: (-(total * weights[at] % whole), at))
    for at in order[: total - sum(parts)]:
        parts[at] += 1
    return parts


class Divided(NamedTuple):
    """The cost of an attempt, in micro-dollars: by ``PARTS``, and what survives of it by path."""

    parts: dict[str, int]
    files: dict[str, int]


def divide(share: Share) -> Divided:
    """Divide the cost of an attempt over the lines that it added."""
    if not share.usd_micros:
        return Divided({}, {})
    gone = _GONE.get(share.fate, share.fate)
    if gone == "failed" and share.clashed:
        gone = "conflict"
    left = sum(share.left.values())
    added = max(share.added, left)  # Two ways to compare files need not agree on every line.
    if not added:
        return Divided({"no_lines" if share.fate == "useful" else gone: share.usd_micros}, {})
    paths = sorted(share.left)
    *kept, rest = apportion(share.usd_micros, [*(share.left[path] for path in paths), added - left])
    parts = {"survived": sum(kept), gone: rest} if left < added else {"survived": sum(kept)}
    return Divided(parts, dict(zip(paths, kept, strict=True)))


def survival(log: Log, run_id: str, upto: int | None = None, here: Project | None = None) -> dict[str, Any]:
    """What of a run's bill went into lines that are still there. Its attempts pass by (see ``passing``).

    Args:
        here: compare with the commit that the user stands on, rather than with the run's result.
    Raises:
        UnknownRun: there is no such run.
        NotAllowed: it keeps no files, or there is no commit to compare with.
    """
    projector = Projector(log)
    state = projector.state(run_id, upto)
    repository, tip = repository_of(state), state.integration
    if here is not None:
        tip = None if repository.shadow else head_commit(standing_in(repository, here.workdir))
    if tip is None:
        raise NotAllowed("there is no commit of yours to compare with", hint="leave --here out")
    known = Authorship(log, upto)
    shares = _shares(known, projector, run_id, upto)
    works = {
        one.work: one
        for one in known.attempts.values()
        if one.run_id == run_id and one.work is not None and known.claims[one.work].attempt_id == one.attempt_id
    }
    _count(known, repository, state.base_commit or tip, tip, works, shares)
    return _as_data(run_id, state.seq, tip, here is not None, shares)


def _shares(known: Authorship, projector: Projector, run_id: str, upto: int | None) -> dict[str, Share]:
    """The attempts of a run with what they have cost; those that cost nothing, too."""
    shares = {
        name: Share(name, one.task_id, 0, "", clashed=one.clashed)
        for name, one in known.attempts.items()
        if one.run_id == run_id
    }
    for line in projector.bill(run_id, upto):
        charge = line.charge
        share = shares.setdefault(charge.attempt_id, Share(charge.attempt_id, charge.task_id, 0, line.fate))
        share.usd_micros += charge.usd_micros or 0
        share.fate, share.unknown = line.fate, share.unknown or charge.usd_micros is None
    return shares


def _count(
    known: Authorship, repository: Repository, base: str, tip: str, works: dict[str, Attempt], shares: dict[str, Share]
) -> None:
    """Count the lines that attempts added, and those of them that a commit still has."""
    grafts = known.grafts(repository)
    there = blaming.written(repository, [*works, *(one.before or base for one in works.values()), tip, base])
    pairs = {work: one.before or base for work, one in works.items() if work in there and (one.before or base) in there}
    binary: dict[str, list[tuple[str, str]]] = defaultdict(list)  # Path -> works that changed it, and attempts.
    for work, paths in blaming.added_lines(repository, pairs).items():
        share = shares[works[work].attempt_id]
        for path, lines in paths.items():
            share.added += 1 if isinstance(lines, Binary) else lines
            if isinstance(lines, Binary):
                binary[path].append((work, share.attempt_id))
    changed = blaming.added_lines(repository, {tip: base})[tip] if tip != base else {}
    for path, lines in changed.items():
        if isinstance(lines, Binary):
            _count_binary(repository, tip, path, binary[path], shares)
        elif lines:
            _count_lines(known, repository, base, tip, path, grafts, shares)


def _count_binary(
    repository: Repository, tip: str, path: str, works: list[tuple[str, str]], shares: dict[str, Share]
) -> None:
    """A file without lines is one line, of the first attempt that made it what it is."""
    now, *then = blaming.blobs(repository, [(tip, path), *((work, path) for work, _ in works)])
    for (_, attempt_id), blob in zip(works, then, strict=True):
        if blob is not None and blob == now:
            shares[attempt_id].leave(path, 1)
            return


def _count_lines(
    known: Authorship, repository: Repository, base: str, tip: str, path: str,
    grafts: dict[str, list[str]], shares: dict[str, Share],
) -> None:  # fmt: skip
    def blamed(more: dict[str, str]) -> list[str]:
        parents = known.grafts(repository, more) if more else grafts
        return blaming.blame(repository, path, tip, grafts=parents, since=base) or []

    commits = blamed({})
    more = known.late_grafts(repository, known.identify(repository, dict.fromkeys(commits)))
    more.pop(base, None)
    if more:
        commits = blamed(more)
        known.identify(repository, dict.fromkeys(commits))
    for commit, count in Counter(commits).items():
        claim = known.claims.get(commit)
        if claim is not None and claim.attempt_id in shares and commit != base:
            shares[claim.attempt_id].leave(path, count)


def _as_data(run_id: str, seq: int, tip: str, here: bool, shares: dict[str, Share]) -> dict[str, Any]:
    total, parts, files, lines = 0, dict.fromkeys(PARTS, 0), Counter[str](), Counter[str]()
    for share in shares.values():
        total += share.usd_micros
        divided = divide(share)
        for part, micros in divided.parts.items():
            parts[part] += micros
        files.update(divided.files)
        lines.update(share.left)
    assert sum(parts.values()) == total, "the parts of a bill add up to it"
    return {
        "run_id": run_id,
        "seq": seq,
        "against": "branch" if here else "result",
        "commit": tip,
        "cost_usd": usd(total),
        **{f"{part}_usd": usd(micros) for part, micros in parts.items()},
        "unknown_attempts": sum(share.unknown for share in shares.values()),
        "lines_added": sum(max(share.added, sum(share.left.values())) for share in shares.values()),
        "lines_left": sum(lines.values()),
        "attempts": Passing(lambda: map(_attempt, shares.values())),
        "files": [
            {"path": path, "lines_left": count, "cost_usd": usd(files[path])} for path, count in sorted(lines.items())
        ],
    }


def _attempt(share: Share) -> dict[str, Any]:
    left, parts = sum(share.left.values()), divide(share).parts
    return {
        "task_id": share.task_id,
        "attempt_id": share.attempt_id,
        "fate": share.fate or None,
        "cost_usd": usd(share.usd_micros),
        "unknown_cost": share.unknown,
        "lines_added": max(share.added, left),
        "lines_left": left,
        **{f"{part}_usd": usd(parts.get(part, 0)) for part in PARTS},
    }
