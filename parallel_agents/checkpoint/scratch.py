"""A repository of its own that reads another one's objects, for work that nobody is to see: refs, commits, checkouts.

Nothing is written to the other one: its objects are borrowed (git's alternates), and all that is made lies in a temporary
folder, which goes with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from parallel_agents.checkpoint import merging
from parallel_agents.checkpoint.git import RAW, Git, encoded, execute, told
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import changed_paths, commit_tree, tree_of
from parallel_agents.eventstore.location import FOLDER


class ScratchRepository:
    """A repository with a store's folder beside it.

    Args:
        source: whose objects are borrowed.
    Attributes:
        repository: with an empty working tree.
        store: where a store would lie whose runs use it. Nothing is there.
    Raises:
        GitFailed: it cannot be made.
    """

    def __init__(self, source: Repository) -> None:
        self._folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="parallel-agents-")))
        top = self._folder / "files"
        self.repository = Repository(top, top / ".git")
        self.store = self._folder / FOLDER / "events.db"
        try:
            kind = source.git().text("rev-parse", "--show-object-format")
            words = ("init", "--quiet", "--template=", f"--object-format={kind}", str(top))
            execute(("-c", "init.defaultBranch=main", *words), self._folder)
            with told(top):
                info = self.repository.git_dir / "objects" / "info"
                info.mkdir(exist_ok=True)
                (info / "alternates").write_bytes(os.fsencode(source.git_dir / "objects") + b"\n")
                shallow = source.git_dir / "shallow"
                if shallow.exists():  # Else its oldest commits would seem to lack their parents.
                    shutil.copyfile(shallow, self.repository.git_dir / "shallow")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take all of it away."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def moved(self, before: str, after: str, onto: str) -> tuple[str, tuple[str, ...]]:
        """What a change comes to that is made to other files than it was made to.

        Args:
            before, after: the commits that it leads from and to.
            onto: the commit that it is to be made to.
        Returns:
            The tree, and the paths at which it did not fit: they are as they were after it.
        """
        repository = self.repository
        if tree_of(repository, before) == tree_of(repository, onto):
            return tree_of(repository, after), ()
        root = self._commit(before, ())
        sides = [self._commit(onto, (root,)), self._commit(after, (root,))]
        made = merging.merge(repository, *sides, message="moved", at_us=0)
        clashes = tuple(one.path for one in made.conflicts)
        if clashes:
            made = merging.merge(repository, *sides, message="moved", at_us=0, take="theirs")
        return made.tree, clashes

    def _commit(self, files_of: str, parents: tuple[str, ...]) -> str:
        tree = tree_of(self.repository, files_of)
        return commit_tree(self.repository, tree, message="files", parents=parents, at_us=0)

    def lay(self, folder: Path, tree: str, head: str | None = None) -> None:
        """Make the files of a checkout those of a tree, as if somebody had written them.

        Args:
            folder: the top of a worktree of this repository.
            head: where somebody's own commits had led; None: nowhere.
        """
        git_dir = self.repository.git_dir_of(folder)
        git = Git(git_dir, folder, settings=RAW)
        now = git.text("rev-parse", "--verify", "HEAD")
        changes = changed_paths(self.repository, now, tree)
        with told(folder):
            for one in changes:
                if one.status == "D":
                    _remove(folder, folder / one.path)
        written = b"".join(encoded(one.path) + b"\0" for one in changes if one.status != "D")
        if written:
            words = ("restore", f"--source={tree}", "--worktree", "--ignore-skip-worktree-bits")
            git.run("--literal-pathspecs", *words, "--pathspec-from-file=-", "--pathspec-file-nul", "--", stdin=written)
        if head is not None and head != now:
            git.run("update-ref", "--no-deref", "HEAD", head)


def _remove(top: Path, path: Path) -> None:
    """Remove a file, unless something else has taken its place by now, and the folders that are empty without it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()
    for folder in path.parents:
        if folder == top or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()
