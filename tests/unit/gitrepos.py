"""Repositories as users have them, and what of them must never change."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from parallel_agents.checkpoint.repository import Repository, find_repository

AT_US = 1_700_000_000_000_000
# Of a repository only these may change: objects, what is ours by name, and the worktrees that were asked for.
_MAY_CHANGE = ("objects/", "refs/parallel-agents", "refs/heads/parallel-agents", "parallel-agents", "worktrees")


def user_git(folder: Path, *args: str, stdin: bytes = b"") -> str:
    """A git command of the user's own."""
    who = ("-c", "user.name=A User", "-c", "user.email=user@localhost", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *who, *args], cwd=folder, input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's configuration counts, and nobody is known."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for name in ("EMAIL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)


def settings(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    """A configuration of the user beside the repository's own."""
    path.write_text(text)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(path))


def make_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str] | None = None) -> Repository:
    """A repository with one commit, in ``project`` below a folder."""
    no_settings(monkeypatch)
    top = tmp_path / "project"
    top.mkdir()
    user_git(top, "init", "-q")
    write(top, {"readme": "hello\n", "src/one": "1\n", "src/two": "2\n"} if files is None else files)
    user_git(top, "add", "-A")
    user_git(top, "commit", "-q", "--allow-empty", "-m", "first")
    return found(top)


def found(folder: Path) -> Repository:
    """The repository of a folder that has one."""
    repository = find_repository(folder)
    assert repository is not None
    return repository


def head(repository: Repository) -> str:
    """The commit that the user stands on."""
    return user_git(repository.top, "rev-parse", "HEAD")


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files below a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


Entry = tuple[int, bytes]  # The kind and permissions, and the content or where a link leads.


def tree(folder: Path, *, without: tuple[str, ...] = (".git", ".parallel-agents")) -> dict[bytes, Entry]:
    """All files below a folder: links as they are, folders only by what is in them."""
    found: dict[bytes, Entry] = {}
    top = os.fsencode(folder)
    for here, folders, names in os.walk(top):
        folders[:] = [name for name in folders if os.fsdecode(name) not in without]
        links = [name for name in folders if os.path.islink(os.path.join(here, name))]
        for name in [*names, *links]:
            path = os.path.join(here, name)
            if os.fsdecode(name) not in without:
                mode = os.lstat(path).st_mode
                content = os.readlink(path) if stat.S_ISLNK(mode) else _content(path, mode)
                found[os.path.relpath(path, top)] = (mode, content)
    return found


def _content(path: bytes, mode: int) -> bytes:
    if not stat.S_ISREG(mode):
        return b""
    with open(path, "rb") as file:
        return file.read()


def as_git_keeps(entries: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """The same, of permissions only whether the owner may execute."""
    return {path: (mode & (stat.S_IFMT(mode) | 0o100), content) for path, (mode, content) in entries.items()}


def belongings(repository: Repository) -> dict[bytes, Entry]:
    """All that is the user's, byte for byte: every file of the git directory that is not ours, and the working tree."""
    inside = {
        b".git/" + path: entry
        for path, entry in tree(repository.git_dir, without=()).items()
        if not os.fsdecode(path).startswith(_MAY_CHANGE)
    }
    return {**inside, **tree(repository.top)}


def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A `git` before the real one on PATH: a shell script that ends in calling the real one as "$git"."""
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    folder = tmp_path / "shim"
    folder.mkdir(parents=True)
    (folder / "git").write_text(f'#!/bin/sh\ngit={real}\nhere={folder}\n{script}\nexec "$git" "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder
