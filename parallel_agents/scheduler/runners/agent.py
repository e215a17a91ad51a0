"""Runs command-line agents: tells them what to do, reads what they print as it comes, and says how it ended and what it cost.

Each is a supervised command (see ``shell``) with its output in files. One thread of ours reads these on: a result means
that the client may go home, silence that it hangs. In the attempt's folder lie, besides what its supervisor writes,
``prompt.md`` and ``role.md`` (what it was told), ``stdin`` (the same as it goes over the wire) and ``session.json``: the
client's id of the session, and what had been charged for it up to the attempt's end.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.agents import clients
from parallel_agents.scheduler.agents.bill import charges
from parallel_agents.scheduler.agents.finding import find_client, missing_hint
from parallel_agents.scheduler.agents.prices import price_of
from parallel_agents.scheduler.agents.reading import Reading, Reported
from parallel_agents.scheduler.agents.scrubbing import Scrub, scrub
from parallel_agents.scheduler.agents.tail import Tail
from parallel_agents.scheduler.agents.text_output import PARSERS
from parallel_agents.scheduler.agents.verdict import judge
from parallel_agents.scheduler.runners.folder import PROMPT as PROMPT
from parallel_agents.scheduler.runners.folder import STDERR, STDOUT, last_bytes, make_folder, read_object, write_whole
from parallel_agents.scheduler.runners.protocol import Ended, Errand, Launch, Talk
from parallel_agents.scheduler.runners.shell import ShellRunner
from parallel_agents.scheduler.runners.steps import wrap

LOOK_S: Final = 0.2  # Between two looks at what agents have printed.
ROLE: Final = "role.md"
STDIN: Final = "stdin"
SESSION: Final = "session.json"
INTERRUPT: Final = json.dumps(
    {"type": "control_request", "request_id": "stop", "request": {"subtype": "interrupt"}}
) + "\n"  # fmt: skip
RESULT, SILENCE = "result", "silence"  # Why we have stopped it ourselves.
_STDERR_BYTES: Final = 4000


@dataclass(slots=True)
class _Watched:
    """An agent at work."""

    launch: Launch
    errand: Errand
    tail: Tail
    reading: Reading = field(default_factory=Reading)
    sign_at: float = 0.0  # When something new was last read (monotonic).
    finished: bool = False  # It has given its result, and was told that this was all.
    cut: str = ""  # RESULT: it lived on after it; SILENCE.
    spent: int | None = 0  # Micro-dollars so far, as far as can be told.


class AgentRunner:
    """Executes the errands of agents. See ``protocol.Runner``; one for all clients.

    Args:
        on_end: called from a thread of ours after an end can be polled.
        redact: takes secrets out of what stays in files, and out of prompts.
        doorbell_dir, doorbell_prefix: see ``ShellRunner``.
    """

    name = "agent"

    def __init__(
        self,
        on_end: Callable[[], None],
        *,
        redact: Scrub = str,
        doorbell_dir: Path | str | None = None,
        doorbell_prefix: str | None = None,
    ) -> None:
        self._on_end = on_end
        self._redact = redact
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._watched: dict[str, _Watched] = {}
        self._ends: deque[Ended] = deque()
        self._closed = False
        self._shell = ShellRunner(self._news.set, doorbell_dir=doorbell_dir, doorbell_prefix=doorbell_prefix)
        self._thread = threading.Thread(target=self._watch, name="agents", daemon=True)
        self._thread.start()

    def start(self, launch: Launch) -> None:
        """Tell a client what to do. An id that is at work already is left alone."""
        errand = launch.errand
        assert errand is not None
        try:
            ready = self._ready(launch, errand)
        except (OSError, ValueError) as error:
            self._end(_refused(launch.attempt_id, f"cannot be started: {error}", retryable=isinstance(error, OSError)))
            return
        if isinstance(ready, Ended):
            self._end(ready)
        elif self._take(launch, errand):
            self._shell.start(ready)

    def adopt(self, launches: Iterable[Launch]) -> None:
        """Take over by their files; what they have printed is read from its beginning."""
        taken = [launch for launch in launches if launch.errand is not None and self._take(launch, launch.errand)]
        self._shell.adopt(taken)
        self._news.set()

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """Ask it to stop, then SIGTERM, then SIGKILL, for the client and everything that descends from it."""
        self._shell.stop(attempt_id, timed_out=timed_out, grace_s=grace_s)

    def poll(self) -> list[Ended]:
        """The ends since the last call."""
        ends = []
        with contextlib.suppress(IndexError):
            while True:
                ends.append(self._ends.popleft())
        return ends

    def hint(self) -> None:
        """Something may have happened to adopted attempts: look now."""
        self._shell.hint()

    def live(self) -> dict[str, int]:
        """Attempt id to the pid of its client, for those that run now."""
        return self._shell.live()

    def spending(self) -> dict[str, int]:
        """Attempt id to what it has spent so far in micro-dollars, for those where that can be told."""
        with self._lock:
            watched = list(self._watched.items())
        return {attempt_id: one.spent for attempt_id, one in watched if one.spent is not None}

    def close(self) -> None:
        """Let go. Agents that work go on to their end, and can be taken over."""
        self._closed = True
        self._news.set()
        self._thread.join(5.0)
        self._shell.close()

    def _take(self, launch: Launch, errand: Errand) -> bool:
        """Watch an attempt from now on. False where it is watched already."""
        with self._lock:
            if launch.attempt_id in self._watched:
                return False
            tail = Tail(f"{launch.folder}/{STDOUT}")
            self._watched[launch.attempt_id] = _Watched(launch, errand, tail, sign_at=time.monotonic())
        self._news.set()
        return True

    def _ready(self, launch: Launch, errand: Errand) -> Launch | Ended:
        """The command that starts the client, with all that it reads in place; or why there is none."""
        client, folder = errand.client, os.path.abspath(launch.folder)
        program = find_client(client, launch.env.get("PATH"))
        if program is None:
            said = f"no such command: {client.command[0]!r}; {missing_hint(client)}"
            return _refused(launch.attempt_id, said, retryable=False)
        make_folder(folder)
        before = read_object(errand.resumes_folder, SESSION) if errand.resumes_folder and client.resumable else None
        session = None if before is None else before.get("session")
        prompt = self._redact(clients.told(client, errand, resumes=session is not None))
        write_whole(folder, PROMPT, prompt.encode())
        write_whole(folder, ROLE, errand.role_prompt.encode())
        start = {"session": session or errand.session_id or None, "before": (before or {}).get("reported")}
        write_whole(folder, SESSION, json.dumps(start).encode())
        words = clients.words(
            client,
            errand,
            session=session,
            prompt=prompt,
            prompt_file=f"{folder}/{PROMPT}",
            role_file=f"{folder}/{ROLE}",
        )
        too_long = max(words, key=lambda word: len(word.encode()))
        if len(too_long.encode()) >= clients.LIMIT_OF_ARGUMENT:
            said = f"{client.name} takes its prompt as an argument, and {len(prompt):,} characters are too many for one"
            return _refused(launch.attempt_id, said, retryable=False)
        words = wrap(
            (program, *words[1:]), setup=errand.setup, teardown=errand.teardown, timeout_s=errand.setup_timeout_s,
            gates=(), folder=folder,
        )  # fmt: skip
        ready = replace(launch, command=words, errand=None)
        if client.prompt == "talk":
            message = {"type": "user", "message": {"role": "user", "content": prompt}}
            write_whole(folder, STDIN, json.dumps(message).encode() + b"\n")
            return replace(ready, talk=Talk(f"{folder}/{STDIN}", INTERRUPT))
        return replace(ready, stdin=f"{folder}/{PROMPT}") if client.prompt == "stdin" else ready

    def _watch(self) -> None:
        while not self._closed:
            self._news.wait(LOOK_S if self._watched else None)
            self._news.clear()
            with self._lock:
                watched = list(self._watched.values())
            for one in watched:
                try:
                    self._look(one)
                except Exception:  # The other agents need us.
                    trouble.report_exception("what {} printed could not be read", one.launch.attempt_id)
            for ended in self._shell.poll():
                self._end(self._closing(ended))

    def _look(self, one: _Watched) -> None:
        """Read on, and see whether it is done or hangs."""
        now = time.monotonic()
        before = one.tail.position
        self._read(one, one.tail.read())
        if one.tail.position != before:
            one.sign_at = now
            one.spent = _so_far(one)
        attempt_id, errand = one.launch.attempt_id, one.errand
        if one.reading.result is not None and not one.finished:
            one.finished = True
            self._shell.finish(attempt_id)
        if one.cut:
            return
        if one.finished and now - one.sign_at > errand.grace_s:
            one.cut = RESULT
        elif not one.finished and 0 < errand.silence_s < now - one.sign_at and errand.client.streams:
            one.cut = SILENCE
        if one.cut:
            self._shell.stop(attempt_id)

    @staticmethod
    def _read(one: _Watched, lines: Iterable[bytes]) -> None:
        parser = PARSERS[one.errand.client.output]
        for line in lines:
            parser.feed(one.reading, line)

    def _closing(self, ended: Ended) -> Ended:
        """What the end of a client's process means."""
        with self._lock:
            one = self._watched.pop(ended.attempt_id, None)
        if one is None or ended.outcome == "not_started" or not ended.began:
            return ended
        try:
            return self._judged(one, ended)
        except Exception as error:  # A result is never lost, whatever its client has printed.
            trouble.report_exception("what {} printed could not be understood", ended.attempt_id)
            return replace(
                ended, error=ended.error or f"its output cannot be understood: {error}", kind="infrastructure"
            )

    def _judged(self, one: _Watched, ended: Ended) -> Ended:
        folder, client, reading = os.path.abspath(one.launch.folder), one.errand.client, one.reading
        self._read(one, one.tail.finish())
        stderr = last_bytes(f"{folder}/{STDERR}", _STDERR_BYTES)
        verdict = judge(
            reading, client.name, ended.outcome, ended.exit_code, stderr, time.time_ns() // 1000,
            stopped_for_grace=one.cut == RESULT,
        )  # fmt: skip
        known = read_object(folder, SESSION) or {}
        before = None if known.get("before") is None else Reported.from_json(known["before"])
        complete = ended.outcome not in ("lost", "not_started") and (reading.result is not None or ended.exit_code == 0)
        paid = charges(reading, before, complete, price_of, model=one.errand.model)
        session, told = reading.session_id or known.get("session"), reading.reported or before
        with contextlib.suppress(OSError):  # The next attempt begins anew, then.
            end = {**known, "session": session, "reported": None if told is None else told.as_json()}
            write_whole(folder, SESSION, json.dumps(end).encode())
        scrub(self._redact, folder, (STDOUT, STDERR, STDIN), _sessions(one.launch, client.config_variable, session))
        ended = replace(
            ended, output=verdict.output, charges=paid, got_through=verdict.got_through,
            resumable=client.resumable and session is not None and verdict.got_through and not verdict.resume_lost,
        )  # fmt: skip
        if one.cut == SILENCE:
            said = f"it gave no sign for {one.errand.silence_s:g} s and was stopped"
            return replace(ended, outcome="exited", error=said, kind="infrastructure")
        if ended.outcome in ("stopped", "timed_out") and one.cut != RESULT:
            return ended
        provider = (client.provider or client.name) if verdict.provider or verdict.got_through else ""
        outcome = "exited" if ended.outcome == "stopped" else ended.outcome
        error = ended.error if ended.outcome == "lost" else verdict.error
        return replace(
            ended, outcome=outcome, error=error, kind=verdict.kind, retryable=verdict.retryable and ended.retryable,
            provider=provider, until_us=verdict.until_us,
        )  # fmt: skip

    def _end(self, ended: Ended) -> None:
        self._ends.append(ended)
        self._on_end()


def _so_far(one: _Watched) -> int | None:
    """What an agent at work has spent, by its messages; None where nobody knows."""
    paid = [charge.usd_micros for charge in charges(one.reading, None, False, price_of, model=one.errand.model)]
    return None if None in paid else sum(usd for usd in paid if usd is not None)


def _sessions(launch: Launch, variable: str, session: str | None) -> list[Path]:
    """What a client of ours has written down of a session in its own folder, where that is ours too."""
    folder = launch.env.get(variable) if variable else None
    if folder is None or session is None or clients.CLIENTS not in Path(folder).parts:
        return []
    return [path for path in Path(folder).rglob("*") if session in str(path) and path.is_file()]


def _refused(attempt_id: str, error: str, *, retryable: bool) -> Ended:
    now_us = time.time_ns() // 1000
    kind = "infrastructure" if retryable else "configuration"
    return Ended(
        attempt_id, "not_started", error=error, retryable=retryable, started_at_us=now_us, ended_at_us=now_us, kind=kind
    )


def written(folder: str, name: str) -> str | None:
    """What an agent was told, as it lies in its attempt's folder: ``PROMPT`` or ``ROLE``."""
    try:
        return Path(folder, name).read_text("utf-8", "replace")
    except OSError:
        return None
