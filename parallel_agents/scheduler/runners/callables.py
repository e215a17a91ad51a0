"""Runs Python callables in threads of this process.

A thread cannot be killed: a call that shall end is told so by its ``TaskContext`` and goes on until it returns, and a call
whose process has died is never taken over.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import resource
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import orjson

from parallel_agents.scheduler.runners.folder import STDERR, make_folder
from parallel_agents.scheduler.runners.protocol import Ended, Launch, Outcome

_MOMENT_S: Final = (
    0.001  # A call that lasts this long is worth a thread: to start one takes as long as many short calls.
)
_STALL_S: Final = 0.01  # Calls that wait this long while none returns get threads of their own.
_TEXT_CHARS: Final = 500
MAX_OUTPUT: Final = 8 * 1024 * 1024  # Bytes of JSON: half of what one event may have.
_MAXRSS_BYTES: Final = 1024 if sys.platform.startswith("linux") else 1  # What ru_maxrss counts in.
_PLAIN: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_CONTEXT_NAMES: Final = frozenset(("context", "ctx", "task_context"))


_MAKING_A_BELL: Final = threading.Lock()


class TaskContext:
    """What a callable is given, if it takes an argument.

    Attributes:
        task: the task that it works for.
        workdir: where its files belong; the process's own working directory is left alone.
    """

    __slots__ = ("_began_us", "_bell", "_launch", "_stop", "task", "workdir")

    def __init__(self, task: Any, workdir: Path) -> None:
        self.task = task
        self.workdir = workdir
        self._stop: Outcome | None = None
        self._bell: threading.Event | None = None  # Made by the first who waits: most calls never do.
        self._launch: Launch | None = None
        self._began_us = 0  # 0: no thread has taken it up yet.

    @property
    def cancelled(self) -> bool:
        """Whether the call shall return now, because its task was cancelled or took too long."""
        return self._stop is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep up to ``timeout`` seconds, less when cancelled; gives whether it is cancelled."""
        with _MAKING_A_BELL:
            if self._bell is None:
                self._bell = threading.Event()
        if self._stop is None:  # Looked at after the bell is there: whoever cancels from now on rings it.
            self._bell.wait(timeout)
        return self.cancelled

    def _cancel(self, outcome: Outcome) -> None:
        if self._stop is None:
            self._stop = outcome
        if self._bell is not None:
            self._bell.set()


