"""The repository that a project lies in, and what it says of itself without being changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from parallel_agents.checkpoint.git import Git, GitFailed, decoded, execute, last_words
from parallel_agents.eventstore.location import FOLDER

OURS = "parallel-agents"  # The branch folder, the ref folder, and our folder in a git directory.
NOT_OURS = (".", f":(exclude,glob)**/{FOLDER}/**")  # Of all commands that look through a working tree.
_OLDEST = (2, 38)  # The first git with `merge-tree --write-tree`.


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository and the working tree of it that is the user's."""

    top: Path  # The top of the user's working tree; of a shadow repository the project's directory.
    git_dir: Path  # The common git directory, absolute.
    shadow: bool = False

    def git(self, work_tree: Path | None = None) -> Git:
        """Commands on it: on objects and refs alone, or on one of its working trees."""
        return Git(self.git_dir if work_tree is None else self.git_dir_of(work_tree), work_tree)

    def objects(self) -> Git:
        """Commands on objects alone. A `diff-tree` would read the index all the same, and take five times as long."""
        return Git(self.git_dir, index=self.git_dir / "no-index")

    def git_dir_of(self, work_tree: Path) -> Path:
        """Where a working tree has its HEAD and its index. No process is started for it."""
        return self.git_dir if self.shadow else linked_git_dir(work_tree) or self.git_dir

    def own_folder(self) -> Path:
        """A folder of ours in the git directory, for locks and temporary indexes."""
        folder = self.git_dir / OURS
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise GitFailed(
                f"{folder} cannot be made: {error.strerror}", hint="is the repository read-only?"
            ) from error
        return folder


class Obstacle(NamedTuple):
    """What stops a run before it starts."""

    message: str
    hint: str


def linked_git_dir(work_tree: Path) -> Path | None:
    """The git directory that the file ``.git`` of a linked worktree names; None where there is no such file."""
    try:
        said = (work_tree / ".git").read_bytes()
    except OSError:
        return None
    if not said.startswith(b"gitdir: "):
        return None
    return Path(os.path.normpath(work_tree / os.fsdecode(said[8:].rstrip(b"\r\n"))))


def find_repository(folder: Path) -> Repository | None:
    """The repository whose working tree holds a folder; None where there is none.

    Raises:
        GitFailed: it is bare, or broken, or git does not trust its owner.
    """
    asked = ("--is-bare-repository", "--is-inside-work-tree", "--git-common-dir", "--show-toplevel")
    said = execute(("rev-parse", "--path-format=absolute", *asked), folder, ok=(0, 128))
    lines = decoded(said.out).split("\n")
    if said.code == 0:
        return Repository(Path(lines[3]), Path(lines[2]))
    if lines[0] == "true":
        raise GitFailed(f"{folder} is a bare repository, without files to work on", hint="work in a clone of it")
    if lines[0] == "false":
        raise GitFailed(f"{folder} lies inside a git directory", hint="work in the project's own directory")
    broken = next((up for up in (folder, *folder.resolve().parents) if (up / ".git").exists()), None)
    if "not a git repository" in said.err and (broken is None or _is_empty_folder(broken / ".git")):
        return None  # An empty folder called .git marks a project's root for many tools, and is no repository.
    hint = f"git config --global --add safe.directory {broken}" if "dubious ownership" in said.err else ""
    raise GitFailed(
        f"the git repository at {broken or folder} cannot be used: {last_words(said).splitlines()[0]}",
        hint=hint or "mend it, or move its .git away",
    )


def is_tracked(path: Path) -> bool:
    """Whether a file belongs to the repository that it lies in; false where there is none, or no git."""
    try:
        said = execute(("ls-files", "--error-unmatch", "--", str(path)), path.parent, ok=(0, 1, 128))
    except GitFailed:
        return False
    return said.code == 0


def known_repository(top: Path) -> Repository | None:
    """The repository whose working tree has this top, as ``find_repository`` once gave it.

    No process is started where it lies plainly there and is this user's own, whom git trusts with it.
    """
    git_dir = top / ".git"
    with contextlib.suppress(OSError):
        found = git_dir.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and (git_dir / "HEAD").is_file():
            return Repository(top, git_dir)
    return find_repository(top)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def shadow_repository(folder: Path, home: Path) -> Repository:
    """The repository beside the store that keeps the files of a directory without git; made where it is missing."""
    repository = Repository(Path(os.path.abspath(folder)), Path(os.path.abspath(home)) / "shadow.git", shadow=True)
    if (repository.git_dir / "HEAD").exists():
        return repository
    made = repository.git_dir.with_name(f"shadow.{os.getpid()}.{os.urandom(4).hex()}")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    execute(("-c", "init.defaultBranch=main", "init", "--quiet", "--bare", "--template=", str(made)), home)
    try:
        (made / "info").mkdir(exist_ok=True)
        (made / "info" / "exclude").write_bytes(_pattern(repository.git_dir.parent, repository.top))
        os.rename(made, repository.git_dir)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        if not (repository.git_dir / "HEAD").exists():  # Else another process was first.
            raise GitFailed(f"{repository.git_dir} cannot be made: {error.strerror}") from error
    return repository


