"""Git commands that nobody else notices: no hook runs, nothing is signed, no reflog grows, and no identity is needed.

Plain processes, because they are quicker than any library and the only thing that follows every setting of a repository.
The user's own configuration stays in force where it says what files are: which are ignored, which filters they pass.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parallel_agents.eventstore.errors import ParallelAgentsError

IDENTITY = ("parallel-agents", "parallel-agents@localhost")

QUIET: tuple[str, ...] = tuple(
    part
    for setting in (
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.untrackedCache=false",
        "core.splitIndex=false",  # A split index would leave a second file in the user's git directory.
        "core.logAllRefUpdates=false",
        "core.quotePath=false",
        "core.ignoreStat=false",
        "core.filesRefLockTimeout=10000",  # Milliseconds; git gives up after a tenth of a second by itself.
        "core.packedRefsTimeout=10000",
        "core.fsync=committed,reference",  # What an event names must outlive a power cut, as the event does.
        "core.fsyncMethod=writeout-only",  # Sent on its way; the ref that holds it waits for all that was (``FLUSHED``).
        "i18n.commitEncoding=UTF-8",
        "advice.addEmbeddedRepo=false",
        "advice.updateSparsePath=false",
        "advice.detachedHead=false",
        "submodule.recurse=false",
    )
    for part in ("-c", setting)
)

FLUSHED: tuple[str, ...] = ("-c", "core.fsyncMethod=fsync")
"""For what moves a ref: a journal is flushed in order, so objects that were written before are on the disk with the ref.

To flush every object by itself, as ``merge-tree`` does with the method ``batch``, takes twice as long for a merge.
"""

RAW: tuple[str, ...] = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false")
"""Bytes are kept as they are: what a user's configuration does to line ends does not come back the same.

