"""Projects in git repositories, and all that is the user's in one, byte for byte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from scratch import Scratch

_OURS = ("objects", "refs/parallel-agents", "refs/heads/parallel-agents", "parallel-agents", "worktrees")


def git(cli: Scratch, *words: str, code: int = 0) -> str:
    """A git command of the user's own."""
    who = ("-c", "user.name=A User", "-c", "user.email=user@localhost")
    done = subprocess.run(["git", *who, *words], cwd=cli.root, env=cli.environment, capture_output=True)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode().strip()


def versioned(cli: Scratch, files: Mapping[str, str | bytes]) -> Scratch:
    """Make the project a git repository with one commit; what the tests themselves need is ignored."""
    cli.environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for name, content in {".gitignore": "home/\nflags/\n*.json\n", **files}.items():
        cli.write(name, content)
    git(cli, "init", "-q", "-b", "main")
    git(cli, "add", "-A")
    git(cli, "commit", "-qm", "first")
    return cli


def belongings(cli: Scratch) -> dict[str, bytes]:
    """The working tree, and every file of the git directory that is not ours: index, HEAD, refs, reflogs, settings."""
    found = {}
    for folder, folders, names in os.walk(cli.root):
        below = os.path.relpath(folder, cli.root)
        if below == ".":
            folders[:] = [name for name in folders if name not in (".parallel-agents", "home", "flags")]
        inside = below.removeprefix(".git").lstrip("/") if below.split("/")[0] == ".git" else None
        if inside is not None and inside.startswith(_OURS):
            folders.clear()
            continue
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[f"{below}/{name}"] = os.readlink(path).encode() if os.path.islink(path) else file.read()
    return found
