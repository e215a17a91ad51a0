"""The refs that hold commits of ours, and the branch of a run.

A commit that no ref reaches is gone with the next garbage collection, so a ref is made before an event names its commit.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from parallel_agents.checkpoint.git import FLUSHED, GitFailed, decoded
from parallel_agents.checkpoint.repository import OURS, Repository
from parallel_agents.eventstore.crash_points import reach


class BranchInUse(GitFailed):
    """The branch of a run is checked out somewhere: moving it would change what is seen there."""

    code = "branch_in_use"


def checkpoint_ref(run_id: str, name: str) -> str:
    """The ref that holds a checkpoint of a run, or the work or the merge of an attempt."""
    return f"refs/{OURS}/{run_id}/{name}"


def branch_ref(run_id: str) -> str:
    """The branch that shows where the integration line of a run stands."""
    return f"refs/heads/{OURS}/{run_id}"


def hold(repository: Repository, refs: Mapping[str, str]) -> None:
    """Make refs, or move them, to commits: all or nothing.

    Raises:
        GitFailed: one of them cannot be made; then none was.
    """
    if refs:
        lines = "".join(f"update {ref} {commit}\n" for ref, commit in refs.items())
        reach("refs.before-hold")
        repository.git().run(*FLUSHED, "update-ref", "--no-deref", "--stdin", stdin=lines.encode())
        reach("refs.held")


def move_branch(repository: Repository, run_id: str, commit: str, expected: str | None) -> str | None:
    """Move the branch of a run, if it still stands where it is expected (None: there is none yet).

    A branch that the user deleted is made again: nothing of theirs was on it.

    Returns:
        None when it stands at ``commit``, else the foreign commit that was found there.
    Raises:
        BranchInUse: somebody has checked it out.
        GitFailed: the ref cannot be written.
    """
    ref = branch_ref(run_id)
    if expected == commit and _value(repository, ref) == commit:
        return None
    _refuse_if_checked_out(repository, ref)
    reach("branch.before-move")
    for old in (expected, None):
        line = f"create {ref} {commit}\n" if old is None else f"update {ref} {commit} {old}\n"
        said = repository.git().run(*FLUSHED, "update-ref", "--no-deref", "--stdin", stdin=line.encode(), ok=range(256))
        if said.code == 0:
            reach("branch.moved")
            return None
        found = _value(repository, ref)
        if found is not None and found != old:
            return None if found == commit else found
        if found is not None or old is None:
            break
    raise GitFailed(
        f"the branch {ref.removeprefix('refs/heads/')} cannot be moved: {said.err.strip()}",
        hint=f"does a branch named {OURS} stand in its way, or a lock of a git that was killed?",
    )


def branch_commit(repository: Repository, run_id: str) -> str | None:
    """Where the branch of a run stands; None where there is none."""
    return _value(repository, branch_ref(run_id))


def held_commit(repository: Repository, run_id: str, name: str) -> str | None:
    """The commit that a ref of ours holds; None where there is no such ref."""
    return _value(repository, checkpoint_ref(run_id, name))


def held(repository: Repository, run_id: str | None = None) -> dict[str, str]:
    """Our refs with their commits, of one run or of all; the branches are not among them."""
    folder = f"refs/{OURS}/" + (f"{run_id}/" if run_id else "")
    said = repository.git().run("for-each-ref", "--format=%(objectname) %(refname)", folder)
    pairs = (line.split(" ", 1) for line in decoded(said.out).splitlines())
    return {ref: commit for commit, ref in pairs}


def drop(repository: Repository, refs: Collection[str]) -> None:
    """Delete refs of ours; those that are missing are left out.

    Raises:
        GitFailed: one of them is not ours, or cannot be deleted; then none was.
    """
    strange = [ref for ref in refs if not ref.startswith((f"refs/{OURS}/", f"refs/heads/{OURS}/"))]
    if strange:
        raise GitFailed(f"{strange[0]} is not ours to delete")
    if refs:
        lines = "".join(f"delete {ref}\n" for ref in refs)
        reach("refs.before-drop")
        repository.git().run(*FLUSHED, "update-ref", "--no-deref", "--stdin", stdin=lines.encode())
        reach("refs.dropped")


_LOOSE = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\n")


def _value(repository: Repository, ref: str) -> str | None:
    with contextlib.suppress(
        OSError, ValueError
    ):  # Git replaces such a file whole, so it can be read without a process.
        found = _LOOSE.fullmatch((repository.git_dir / ref).read_text())
        if found is not None:
            return found[1]
    said = repository.git().run("rev-parse", "--verify", "--quiet", ref, ok=(0, 1, 128))
    return decoded(said.out).strip() or None


def _refuse_if_checked_out(repository: Repository, ref: str) -> None:
    """Git itself moves a branch under the feet of whoever stands on it."""
    heads = [repository.git_dir / "HEAD", *repository.git_dir.glob("worktrees/*/HEAD")]
    if repository.shadow:
        return
    for head in heads:
        try:
            stands = head.read_text(errors="replace").strip() == f"ref: {ref}"
        except OSError:
            continue
        if stands:
            linked = head.parent / "gitdir"
            where = Path(linked.read_text().strip()).parent if linked.exists() else repository.git_dir.parent
            raise BranchInUse(
                f"the branch {ref.removeprefix('refs/heads/')} is checked out in {where}, so it does not move",
                hint="git switch to another branch there",
            )
