"""What can be put between an attempt and the machine: words that go before its command.

``namespaces`` hides all other processes from it and ends whatever it leaves behind; ``bwrap`` also makes everything read-only
but its working directory, its temporary files and the folders in which clients keep their sessions. A list of words is
somebody's own, such as a container's command. What is in force is part of a run's settings, so whoever dispatches it keeps to it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from parallel_agents.eventstore.location import keys_folder

NONE: Final = "none"
PRESETS: Final = ("namespaces", "bwrap")
_NAMESPACES: Final = (
    "unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip
_BWRAP: Final = (
    "bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--ro-bind", "/", "/", "--dev", "/dev",
    "--proc", "/proc",
)  # fmt: skip
_OF_CLIENTS: Final = (".claude", ".claude.json", ".codex")  # Below HOME: logins and sessions, which clients write to.
_TRY_S: Final = 20.0


class Places(NamedTuple):
    """Where things are for one attempt: what a word may name in braces."""

    workdir: str
    folder: str  # Of the attempt itself, with its output.
    store: str  # The folder of the store; ``workdir`` may lie in it, or it in ``workdir``.
    home: str
    tmp: str
    attempt: str  # Its id.


def places(workdir: str, folder: str, store: str, attempt_id: str, env: Mapping[str, str]) -> Places:
    """The same from what is known of an attempt. A place that is nowhere is a path that nobody has."""
    return Places(workdir, folder, store, env.get("HOME", "/nonexistent"), env.get("TMPDIR", "/tmp"), attempt_id)


def before_command(sandbox: Sequence[str], at: Places) -> tuple[str, ...]:
    """The words that go before a command.

    Args:
        sandbox: nothing, the name of a preset, or somebody's own words, with places in braces; other braces stay.
    """
    if tuple(sandbox) == ("namespaces",):
        return _NAMESPACES
    if tuple(sandbox) == ("bwrap",):
        return _bwrap(at)
    found = []
    for word in sandbox:
        for name, value in at._asdict().items():
            word = word.replace("{" + name + "}", value)
        found.append(word)
    return tuple(found)


def _bwrap(at: Places) -> tuple[str, ...]:
    """Later words lie over earlier ones: all of it read-only, then what may be written, the store never.

    The key that the log is sealed with cannot even be read.
    """
    words = list(_BWRAP)

    def bind(path: str, how: str = "--bind-try") -> None:
        words.extend((how, path, path))

    inside = os.path.commonpath((at.workdir, at.store)) == at.store
    for name in _OF_CLIENTS:
        bind(f"{at.home}/{name}")
    bind(at.tmp)
    if not inside:
        bind(at.workdir, "--bind")
    bind(at.store, "--ro-bind-try")
    if inside:
        bind(at.workdir, "--bind")
    bind(f"{at.store}/clients")
    bind(at.folder)
    for environ in (os.environ, {"HOME": at.home}):  # Last, so that nothing lies over it.
        keys = keys_folder(environ)
        if keys is not None and keys.is_dir():
            words.extend(("--tmpfs", str(keys)))
    return (*words, "--chdir", at.workdir, "--")


def problem(words: Sequence[str], scratch: str, env: Mapping[str, str] | None = None) -> str:
    """Why nothing can be run behind these words here; empty where something can. Tries it.

    Args:
        scratch: a folder to run something in.
    """
    if not words:
        return ""
    import shutil  # Every run imports this module, and few have a sandbox.
    import subprocess

    environ = dict(os.environ if env is None else env)
    command = before_command(words, places(scratch, scratch, f"{scratch}/store", "doctor", environ))
    if shutil.which(command[0], path=environ.get("PATH")) is None:
        return f"there is no {command[0]!r} on PATH"
    try:
        done = subprocess.run(
            [*command, "true"], cwd=scratch, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRY_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not start: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return said[-1][:300] if said else f"it ends with exit code {done.returncode}"