def _pattern(home: Path, top: Path) -> bytes:
    """The line of an exclude file that leaves out the store's folder, where it lies below the directory."""
    with contextlib.suppress(ValueError):
        below = os.fsencode(home.relative_to(top))
        return b"/" + re.sub(rb"([\\*?\[ ])", rb"\\\1", below) + b"/\n"
    return b""


def head_commit(repository: Repository) -> str | None:
    """The commit that the user stands on; None before the first one."""
    said = repository.git(repository.top).run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1, 128))
    return decoded(said.out).strip() or None


def current_branch(repository: Repository) -> str | None:
    """The branch that the user stands on; None where HEAD is detached."""
    said = repository.git(repository.top).run("symbolic-ref", "--short", "--quiet", "HEAD", ok=(0, 1))
    return decoded(said.out).strip() or None


def obstacles(repository: Repository) -> list[Obstacle]:
    """What stops a run before it starts, each with the way out."""
    found = []
    version = git_version()
    if version < _OLDEST:
        spoken = ".".join(map(str, version))
        mend = "install git >= 2.38, or say workspace: none"
        found.append(Obstacle(f"git {spoken} is too old to merge without a checkout", mend))
    git = repository.git(repository.top)
    if git.run("show-ref", "--verify", "--quiet", f"refs/heads/{OURS}", ok=(0, 1)).code == 0:
        found.append(
            Obstacle(
                f"a branch named {OURS} leaves no room for the branches {OURS}/RUN",
                f"rename it: git branch -m {OURS} another-name",
            )
        )
    if head_commit(repository) is not None:
        found += _obstacles_in(git.run("ls-tree", "-r", "-z", "HEAD").out)
    return found


def _obstacles_in(tree: bytes) -> Iterator[Obstacle]:
    """What no checkout of a tree could keep, or what it would take away from us."""
    modules = re.findall(rb"160000 commit [0-9a-f]+\t([^\0]*)", tree)
    if modules:
        shown = ", ".join(map(decoded, modules[:5])) + (" ..." if len(modules) > 5 else "")
        yield Obstacle(f"submodules are not kept: {shown}", "use workspace none, or run inside the submodule")
    if re.search(rb"[\t/]%s/" % re.escape(FOLDER.encode()), tree):
        yield Obstacle(
            f"files of {FOLDER} are tracked by git, where every merge would change them",
            f"git rm -r --cached {FOLDER}, and commit",
        )


@cache
def git_version() -> tuple[int, ...]:
    """The version of git, such as ``(2, 39, 5)``."""
    said = decoded(execute(("version",), Path("/")).out)
    return tuple(int(number) for number in re.findall(r"\d+", said)[:3])


def dirty_paths(repository: Repository, limit: int = 20) -> tuple[list[str], int]:
    """What differs from HEAD, untracked files included and ignored ones not: the first paths, and how many in all."""
    said = repository.git(repository.top).run(
        "status",
        "--porcelain",
        "-z",
        "--no-renames",
        "--untracked-files=all",
        "--ignore-submodules=none",
        "--",
        *NOT_OURS,
    )
    paths = [decoded(record[3:]) for record in said.out.split(b"\0") if record]
    return paths[:limit], len(paths)


def shared_state(repository: Repository) -> dict[str, str]:
    """A fingerprint of what attempts share with the user: configuration, hooks, HEAD, the stash, branches and tags."""
    git_dir, own = repository.git_dir, repository.git_dir_of(repository.top)
    state = {}
    for name, path in (
        ("config", git_dir / "config"),
        ("config.worktree", own / "config.worktree"),
        ("info/exclude", git_dir / "info" / "exclude"),
        ("info/attributes", git_dir / "info" / "attributes"),
    ):
        with contextlib.suppress(OSError):
            state[name] = _digest(path)
    with contextlib.suppress(OSError):
        state["HEAD"] = (own / "HEAD").read_text(errors="replace").strip()
    with contextlib.suppress(OSError):
        for hook in sorted((git_dir / "hooks").iterdir()):
            if hook.is_file() and not hook.name.endswith(".sample"):
                state[f"hooks/{hook.name}"] = f"{hook.stat().st_mode & 0o777:o} {_digest(hook)}"
    said = repository.git().run(
        "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", "refs/stash"
    )
    for line in decoded(said.out).splitlines():
        oid, ref = line.split(" ", 1)
        if ref == "refs/stash":
            state["stash"] = oid
        elif ref.startswith("refs/tags/"):
            state[f"tag {ref.removeprefix('refs/tags/')}"] = oid
        elif not ref.startswith(f"refs/heads/{OURS}/"):
            state[f"branch {ref.removeprefix('refs/heads/')}"] = oid
    return state


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
