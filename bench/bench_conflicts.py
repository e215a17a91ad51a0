"""Pairs of changes from a real history, as the work of two tasks at once: what conflicts, what is seen early, what is lost.

The history is that of a repository given by path (an argument, else the environment variable PARALLEL_AGENTS_HISTORY, else
this project's own); all is done in a clone of it. Pairs are of two kinds:

- merged: the two parents of a merge that people made. Their merge base is what both tasks began from, and each one's work is
  the files of its parent.
- nearby: a commit, and one that came up to three commits after it, both with one parent. Both begin from the parent of the
  first. The work of the first is its files; that of the second is its patch, applied there by `git apply -C1`, which wants
  one line of context and merges nothing. A pair whose second patch does not apply without the first is left out, and so is
  one whose paths do not meet; both are counted.

Each task has a worktree of ours at that commit, into which its work is written uncommitted. It is probed half-way (the first
half of each task's paths in order) and before the end (all of them), snapshot, held by a ref, and merged: the first task's
work moves the line, the second one's meets it, by every configuration. `rebase` cannot ask an author again; the change is
applied to the merged line with `git apply -3` in its place, which knows no more than the merge did. Last, all that no ref
holds is pruned from the clone, and every version of every task has to be there with the tree that it had.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from bench.measure import scratch
from bench.repositories import NOBODYS_SETTINGS, environment, git
from parallel_agents.checkpoint import merging, refs, snapshot, worktrees
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.merging import Take, leftover_markers
from parallel_agents.checkpoint.repository import Repository, find_repository
from parallel_agents.scheduler.probing import Unfinished, probe

HISTORY = "PARALLEL_AGENTS_HISTORY"
PAIRS = 100  # Of each kind, chosen by a seed where there are more.
DISTANCE = 3
AT_US = 1_700_000_000_000_000
TAKES: tuple[Take, ...] = ("ours", "theirs", "both")


class Pair(NamedTuple):
    """Where two tasks begin, what they leave, and what people made of it, where they did."""

    base: str
    first: str
    second: str
    merged: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The clone, and a worktree for each of the two tasks."""

    repository: Repository
    folders: tuple[Path, Path]


def merged_pairs(top: Path) -> list[Pair]:
    """The parents of merges, where neither has the other among its ancestors and both changed something."""
    pairs = []
    for line in git(top, "rev-list", "--all", "--merges", "--parents").splitlines():
        merged, *parents = line.split()
        if len(parents) != 2:
            continue
        bases = _said(top, "merge-base", "--all", *parents).split()
        if len(bases) == 1 and bases[0] not in parents and _meet(top, bases[0], *parents):
            pairs.append(Pair(bases[0], *parents, merged))
    return pairs


def nearby_pairs(top: Path, left_out: Counter[str]) -> Iterator[Pair]:
    """Commits that lie close together, made parallel; in a random order that a seed fixes."""
    lines = [line.split() for line in git(top, "rev-list", "--all", "--topo-order", "--parents").splitlines()]
    parent = {commit: parents[0] for commit, *parents in lines if len(parents) == 1}
    candidates = []
    for second in parent:
        first = second
        for _ in range(DISTANCE):
            first = parent.get(first, "")
            if first in parent:
                candidates.append((first, second))
    Random(1).shuffle(candidates)
    for first, second in candidates:
        base = parent[first]
        if not set(_paths(top, base, first)) & set(_paths(top, parent[second], second)):
            left_out["changed no path in common"] += 1
            continue
        made = _patched(top, base, parent[second], second)
        if made is None:
            left_out["second does not apply without the first"] += 1
        else:
            yield Pair(base, first, made)


def _patched(top: Path, base: str, before: str, after: str) -> str | None:
    """A commit of a patch on another base; None where it does not apply there."""
    env = {**environment(), "GIT_INDEX_FILE": str(top / ".git" / "patched")}
    patch = subprocess.run(["git", "diff", "--binary", before, after], cwd=top, capture_output=True, check=True).stdout
    subprocess.run(["git", "read-tree", base], cwd=top, env=env, check=True)
    applied = subprocess.run(["git", "apply", "--cached", "-C1"], cwd=top, env=env, input=patch, capture_output=True)
    if applied.returncode:
        return None
    tree = subprocess.run(["git", "write-tree"], cwd=top, env=env, check=True, capture_output=True, text=True).stdout
    return git(top, "commit-tree", "-p", base, "-m", "made parallel", tree.strip())


