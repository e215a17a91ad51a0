"""Carries out command lines in forks of one process: the start of an interpreter costs twenty times what most of them do.

Reads a JSON line for each (``words``, ``cwd``, ``environment``, ``out``, ``err``, ``terminal``) and answers with its exit code.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

from parallel_agents.cli import main

for module in (
    "bars",
    "checkpointing",
    "daemon",
    "dry_run",
    "keeping",
    "looking",
    "pages",
    "reading",
    "running",
    "sentences",
    "steering",
):
    import_module(f"parallel_agents.cli.{module}")


def serve() -> None:
    """Fork for every line on stdin, until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            carry_out(request)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def carry_out(request: dict[str, Any]) -> None:
    """Be the command: never returns."""
    code = 127
    try:
        os.setsid()  # So that a terminal which is opened now becomes ours.
        os.dup2(os.open(request.get("terminal", os.devnull), os.O_RDWR), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", -1, "utf-8", closefd=False) for number in (1, 2))
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        os.chdir(request["cwd"])
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
    for module in sys.argv[1:]:
        import_module(module)
    serve()