class CallableRunner:
    """Executes callables in a pool of daemon threads. See ``protocol.Runner``.

    An attempt that is given to ``start`` holds a slot of the scheduler already, so it must run: where calls wait while none
    returns, the pool grows beyond ``max_workers``, and shrinks again when they have returned.

    Args:
        on_end: called from a worker thread after an end can be polled.
        min_workers: threads to begin with.
        max_workers: threads that stay.
        auto_scale: grow one by one as they become busy; otherwise all ``max_workers`` are started at once.
        scaling_threshold: the share of busy threads, waiting calls included, from which on one more is started, a moment
            later if it is still so.
    """

    name = "python"

    def __init__(
        self,
        on_end: Callable[[], None],
        *,
        min_workers: int = 2,
        max_workers: int = 5,
        auto_scale: bool = True,
        scaling_threshold: float = 0.8,
    ) -> None:
        self._on_end = on_end
        self._max_workers = max(1, max_workers)
        self._auto_scale = auto_scale
        self._threshold = scaling_threshold
        self._takes_context = lru_cache(maxsize=256)(takes_context)
        self._work: deque[tuple[Launch, TaskContext]] = deque()
        self._bell: SimpleQueue[bool] = SimpleQueue()  # What idle threads wait for; False sends one home.
        self._rung = False  # Nobody has answered the last ring yet.
        self._contexts: dict[str, TaskContext] = {}
        self._ends: deque[Ended] = deque()
        self._size = 0
        self._size_lock = threading.Lock()
        self._stalled = threading.Event()
        self._stall_watcher: threading.Thread | None = None
        self._closed = False
        self._measured_at_us = 0
        self._peak_memory_bytes = 0
        for _ in range(min(min_workers, self._max_workers) if auto_scale else self._max_workers):
            self._add_worker()

    def start(self, launch: Launch) -> None:
        """Queue the call; it begins as soon as a thread is free, and one becomes free or is made.

        There is none where another process submitted the run: then the attempt fails, and would again.
        """
        if launch.call is None:
            now_us = time.time_ns() // 1000
            error = "only the Python process that submitted a callable can call it"
            self._ends.append(
                Ended(launch.attempt_id, "not_started", None, error, False, started_at_us=now_us, ended_at_us=now_us)
            )
            self._on_end()
            return
        context = TaskContext(launch.task, launch.workdir)
        context._launch = launch
        self._contexts[launch.attempt_id] = context
        self._work.append((launch, context))
        self._ring()
        if self._size == 0:
            self._add_worker()
        if self._is_short():
            self._watch_stall()

    def adopt(self, launches: Iterable[Launch]) -> None:
        """A callable died with its process: each of them is lost for good."""
        now_us = time.time_ns() // 1000
        error = "its Python process died; a callable cannot be taken over"
        found = [
            Ended(one.attempt_id, "lost", error=error, retryable=False, started_at_us=now_us, ended_at_us=now_us)
            for one in launches
            if one.attempt_id not in self._contexts
        ]
        if found:
            self._ends.extend(found)
            self._on_end()

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """Tell the call that it is cancelled. It ends when it returns, and its result does not count."""
        context = self._contexts.get(attempt_id)
        if context is not None:
            context._cancel("timed_out" if timed_out else "stopped")

    def give_up(self, run_id: str) -> list[str]:
        """Report the calls of a run that were told to stop as stopped, although they have not returned.

        Returns:
            Their task ids. What such a call returns later is dropped, and its thread is none of the pool any more.
        """
        given_up = []
        for attempt_id, context in list(self._contexts.items()):
            launch, stop = context._launch, context._stop
            if launch is None or launch.run_id != run_id or stop is None:
                continue
            if self._contexts.pop(attempt_id, None) is None:
                continue  # It returned just now.
            with self._size_lock:
                self._size -= 1
            now_us = time.time_ns() // 1000
            error = "stopped, but its callable has not returned"
            self._ends.append(
                Ended(attempt_id, stop, None, error, started_at_us=context._began_us or now_us, ended_at_us=now_us)
            )
            given_up.append(launch.task_id)
        if given_up:
            self._on_end()
        return given_up

    def poll(self) -> list[Ended]:
        """The ends since the last call.

        Calls that end at the same moment shall be one commit. So while some have ended, those that are about to are left
        a turn of the interpreter.
        """
        ends: list[Ended] = []
        while self._ends:
            with contextlib.suppress(IndexError):
                while True:
                    ends.append(self._ends.popleft())
            if self._contexts:
                time.sleep(0)
        return ends

    def calls_here(self) -> bool:
        """Whether the current thread is one that executes a call of ours."""
        thread = threading.current_thread()
        return isinstance(thread, _Worker) and thread.runner is self

    def running(self) -> int:
        """How many calls have been started and have not returned."""
        return len(self._contexts)

    def close(self) -> None:
        """Cancel what runs and let the threads go; a call that does not return ends with the process."""
        with self._size_lock:  # Whoever grows the pool makes no thread from here on that would not be sent home.
            self._closed = True
            size = self._size
        for context in list(self._contexts.values()):
            context._cancel("stopped")
        for _ in range(size):
            self._bell.put(False)
        self._stalled.set()

    def _add_worker(self) -> None:
        with self._size_lock:
            if self._closed:
                return
            self._size += 1
        try:
            _Worker(self).start()
        except RuntimeError:  # The system has no thread left; a call waits for one of those that there are.
            with self._size_lock:
                self._size -= 1

    def _serve(self) -> None:
        work = self._work
        contexts = self._contexts
        while self._bell.get():
            self._rung = False
            while work:
                try:
                    item = work.popleft()
                except IndexError:  # Another thread was quicker.
                    break
                if work:
                    self._ring()
                ended = self._execute(*item)
                if contexts.pop(ended.attempt_id, None) is None:
                    return  # It was given up, and this thread with it.
                self._ends.append(ended)
                self._on_end()
                if self._size > self._max_workers and self._leave():
                    return
        with self._size_lock:
            self._size -= 1

    def _ring(self) -> None:
        """Wake one thread, unless one is waking up already: it will wake the next one if it finds more than one call.

        To wake one for every call would take longer than a short call itself, which the first can do in passing.
        """
        if not self._rung:
            self._rung = True
            self._bell.put(True)

    def _leave(self) -> bool:
        """Whether this thread is one more than shall stay, and nothing waits for it."""
        with self._size_lock:
            if self._size <= self._max_workers or self._work:
                return False
            self._size -= 1
            return True

    def _execute(self, launch: Launch, context: TaskContext) -> Ended:
        started_at_us, began_ns = time.time_ns() // 1000, time.monotonic_ns()
        context._began_us = started_at_us
        cpu_began_s = time.thread_time()
        output: Any = None
        error: str | None = None
        if context._stop is None:
            try:
                output = as_output(self._call(launch, context))
            except BaseException as problem:  # SystemExit too: it is the call that fails, not the worker.
                error = _one_line(problem)
                _write_traceback(os.path.abspath(launch.folder), problem)
        outcome: Outcome = "exited"
        exit_code: int | None = 0 if error is None else 1
        if context._stop is not None:
            outcome, exit_code, output = context._stop, None, None
            error = "stopped" if outcome == "stopped" else f"timed out after {launch.timeout_s:g} s"
        # Somebody may have set the clock meanwhile.
        ended_at_us = started_at_us + (time.monotonic_ns() - began_ns) // 1000
        cpu_s = time.thread_time() - cpu_began_s
        peak = self._peak_memory(started_at_us, ended_at_us)
        return Ended(
            launch.attempt_id, outcome, exit_code, error, True, output, started_at_us, ended_at_us, cpu_s, peak
        )

    def _peak_memory(self, began_us: int, now_us: int) -> int:
        """Of this whole process, and of its whole life so far: memory belongs to no thread.

        The system sums up all threads to say it, so for calls of less than a millisecond it is asked only now and then.
        """
        if now_us - began_us > 1000 or abs(now_us - self._measured_at_us) > 10_000:
            self._measured_at_us = now_us
            self._peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
        return self._peak_memory_bytes

    def _call(self, launch: Launch, context: TaskContext) -> Any:
        call = launch.call
        assert call is not None  # ``start`` has seen to it.
        try:
            wanted = self._takes_context(call)
        except TypeError:  # Not hashable, so not cached.
            wanted = takes_context(call)
        return call(context) if wanted else call()

    def _is_short(self) -> bool:
        """Whether there should be more threads, unless calls return in a moment."""
        wanted, size = len(self._contexts), self._size
        return wanted > size or (size < self._max_workers and wanted >= self._threshold * size)

    def _watch_stall(self) -> None:
        """Have somebody see to it that the waiting calls do not wait for calls that do not return."""
        if self._stall_watcher is None:
            self._stall_watcher = threading.Thread(target=self._grow_on_stall, name="callables", daemon=True)
            self._stall_watcher.start()
        if not self._stalled.is_set():
            self._stalled.set()

    def _grow_on_stall(self) -> None:
        while not self._closed:
            self._stalled.wait()
            self._stalled.clear()
            pause_s = _MOMENT_S
            while self._is_short() and not self._closed:
                before = set(self._contexts)
                time.sleep(pause_s)
                lasting = len(before & self._contexts.keys())
                for _ in range(self._max_workers - self._size):
                    if lasting >= self._threshold * self._size:
                        self._add_worker()
                if pause_s == _STALL_S and lasting == len(before) and self._work:
                    for _ in range(len(before) - self._size):
                        self._add_worker()
                pause_s = _STALL_S