def _said(top: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=top, env=environment(), capture_output=True, text=True)
    return done.stdout.strip()


def _paths(top: Path, a: str, b: str) -> list[str]:
    return sorted(git(top, "diff-tree", "-r", "-z", "--no-renames", "--name-only", a, b).split("\0")[:-1])


def _meet(top: Path, base: str, first: str, second: str) -> bool:
    return bool(set(_paths(top, base, first)) & set(_paths(top, base, second)))


def _half(place: Place, base: str, commit: str) -> str:
    """A tree with the first half of the paths that a commit changed."""
    top = place.repository.top
    wanted = _paths(top, base, commit)
    wanted = wanted[: (len(wanted) + 1) // 2]
    env = {**environment(), "GIT_INDEX_FILE": str(top / ".git" / "half")}
    entries = {line.partition("\t")[2]: line for line in git(top, "ls-tree", "-r", "-z", commit).split("\0")}
    records = []
    for path in wanted:
        mode, _, oid = entries[path].partition("\t")[0].split(" ") if path in entries else ("0", "", "0" * 40)
        records.append(f"{mode} {oid}\t{path}\0")
    subprocess.run(["git", "read-tree", base], cwd=top, env=env, check=True)
    lines = "".join(records).encode()
    subprocess.run(["git", "update-index", "-z", "--index-info"], cwd=top, env=env, input=lines, check=True)
    done = subprocess.run(["git", "write-tree"], cwd=top, env=env, check=True, capture_output=True, text=True)
    return git(top, "commit-tree", "-p", base, "-m", "half", done.stdout.strip())


def seen_early(place: Place, pair: Pair, works: tuple[str, str]) -> bool:
    """Whether a probe of the two tasks finds what will not merge, when their files are as in these commits."""
    running = []
    for name, folder, work in zip(("first", "second"), place.folders, works, strict=True):
        snapshot.restore(place.repository, work, folder, in_place=True)
        running.append(Unfinished(name, name, folder, pair.base))
    return bool(probe(place.repository, running, pair.base))


def replay(place: Place, number: int, pair: Pair, counted: Counter[str], trees: dict[str, str]) -> None:
    """One pair: worktrees, probes, snapshots and merges."""
    repository, top = place.repository, place.repository.top
    for folder in place.folders:
        worktrees.reuse(repository, folder, folder, pair.base)
    halves = _half(place, pair.base, pair.first), _half(place, pair.base, pair.second)
    half_way = seen_early(place, pair, halves)
    early = seen_early(place, pair, (pair.first, pair.second))
    works = []
    for name, folder in zip(("first", "second"), place.folders, strict=True):
        made = snapshot.snapshot(repository, folder, message=name, parents=(pair.base,), at_us=AT_US)
        refs.hold(repository, {refs.checkpoint_ref(f"bench{number}", name): made.commit})
        trees[made.commit] = made.tree
        works.append(made.commit)
    line, work = works
    made = merging.merge(repository, line, work, message="merge", at_us=AT_US)
    counted["pairs"] += 1
    counted["early"] += early and bool(made.conflicts)
    counted["early, half-way"] += half_way and bool(made.conflicts)
    counted["early, but merged"] += early and not made.conflicts
    if not made.conflicts:
        return
    counted["conflicts"] += 1
    counted.update(f"kind {kind}" for kind in {one.kind for one in made.conflicts})
    for take in TAKES:
        try:
            taken = merging.merge(repository, line, work, message="merge", at_us=AT_US, take=take)
        except GitFailed:
            continue
        assert taken.commit is not None
        refs.hold(repository, {refs.checkpoint_ref(f"bench{number}", take): taken.commit})
        trees[taken.commit] = taken.tree
        counted[f"{take} resolves"] += 1
        paths = [one.path for one in made.conflicts]
        counted["markers left"] += any(leftover_markers(_content(top, taken.commit, path)) for path in paths)
        if pair.merged is not None:
            same = all(_said(top, "rev-parse", f"{taken.commit}:{one}") == _said(top, "rev-parse", f"{pair.merged}:{one}")
                       for one in paths)  # fmt: skip
            counted[f"{take} as people did"] += same
    counted["rebase resolves"] += applies_anew(place, line, pair.base, work)


def _content(top: Path, commit: str, path: str) -> bytes:
    done = subprocess.run(["git", "cat-file", "blob", f"{commit}:{path}"], cwd=top, capture_output=True)
    return done.stdout


def applies_anew(place: Place, line: str, base: str, work: str) -> bool:
    """Whether the second change can be made on the merged line, in a worktree there."""
    folder = place.folders[1]
    worktrees.reuse(place.repository, folder, folder, line)
    diff = ["git", "diff", "--binary", base, work]
    patch = subprocess.run(diff, cwd=place.repository.top, capture_output=True, check=True).stdout
    applied = subprocess.run(
        ["git", "apply", "--3way"], cwd=folder, env=environment(), input=patch, capture_output=True
    )
    return applied.returncode == 0


def lost(repository: Repository, trees: dict[str, str]) -> int:
    """How many versions are not there any more, after all that no ref holds is pruned."""
    git(repository.top, "reflog", "expire", "--expire=now", "--all")
    git(repository.top, "gc", "--quiet", "--prune=now")
    said = git(repository.top, "cat-file", "--batch-check=%(objectname)",
               stdin="".join(f"{commit}^{{tree}}\n" for commit in trees).encode())  # fmt: skip
    return sum(found != tree for found, tree in zip(said.splitlines(), trees.values(), strict=True))


def tell(kind: str, counted: Counter[str], left_out: Counter[str]) -> None:
    """The shares of one kind of pairs."""
    pairs, conflicts = counted["pairs"], counted["conflicts"]
    more = "".join(f"; {number} left out: {why}" for why, number in left_out.items())
    kinds = ", ".join(
        f"{name.removeprefix('kind ')} {number}" for name, number in counted.most_common() if name.startswith("kind ")
    )
    share = f"{conflicts / pairs:.1%}" if pairs else "-"
    print(f"conflicts: {kind}: {conflicts} of {pairs} pairs with paths in common conflict ({share}: {kinds}){more}")
    if not conflicts:
        return
    for what, name in (
        ("seen by a probe half-way", "early, half-way"),
        ("seen by a probe before the end", "early"),
        *((f"resolved by {take}", f"{take} resolves") for take in TAKES),
        ("resolved by applying the second change anew", "rebase resolves"),
        *((f"{take}: the files as people merged them", f"{take} as people did") for take in TAKES if kind == "merged"),
    ):
        print(f"conflicts: {kind}: {what:<48} {counted[name] / conflicts:7.1%}   {counted[name]} of {conflicts}")
    print(f"conflicts: {kind}: warned of and merged all the same {counted['early, but merged']}, "
          f"resolved files with markers left {counted['markers left']}", flush=True)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(prog="python -m bench.bench_conflicts", description=__doc__)
    parser.add_argument("--history", help="a git repository")
    named = parser.parse_args(argv).history or os.environ.get(HISTORY) or Path(__file__).resolve().parent.parent
    os.environ.update(NOBODYS_SETTINGS)
    with scratch() as folder:
        top = folder / "project"
        cloned = subprocess.run(
            ["git", "clone", "--quiet", str(named), str(top)], env=environment(), stderr=subprocess.PIPE
        )
        if cloned.returncode:
            sys.exit(f"conflicts: {named} cannot be cloned: {cloned.stderr.decode().strip()}")
        repository = find_repository(top)
        assert repository is not None
        place = Place(repository, (folder / "first", folder / "second"))
        for one in place.folders:
            worktrees.add(repository, one, git(top, "rev-parse", "HEAD"))
        trees: dict[str, str] = {}
        merged = merged_pairs(top)
        Random(1).shuffle(merged)
        left_out: Counter[str] = Counter()
        pairs: dict[str, Iterator[Pair]] = {"merged": iter(merged), "nearby": nearby_pairs(top, left_out)}
        number = 0
        for kind, found in pairs.items():
            counted: Counter[str] = Counter()
            while counted["pairs"] < PAIRS and (pair := next(found, None)) is not None:
                number += 1
                try:
                    replay(place, number, pair, counted, trees)
                except GitFailed as error:
                    left_out[f"refused ({error.message[:60]})"] += 1
            tell(kind, counted, left_out if kind == "nearby" else Counter())
        print(
            f"conflicts: {lost(repository, trees)} of {len(trees)} versions lost, after all that no ref holds was pruned"
        )


if __name__ == "__main__":
    main()
