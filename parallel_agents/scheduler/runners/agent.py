"""Runs command-line agents: tells them what to do, reads what they print as it comes, and says how it ended and what it cost.

Each is a supervised command (see ``shell``) with its output in files. One thread of ours reads these on: a result means
that the client may go home, silence that it hangs. In the attempt's folder lie, besides what its supervisor writes,
``prompt.md`` and ``role.md`` (what it was told), ``stdin`` (the same as it goes over the wire) and ``session.json``: the
client's id of the session, what had been charged for it up to the attempt's end, why we have stopped it ourselves, and
the folder that it has for temporary files.

That folder is not below the attempt's: paths of sockets have 108 bytes at most, and what an agent tries out must not find
the project's repository, workspace or configuration in a folder above.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from parallel_agents.eventstore.crash_points import reach
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.agents import clients
from parallel_agents.scheduler.agents.bill import charges
from parallel_agents.scheduler.agents.finding import find_client, missing_hint
from parallel_agents.scheduler.agents.prices import price_of
from parallel_agents.scheduler.agents.reading import Reading, Reported
from parallel_agents.scheduler.agents.scrubbing import Scrub, scrub, scrub_database
from parallel_agents.scheduler.agents.tail import Tail
from parallel_agents.scheduler.agents.text_output import PARSERS
from parallel_agents.scheduler.agents.verdict import Verdict, judge
from parallel_agents.scheduler.awake import AwakeClock
from parallel_agents.scheduler.runners.folder import (
    EXIT,
    PROCESS,
    SESSION,
    STDERR,
    STDOUT,
    last_bytes,
    make_folder,
    read_object,
    write_whole,
)
from parallel_agents.scheduler.runners.folder import PROMPT as PROMPT
from parallel_agents.scheduler.runners.limits import MEMORY, OUTPUT
from parallel_agents.scheduler.runners.protocol import Ended, Errand, Fault, Launch, Outcome, Talk
from parallel_agents.scheduler.runners.shell import ShellRunner
from parallel_agents.scheduler.runners.steps import STEPS, wrap

LOOK_S: Final = 0.2  # Between two looks at what agents have printed.
ROLE: Final = "role.md"
STDIN: Final = "stdin"
INTERRUPT: Final = json.dumps(
    {"type": "control_request", "request_id": "stop", "request": {"subtype": "interrupt"}}
) + "\n"  # fmt: skip
RESULT, SILENCE, KEY = "result", "silence", "key"  # Why we have stopped it ourselves.
_KEY_TRIES: Final = 3  # With a key that is refused; Claude Code would go on for minutes.
TEMPORARY: Final = "pa-"  # What the names of folders for temporary files begin with.
_STDERR_BYTES: Final = 4000
_CLOSE_S: Final = 5.0  # For ends that are being seen to; those that are not are found again by whoever takes over.


@dataclass(slots=True)
class _Watched:
    """An agent at work."""

    launch: Launch
    errand: Errand
    tail: Tail
    before: Reported | None = None  # What its session had been charged for when it began.
    temporary: str = ""  # Its folder, where it has one of ours.
    reading: Reading = field(default_factory=Reading)
    sign_at: float | None = None  # When something new was last read, by the clock of who watches it.
    priced: object = None  # What ``spent`` was reckoned from.
    finished: bool = False  # It has given its result, and was told that this was all.
    cut: str = ""  # RESULT: it lived on after it; SILENCE; KEY: it is refused, and tries again and again.
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
        self._awake = AwakeClock()
        self._watched: dict[str, _Watched] = {}
        self._ends: deque[Ended] = deque()
        self._closed = False
        self._shell = ShellRunner(self._news.set, doorbell_dir=doorbell_dir, doorbell_prefix=doorbell_prefix)
        self._thread = threading.Thread(target=self._watch, name="agents", daemon=True)
        self._thread.start()

    def start(self, launch: Launch) -> None:
        """Tell a client what to do. An id that is at work already is left alone."""
        errand = launch.errand
        if errand is None:
            said = "its runner is not installed here"
            self._end(_refused(launch.attempt_id, said, retryable=False, fault="installation"))
            return
        one = self._take(launch, errand)
        if one is None:
            return
        try:
            ready = self._ready(one)
        except Exception as error:  # Whatever it is, it is an end.
            said = f"cannot be started: {error}"
            ours = isinstance(error, OSError)
            ready = _refused(launch.attempt_id, said, retryable=ours, fault="runner" if ours else "")
        if isinstance(ready, Ended):
            self._end(self._closing(ready))
        else:
            reach("agent.ready")
            self._shell.start(ready)

    def adopt(self, launches: Iterable[Launch]) -> None:
        """Take over by their files; what they have printed is read from its beginning.

        One without an errand, whose runner is not installed here any more, is ended as what it is to us: a command.
        """
        taken = []
        for launch in launches:
            if launch.errand is None:
                taken.append(launch)
            elif (one := self._take(launch, launch.errand)) is not None:
                known = read_object(os.path.abspath(launch.folder), SESSION) or {}
                one.before = _before(known)
                one.temporary = str(known.get("temporary", ""))
                one.cut = str(known.get("cut", ""))
                taken.append(launch)
        self._shell.adopt(taken)

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

    def running(self) -> int:
        """How many attempts have been started or adopted and not ended."""
        return len(self._watched)

    def hint(self) -> None:
        """Something may have happened to adopted attempts: look now."""
        self._shell.hint()

    def live(self) -> dict[str, int]:
        """Attempt id to the pid of its client, for those that run now."""
        return self._shell.live()

    def launches(self) -> dict[str, Launch]:
        """By attempt id, of those whose clients run."""
        return self._shell.launches()

    def end(self, attempt_id: str, *, error: str, kind: str, grace_s: float) -> None:
        """End an attempt that has broken a limit."""
        self._shell.end(attempt_id, error=error, kind=kind, grace_s=grace_s)

    def spending(self) -> dict[str, int]:
        """Attempt id to what it has spent so far in micro-dollars, for those where that can be told."""
        with self._lock:
            watched = list(self._watched.items())
        return {attempt_id: one.spent for attempt_id, one in watched if one.spent is not None}

    def last_words(self, attempt_id: str) -> str:
        """The last line that an agent has said, as far as it was read; empty where it has said nothing."""
        one = self._watched.get(attempt_id)
        lines = [] if one is None else one.reading.last_text.strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Let go. Agents that work go on to their end, and can be taken over."""
        self._closed = True
        self._news.set()
        self._thread.join(_CLOSE_S)
        self._shell.close()

    def _take(self, launch: Launch, errand: Errand) -> _Watched | None:
        """Watch an attempt from now on. None where it is watched already."""
        with self._lock:
            if launch.attempt_id in self._watched:
                return None
            tail = Tail(f"{launch.folder}/{STDOUT}")
            one = self._watched[launch.attempt_id] = _Watched(launch, errand, tail)
        self._news.set()  # The thread may sleep without an end.
        return one

    def _ready(self, one: _Watched) -> Launch | Ended:
        """The command that starts the client, with all that it reads in place; or why there is none."""
        launch, errand = one.launch, one.errand
        client, folder = errand.client, os.path.abspath(launch.folder)
        if os.path.lexists(f"{folder}/{PROCESS}"):  # Its supervisor refuses it; what the first start has left stays.
            return replace(launch, command=client.command, errand=None)
        program = find_client(client, launch.env.get("PATH"))
        if program is None:
            said = f"no such command: {client.command[0]!r}; {missing_hint(client)}"
            return _refused(launch.attempt_id, said, retryable=False, fault="installation")
        make_folder(folder)
        before = read_object(errand.resumes_folder, SESSION) if errand.resumes_folder and client.resumable else None
        session = None if before is None else before.get("session")
        errand = replace(errand, role_prompt=self._redact(errand.role_prompt))
        prompt = self._redact(clients.told(client, errand, resumes=session is not None))
        write_whole(folder, PROMPT, prompt.encode())
        write_whole(folder, ROLE, errand.role_prompt.encode())
        reach("agent.told")
        if "TMPDIR" not in launch.env:
            one.temporary = f"{tempfile.gettempdir()}/{TEMPORARY}{os.urandom(4).hex()}"
        start = {
            "session": session or errand.session_id or None,
            "before": (before or {}).get("reported"),
            "resumed": session is not None,
            "temporary": one.temporary,
        }
        one.before = _before(start)
        write_whole(folder, SESSION, json.dumps(start).encode())
        if one.temporary:
            os.mkdir(one.temporary, 0o700)  # On record before it is there: whoever comes after us takes it away.
            reach("agent.folder-made")
        if (config := _own_config(launch, client)) is not None:
            make_folder(str(config))  # Private: sessions hold all that the agent has seen.
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
        env = launch.env
        if one.temporary:
            env = {**dict.fromkeys(("TMPDIR", *client.temporary), one.temporary), **env}
        ready = replace(launch, command=words, errand=None, env=env)
        if client.prompt == "talk":
            message = {"type": "user", "message": {"role": "user", "content": prompt}}
            write_whole(folder, STDIN, json.dumps(message).encode() + b"\n")
            return replace(ready, talk=Talk(f"{folder}/{STDIN}", INTERRUPT))
        return replace(ready, stdin=f"{folder}/{PROMPT}") if client.prompt == "stdin" else ready

    def _watch(self) -> None:
        last = False
        while not last:
            self._news.wait(LOOK_S if self._watched else None)
            self._news.clear()
            last = self._closed  # What has ended by now is still seen to.
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
        now = self._awake.now_s()  # Silence while nobody could listen is none.
        before = one.tail.position
        self._read(one, one.tail.read())
        if one.sign_at is None:
            one.sign_at = now
        if one.tail.position != before:
            one.sign_at = now
            _reckon(one)
        attempt_id, errand, reading = one.launch.attempt_id, one.errand, one.reading
        if reading.result is not None and not one.finished:
            one.finished = True
            self._shell.finish(attempt_id)
        if one.cut:
            return
        if _key_refused(reading):
            cut, after_s = KEY, -1.0
        elif one.finished and not reading.background:
            cut, after_s = RESULT, errand.grace_s
        elif errand.client.streams and errand.silence_s:
            setup_s = errand.setup_timeout_s if errand.setup and not reading.lines else 0.0
            cut, after_s = SILENCE, errand.silence_s + setup_s
        else:
            return
        if now - one.sign_at > after_s:
            folder = os.path.abspath(one.launch.folder)
            if errand.teardown and "command" in (read_object(folder, STEPS) or {}):
                return  # It has gone; what runs is its teardown, which has a time of its own.
            one.cut = cut
            with contextlib.suppress(OSError):  # For whoever takes it over before it has ended.
                write_whole(folder, SESSION, json.dumps({**(read_object(folder, SESSION) or {}), "cut": cut}).encode())
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
        if one is None:
            return ended
        if ended.outcome == "not_started" or not ended.began:
            _remove_temporary(one.temporary)
            if ended.outcome != "not_started":
                return ended
            kind = "infrastructure" if ended.retryable else "configuration"
            fault: Fault = ended.fault or ("installation" if os.path.isdir(one.launch.workdir) else "")
            return replace(ended, kind=kind, fault=fault)
        try:
            return self._judged(one, ended)
        except Exception as error:  # A result is never lost, whatever its client has printed.
            trouble.report_exception("what {} printed could not be understood", ended.attempt_id)
            return replace(
                ended, error=ended.error or f"its output cannot be understood: {error}", kind="infrastructure"
            )

    def _judged(self, one: _Watched, ended: Ended) -> Ended:
        reach("agent.before-judging")
        folder, client, reading = os.path.abspath(one.launch.folder), one.errand.client, one.reading
        self._read(one, one.tail.finish())
        # Whoever has given a result and then outstays its time has done its work all the same.
        done = reading.result is not None and not reading.result.is_error and reading.concluded
        stayed = one.cut == RESULT or (done and ended.outcome == "timed_out" and not reading.background)
        verdict = judge(
            reading, client.output, ended.outcome, ended.exit_code, last_bytes(f"{folder}/{STDERR}", _STDERR_BYTES),
            time.time_ns() // 1000, stopped_for_grace=stayed,
        )  # fmt: skip
        complete = reading.concluded or (ended.outcome == "exited" and ended.exit_code == 0)
        paid = charges(reading, one.before, complete, price_of, model=one.errand.model)
        known = read_object(folder, SESSION) or {}
        session, told = reading.session_id or known.get("session"), reading.reported or one.before
        with contextlib.suppress(OSError):  # The next attempt begins anew, then.
            end = {**known, "session": session, "reported": None if told is None else told.as_json()}
            write_whole(folder, SESSION, json.dumps(end).encode())
        self._clean(one, session)
        reach("agent.judged")
        kept = session is not None and (verdict.got_through or known.get("resumed") is True) and not verdict.resume_lost
        ended = replace(
            ended, output=verdict.output, charges=paid, got_through=verdict.got_through,
            at_once=reading.at_once if reading.calls else 0, denied=reading.denials,
            resumable=client.resumable and kept,
        )  # fmt: skip
        if one.errand.setup and ((read_object(folder, STEPS) or {}).get("setup") or {}).get("error"):
            return replace(ended, kind="infrastructure")  # What it was to find is not there; it never began.
        if ended.kind in (MEMORY, OUTPUT) and not done:
            return ended
        if one.cut == SILENCE and verdict.error is not None:
            said = f"it gave no sign for {one.errand.silence_s:g} s and was stopped"
            return replace(ended, outcome="exited", error=said, kind="infrastructure")
        if one.cut == KEY and verdict.error is not None:
            said = "its provider refuses its key, time and again"
            return replace(
                ended, outcome="exited", error=said, kind="authentication", retryable=False, provider=client.provider
            )
        if ended.outcome in ("stopped", "timed_out") and not stayed:
            return ended
        provider = (client.provider or client.name) if verdict.provider or verdict.got_through else ""
        outcome: Outcome = "lost" if ended.outcome == "lost" else "exited"
        error = ended.error if ended.outcome == "lost" else verdict.error
        return replace(
            ended, outcome=outcome, error=error, kind=verdict.kind, retryable=verdict.retryable and ended.retryable,
            provider=provider, until_us=verdict.until_us, fault=ended.fault or _fault(reading, verdict, ended.exit_code),
        )  # fmt: skip

    def _clean(self, one: _Watched, session: str | None) -> None:
        """Take secrets out of what it has left, and its temporary files away."""
        folder = os.path.abspath(one.launch.folder)
        lines = [Path(folder, STDOUT)] if one.errand.client.output != "text" else []
        texts = [Path(folder, name) for name in (STDOUT, STDERR, STDIN)]
        config = _own_config(one.launch, one.errand.client)
        scrub(
            self._redact, [path for path in texts if path not in lines], by_line=[*lines, *_sessions(config, session)]
        )
        if config is not None and session:
            for path in config.glob("*.sqlite"):
                scrub_database(self._redact, path, session)
        if (said := read_object(folder, EXIT)) is not None:
            # Ends of lines, cut where a secret may stand. Of an agent they are read by nobody.
            about = {"output": None, **({"error": None} if said.get("outcome") == "exited" else {})}
            with contextlib.suppress(OSError):
                write_whole(folder, EXIT, json.dumps({**said, **about}).encode())
        _remove_temporary(one.temporary)

    def _end(self, ended: Ended) -> None:
        self._ends.append(ended)
        self._on_end()


