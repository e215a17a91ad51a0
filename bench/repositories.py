"""Git repositories to measure on, and plain git commands as a person would type them there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

from parallel_agents.checkpoint.repository import Repository, find_repository

NOBODYS_SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
_SOMEBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "somebody"), ("EMAIL", "somebody@localhost"))
}
# What every commit of ours is: on the disk when the command ends. By itself git leaves that to the system.
FLUSHED = {
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "core.fsync",
    "GIT_CONFIG_VALUE_0": "committed",
    "GIT_CONFIG_KEY_1": "core.fsyncMethod",
    "GIT_CONFIG_VALUE_1": "batch",
}


def environment() -> dict[str, str]:
    """The environment of plain git: nobody's settings, somebody's name."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, **NOBODYS_SETTINGS, **_SOMEBODY}


def git(folder: Path, *args: str, stdin: bytes = b"") -> str:
    """What a plain git command prints."""
    done = subprocess.run(["git", *args], cwd=folder, env=environment(), input=stdin, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def typed(folder: Path, script: str, extra: Mapping[str, str] | None = None) -> float:
    """How long a line of commands takes that a person types, in seconds. All of them have to succeed."""
    env = {**environment(), **(extra or {})}
    begun = time.perf_counter()
    subprocess.run(["sh", "-ec", script], cwd=folder, env=env, check=True, capture_output=True)
    return time.perf_counter() - begun


def path_of(number: int) -> str:
    """The path of a file: 20 areas of 25 parts each, as long as there are enough files."""
    return f"area-{number % 20:02d}/part-{number // 20 % 25:02d}/file-{number:05d}.txt"


def text_of(random: Random) -> str:
    """Some hundred bytes in lines."""
    return "".join(f"{random.getrandbits(192):048x}\n" for _ in range(random.randint(4, 12)))


def generate(top: Path, files: int) -> Repository:
    """A repository of one commit with that many small files, packed and checked out as after a clone."""
    top.mkdir(parents=True)
    random = Random(files)
    texts = {path_of(number): text_of(random) for number in range(files)}
    git(top, "init", "-q", "-b", "main")
    commit(top, "refs/heads/main", texts)
    git(top, "-c", "checkout.workers=4", "reset", "-q", "--hard")
    found = find_repository(top)
    assert found is not None
    return found


def commit(top: Path, ref: str, texts: Mapping[str, str], onto: str | None = None) -> str:
    """Make a commit of some files, on another commit where one is named, without touching the working tree."""
    lines = [f"commit {ref}\ncommitter somebody <somebody@localhost> 1700000000 +0000\ndata 4\nmade\n"]
    lines += [f"from {onto}\n"] if onto else []
    lines += [f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n" for path, text in texts.items()]
    git(top, "-c", "fastimport.unpackLimit=1", "fast-import", "--quiet", "--force", stdin="".join(lines).encode())
    return git(top, "rev-parse", ref)
