"""Carries out command lines in forks of one process: the start of an interpreter costs twenty times what most of them do.

Reads a JSON line for each (``words``, ``cwd``, ``environment``, ``out``, ``err``, ``terminal``) and answers with its exit code;
where it says ``begin``, with its process at once. ``ended``, a process, asks for the exit code of such a one: null while it runs.
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

import parallel_agents
from parallel_agents.cli import main

# What a verb imports when it is needed, it would import anew in every fork.
for module in pkgutil.walk_packages(parallel_agents.__path__, "parallel_agents."):
    import_module(module.name)


def build(model: type[BaseModel]) -> None:
    """Make the validators of all models that are made from one, which is put off until they are first used."""
    for one in model.__subclasses__():
        one.model_rebuild()
        build(one)


build(BaseModel)


def serve() -> None:
    """Fork for every line on stdin, until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request: dict[str, Any]) -> int | None:
    """What a request asks for."""
    if "ended" in request:
        child, status = os.waitpid(request["ended"], os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if child else None
    # Opened before there are two of us, so that whoever reads a pipe sees no moment without a writer.
    files = [os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for name in ("out", "err")]
    child = os.fork()
    if child == 0:
        carry_out(request, files)
    for file in files:
        os.close(file)
    return child if request.get("begin") else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def open_files() -> Iterator[str]:
    """What this process has open, where the system tells."""
    folder = "/proc/self/fd"
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        with suppress(OSError):
            yield os.readlink(f"{folder}/{name}")


def keep_locks() -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that lets nobody but SQLite open a store, or what lies beside it, in a process that has it open.

    Whoever closes such a file gives up all of SQLite's locks on it: POSIX locks belong to the process.
    """
    connected: set[str] = set()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "sqlite3.connect":
            connected.add(os.path.realpath(unquote(str(args[0]).removeprefix("file://").partition("?")[0])))
        elif event == "open" and isinstance(args[0], str) and ".db" in args[0]:
            store = os.path.realpath(args[0])
            for end in ("-wal", "-shm", "-journal"):
                store = store.removesuffix(end)
            if store in connected and store in set(open_files()):
                raise AssertionError(f"{args[0]} is opened beside SQLite, whose locks end when it is closed")

    return hook


def carry_out(request: dict[str, Any], files: list[int]) -> None:
    """Be the command, with these files as its output: never returns."""
    code = 127
    try:
        os.setsid()  # So that a terminal which is opened now becomes ours.
        os.dup2(os.open(request.get("terminal", os.devnull), os.O_RDWR), 0)
        for number, file in enumerate(files, start=1):
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", -1, "utf-8", closefd=False) for number in (1, 2))
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        os.chdir(request["cwd"])
        sys.addaudithook(keep_locks())
        main.main(request["words"])
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        import_module(name)
    serve()
