"""The user's own branch, index and files, changed because they asked for it: as their own git does it, never by force.

Everywhere else git runs so that nobody notices. Here it runs with the user's identity, configuration, signing and hooks,
and what it says of a change in their reflog is how they take it back.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from parallel_agents.checkpoint.git import GitFailed, Output, decoded, encoded, last_words
from parallel_agents.checkpoint.repository import NOT_OURS, Repository

# What would point a command at another repository, such as inside of a hook.
_ELSEWHERE = frozenset(
    {
        "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE",
    }
)  # fmt: skip
# Of something that the user has begun and not ended: the file that tells it, and the commands that end it.
_UNDER_WAY = (
    ("MERGE_HEAD", "a merge", "git merge --continue, or git merge --abort"),
    ("rebase-merge", "a rebase", "git rebase --continue, or git rebase --abort"),
    ("rebase-apply", "a rebase", "git rebase --continue, or git rebase --abort"),
    ("CHERRY_PICK_HEAD", "a cherry-pick", "git cherry-pick --continue, or git cherry-pick --abort"),
    ("REVERT_HEAD", "a revert", "git revert --continue, or git revert --abort"),
    ("BISECT_LOG", "a bisection", "git bisect reset"),
)


def under_way(repository: Repository) -> tuple[str, str] | None:
    """What the user has begun in their working tree and not ended, and how to end it; None where there is nothing."""
    folder = repository.git_dir_of(repository.top)
    return next(((what, how) for name, what, how in _UNDER_WAY if (folder / name).exists()), None)


def dirty_tracked(repository: Repository) -> list[str]:
    """Tracked files of the user's working tree, or of their index, that are not as in HEAD."""
    said = repository.git(repository.top).run(
        "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--", *NOT_OURS
    )
    return [decoded(record[3:]) for record in said.out.split(b"\0") if record]


def branch_tip(repository: Repository, branch: str) -> str | None:
    """The commit of a branch of the user's; None where there is no such branch."""
    said = repository.git().run("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}", ok=(0, 1, 128))
    return decoded(said.out).strip() or None


def branches(repository: Repository) -> list[str]:
    """The names of all branches."""
    said = repository.git().text("for-each-ref", "--format=%(refname)", "refs/heads")
    return [name.removeprefix("refs/heads/") for name in said.splitlines()]


def is_ancestor(repository: Repository, commit: str, of: str) -> bool:
    """Whether a commit is in the history of another one."""
    return repository.git().run("merge-base", "--is-ancestor", commit, of, ok=(0, 1)).code == 0


def count_new(repository: Repository, commit: str, onto: str) -> int:
    """How many commits one has that another one has not."""
    return int(repository.git().text("rev-list", "--count", f"{onto}..{commit}"))


def checked_out_at(repository: Repository, branch: str) -> Path | None:
    """The working tree that stands on a branch; None where none does."""
    for block in repository.git().run("worktree", "list", "--porcelain", "-z").out.split(b"\0\0"):
        fields = dict(line.partition(" ")[::2] for line in decoded(block).split("\0") if line)
        if fields.get("branch") == f"refs/heads/{branch}":
            return Path(fields["worktree"])
    return None


def commit_as_user(repository: Repository, tree: str, *, message: str, parents: Sequence[str]) -> str:
    """A commit of the user's: by their name, and signed where they sign theirs.

    Raises:
        GitFailed: git does not know who they are, or cannot sign.
    """
    if _as_user(repository, "var", "GIT_COMMITTER_IDENT", ok=range(256)).code:
        raise GitFailed(
            "git does not know who you are, and the merge is a commit of yours",
            hint='git config user.name "Your Name", and git config user.email you@example.com',
        )
    signs = _as_user(repository, "config", "--type=bool", "--get", "commit.gpgSign", ok=range(256)).out.strip()
    of = [part for parent in parents for part in ("-p", parent)]
    sign = ["-S"] if signs == b"true" else []
    return decoded(_as_user(repository, "commit-tree", tree, *of, *sign, "-F", "-", stdin=encoded(message)).out).strip()


def fast_forward(repository: Repository, commit: str, *, why: str) -> None:
    """Move the branch that the user stands on forward to a commit, and their index and files with it.

    All or nothing, as git does it: what is not committed is never written over, ignored files neither.

    Args:
        why: for their reflog.
    Raises:
        GitFailed: the branch has moved, or files are in the way.
    """
    plain = ("--no-squash", "--commit", "--no-autostash", "--no-edit", "--no-overwrite-ignore", "--quiet")
    _as_user(repository, "merge", *plain, "--ff-only", commit, env={"GIT_REFLOG_ACTION": why})


def move_branch_of_user(repository: Repository, branch: str, commit: str, expected: str, *, why: str) -> None:
    """Move a branch that nobody stands on, if it still is where it is expected.

    Raises:
        GitFailed: it has moved.
    """
    _as_user(repository, "update-ref", "-m", why, f"refs/heads/{branch}", commit, expected)


def _as_user(
    repository: Repository,
    *args: str,
    stdin: bytes = b"",
    ok: Collection[int] = (0,),
    env: Mapping[str, str] | None = None,
) -> Output:
    """Run git as if the user had typed it at the top of their working tree."""
    mine = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", *args], cwd=repository.top, env={**mine, **(env or {})}, input=stdin, capture_output=True
        )
    except OSError as error:
        raise GitFailed(f"git cannot run in {repository.top}: {error.strerror}") from error
    output = Output(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
    if done.returncode not in ok:
        said = re.sub(r"\s+", " ", last_words(output))
        raise GitFailed(f"git {args[0]} refused in {repository.top}: {said}")
    return output
