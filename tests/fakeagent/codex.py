"""``codex exec --json``: its arguments and its lines."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from fakeagent.failures import FAILURES
from fakeagent.steps import Agent, During, Failed, Given, Stopped, World, out, uuid, write_file

FLAGS = {"--json", "--skip-git-repo-check", "--full-auto", "--ephemeral", "--color"}
OPTIONS = {
    "-c",
    "--config",
    "-m",
    "--model",
    "-s",
    "--sandbox",
    "-C",
    "--cd",
    "-p",
    "--profile",
    "-a",
    "--output-schema",
}


def run(arguments: list[str]) -> int:
    """Do as codex does; give the exit code."""
    given: dict[str, str] = {}
    words: list[str] = []
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        if name == "--version":
            out(b"codex-cli 0.171.0\n")
            return 0
        if name in OPTIONS and rest:
            given[name] = rest.pop(0)
        elif name in FLAGS:
            given[name] = ""
        elif name.startswith("-") and name != "-":
            sys.stderr.write(f"error: unexpected argument '{name}' found\n")
            return 2
        else:
            words.append(name)
    if words[:1] != ["exec"]:
        sys.stderr.write("error: only `codex exec` is known here\n")
        return 2
    resumed = words[2] if words[1:2] == ["resume"] and len(words) > 2 else ""
    return Codex(given.get("-m") or given.get("--model") or "gpt-5.5").run(resumed, words[-1])


class Codex(Agent):
    """One process of ``codex exec``. It tells no model and no dollars, and tokens only at its end."""

    def __init__(self, model: str) -> None:
        home = os.environ.get("CODEX_HOME") or os.path.join(os.environ.get("HOME", "."), ".codex")
        super().__init__(World(), model, os.path.join(home, "sessions"))
        self.items = 0

    def run(self, resumed: str, prompt: str) -> int:
        """From the prompt to the exit code."""
        self.session_id = resumed or uuid()
        if resumed and not self.load():
            sys.stderr.write(f"Error: no rollout found for thread id {resumed}\n")
            return 1
        with open(0, "rb", closefd=False) as stdin:
            prompt = stdin.read().decode() if prompt == "-" else prompt
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.tell("thread.started", thread_id=self.session_id)
        self.tell("turn.started")
        try:
            self.take(prompt)
        except Failed as failure:
            return self.fail(*failure.args)
        except Stopped:
            self.world.end_child()
            return 1
        tokens = [sum(kinds) for kinds in zip(*self.kept.values(), strict=True)] or [0, 0, 0, 0]
        usage = {"input_tokens": tokens[0] + tokens[2], "cached_input_tokens": tokens[2], "cache_write_input_tokens": 0}
        self.tell("turn.completed", usage=usage | {"output_tokens": tokens[1], "reasoning_output_tokens": 0})
        return 0

    def tell(self, kind: str, **more: Any) -> None:
        """Print a line."""
        out(json.dumps({"type": kind, **more}, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")

    def item(self, kind: str, state: str = "completed", **more: Any) -> None:
        """Print a line of an item; a new one gets the next number."""
        self.items += state == "completed"
        number = self.items - int(state == "completed")
        self.tell(f"item.{state}", item={"id": f"item_{number}", "type": kind, **more})

    def count(self, model: str | None = None, usage: tuple[int, ...] | None = None) -> None:
        """A call has been made. The session keeps it at once: a killed process loses the call in flight only."""
        super().count(model, usage)
        spent = self.kept.setdefault(model or self.model, [0, 0, 0, 0])
        for kind, tokens in enumerate(usage or self.usage):
            spent[kind] += tokens
        self.save()

    def call(self, text: str, tool: str = "", given: Given = None, during: During = None) -> None:
        """One call of the model, and the tool that it asks for."""
        if during:
            during()
        self.world.pause(0)
        self.count()
        self.item("agent_message", text=text)
        if tool == "Write" and given:
            changes = [{"path": os.path.abspath(given["file_path"]), "kind": "add"}]
            self.item("file_change", "started", changes=changes, status="in_progress")
            write_file(given["file_path"], given["content"])
            self.item("file_change", changes=changes, status="completed")
        elif tool == "Bash" and given:
            command: dict[str, Any] = {"command": f"/bin/bash -lc {given['command']!r}"}
            before: dict[str, Any] = {"aggregated_output": "", "exit_code": None, "status": "in_progress"}
            self.item("command_execution", "started", **command, **before)
            code, printed = self.world.run(given["command"])
            after: dict[str, Any] = {
                "aggregated_output": f"{printed}\n",
                "exit_code": code,
                "status": "failed" if code else "completed",
            }
            self.item("command_execution", **command, **after)

    def do_stream(self, rest: str) -> None:
        """An answer that takes its time; nothing is printed meanwhile."""
        self.call("Said it all.", during=lambda: self.world.pause(float(rest)))

    def do_retry(self, rest: str) -> None:
        """A call that failed and is tried again."""
        self.tell("error", message=f"Reconnecting... 1/5 ({FAILURES[rest].codex.format(model=self.model)})")

    def fail(self, name: str, seconds: float) -> int:
        """Tell of a call that failed; give the exit code."""
        at = time.localtime(time.time() + seconds)
        noon = "PM" if at.tm_hour >= 12 else "AM"
        clock = f"{at.tm_hour % 12 or 12}:{at.tm_min:02d} {noon}"
        if at[:3] != time.localtime()[:3]:
            ending = "th" if 10 < at.tm_mday < 20 else {1: "st", 2: "nd", 3: "rd"}.get(at.tm_mday % 10, "th")
            clock = f"{time.strftime('%b', at)} {at.tm_mday}{ending}, {at.tm_year} {clock}"
        message = FAILURES[name].codex.format(model=self.model, codex_time=clock)
        self.tell("error", message=message)
        self.tell("turn.failed", error={"message": message})
        return 1