def _reckon(one: _Watched) -> None:
    """What an agent at work has spent, by its messages; None where nobody knows.

    Its output grows with every word, what it has spent once or twice in a message.
    """
    messages = one.reading.messages
    last = next(reversed(messages.values()), None)
    seen = (len(messages), one.reading.results, None if last is None else last[1].kinds())
    if seen == one.priced:
        return
    one.priced = seen
    paid = [charge.usd_micros for charge in charges(one.reading, one.before, False, price_of, model=one.errand.model)]
    one.spent = None if None in paid else sum(usd for usd in paid if usd is not None)


def _fault(reading: Reading, verdict: Verdict, exit_code: int | None) -> Fault:
    """What of its client is to blame that an attempt failed: it broke, or could not reach its provider.

    One that was killed at its work was killed by somebody or something else; and what a client refuses before it begins
    is mostly a client that is not what it was, if it was.
    """
    if verdict.kind == "infrastructure":
        killed = exit_code is not None and exit_code < 0
        return "" if killed and reading.lines else "runner"
    return "installation" if verdict.kind == "configuration" and not reading.lines and not verdict.resume_lost else ""


def _key_refused(reading: Reading) -> bool:
    """Whether one call was refused as often as we watch it. Once may be a token that its client has renewed meanwhile."""
    last = reading.failures[-_KEY_TRIES:]
    same = len(last) == _KEY_TRIES and last[0].after == last[-1].after == len(reading.messages)
    return same and all(one.retried and (one.status == 401 or one.code == "authentication_failed") for one in last)


