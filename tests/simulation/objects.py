"""What a repository holds, read by a program of the tests' own: commits, trees and refs, each object once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from trees import LINK, Tree

_TREE, _SUBMODULE = "40000", "160000"


class Objects:
    """One repository. Objects never change, so what was read is remembered."""

    def __init__(self, top: Path) -> None:
        self.git_dir = top / ".git"
        self._process = subprocess.Popen(
            ["git", "cat-file", "--batch"], cwd=top, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._parents: dict[str, tuple[str, ...]] = {}
        self._trees: dict[str, str] = {}
        self._content: dict[str, Tree] = {}

    def close(self) -> None:
        """End the process that reads."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _read(self, oid: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{oid}\n".encode())
        self._process.stdin.flush()
        head = self._process.stdout.readline().split()
        assert head[1:2] != [b"missing"], f"{oid} is gone"
        content = self._process.stdout.read(int(head[2]) + 1)
        return content[:-1]

    def _commit(self, commit: str) -> None:
        if commit not in self._trees:
            lines = self._read(commit).split(b"\n\n")[0].decode().splitlines()
            self._trees[commit] = lines[0].removeprefix("tree ")
            self._parents[commit] = tuple(line[7:] for line in lines if line.startswith("parent "))

    def tree(self, commit: str) -> Tree:
        """All files of a commit."""
        self._commit(commit)
        return self._files(self._trees[commit])

    def _files(self, oid: str) -> Tree:
        if oid in self._content:
            return self._content[oid]
        files: Tree = {}
        raw = self._read(oid)
        while raw:
            head, _, rest = raw.partition(b"\0")
            mode, _, name = head.partition(b" ")
            inner, raw = rest[:20].hex(), rest[20:]
            assert mode.decode() != _SUBMODULE
            if mode.decode() == _TREE:
                files |= {name + b"/" + path: entry for path, entry in self._files(inner).items()}
            else:
                files[name] = (LINK if mode == b"120000" else mode.decode(), self._read(inner))
        self._content[oid] = files
        return files

    def ancestors(self, commits: Iterable[str]) -> set[str]:
        """Some commits and all that they come from."""
        found: set[str] = set()
        waiting = list(commits)
        while waiting:
            commit = waiting.pop()
            if commit not in found:
                found.add(commit)
                self._commit(commit)
                waiting += self._parents[commit]
        return found

    def refs(self, below: str) -> dict[str, str]:
        """The refs below a folder of refs and their commits, read as files: nobody packs them here."""
        folder = self.git_dir / below
        return {
            str(path.relative_to(self.git_dir)): path.read_text().strip()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.endswith(".lock")
        }
