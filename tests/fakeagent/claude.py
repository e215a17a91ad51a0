"""``claude -p``: its arguments, its lines, its result."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from fakeagent.failures import FAILURES
from fakeagent.lines import (
    KINDS,
    NO_AGENTS,
    PRICES,
    clock,
    cost_of,
    init_line,
    model_usage,
    no_session_line,
    now,
    synthetic_usage,
    usage_of,
)
from fakeagent.steps import ALIASES, BEGUN_S, Agent, During, Failed, Given, Stopped, World, out, uuid, write_file

FLAGS = {"-p", "--print", "--verbose", "--include-partial-messages", "--strict-mcp-config", "--bare"}
FLAGS |= {"--fork-session", "--forward-subagent-text", "--no-session-persistence"}
OPTIONS = {"--input-format", "--output-format", "--model", "--session-id", "--resume", "--permission-mode"}
OPTIONS |= {"--allowedTools", "--disallowedTools", "--fallback-model", "--max-budget-usd", "--max-turns", "--effort"}
OPTIONS |= {"--system-prompt", "--append-system-prompt", "--system-prompt-file", "--append-system-prompt-file"}
OPTIONS |= {"--settings", "--setting-sources", "--agent", "--agents", "--add-dir", "--json-schema", "--mcp-config"}
ABORTED = ["[ede_diagnostic] result_type=user last_content_type=n/a stop_reason=null"]
Act = Callable[[dict[str, Any]], tuple[Any, Any]]  # Uses a tool with what is given: its content, its result.


class Enough(Exception):
    """A limit of its own is reached: subtype and terminal reason of the result, and the sentence."""


def run(arguments: list[str]) -> int:
    """Do as claude does; give the exit code."""
    given = _read(arguments)
    if isinstance(given, str):
        sys.stderr.write(f"{given}\n")
        return 1
    return Claude(given).run()


def _read(arguments: list[str]) -> dict[str, str] | str:
    """The options by name, or what is wrong with them."""
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        if name in FLAGS:
            given[name] = ""
        elif name in OPTIONS and rest:
            given[name] = rest.pop(0)
            while name in ("--allowedTools", "--disallowedTools", "--add-dir") and rest and rest[0][:1] != "-":
                given[name] += f",{rest.pop(0)}"
        elif name == "--version":
            out(b"2.1.332 (Claude Code)\n")
            os._exit(0)
        elif name.startswith("-"):
            return f"error: unknown option '{name}'"
        else:
            given["prompt"] = name
    if given.get("--output-format") == "stream-json" and "--verbose" not in given:
        return "Error: When using --print, --output-format=stream-json requires --verbose"
    return given


class Claude(Agent):
    """One process of ``claude -p``."""

    def __init__(self, given: dict[str, str]) -> None:
        model = given.get("--model", "opus")
        home = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.join(os.environ.get("HOME", "."), ".claude")
        folder = os.path.join(home, "projects")
        super().__init__(World(), ALIASES.get(model, model), folder)
        self.given = given
        self.format = given.get("--output-format", "text")
        self.partial = "--include-partial-messages" in given
        self.world.at_end = self.close_session
        self.world.listening = given.get("--input-format") == "stream-json"
        self.denials: list[dict[str, Any]] = []
        self.told: dict[str, list[int]] = {}  # What the results so far have told, by model.
        self.begun: list[str] = []
        self.unkept: tuple[int, ...] = ()
        self.turns = self.results = 0
        self.text = ""
        self.in_tool = False

    def run(self) -> int:
        """From the first prompt to the exit code."""
        if wrong := self.open_session():
            return wrong
        if self.model not in PRICES:
            sys.stderr.write(f'[claude-code:unrecognized_model] {{"model":"{self.model}","query_source":"sdk"}}\n')
            sys.stderr.flush()
        code = 0
        first = True
        try:
            while (prompt := self.next_prompt(first)) is not None:
                code = self.answer(prompt, first)
                first = False
        except Stopped:  # While it waits for more.
            code = 1 if self.world.request_id else 0
        if self.linger:
            self.world.listening = False
            with contextlib.suppress(Stopped):
                self.world.pause(1e9)
        self.close_session()
        return code

    def open_session(self) -> int:
        """Begin or go on with the session that was asked for; an exit code where that cannot be."""
        if resumed := self.given.get("--resume"):
            self.session_id = resumed
            if not self.load():
                sentence = f"No conversation found with session ID: {resumed}"
                sys.stderr.write(f"{sentence}\n")
                self.tell(no_session_line(resumed, sentence))
                return 1
            if "--fork-session" in self.given:
                self.session_id = uuid()
        else:
            self.session_id = self.given.get("--session-id") or uuid()
            if os.path.exists(self.session_file()):
                sys.stderr.write(f"Error: Session ID {self.session_id} is already in use.\n")
                return 1
        return 0

    def next_prompt(self, first: bool) -> str | None:
        """What a person says next; None after the last word."""
        if not self.world.listening:
            if not first:
                return None
            with open(0, "rb", closefd=False) as stdin:
                return self.given.get("prompt") or stdin.read().decode()
        while not self.world.messages and not self.world.eof:
            self.world.pause(60, heed=True)
        return self.world.messages.pop(0) if self.world.messages else None

    def answer(self, prompt: str, first: bool) -> int:
        """Do what a prompt says and tell the result; give the exit code."""
        self.begun, self.turns, self.text = [], 0, ""
        self.tell(init_line(self.session_id, self.model, self.given.get("--permission-mode", "default")))
        try:
            self.take(prompt, first)
        except Failed as failure:
            return self.fail(*failure.args)
        except Enough as enough:
            subtype, reason, sentence = enough.args
            return self.result(subtype, reason, True, {"errors": [sentence]})
        except Stopped:
            return self.stop()
        self.result("success", "completed", False, self.good_result())
        if self.twice:
            self.result("success", "completed", False, self.good_result())
        return 0

    def tell(self, line: dict[str, Any]) -> None:
        """Print a line, or what the other formats print of it."""
        if self.format == "text":
            out(f"{line.get('result') or ''}\n".encode() if line["type"] == "result" else b"")
        elif self.format == "stream-json" or line["type"] == "result":
            out(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")

    def system(self, subtype: str, **more: Any) -> None:
        """A line of type ``system``."""
        self.tell({"type": "system", "subtype": subtype, **more, "session_id": self.session_id, "uuid": uuid()})

    def event(self, message_id: str, kind: str, *, last: dict[str, Any] | None = None, **event: Any) -> None:
        """A line of type ``stream_event``."""
        if self.partial:
            line = {"type": "stream_event", "event": {"type": kind, **event}, "session_id": self.session_id}
            more = {"ttft_ms": 5, "thinking_display": "updates"} if kind == "message_start" else {}
            self.tell(
                line
                | {"parent_tool_use_id": None, "uuid": uuid()}
                | more
                | {"api_message_id": message_id}
                | (last or {})
            )

    def message(self, role: str, message: dict[str, Any], parent: dict[str, Any] | None = None, **more: Any) -> None:
        """A line of type ``assistant`` or ``user``."""
        line = {"type": role, "message": message, "parent_tool_use_id": None, "session_id": self.session_id}
        self.tell(line | {"uuid": uuid(), "timestamp": now()} | (parent or {}) | more)

    def said(self, message_id: str, model: str, block: dict[str, Any], usage: tuple[int, ...], **more: Any) -> None:
        """A block of the model's answer; the output tokens are only the start value."""
        told = {kind: 1 if kind == "output_tokens" else n for kind, n in zip(KINDS, usage, strict=True)}
        message: dict[str, Any] = {"id": message_id, "type": "message", "role": "assistant", "model": model}
        message |= {
            "content": [block],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": told,
            "context_management": None,
        }
        self.message("assistant", message, **more)

    def call(
        self, text: str, tool: str = "", given: Given = None, during: During = None, act: Act | None = None
    ) -> None:
        """One call of the model, and the tool that it asks for."""
        message_id = f"msg_{uuid()}"
        self.begun.append(message_id)
        self.turns += 1
        self.system("status", status="requesting")
        start = {kind: 1 if kind == "output_tokens" else n for kind, n in zip(KINDS, self.usage, strict=True)}
        message = {"id": message_id, "type": "message", "role": "assistant", "model": self.model, "content": []}
        self.event(
            message_id, "message_start", message=message | {"stop_reason": None, "stop_sequence": None, "usage": start}
        )
        self.event(message_id, "content_block_start", index=0, content_block={"type": "text", "text": ""})
        self.event(message_id, "content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        try:
            if during:
                during()
            else:
                self.world.pause(0)
        except Stopped:
            self.abort_call(message_id, text)
            raise
        self.said(message_id, self.model, {"type": "text", "text": text}, self.usage)
        self.event(message_id, "content_block_stop", index=0)
        block = {"type": "tool_use", "id": f"toolu_{uuid()}", "name": tool, "input": given}
        if tool:
            self.event(message_id, "content_block_start", index=1, content_block=block | {"input": {}})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(given)}
            self.event(message_id, "content_block_delta", index=1, delta=delta)
            self.said(message_id, self.model, block, self.usage)
            self.event(message_id, "content_block_stop", index=1)
        reason = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
        self.event(message_id, "message_delta", delta=reason, usage={"output_tokens": self.usage[1]})
        self.event(message_id, "message_stop")
        self.count()
        self.text = text
        self.check_budget()
        if tool:
            self.use(str(block["id"]), act or TOOLS[tool].__get__(self), given or {})

    def abort_call(self, message_id: str, text: str) -> None:
        """What is printed of a call that is stopped; its output is a guess."""
        guess = (self.usage[0], 2, *self.usage[2:])
        self.count(usage=guess)
        if not self.world.request_id:  # After SIGINT the session keeps nothing of it, although the result tells it.
            self.unkept = guess
        if self.world.request_id:
            response = {"subtype": "success", "request_id": self.world.request_id, "response": {"still_queued": []}}
            self.tell({"type": "control_response", "response": response})
        self.said(message_id, self.model, {"type": "text", "text": text}, self.usage, aborted=True)
        self.message("user", {"role": "user", "content": [{"type": "text", "text": "[Request interrupted by user]"}]})
        self.world.request_id = self.world.request_id and "told"

    def use(self, tool_id: str, act: Act, given: dict[str, Any]) -> None:
        """Use a tool and tell what came of it."""
        self.in_tool = True
        content, result = act(given)
        self.in_tool = False
        block = {"tool_use_id": tool_id, "type": "tool_result", "content": content}
        if isinstance(result, str) or "stdout" in result:
            block["is_error"] = isinstance(result, str)
        meta = [
            {"id": tool_id, "permission_decision": {"decision": "accept", "source": "config", "reason_type": "mode"}}
        ]
        more: dict[str, Any] = {} if isinstance(result, str) else {"tool_result_meta": meta}
        self.message("user", {"role": "user", "content": [block]}, tool_use_result=result, **more)
        limit = int(self.given.get("--max-turns", 0))
        if limit and self.turns >= limit:
            self.turns += 1
            raise Enough("error_max_turns", "max_turns", f"Reached maximum number of turns ({limit})")

    def check_budget(self) -> None:
        """Stop after the call that has reached the limit."""
        limit = float(self.given.get("--max-budget-usd", "inf"))
        if sum(cost_of(model, tokens) for model, tokens in self.spent.items()) >= limit:
            raise Enough("error_max_budget_usd", "budget_exhausted", f"Reached maximum budget (${limit:g})")

    def tool_write(self, given: dict[str, Any]) -> tuple[Any, Any]:
        """Write a file."""
        path = given["file_path"]
        write_file(path, given["content"])
        result = {"type": "create", "filePath": path, "content": given["content"], "structuredPatch": []}
        return f"File created successfully at: {path}", result | {"originalFile": None, "userModified": False}

    def tool_bash(self, given: dict[str, Any]) -> tuple[Any, Any]:
        """Run a command."""
        code, text = self.world.run(given["command"])
        if code:
            return f"Exit code {code}\n\n{text}", f"Error: Exit code {code}\n\n{text}"
        quiet = {"stderr": "", "interrupted": False, "isImage": False, "noOutputExpected": False}
        return text or "(Bash completed with no output)", {"stdout": text, **quiet}

    def do_stream(self, rest: str) -> None:
        """Words, one after the other, in one call."""
        until = time.monotonic() + float(rest)

        def words() -> None:
            while time.monotonic() < until:
                delta = {"type": "text_delta", "text": " and so on"}
                self.event(self.begun[-1], "content_block_delta", index=0, delta=delta)
                self.world.pause(0.02)

        self.call("I begin", during=words)

    def do_deny(self, rest: str) -> None:
        """A tool that nobody allowed."""
        given = {"command": "something forbidden", "description": "a step"}

        def refuse(_: dict[str, Any]) -> tuple[Any, Any]:
            sentence = "This command requires approval"
            why = {"decision_reason_type": "other", "decision_reason": sentence, "message": sentence}
            self.system("permission_denied", tool_name=rest, tool_use_id=(tool_id := f"toolu_{uuid()}"), **why)
            self.denials.append({"tool_name": rest, "tool_use_id": tool_id, "tool_input": given})
            return sentence, f"Error: {sentence}"

        self.call("I try.", rest, given, act=refuse)

    def do_subagent(self, rest: str) -> None:
        """One call of a subagent: its usage is told by the result only."""
        model, _, text = rest.partition(" ")
        model = ALIASES.get(model, model)
        given = {"description": "look", "prompt": text, "subagent_type": "general-purpose"}

        def ask(_: dict[str, Any]) -> tuple[Any, Any]:
            agent = {"agent_id": uuid()[:8], "subagent_type": "general-purpose", "task_description": "look"}
            parent = {"parent_tool_use_id": f"toolu_{uuid()}"}
            self.said(f"msg_{uuid()}", model, {"type": "text", "text": text}, self.usage, parent=parent, **agent)
            self.count(model)
            return [{"type": "text", "text": text}], {"status": "completed", "content": text}

        self.call("I ask one.", "Agent", given, act=ask)

    def do_retry(self, rest: str) -> None:
        """A call that failed and is tried again."""
        failure = FAILURES[rest]
        retry = {"attempt": 1, "max_retries": 10, "retry_delay_ms": 500, "error_status": failure.status}
        self.system("api_retry", **retry, error=failure.error)

    def fail(self, name: str, seconds: float) -> int:
        """Tell of a call that failed; give the exit code."""
        failure = FAILURES[name]
        resets_s = int(time.time() + seconds)
        text = failure.claude.format(model=self.model, claude_time=clock(resets_s))
        more: dict[str, Any] = {"api_error_status": failure.status} if failure.status else {}
        code = {"limit": "usage_limit_reached", "connection": "connection_failed"}.get(name)
        api_error: dict[str, Any] = {"api_error": code} if code else {}
        kind = {"api_error_type": failure.kind} if failure.kind else {}
        if name == "limit":
            info = {"status": "rejected", "resetsAt": resets_s, "rateLimitType": "five_hour", "isUsingOverage": False}
            self.tell(
                {"type": "rate_limit_event", "rate_limit_info": info, "uuid": uuid(), "session_id": self.session_id}
            )
            api_error["api_error_params"] = {"rate_limit_info": info}
        if failure.status:
            more["request_id"] = f"req_{uuid()}"
        message: dict[str, Any] = {"id": uuid(), "model": "<synthetic>", "role": "assistant", "type": "message"}
        message |= {"stop_reason": "stop_sequence", "stop_sequence": "", "usage": synthetic_usage()}
        message |= dict.fromkeys(("diagnostics", "container", "stop_details", "context_management"))
        message["content"] = [{"type": "text", "text": text}]
        more |= {"error": failure.error, "is_api_error_message": True} | api_error | kind
        self.message("assistant", message, **more)
        api_error.pop("api_error_params", None)
        result = {"api_error_status": failure.status, "result": text} | api_error | kind
        return self.result("success", "api_error", True, result)

    def stop(self) -> int:
        """Tell that it was stopped; give the exit code."""
        self.world.end_child()
        asked = self.world.request_id
        if asked and asked != "told":
            response = {"subtype": "success", "request_id": asked, "response": {"still_queued": []}}
            self.tell({"type": "control_response", "response": response})
        reason = "aborted_tools" if self.in_tool else "aborted_streaming"
        self.result("error_during_execution", reason, True, {"errors": ABORTED})
        self.world.request_id = None
        if asked:
            with contextlib.suppress(Stopped):
                while not self.world.eof:
                    self.world.pause(60, heed=True)
        for kind, tokens in enumerate(self.unkept):
            self.spent[self.model][kind] -= tokens
        self.close_session()
        os._exit(1 if asked else 0)

    def totals(self) -> dict[str, list[int]]:
        """Tokens by model of the session: of the processes before, and of this one."""
        totals = {model: list(tokens) for model, tokens in self.kept.items()}
        for model, tokens in self.spent.items():
            totals[model] = [n + t for n, t in zip(totals.get(model, [0, 0, 0, 0]), tokens, strict=True)]
        return totals

    def close_session(self) -> None:
        """Keep what the session has cost. A process that is killed, even after its result, keeps nothing."""
        self.kept, self.spent = self.totals(), {}
        self.save()

    def good_result(self) -> dict[str, Any]:
        """What only a good result has."""
        ms = dict.fromkeys(("ttft_ms", "ttft_stream_ms", "time_to_request_ms", "first_content_frame_ms"), 5)
        return {"api_error_status": None, "result": self.text, **ms}

    def result(self, subtype: str, reason: str, is_error: bool, more: dict[str, Any]) -> int:
        """Print the result line; give the exit code."""
        since = {}
        for model, tokens in self.spent.items():
            fresh = [n - t for n, t in zip(tokens, self.told.get(model, [0, 0, 0, 0]), strict=True)]
            if any(fresh):
                since[model] = fresh
            self.told[model] = list(tokens)
        totals = self.totals()
        main = since.get(self.model, [0, 0, 0, 0])
        self.tell(
            {
                "type": "result",
                "subtype": subtype,
                "is_error": is_error,
                "terminal_reason": reason,
                "session_id": self.session_id,
                "num_turns": max(1, self.turns),
                "duration_ms": int((time.monotonic() - BEGUN_S) * 1000),
                "duration_api_ms": 5,
                "stop_reason": "end_turn",
                "total_cost_usd": sum(cost_of(model, tokens) for model, tokens in totals.items()),
                "usage": usage_of(main),
                "modelUsage": {model: model_usage(model, tokens) for model, tokens in totals.items()},
                "model_usage_since_last_result": {model: model_usage(model, tokens) for model, tokens in since.items()},
                "permission_denials": self.denials,
                "fast_mode_state": "off",
                "fast_mode_disabled_reason": "sdk_opt_in_required",
                "subagent_stats": NO_AGENTS,
                "safety_stops": 0,
                "uuid": uuid(),
                "begun_message_ids": self.begun,
                "queued_turn_count": len(self.world.messages),
                "result_index": self.results,
                **more,
            }
        )
        self.results += 1
        return int(is_error)


TOOLS: dict[str, Any] = {"Write": Claude.tool_write, "Bash": Claude.tool_bash}
