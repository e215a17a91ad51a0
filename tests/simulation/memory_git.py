"""Git as far as runs use it, in memory: commits named by their content, refs, checkouts. A thousand times as fast as git.

Files are texts by path and have no lines: two sides that have changed a path in different ways are in conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from parallel_agents import settling, travel
from parallel_agents.checkpoint import contents, merging, refs, repository, snapshot, worktrees
from parallel_agents.checkpoint.merging import Conflict, Merge
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import Change, Snapshot
from parallel_agents.scheduler import checkouts

Tree = dict[str, str]
HEAD: Final = "head"


@dataclass
class MemoryGit:
    """One repository. ``trouble`` says after how many commands one fails, and how."""

    commits: dict[str, tuple[Tree, tuple[str, ...]]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    checkouts: dict[Path, Tree] = field(default_factory=dict)
    trouble: tuple[int, type[BaseException]] | None = None

    def asked(self) -> None:
        """Every command begins here."""
        if self.trouble is not None:
            left, what = self.trouble
            self.trouble = (left - 1, what) if left else None
            if not left:
                raise what("No space left on device")

    def commit(self, tree: Tree, parents: Sequence[str], message: str) -> str:
        """The same content has the same name."""
        name = sha1(repr((sorted(tree.items()), tuple(parents), message)).encode()).hexdigest()
        self.commits[name] = (dict(tree), tuple(parents))
        return name

    def tree(self, commit: str) -> Tree:
        """All files of a commit."""
        return self.commits[commit][0]

    def ancestors(self, commits: Iterable[str]) -> set[str]:
        """Some commits and all that they come from."""
        found, waiting = set[str](), list(commits)
        while waiting:
            commit = waiting.pop()
            if commit not in found:
                found.add(commit)
                waiting += self.commits[commit][1]
        return found

    # In place of the functions of those names.

    def hold(self, _: Repository, held: Mapping[str, str]) -> None:
        self.asked()
        self.refs |= held

    def _value(self, _: Repository, ref: str) -> str | None:
        self.asked()
        return self.refs.get(ref)

    def has_commit(self, _: Repository, commit: str) -> bool:
        self.asked()
        return commit in self.commits

    def move_branch(self, _: Repository, run_id: str, commit: str, expected: str | None) -> str | None:
        self.asked()
        found = self.refs.get(refs.branch_ref(run_id))
        if found not in (expected, None, commit):
            return found
        self.refs[refs.branch_ref(run_id)] = commit
        return None

    def add(self, _: Repository, path: Path, commit: str, **more: Any) -> None:
        self.asked()
        path.mkdir(parents=True, exist_ok=True)
        self.checkouts[path] = dict(self.tree(commit))

    def reuse(self, _: Repository, old: Path, path: Path, commit: str, **more: Any) -> None:
        self.asked()
        if self.checkouts.pop(old, None) is None:  # It is gone: a new one is made all the same.
            self.add(_, path, commit)
        elif old != path:
            path.parent.mkdir(parents=True, exist_ok=True)
            old.rename(path)
        self.checkouts[path] = dict(self.tree(commit))

    def remove(self, _: Repository, path: Path, *, if_still: Callable[[], bool] = lambda: True) -> bool:
        """One that is gone may be removed again."""
        self.asked()
        if not if_still():
            return False
        if self.checkouts.pop(path, None) is not None:
            path.rmdir()
        return True

    def snapshot(
        self, _: Repository, folder: Path, *, message: str, parents: Sequence[str], at_us: int, **more: Any
    ) -> Snapshot:
        self.asked()
        name = self.commit(self.checkouts[folder], parents, message)
        return Snapshot(name, self.tree_of(_, name))

    def tree_of(self, _: Repository, commit: str) -> str:
        return repr(sorted(self.tree(commit).items()))

    def changed_paths(self, _: Repository, a: str, b: str) -> list[Change]:
        self.asked()
        before, after = self.tree(a), self.tree(b)
        return [Change(one, "M") for one in sorted(before.keys() | after.keys()) if before.get(one) != after.get(one)]

    def merge(
        self, _: Repository, onto: str, work: str, *, message: str, at_us: int, take: str = "", base: str | None = None,
        files: Mapping[str, bytes | None] | None = None,
    ) -> Merge:  # fmt: skip
        self.asked()
        if base is None:
            base = next(one for one in self._back(onto) if one in self.ancestors([work]))
        if base in (onto, work):
            there = work if base == onto else onto
            return Merge(there, self.tree_of(_, there))
        made, clashes = merged(self.tree(base), self.tree(onto), self.tree(work), take)
        if clashes and not take:
            return Merge(None, "", tuple(Conflict(path, "content") for path in sorted(clashes)))
        name = self.commit(made, (onto, work), message)
        return Merge(name, self.tree_of(_, name))

    def _back(self, commit: str) -> Iterator[str]:
        """Its ancestors, the nearest first."""
        line = [commit]
        for one in line:
            yield one
            line += [parent for parent in self.commits[one][1] if parent not in line]


def merged(base: Tree, ours: Tree, theirs: Tree, take: str = "") -> tuple[Tree, set[str]]:
    """Three sides made one, and the paths in conflict, of which one side is taken."""
    made, clashes = dict[str, str](), set[str]()
    for path in sorted(base.keys() | ours.keys() | theirs.keys()):
        b, o, t = base.get(path), ours.get(path), theirs.get(path)
        found = o if t in (b, o) else t
        if o not in (b, t) and t not in (b, o):
            clashes.add(path)
            found = t if take == "theirs" else o
        if found is not None:
            made[path] = found
    return made, clashes


@contextmanager
def in_place_of_git(git: MemoryGit, top: Path) -> Iterator[Repository]:
    """Everything that asks git asks this one. Gives the repository."""
    here = Repository(top, top / ".git")
    in_module: dict[Any, dict[str, Any]] = {
        refs: {
            "hold": git.hold, "move_branch": git.move_branch, "_value": git._value,
        },
        worktrees: {"add": git.add, "reuse": git.reuse, "remove": git.remove, "copy_included": lambda *_: None},
        snapshot: {"snapshot": git.snapshot, "tree_of": git.tree_of, "changed_paths": git.changed_paths},
        merging: {"merge": git.merge, "hunks": lambda *_: ""},
        repository: {"head_commit": lambda _: git.refs[HEAD], "current_branch": lambda _: "main"},
        checkouts: {
            "open_repository": lambda *_: here, "linked_git_dir": lambda path: path if path in git.checkouts else None,
            "shared_state": lambda _: {}, "other_task": lambda *_: "", "_parent": lambda _, folder, base: base,
            "probe": lambda *_: (), "write_whole": lambda *_: None,
        },
        contents: {"has_commit": git.has_commit},
        settling: {"open_repository": lambda *_: here, "other_task": lambda *_: ""},
        travel: {"open_repository": lambda *_: here},
    }  # fmt: skip
    with ExitStack() as stack:
        for module, functions in in_module.items():
            for name, function in functions.items():
                stack.enter_context(patch.object(module, name, function))
        yield here