class _Worker(threading.Thread):
    """A thread of the pool."""

    def __init__(self, runner: CallableRunner) -> None:
        super().__init__(target=runner._serve, name="callable", daemon=True)
        self.runner = runner


def takes_context(call: Callable[..., Any]) -> bool:
    """Whether a callable wants a ``TaskContext``.

    It does when its first positional parameter has no default, or is called ``context`` or ``ctx``. A parameter with a
    default is otherwise the author's own (``lambda part=part: work(part)``).
    """
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):  # A builtin that does not say.
        return False
    first = next(iter(parameters), None)
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        return False
    return first.default is first.empty or first.name in _CONTEXT_NAMES


def as_output(value: Any) -> Any:
    """What a callable returned, as JSON can say it; anything else as its ``repr``, at most 500 characters.

    Lists and dicts are copied, so that nothing changes in them later.

    Raises:
        OverflowError: it is longer than an event should be; none of it may be lost without a word.
    """
    if value is None or value is True or value is False:
        return value
    if type(value) is str and value.isascii():
        return _bounded(value, len(value))
    if type(value) is float:
        return value if math.isfinite(value) else repr(value)
    try:
        text = orjson.dumps(value, option=_PLAIN)
        return orjson.loads(_bounded(text, len(text)))
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return repr(value)[:_TEXT_CHARS]
    except Exception:
        return f"<{type(value).__name__}>"


_T = TypeVar("_T")


def _bounded(value: _T, size: int) -> _T:
    if size > MAX_OUTPUT:
        raise OverflowError(
            f"returned {size:,} bytes as JSON, more than the {MAX_OUTPUT:,} that a result may have in the log; write it to a "
            "file and return the file's name"
        )
    return value


def _one_line(problem: BaseException) -> str:
    try:
        text = " ".join(str(problem).split())
    except Exception:
        text = ""
    name = type(problem).__name__
    return (f"{name}: {text}" if text else name)[:_TEXT_CHARS]


def _write_traceback(folder: str, problem: BaseException) -> None:
    """Leave the traceback where ``logs`` looks for it; the folder is made only for this."""
    inner = problem.__traceback__
    for _ in range(2):  # Our own two frames tell nothing.
        if inner is not None and inner.tb_next is not None:
            inner = inner.tb_next
    try:
        text = "".join(traceback.format_exception(type(problem), problem, inner))
        make_folder(folder)
        fd = os.open(f"{folder}/{STDERR}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except Exception:  # The disk is full, or the exception cannot be printed: the error's line must do.
        return
    with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file, contextlib.suppress(OSError):
        file.write(text)
