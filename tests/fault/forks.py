"""Processes of ours that are forked from one which has imported everything (see ``fork_server``), as ``Popen`` has others."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

CLI = """
from parallel_agents.cli.main import main
main()
"""


@cache
def _server(preloaded: str | None) -> socket.socket:
    """The way to a server that ends with this process."""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, **({"LD_PRELOAD": preloaded} if preloaded else {})}
    words = [sys.executable, "-P", str(Path(__file__).with_name("fork_server.py"))]
    subprocess.Popen(words, stdin=theirs, env=environment)
    theirs.close()
    return ours


class Forked:
    """A process that runs a Python program, in a session of its own, with pipes for what it prints. ``env`` is all that it
    gets; a library that it is to preload is in it from the start.

    Attributes:
        returncode: None as long as it is not known to have ended; a signal that has ended it counts from -1 down.
    """

    def __init__(self, program: str, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        environment = dict(os.environ if env is None else env)
        request = {"program": program, "words": words, "cwd": str(cwd), "environment": environment}
        pipes = [os.pipe() for _ in range(4)]
        (out, err, pid, code), theirs = zip(*pipes, strict=True)
        socket.send_fds(_server(environment.get("LD_PRELOAD")), [json.dumps(request).encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        self.stdout: IO[str] = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(err, encoding="utf-8")
        self.pid = int(os.read(pid, 20))
        self.returncode: int | None = None
        self._code = os.fdopen(code)
        os.close(pid)

    def poll(self) -> int | None:
        """Whether it has ended, and how."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its end, and how."""
        if self.returncode is None:
            with selectors.DefaultSelector() as ended:
                ended.register(self._code, selectors.EVENT_READ)
                if not ended.select(timeout):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = int(self._code.read())
            self._code.close()
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it prints to its end."""
        until, said = time.monotonic() + timeout, {self.stdout: b"", self.stderr: b""}
        with selectors.DefaultSelector() as readable:
            for stream in said:
                if not stream.closed:
                    readable.register(stream, selectors.EVENT_READ)
            while readable.get_map():
                found = readable.select(until - time.monotonic())
                if not found:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
                for key, _ in found:
                    stream = key.fileobj
                    if content := os.read(key.fd, 65536):
                        said[stream] += content
                    else:
                        readable.unregister(stream)
                        stream.close()
        self.wait(max(0.0, until - time.monotonic()))
        return said[self.stdout].decode(), said[self.stderr].decode()

    def send_signal(self, signum: int) -> None:
        """Unless it is known to have ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """As ``kill -9``."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """As ``kill``."""
        self.send_signal(signal.SIGTERM)
