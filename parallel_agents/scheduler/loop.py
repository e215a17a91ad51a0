"""Dispatching as a job of APScheduler: at an interval, when something is due, and at once when anything happens.

APScheduler drops a wake while the job runs, swallows what it raises, and takes a quarter of a millisecond to start it. So:
a dirty flag is looked at again at the job's end; the job catches, keeps and tells; and while attempts are under way it
lingers for a moment, so that ends that come in quick succession are taken up without a new start.

Its own thread pool is one of ``concurrent.futures``, which takes no work any more once the main thread has ended, while
other threads may still wait for their runs: jobs run on a thread of ours instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler

from parallel_agents.eventstore.doorbell import drain
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.dispatcher import Dispatcher

INTERVAL_S = 1.0  # Reconcile: the truth behind every hint.
LINGER_S = 0.05  # How long a job with attempts under way waits for the next end before it returns.
_LATEST_US = 253_000_000_000_000_000  # In the year 9987: no calendar goes much further.
SLICE_S = 0.5  # A job returns after that long in any case, and is started again at once.

logging.getLogger("apscheduler").setLevel(logging.ERROR)  # It warns of every wake that met a running job.


class Loop:
    """Runs a dispatcher's ticks. ``wake`` is safe from any thread.

    Args:
        retry_store_errors: go on after a ``StoreError`` instead of stopping.
        rests: once there was nothing to dispatch for a second, do nothing at all until ``wake``; what other processes
            append in the meantime is then not looked at.
        on_bell: called, in a thread of ours, when another process has rung.
    Attributes:
        failure: what stopped the loop, or None. Attempts that run go on.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        retry_store_errors: bool = False,
        rests: bool = False,
        on_bell: Callable[[], None] = lambda: None,
    ) -> None:
        self.dispatcher = dispatcher
        self.failure: BaseException | None = None
        self._retry_store_errors = retry_store_errors
        self._rests = rests
        self._on_bell = on_bell
        self._idle_since: float | None = None
        self._awake = threading.Event()
        self._awake.set()
        self._lock = threading.Lock()
        self._ticking = threading.Lock()
        self._dirty = threading.Event()
        self._active = False
        self._closing = False
        self._due_us: int | None = None
        self._ticked_at = time.monotonic()
        self._ticked = threading.Condition()
        self._awaited: list[Callable[[], bool]] = []
        options = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._thread = _OneThread()
        self._scheduler = BackgroundScheduler(executors={"default": self._thread}, job_defaults=options, timezone=UTC)
        self._scheduler.add_listener(self._after_job, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
        self._listener = dispatcher.log.doorbell.listen()
        self._hung_up, self._hang_up = os.pipe()  # Ends what listens to the doorbell.
        self._ears = threading.Thread(target=self._hear, name="doorbell", daemon=True)

    def start(self) -> None:
        """Begin; the first tick is at once."""
        self._scheduler.add_job(
            self._job, "interval", seconds=INTERVAL_S, id="dispatch", next_run_time=datetime.now(UTC)
        )
        self._scheduler.start()
        self._ears.start()

    @property
    def resting(self) -> bool:
        """Whether it does nothing until ``wake``."""
        return not self._awake.is_set()

    def wake(self) -> None:
        """Something happened: tick as soon as can be."""
        self._idle_since = None
        self._go()

    def _go(self) -> None:
        if self._active and self._dirty.is_set():
            return  # The job has still to look, and whatever happened before this line is there for it to see.
        with self._lock:
            self._dirty.set()
            if self._active or self._closing or not self._scheduler.running:
                return
            self._active = True
            self._awake.set()
        self._kick()

    def at(self, name: str, at_us: int, job: Callable[[], None]) -> None:
        """Call something at a time of the wall clock, once; a later call of the same name takes its place. Any thread.

        It is called on the dispatcher's thread, so it must be quick, and must not raise.
        """
        if self._closing:
            return
        when = datetime.fromtimestamp(min(at_us, _LATEST_US) / 1e6, UTC)
        self._scheduler.add_job(job, "date", run_date=when, id=name, replace_existing=True, executor="default")

    def stop(self) -> None:
        """End after the tick that is under way. Attempts go on."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._dirty.set()
        self._awake.set()
        with self._ticked:
            self._ticked.notify_all()
        if self._scheduler.running:
            self._thread.end()  # APScheduler would wait for it with locks in its hand that the job may want.
            self._scheduler.shutdown(wait=False)
        os.close(self._hang_up)
        if self._ears.is_alive():
            self._ears.join(timeout=2)
        os.close(self._hung_up)
        if self._listener is not None:
            self._listener.close()

    @contextlib.contextmanager
    def between_ticks(self) -> Iterator[None]:
        """Let no tick begin meanwhile, and wait for the one that is under way."""
        with self._ticking:
            yield

    def wait(self, done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Block until a condition holds, looked at after every tick.

        Returns:
            Whether it holds. False when the time is up, or the loop was stopped.
        Raises:
            Whatever stopped the loop by itself.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._ticked:
            self._awaited.append(done)
            try:
                while not done():
                    if self.failure is not None:
                        raise self.failure
                    if self._closing:
                        return False
                    left = 1.0 if end is None else min(1.0, end - time.monotonic())
                    if left <= 0:
                        return False
                    self._ticked.wait(left)
            finally:
                self._awaited.remove(done)
        return True

    def _tell_who_waits(self) -> None:
        """After a tick. Who still has to wait is not woken: that would cost more than many a tick."""
        with self._ticked:
            self._ticked_at = time.monotonic()
            with contextlib.suppress(Exception):  # Whoever made the condition is told, and meets it again.
                if self.failure is None and not any(done() for done in self._awaited):
                    return
            self._ticked.notify_all()

    def _kick(self) -> None:
        try:
            self._scheduler.modify_job("dispatch", next_run_time=datetime.now(UTC))
        except Exception:
            if not self._closing:
                raise

    def _job(self) -> None:
        with self._lock:
            self._active = True
        end = time.monotonic() + SLICE_S
        while not self._closing:
            self._dirty.clear()
            due_us = self._tick()
            self._tell_who_waits()
            if self.failure is not None or time.monotonic() > end:
                self._dirty.set()
                return
            self._set_timer(due_us)
            linger_s = LINGER_S if any(held.state.running for held in self.dispatcher.held.values()) else 0.0
            if not self._dirty.wait(linger_s):
                return

    def _tick(self) -> int | None:
        try:
            with self._ticking:
                return self.dispatcher.tick()
        except StoreError as error:
            if not self._retry_store_errors:
                self.failure = error
            else:
                trouble.report(
                    "the store refuses: {} ({}); attempts go on, and so does this once it is mended", error, error.hint
                )
                time.sleep(INTERVAL_S)
        except BaseException as error:  # APScheduler would swallow it.
            trouble.report_exception("dispatching stopped")
            self.failure = error
        return None

    def _after_job(self, event: JobExecutionEvent) -> None:
        """The job's instance is given back only now: a wake that came since its last look is taken up here."""
        if event.job_id != "dispatch":
            return
        with self._lock:
            self._active = self._dirty.is_set() and self.failure is None and not self._closing
            again = self._active
            if self._rests and not again and self._is_idle():
                self._awake.clear()
                self._scheduler.modify_job("dispatch", next_run_time=None)
        if again:
            self._kick()

    def _is_idle(self) -> bool:
        """Whether there was nothing to dispatch for a second."""
        if self.dispatcher.busy or self._closing:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        else:
            return time.monotonic() - self._idle_since >= INTERVAL_S
        return False

    def _set_timer(self, due_us: int | None) -> None:
        """One date job for whatever is due next. It only wakes, and may do so early; what is due is in the log."""
        if due_us is None or (self._due_us is not None and self._due_us <= due_us):
            return
        self._due_us = due_us
        when = datetime.fromtimestamp(min(due_us, _LATEST_US) / 1e6, UTC)
        self._scheduler.add_job(self._timer, "date", run_date=when, id="due", replace_existing=True, executor="default")

    def _timer(self) -> None:
        self._due_us = None
        self.wake()

    def _hear(self) -> None:
        """Take bells for wakes; and where no tick comes although it is time, because the clock was set back, be one."""
        bells = select.poll()
        bells.register(self._hung_up, select.POLLIN)
        if self._listener is not None:
            bells.register(self._listener, select.POLLIN)
        while not self._closing:
            heard = bells.poll(2000 * INTERVAL_S)
            if self._listener is not None:
                drain(self._listener)
            late = time.monotonic() - self._ticked_at > 2 * INTERVAL_S
            if heard and not self._closing:
                self._on_bell()
            if self._awake.is_set() and (heard or late):
                self._go()
            self._awake.wait()  # While it rests, bells are left to ring.


class _OneThread(BaseExecutor):  # type: ignore[misc]  # APScheduler says nothing of its types.
    """Runs the scheduler's jobs one after another, on a daemon thread."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: SimpleQueue[tuple[Any, list[datetime]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="dispatch", daemon=True)

    def start(self, scheduler: Any, alias: str) -> None:
        """Called by the scheduler at its start."""
        super().start(scheduler, alias)
        self._thread.start()

    def end(self) -> None:
        """Wait for the job that runs, and run no other."""
        self._jobs.put(None)
        self._thread.join()

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self._jobs.put((job, run_times))

    def _serve(self) -> None:
        while (submitted := self._jobs.get()) is not None:
            job, run_times = submitted
            # What a job raises is among the events.
            self._run_job_success(job.id, run_job(job, "default", run_times, self._logger.name))