def _before(known: Mapping[str, Any]) -> Reported | None:
    return None if known.get("before") is None else Reported.from_json(known["before"])


def _own_config(launch: Launch, client: clients.Client) -> Path | None:
    """The folder of configuration and sessions that a client has from us; None where it is its user's own."""
    ours = Path(os.path.abspath(launch.folder)).parents[3] / clients.CLIENTS / client.name
    return ours if client.config_variable and launch.env.get(client.config_variable) == str(ours) else None


def _sessions(config: Path | None, session: str | None) -> list[Path]:
    """What a client of ours has written down of a session."""
    if config is None or not session:
        return []
    return [path for path in config.rglob("*") if session in str(path) and path.is_file()]


def _remove_temporary(folder: str) -> None:
    """Remove an attempt's folder for temporary files. Its name was read from a file that the agent could have changed."""
    path = Path(folder)
    if path.name.startswith(TEMPORARY) and path.parent == Path(tempfile.gettempdir()) and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)


def _refused(attempt_id: str, error: str, *, retryable: bool, fault: Fault = "") -> Ended:
    now_us = time.time_ns() // 1000
    kind = "infrastructure" if retryable else "configuration"
    return Ended(
        attempt_id, "not_started", error=error, retryable=retryable, started_at_us=now_us, ended_at_us=now_us, kind=kind,
        fault=fault,
    )  # fmt: skip


def written(folder: str, name: str) -> str | None:
    """What an agent was told, as it lies in its attempt's folder: ``PROMPT`` or ``ROLE``."""
    try:
        return Path(folder, name).read_text("utf-8", "replace")
    except OSError:
        return None
