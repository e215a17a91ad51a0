"""What every dialect of the fake agent does alike: waiting, stdin, files, processes, and its steps."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

BEGUN_S = time.monotonic()
ALIASES = {"opus": "claude-opus-5-5", "sonnet": "claude-sonnet-5-5", "haiku": "claude-haiku-5-5"}
Given = dict[str, Any] | None
During = Callable[[], object] | None


class Stopped(Exception):
    """Somebody asked it to stop: by a request on stdin, or by SIGINT."""


class Failed(Exception):
    """A call failed: a name in FAILURES, or ``limit``, and the seconds until that ends."""


def uuid() -> str:
    """A random id in the usual form."""
    text = os.urandom(16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def out(line: bytes) -> None:
    """Write bytes to stdout, however many they are."""
    view = memoryview(line)
    while view:
        view = view[os.write(1, view) :]


class World:
    """What every dialect does alike: waiting, stdin, files, processes."""

    def __init__(self) -> None:
        self.inbox = b""
        self.messages: list[str] = []  # That came by stdin, in order.
        self.listening = False  # Whether lines of JSON come on stdin.
        self.eof = False
        self.child = 0
        self.at_end: Callable[[], None] = lambda: None  # Done before SIGTERM ends it.
        self.request_id: str | None = None  # Of the request to stop.
        signal.signal(signal.SIGINT, self.on_interrupt)
        signal.signal(signal.SIGTERM, self.on_terminate)

    def on_interrupt(self, *_: object) -> None:
        """SIGINT."""
        raise Stopped

    def on_terminate(self, *_: object) -> None:
        """SIGTERM: it takes its child along and says nothing."""
        self.end_child()
        self.at_end()
        os._exit(143)

    def end_child(self) -> None:
        """Kill the command that runs, with all of its session."""
        if self.child:
            try:
                os.killpg(self.child, signal.SIGKILL)
            except ProcessLookupError:  # It has no session of its own yet, and so no descendants.
                os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            self.child = 0

    def pause(self, seconds: float, also: tuple[int, ...] = (), *, heed: bool = False) -> list[int]:
        """Wait, listening to stdin; give those of the others that have something to read.

        With ``heed`` it is over as soon as anything has come by stdin, its end too.
        """
        until = time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            watched = [*also, *([0] if self.listening and not self.eof else [])]
            ready = select.select(watched, [], [], min(left, 3600.0))[0]
            if 0 in ready:
                self.read_stdin()
            if left == 0.0 or (heed and 0 in ready) or any(fd in ready for fd in also):
                return [fd for fd in also if fd in ready]

    def read_stdin(self) -> None:
        """Read what has come; a request to stop stops."""
        data = os.read(0, 1 << 20)
        self.eof = not data
        *lines, self.inbox = (self.inbox + data).split(b"\n")
        for line in filter(None, lines):
            said = json.loads(line)
            if said.get("type") == "control_request":
                self.request_id = said["request_id"]
            elif said.get("type") == "user":
                content = said["message"]["content"]
                self.messages.append(content if isinstance(content, str) else "".join(b["text"] for b in content))
        if self.request_id:
            raise Stopped

    def run(self, command: str) -> tuple[int, str]:
        """Run a command in a session of its own; give its exit code and what it has printed."""
        reading, writing = os.pipe()
        self.child = os.fork()
        if not self.child:
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for have, want in ((nothing, 0), (writing, 1), (writing, 2)):
                os.dup2(have, want)
            os.execv("/bin/sh", ["sh", "-c", command])
        os.close(writing)
        text = b""
        while True:
            if self.pause(3600.0, also=(reading,)):
                data = os.read(reading, 1 << 16)
                text += data
                if not data:
                    break
        _, status = os.waitpid(self.child, 0)
        self.child = 0
        os.close(reading)
        return os.waitstatus_to_exitcode(status), text.decode(errors="replace").strip()

    def leave_daemon(self, path: str) -> None:
        """Leave a process that has nothing to do with us any more, and its id in a file."""
        first = os.fork()
        if first:
            os.waitpid(first, 0)
            return
        os.setsid()
        if second := os.fork():
            write_file(path, str(second))
            os._exit(0)
        for fd in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        os.execv("/bin/sleep", ["sleep", "600"])


def write_file(path: str, text: str) -> None:
    """Write a file, whole or not at all, in a folder that may be missing."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def steps_of(prompt: str, first: bool) -> list[str] | None:
    """The steps for a prompt, or None where nothing is said."""
    if first and (told := os.environ.get("FAKE_AGENT")):
        return [line.strip() for line in told.splitlines() if line.strip()]
    if name := os.environ.get("FAKE_AGENT_SCRIPT"):
        with open(name) as file:
            script: dict[str, list[str]] = json.load(file)
        for word, scripted in script.items():
            if word in prompt:
                return scripted
    steps: list[str] = []
    for line in prompt.splitlines():
        if line.startswith("@"):
            steps.append(line[1:])
        elif steps:
            break
    return steps or None


