"""Python programs in forks of one process that has imported all of us: an interpreter of their own would take longer to
start than most of them take.

A request comes over the socket on stdin, as JSON (``program``, ``words``, ``cwd``, ``environment``) with four descriptors: the
program's stdout and stderr, where to write its pid, and where to write its exit code once it has ended. The program gets a
session of its own, and ends as any other does, threads and exit handlers included.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
from importlib import import_module
from typing import Any, Final

REQUEST_BYTES: Final = 1_000_000
IMPORTED: Final = (
    "apscheduler.executors.pool", "parallel_agents.cli.main", "parallel_agents.cli.running", "parallel_agents.deep_verification",
    "parallel_agents.foreground", "parallel_agents.planfile", "parallel_agents.schedules", "parallel_agents.scheduler.daemon",
    "parallel_agents.scheduler.engine", "parallel_agents.scheduler.run_files", "parallel_agents.scheduler.runners.agent",
    "parallel_agents.scheduler.runners.shell", "parallel_agents.submit", "parallel_agents.travel",
    "parallel_agents.versioning", "psutil", "sqlalchemy.dialects.sqlite",
)  # fmt: skip
"""What the programs have in common. Nothing of it looks at the environment, but for the crash points."""


def serve(requests: socket.socket) -> tuple[str, list[str]] | None:
    """Fork for every request until there are no more. In a fork it gives the program and its words."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 4)
        if not message:
            return None
        request = json.loads(message)
        if os.fork() == 0:
            requests.close()
            return begin(request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def begin(request: dict[str, Any], out: int, err: int, pid: int, code: int) -> tuple[str, list[str]]:
    """Fork once more: one process waits for the program's end, the other one becomes it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        os.write(pid, str(child).encode())
        for descriptor in (out, err, pid):
            os.close(descriptor)
        os.write(code, str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, max(out, err, pid, code) + 1)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    time.tzset()
    points = import_module("parallel_agents.eventstore.crash_points")
    said = os.environ.get(points.VARIABLE)
    points._meant, points._left = points._read(said) if said else ("", 0)
    return request["program"], request["words"]


def main() -> None:
    """Import, serve, and be the program in every fork."""
    points = "parallel_agents.eventstore.crash_points"
    os.environ["PARALLEL_AGENTS_CRASH_AT"] = "log.committed"  # Or nobody would count the points that a fork comes to.
    for module in (points, *IMPORTED):
        import_module(module)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for those that wait.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = serve(socket.socket(fileno=0))
    if asked is not None:
        program, words = asked
        sys.argv = ["-c", *words]
        sys.path.insert(0, "")
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