What the project itself says in its ``.gitattributes`` stays in force.
"""

WRITING: tuple[str, ...] = ("-c", f"checkout.workers={min(max(os.cpu_count() or 1, 2), 8)}")
"""For commands that write many files: with two workers 50,000 of them took a fifth of the time of one."""

_NO_ROOM = ("No space left on device", "Disk quota exceeded")  # As git says it.
_READ_ONLY = "Read-only file system"
_REFUSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

# Where the user's configuration lies is theirs to say; every other variable would point a command at another repository.
_KEPT = {
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_EXEC_PATH",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
}


class GitFailed(ParallelAgentsError):
    """A git command failed, or something in a repository cannot be kept exactly."""

    code = "git"


class DiskRefuses(GitFailed):
    """The disk takes nothing at present: it is full, or was made read-only. The same is done once that is mended."""

    code = "disk"


class Output(NamedTuple):
    """What a command said."""

    code: int
    out: bytes
    err: str


class Git:
    """Commands on one repository, with or without a working tree, on its own index or another one.

    Args:
        git_dir: the repository's directory, or that of one of its worktrees.
        work_tree: the top of the files that commands see; None where there are none.
        index: another file to use as the index.
        settings: options before the command, such as ``RAW``.
    """

    def __init__(
        self, git_dir: Path, work_tree: Path | None = None, *, index: Path | None = None, settings: Sequence[str] = ()
    ) -> None:
        self.git_dir = git_dir
        self.work_tree = work_tree
        self.settings = (*QUIET, *settings)
        self._env = {"GIT_DIR": str(git_dir)}
        if work_tree is not None:
            self._env["GIT_WORK_TREE"] = str(work_tree)
        if index is not None:
            self._env["GIT_INDEX_FILE"] = str(index)

    def run(
        self, *args: str, stdin: bytes = b"", ok: Collection[int] = (0,), env: Mapping[str, str] | None = None
    ) -> Output:
        """Run one command and give what it said.

        Raises:
            GitFailed: git is missing, or ended with a code that is not in ``ok``.
        """
        return execute(
            (*self.settings, *args),
            self.work_tree or self.git_dir,
            env={**self._env, **(env or {})},
            stdin=stdin,
            ok=ok,
        )

    def begin(self, *args: str) -> Callable[[], Output]:
        """Begin one command that needs no input, and go on meanwhile.

        Returns:
            What waits for its end and gives what it said, as ``run`` does. It has to be called.
        """
        words, folder = (*self.settings, *args), self.work_tree or self.git_dir
        process = _begun(words, folder, self._env)
        return lambda: _output(process, words, folder, self._env, b"", (0,))

    def watched(self, *args: str, heard: Callable[[bytes], None]) -> None:
        """Run one command and hand on what it says on stderr while it says it.

        Raises:
            GitFailed: as ``run`` does.
        """
        words, folder = (*self.settings, *args), self.work_tree or self.git_dir
        process = _begun(words, folder, self._env)
        said = b""
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.close()
            while chunk := os.read(process.stderr.fileno(), 4096):
                heard(chunk)
                said = (said + chunk)[-65_536:]
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            with process:
                pass  # Waits for its end and closes what it was read by.
        _check(Output(process.returncode, b"", said.decode("utf-8", "replace")), words, folder, self._env, (0,))

    def text(self, *args: str) -> str:
        """What a command printed, its last line end taken off. Bytes that are no UTF-8 survive as surrogates."""
        return decoded(self.run(*args).out).removesuffix("\n")


def execute(
    args: Sequence[str],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    ok: Collection[int] = (0,),
) -> Output:
    """Run git in a folder, in a cleaned environment and a session of its own: a terminal's Ctrl-C is for us to answer.

    Raises:
        GitFailed: git or the folder is missing, or the command ended with a code that is not in ``ok``.
    """
    return _output(_begun(args, folder, env), args, folder, env, stdin, ok)


def _begun(args: Sequence[str], folder: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["git", *args],
            cwd=folder,
            env={**environment(), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        if folder.is_dir() and shutil.which("git") is None:
            raise GitFailed("git was not found on PATH", hint="install git, at least version 2.38") from None
        raise GitFailed(f"git cannot run in {folder}: {error.strerror}") from None
    except OSError as error:
        raise GitFailed(f"git cannot run in {folder}: {error.strerror}") from error


def _output(
    process: subprocess.Popen[bytes],
    args: Sequence[str],
    folder: Path,
    env: Mapping[str, str] | None,
    stdin: bytes,
    ok: Collection[int],
) -> Output:
    with process:
        try:
            out, err = process.communicate(stdin)
        except OSError as error:
            process.kill()
            raise GitFailed(f"git cannot run in {folder}: {error.strerror}") from error
        except BaseException:
            process.kill()
            raise
    output = Output(process.returncode, out, err.decode("utf-8", "replace"))
    _check(output, args, folder, env, ok)
    return output


def _check(
    output: Output, args: Sequence[str], folder: Path, env: Mapping[str, str] | None, ok: Collection[int]
) -> None:
    if output.code not in ok:
        refuse_disk(Path((env or {}).get("GIT_DIR", folder)), output.err)
        raise GitFailed(f"{_spoken(args)} failed in {folder}: {last_words(output)}")


def refuse_disk(place: Path, said: str) -> None:
    """Where it was the disk that refused, by what git has said, say so.

    Raises:
        DiskRefuses: it was.
    """
    if any(words in said for words in _NO_ROOM):
        raise DiskRefuses(f"the disk that holds {place} is full", hint="free some space, then repeat")
    if _READ_ONLY in said:
        raise DiskRefuses(f"the disk that holds {place} is read-only", hint="look at the system's log, then repeat")


def is_refused(error: BaseException) -> bool:
    """Whether the disk would not take something that it may take later."""
    return isinstance(error, DiskRefuses) or (isinstance(error, OSError) and error.errno in _REFUSED)


@contextlib.contextmanager
def told(place: Path) -> Iterator[None]:
    """What the system refuses is a failure like git's own: a full disk, a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        if is_refused(error):
            refuse_disk(place, error.strerror or "")
        raise GitFailed(f"{error.filename or place}: {error.strerror}", hint="look at its permissions") from error


def environment() -> dict[str, str]:
    """The environment of every git command: ours without what leads elsewhere, a fixed identity, plain English."""
    name, address = IDENTITY
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key in _KEPT},
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": address,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


def last_words(output: Output) -> str:
    """What git said last, without its own prefixes; the exit code where it said nothing."""
    lines = [line for line in output.err.splitlines() if line.strip() and not line.startswith("hint:")]
    said = "; ".join(lines[-3:]).replace("fatal: ", "").replace("error: ", "")
    return said or f"exit code {output.code}"


def decoded(raw: bytes) -> str:
    """A path or a line of git as text. What is no UTF-8 survives as surrogates, as in the paths of Python."""
    return raw.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """The bytes that ``decoded`` made this text of."""
    return text.encode("utf-8", "surrogateescape")


def _spoken(args: Sequence[str]) -> str:
    """The command without the settings before it, such as ``git worktree add``."""
    at = 0
    while at < len(args) and args[at].startswith("-"):
        at += 2 if args[at] in ("-c", "-C") else 1
    words = 2 if args[at : at + 1] == ("worktree",) else 1
    return " ".join(["git", *args[at : at + words]])