class Agent(ABC):
    """Does steps. What a dialect adds: how calls, tools and failures are told."""

    def __init__(self, world: World, model: str, folder: str) -> None:
        self.world, self.model = world, model
        self.folder = folder  # Of sessions.
        self.session_id = ""
        self.resumed = self.twice = self.linger = False
        self.usage: tuple[int, ...] = (1000, 100, 0, 0)
        self.spent: dict[str, list[int]] = {}  # Model -> tokens by kind, of this process.
        self.kept: dict[str, list[int]] = {}  # The same, of earlier processes of the session.
        self.calls = 0
        self.steps: list[str] = []
        self.done = 0
        self.prompt = ""

    def session_file(self) -> str:
        """Where the session is kept."""
        return os.path.join(self.folder, f"{self.session_id}.json")

    def save(self) -> None:
        """Keep the session."""
        write_file(self.session_file(), json.dumps({"steps": self.steps, "done": self.done, "spent": self.kept}))

    def load(self) -> bool:
        """Take up a session, or say that there is none."""
        try:
            with open(self.session_file()) as file:
                kept = json.load(file)
        except FileNotFoundError:
            return False
        self.steps, self.done, self.kept, self.resumed = kept["steps"], kept["done"], kept["spent"], True
        return True

    def take(self, prompt: str, first: bool = True) -> None:
        """Do the steps of a prompt, those of the session that are left before all."""
        self.prompt = prompt
        steps = steps_of(prompt, first)
        if steps not in (None, self.steps):
            self.steps, self.done = steps, 0
        elif self.done >= len(self.steps):
            self.steps, self.done = ["say Nothing is left to do." if self.resumed or not first else "say Done."], 0
        while self.done < len(self.steps):
            self.done += 1
            self.save()
            self.step(self.steps[self.done - 1])

    def step(self, step: str) -> None:
        """Do one step."""
        verb, _, rest = step.strip().partition(" ")
        getattr(self, f"do_{verb}")(rest)

    def count(self, model: str | None = None, usage: tuple[int, ...] | None = None) -> None:
        """A call has been made."""
        spent = self.spent.setdefault(model or self.model, [0, 0, 0, 0])
        for kind, tokens in enumerate(usage or self.usage):
            spent[kind] += tokens
        self.calls += 1

    def do_usage(self, rest: str) -> None:
        """Tokens of the calls that follow."""
        self.usage = tuple(int(n) for n in rest.split())

    def do_model(self, rest: str) -> None:
        """The model of the calls that follow."""
        self.model = ALIASES.get(rest, rest)

    def do_sleep(self, rest: str) -> None:
        """Nothing, for a while."""
        self.world.pause(float(rest))

    def do_daemon(self, rest: str) -> None:
        """Leave a process behind."""
        self.world.leave_daemon(rest)

    def do_garbage(self, _: str) -> None:
        """Lines that no client should print."""
        out(
            b'\xff\xfe not JSON\n\n[1]\n"text"\n{"type":"of the future","x":[1]}\n{"type":"assistant","message":7}\n{"cut":\n'
        )

    def do_exit(self, rest: str) -> None:
        """End without a result."""
        sys.stderr.write("fake agent: told to exit\n")
        sys.stderr.flush()
        os._exit(int(rest))

    def do_stderr(self, rest: str) -> None:
        """A line on stderr."""
        os.write(2, rest.encode() + b"\n")

    def do_prompt(self, rest: str) -> None:
        """Keep the prompt in a file."""
        write_file(rest, self.prompt)

    def do_environ(self, rest: str) -> None:
        """Keep the environment in a file."""
        write_file(rest, json.dumps(dict(os.environ)))

    def do_arguments(self, rest: str) -> None:
        """Keep the arguments in a file."""
        write_file(rest, json.dumps(sys.argv[1:]))

    def do_twice(self, _: str) -> None:
        """Two results at the end."""
        self.twice = True

    def do_linger(self, _: str) -> None:
        """Stay, after the result."""
        self.linger = True

    def do_once(self, rest: str) -> None:
        """A step that is done once, however many processes are told it."""
        path, _, step = rest.partition(" ")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        self.step(step)

    def do_resumed(self, rest: str) -> None:
        """A step in a session that is gone on with."""
        if self.resumed:
            self.step(rest)

    def do_fresh(self, rest: str) -> None:
        """A step in a new session."""
        if not self.resumed:
            self.step(rest)

    @abstractmethod
    def call(self, text: str, tool: str = "", given: Given = None, during: During = None) -> None:
        """One call of the model, and the tool that it asks for with what is given; ``during`` takes the call's time."""

    def do_say(self, rest: str) -> None:
        """A call without a tool."""
        self.call(rest)

    def do_long(self, rest: str) -> None:
        """A long answer."""
        self.call("y" * int(rest))

    def do_write(self, rest: str) -> None:
        """A file."""
        path, _, text = rest.partition(" ")
        self.call("I write.", "Write", {"file_path": path, "content": text + "\n"})

    def do_run(self, rest: str) -> None:
        """A command."""
        self.call("I run it.", "Bash", {"command": rest, "description": "a step"})

    def do_hang(self, _: str) -> None:
        """An answer that never ends."""
        self.call("I begin a long answer", during=lambda: self.world.pause(1e9))

    def do_die(self, rest: str) -> None:
        """End by a signal in mid-call."""
        self.call("I begin a long answer", during=lambda: os.kill(os.getpid(), int(rest)))

    def do_fail(self, rest: str) -> None:
        """A call that fails."""
        raise Failed(rest, 0)

    def do_limit(self, rest: str) -> None:
        """A call that meets the limit of a subscription."""
        raise Failed("limit", float(rest))
