"""Commits on their way in a file: git bundles of what runs hold, and back from them into a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.git import FLUSHED, GitFailed, execute
from parallel_agents.checkpoint.reaching import OUR_REFS, all_refs
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.deep_verification import unheld
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.housekeeping import repositories_of
from parallel_agents.named_commits import Named
from parallel_agents.packing import Told
from parallel_agents.project import Project
from parallel_agents.run_standing import Place
from parallel_agents.scheduler.run_files import known_commits

BUNDLES = "bundles"


def bundles(
    log: Log, project: Project, places: dict[str, Place], named: dict[str, Named], scratch: Path, told: Told, *,
    branches: bool = True,
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """A bundle for each repository in which some runs have refs, and what could not be had.

    Args:
        log: the store itself.
        places, named: of the runs.
        branches: also with what somebody else has put on a run's branch.
    """
    unusable: list[tuple[str, str, str]] = []
    repositories = repositories_of(project, places, unusable)
    left_out = [f"{name}: {message}" for name, message, _ in unusable]
    there = {path for one in repositories.values() for path in (str(one.top), str(one.git_dir))}
    wanted = {place.repository for place in places.values() if place.repository is not None}
    left_out += [f"{name}: the repository is not there" for name in sorted(wanted - there)]
    bundled = []
    for number, one in enumerate(repositories.values()):
        told("repositories", number, len(repositories))
        held = refs_of(log, one, named)
        if not branches:
            held = {ref: commit for ref, commit in held.items() if ref.startswith(OUR_REFS)}
        if held:
            file = scratch / f"{number}.bundle"
            bundle(one, file, held)
            name = f"{BUNDLES}/{file.name}"
            lacking = {commit for run_id in run_ids(held) for commit in unheld(one, run_id, named.get(run_id, Named()))}
            left_out += [
                f"commit {commit}: {one.git_dir} has lost it, or no ref of its run reaches it" for commit in lacking
            ]
            entry = {"path": str(one.top), "git_dir": str(one.git_dir), "shadow": one.shadow, "file": name}
            bundled.append({**entry, "refs": held, "lacking": sorted(lacking)})
    return bundled, left_out


def run_ids(held: dict[str, str]) -> set[str]:
    """The runs whose checkpoints some refs hold."""
    return {ref.split("/")[2] for ref in held if ref.startswith(OUR_REFS)}


def refs_of(log: Log, repository: Repository, named: dict[str, Named]) -> dict[str, str]:
    """The refs of some runs that their events account for, and those of their branches that are somebody else's.

    Args:
        log: the store itself, which may know of a branch's later commits than the copy does.
        named: what the copy says.
    """
    found = {}
    for ref, commit in refs.held(repository).items():
        run_id = ref.split("/", 3)[2]
        if named.get(run_id, Named()).accounts_for(ref, commit):
            found[ref] = commit
    branches = {ref: one for ref, one in all_refs(repository).items() if ref.startswith(refs.branch_ref(""))}
    for ref, stands in branches.items():
        run_id = ref.removeprefix(refs.branch_ref(""))
        if run_id in named and stands not in named[run_id].branch | known_commits(log, run_id):
            found[ref] = stands
    return found


def bundle(repository: Repository, file: Path, held: dict[str, str]) -> None:
    """Write refs and all that they need into a file. It needs no other repository to be read.

    Raises:
        GitFailed: one of them is gone, or something of it cannot be read.
    """
    wanted = "".join(f"{ref}\n" for ref in held)
    git = repository.git()
    said = git.run("bundle", "create", "--quiet", str(file), "--stdin", stdin=wanted.encode(), ok=range(256))
    if said.code:
        last = said.err.strip().splitlines()
        raise GitFailed(
            f"the commits of runs cannot be read from {repository.git_dir}: {last[-1] if last else said.code}",
            hint="`parallel-agents verify --deep` says what is missing; without it, say it again",
        )
    file.chmod(0o600)


def cloned(
    folder: Path, number: int, entry: dict[str, Any], noun: str, failure: type[ParallelAgentsError]
) -> Repository:
    """A bundle as a repository of its own. Git works out anew the name of every object that it reads from it.

    Args:
        folder: that the bundles lie below, and the repository will.
        entry: as ``bundles`` gave it.
        noun: what the bundle came in, and ``failure`` the error where it is not what was written.
    """
    git_dir = folder / f"{number}.git"
    try:
        execute(("init", "--quiet", "--bare", "--template=", *_object_format(entry), str(git_dir)), folder)
        clone = Repository(top=folder, git_dir=git_dir, shadow=True)
        fetch_refs(clone, folder / entry["file"], entry["refs"])
    except GitFailed as error:
        raise failure(
            f"the commits of {entry['path']} cannot be read from the {noun}: {error.message}",
            hint=f"use another {noun}",
        ) from error
    for ref, commit in entry["refs"].items():
        if clone.git().run("rev-parse", "--verify", "--quiet", ref, ok=(0, 1)).out.decode().strip() != commit:
            raise failure(f"{ref} in the {noun} is not what was written", hint=f"use another {noun}")
    return clone


def _object_format(entry: dict[str, Any]) -> tuple[str, ...]:
    """For a repository whose names are of SHA-256."""
    return ("--object-format=sha256",) if any(len(commit) == 64 for commit in entry["refs"].values()) else ()


def fetch_refs(repository: Repository, source: Path, wanted: dict[str, str]) -> None:
    """Take refs over, with what they need. Nothing else of the repository changes: no tag, branch, index or FETCH_HEAD."""
    asked = "".join(f"+{ref}:{ref}\n" for ref in wanted)
    words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--refmap=")
    git = repository.git()
    git.run(*FLUSHED, *words, "--no-recurse-submodules", "--stdin", str(source), stdin=asked.encode())


def put_refs(repository: Repository, clone: Repository, wanted: dict[str, str]) -> None:
    """Add refs; one that names something else here is kept under another name."""
    wanted = {ref: commit for ref, commit in wanted.items() if not ref.startswith("refs/heads/")}
    held = refs.held(repository)
    mark = f"-before-{rfc3339(wall_clock_us())[:19].replace(':', '').replace('-', '')}"
    refs.hold(repository, {ref + mark: held[ref] for ref in wanted if held.get(ref, wanted[ref]) != wanted[ref]})
    missing = {ref: commit for ref, commit in wanted.items() if held.get(ref) != commit}
    if missing:
        fetch_refs(repository, clone.git_dir, missing)
