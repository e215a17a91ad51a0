"""The process that starts commands, watches over them and writes down how each ended.

One supervisor serves all attempts of a dispatcher, and outlives it: it ends when the dispatcher has gone and its last
attempt has ended. Single-threaded; each turn of the loop:

1. reap what has ended (commands, and orphans that fell to us as their subreaper),
2. take orders from the dispatcher: start, stop; between two of them do 1, 4 and 5, so that nobody waits for a start,
3. look at timeouts, at requests to stop that another dispatcher left in an attempt's folder, and at outputs that grow,
4. end what the ended left behind, write their exit files, let go of their locks,
5. tell the dispatcher, or ring the doorbell where there is none any more.

Stdlib only, and few modules: it starts within 30 ms. What lies in an attempt's folder is told in ``folder``.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final

from parallel_agents.eventstore.crash_points import reach
from parallel_agents.scheduler.awake import AwakeClock
from parallel_agents.scheduler.process import (
    ProcessIdentity,
    ProcessRow,
    boot_id,
    carriers,
    descendants,
    marker_of,
    own_identity,
    process_row,
    processes,
    send_signal,
)
from parallel_agents.scheduler.runners.control_groups import kill_group, remove_group, was_killed
from parallel_agents.scheduler.runners.folder import (
    EXIT,
    STDERR,
    STDOUT,
    STOP,
    LockHeld,
    last_line,
    read_object,
    take_lock,
    write_whole,
)
from parallel_agents.scheduler.runners.launcher import Attempt, CannotStart, Launcher
from parallel_agents.scheduler.runners.limits import MEMORY, OUTPUT, too_much
from parallel_agents.scheduler.runners.output_cap import Output, TooMuch
from parallel_agents.scheduler.runners.talking import Talking

INTERRUPT_S: Final = 3.0  # Between asking a command on its standard input to stop and SIGTERM.
SURVIVOR_GRACE_S: Final = 1.0  # For what a command leaves behind at its own end; nobody waits for it any more.
_GIVE_UP_S: Final = 5.0  # After SIGKILL: a process in an uninterruptible call, or one of another user.
_LOOK_S: Final = 0.02  # Between two looks at processes that were killed.
_LONGEST_REST_MS: Final = 2000.0  # Else nobody could tell afterwards that we were stopped meanwhile.
_TIMEOUT_GRACE_S: Final = 3.0
_OF_A_DISK: Final = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
)  # Mended without a word of the plan's changing.
_TRANSIENT: Final = frozenset(
    (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY, errno.EINTR, *_OF_A_DISK)
)
_WRITE_AGAIN_S: Final = 0.5  # Between two tries to write down an end that the disk did not take.
_LINUX: Final = sys.platform.startswith("linux")
_BLOCK_BYTES: Final = 512  # What the kernel counts output in, whatever the disk has.
_PR_SET_CHILD_SUBREAPER: Final = 36


class Supervisor:
    """State of the loop. ``link`` is the socket to the dispatcher, None once that has gone."""

    def __init__(self, link: socket.socket, doorbell_dir: str, doorbell_prefix: str) -> None:
        self.link: socket.socket | None = link
        self.doorbell_dir = doorbell_dir
        self.doorbell_prefix = doorbell_prefix
        self.attempts: dict[str, Attempt] = {}
        self.by_pid: dict[int, Attempt] = {}  # Commands that have not been reaped.
        self.ending: dict[str, Attempt] = {}
        self.orphans: dict[int, set[str]] = {}  # Pid to the attempts that it may come from.
        self.now_s = (
            AwakeClock().now_s
        )  # A timeout is no time in which we were stopped, and mostly our commands with us.
        self.timeouts: list[tuple[float, str]] = []
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.must_ring = False
        self.abandoned: set[int] = set()  # Orphans that nothing ended.
        self.unwritten: list[tuple[Attempt, bytes]] = []  # Ends that the disk did not take; their locks are held.
        self.write_at = 0.0  # When that is tried again, by `now_s`.
        self.identity = own_identity()
        self.wake_fd = _catch_signals()
        self.poller = select.poll()
        self.talking = Talking(self.poller)
        self.outputs: dict[str, Output] = {}  # Of the attempts whose output has a limit.
        self.launcher = Launcher(self.identity)
        self.subreaper = _become_subreaper()
        self.children_fd = _open_children() if self.subreaper else -1

    def run(self) -> None:
        """The loop, until there is neither a dispatcher nor an attempt, nor an end that is written nowhere."""
        poller = self.poller
        poller.register(self.wake_fd, select.POLLIN)
        registered: tuple[int, int] | None = None
        while self.link is not None or self.attempts or self.unwritten:
            wanted = None
            if self.link is not None:
                wanted = (self.link.fileno(), select.POLLIN | (select.POLLOUT if self.outbox else 0))
            if wanted != registered:
                if wanted is not None:
                    poller.register(*wanted)
                elif registered is not None:
                    poller.unregister(registered[0])
                registered = wanted
            for fd, flags in poller.poll(self.rest_ms()):
                self.talking.polled(fd, flags)
            try:
                self.turn()
            except Exception:  # Whatever it is: the other attempts need us.
                time.sleep(_LOOK_S)

    def turn(self) -> None:
        """What one wake does; the order is in the module's docstring."""
        look_for_stops = False
        with contextlib.suppress(BlockingIOError):
            look_for_stops = signal.SIGUSR1 in os.read(self.wake_fd, 65536)
        self.reap()
        if self.link is not None:
            self.receive()
        self.talking.go_on()
        now = self.now_s()
        while self.timeouts and self.timeouts[0][0] <= now:
            self.stop(heapq.heappop(self.timeouts)[1], "timed_out", _TIMEOUT_GRACE_S)
        if look_for_stops:
            self.read_stop_files()
        for attempt_id, output in self.outputs.items():
            if output.look_at_s <= now:
                self.look_at_output(self.attempts[attempt_id], output)
        self.settle()
        if self.unwritten and now >= self.write_at:
            self.write_again()
        self.flush()
        if self.must_ring and self.link is None:
            self.must_ring = False
            ring(self.doorbell_dir, self.doorbell_prefix)

    def rest_ms(self) -> float | None:
        """How long nothing is due, in milliseconds; None is for ever."""
        due = self.timeouts[0][0] if self.timeouts else None
        if self.unwritten and (due is None or self.write_at < due):
            due = self.write_at
        for attempt in self.ending.values():
            if due is None or attempt.look_at < due:
                due = attempt.look_at
        for output in self.outputs.values():
            if due is None or output.look_at_s < due:
                due = output.look_at_s
        return None if due is None else min(max(0.0, (due - self.now_s()) * 1000 + 0.5), _LONGEST_REST_MS)

    # The dispatcher.

    def receive(self) -> None:
        """Carry out the orders that have come in."""
        assert self.link is not None
        gone = False
        while True:
            try:
                chunk = self.link.recv(262144)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            if not chunk:
                gone = True
                break
            self.inbox += chunk
        *lines, rest = self.inbox.split(b"\n")
        self.inbox = rest
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                self.obey(json.loads(line))
                self.tell_at_once()
        if gone and self.link is not None:  # What came in before counts; half an order does not.
            self.lose_link()

    def tell_at_once(self) -> None:
        """Between two orders: a start takes half a millisecond, and the dispatcher can do its part meanwhile."""
        self.reap()
        self.settle()
        self.flush()

    def obey(self, order: dict[str, Any]) -> None:
        """One order: ``{"start": {...}}``, ``{"stop": {...}}`` or ``{"finish": ID}``."""
        if start := order.get("start"):
            self.start(start)
        elif stop := order.get("stop"):
            self.stop(stop["attempt_id"], _cause(stop), float(stop["grace_s"]), stop.get("why"))
        elif (attempt := self.attempts.get(order.get("finish", ""))) is not None:
            attempt.interrupt = b""  # It has done its work: to be interrupted now could only spoil its last word.
            self.talking.hang_up(attempt)

    def tell(self, attempt: Attempt, ended: dict[str, Any], *, write: bool) -> bool:
        """Write down that an attempt has ended, and say it to whoever is there.

        Returns:
            Whether its lock is to be let go of. What the disk does not take is kept, and the lock with it: who adopts the
            attempt waits for its end then, and does not take it for lost. A dispatcher that is there hears of it all the same.
        """
        content = json.dumps(ended).encode()
        written = not write or _is_written(attempt, content)
        if not written:
            self.unwritten.append((attempt, content))
            self.write_at = self.now_s() + _WRITE_AGAIN_S
        if self.link is None:
            self.must_ring = True
        else:
            self.outbox += b'{"ended": ' + content + b"}\n"
        return written

    def write_again(self) -> None:
        """Write down the ends that the disk did not take before."""
        self.write_at = self.now_s() + _WRITE_AGAIN_S
        left = []
        for attempt, content in self.unwritten:
            if _is_written(attempt, content):
                os.close(attempt.lock_fd)
                self.must_ring = True
            else:
                left.append((attempt, content))
        self.unwritten = left

    def flush(self) -> None:
        """Send what there is to say, as far as it goes without waiting."""
        if not self.outbox or self.link is None:
            return
        try:
            sent = self.link.send(self.outbox)
        except BlockingIOError:
            return
        except OSError:
            self.lose_link()
            return
        del self.outbox[:sent]

    def lose_link(self) -> None:
        """The dispatcher has gone; from now on the exit files are what tells."""
        assert self.link is not None
        self.link.close()
        self.link = None
        self.talking.leave_alone()
        self.must_ring = self.must_ring or bool(self.outbox)
        self.outbox.clear()

    # Starting.

    def start(self, order: dict[str, Any]) -> None:
        """Start a command, or say why not."""
        attempt = Attempt(order["attempt_id"], order["folder"], float(order["timeout_s"]))
        retryable = False
        ours = False  # Otherwise the folder belongs to somebody else.
        reach("supervisor.before-lock")
        try:
            attempt.lock_fd = take_lock(attempt.folder)
            reach("supervisor.locked")
            self.launcher.claim(attempt)
            reach("supervisor.claimed")
            ours = True
            self.launcher.spawn(attempt, order)
            reach("supervisor.recorded")
            self.attempts[attempt.attempt_id] = attempt
            self.by_pid[attempt.pid] = attempt
            self.talking.begin(attempt)
            heapq.heappush(self.timeouts, (self.now_s() + attempt.timeout_s, attempt.attempt_id))
            if limit := order.get("max_output_bytes"):
                self.outputs[attempt.attempt_id] = Output(attempt.folder, int(limit), self.now_s())
            return
        except LockHeld:
            why = "another process holds the attempt"
        except CannotStart as error:
            why = str(error)
        except OSError as error:
            why = f"cannot be started: {(error.strerror or str(error)).lower()}: {error.filename or attempt.folder!r}"
            retryable = error.errno in _TRANSIENT
        except Exception as error:  # NUL in an argument, for instance; the other attempts need us.
            why = f"cannot be started: {error}"
        finally:
            if attempt.process_fd >= 0:
                os.close(attempt.process_fd)
        if attempt.stdin_fd >= 0:
            os.close(attempt.stdin_fd)
        ended = _ended(attempt.attempt_id, "not_started", why)
        ended["retryable"], ended["fault"] = retryable, "runner" if retryable else ""
        if self.tell(attempt, ended, write=ours) and attempt.lock_fd >= 0:
            os.close(attempt.lock_fd)

    # Ending.

    def stop(self, attempt_id: str, cause: str, grace_s: float, why: dict[str, str] | None = None) -> None:
        """Begin to end an attempt; where that has begun already it can only become faster.

        Args:
            why: of cause ``limit``: the ``error`` that it ends with, and its ``kind``.
        """
        attempt = self.attempts.get(attempt_id)
        if attempt is None:
            return
        if attempt.status is None and attempt.cause == "exited":
            attempt.cause, attempt.why = cause, why or {}
        if attempt.grace_s is not None and grace_s >= attempt.grace_s:
            return
        attempt.grace_s = grace_s
        now = self.now_s()
        kill_at = now + grace_s
        asks = (
            bool(attempt.interrupt) and attempt.status is None and attempt.kill_at is None and grace_s > 0 and not why
        )
        if asks:
            kill_at += INTERRUPT_S
            attempt.look_at = now + INTERRUPT_S
        attempt.kill_at = kill_at if attempt.kill_at is None else min(kill_at, attempt.kill_at)
        attempt.look_at = min(attempt.look_at, attempt.kill_at)
        self.ending[attempt_id] = attempt
        if asks:
            self.talking.interrupt(attempt)

    def read_stop_files(self) -> None:
        """Another dispatcher has taken over and wants something ended."""
        for attempt_id, attempt in list(self.attempts.items()):
            wish = read_object(attempt.folder, STOP)
            if wish is not None:
                self.stop(attempt_id, _cause(wish), float(wish.get("grace_s", _TIMEOUT_GRACE_S)), wish.get("why"))

    def look_at_output(self, attempt: Attempt, output: Output) -> None:
        """Keep what a command prints within its limit, or end it where that cannot be done."""
        try:
            output.look(self.now_s())
        except TooMuch as error:
            self.stop(attempt.attempt_id, "limit", 0.0, {"kind": OUTPUT, "error": str(error)})

    def reap(self) -> None:
        """Collect every child that has ended: a command, or an orphan that fell to us."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            attempt = self.by_pid.pop(pid, None)
            if attempt is not None:
                reach("supervisor.reaped")
                attempt.status = status
                # Somebody may have set the clock since its start.
                attempt.ended_at_us = attempt.started_at_us + (time.monotonic_ns() - attempt.began_ns) // 1000
                if not attempt.asked_to_end:
                    attempt.look_at = 0.0
                self.talking.hang_up(attempt)
                self.ending[attempt.attempt_id] = attempt
            else:
                self.abandoned.discard(pid)
                owners = self.orphans.pop(pid, set())
                attempt = self.attempts.get(next(iter(owners))) if len(owners) == 1 else None
            if attempt is not None:
                attempt.cpu_s += usage.ru_utime + usage.ru_stime
                # At least what the supervisor itself takes: the kernel counts the moment before the exec too.
                peak = usage.ru_maxrss * (1024 if _LINUX else 1)
                attempt.peak_memory_bytes = max(attempt.peak_memory_bytes, peak)
                attempt.disk_written_bytes += usage.ru_oublock * _BLOCK_BYTES if _LINUX else 0

    def settle(self) -> None:
        """Bring whatever is ending one step further, and finish what has ended with all its descendants."""
        if not self.ending:
            return
        owned = self.find_orphans()
        table: dict[int, ProcessRow] | None = None
        now = self.now_s()
        for attempt in list(self.ending.values()):
            orphans = owned.get(attempt.attempt_id, [])
            if attempt.status is not None and not orphans:
                self.finish(attempt)
                continue
            if attempt.kill_at is None:
                attempt.kill_at = now + SURVIVOR_GRACE_S
            if now < attempt.look_at:
                continue
            if now > attempt.kill_at + _GIVE_UP_S and attempt.status is not None:
                attempt.error = f"left processes that cannot be ended: {', '.join(map(str, sorted(orphans)))}"
                self.abandoned.update(orphans)
                self.finish(attempt)
                continue
            if table is None:
                table = processes()
            if attempt.group and now >= attempt.kill_at:
                kill_group(attempt.group)
            signums = (signal.SIGKILL,) if now >= attempt.kill_at else (signal.SIGTERM, signal.SIGCONT)
            self.signal_all(attempt, orphans, table, signums)
            if now >= attempt.kill_at:
                reach("supervisor.kill-sent")
            else:
                reach("supervisor.term-sent")
            attempt.asked_to_end = True
            attempt.look_at = attempt.kill_at if now < attempt.kill_at else now + _LOOK_S
            if now > attempt.kill_at + _GIVE_UP_S:
                attempt.look_at = now + 1.0

    def signal_all(
        self, attempt: Attempt, orphans: list[int], table: dict[int, ProcessRow], signums: tuple[int, ...]
    ) -> None:
        """Signal the command's process group, and one by one every descendant outside of it."""
        roots = list(orphans)
        group = 0
        if attempt.status is None:
            roots.append(attempt.pid)
            group = attempt.pid  # Ours to signal as long as its leader has not been reaped.
        members = {*orphans, *descendants(roots, table)}
        attempt.known.update((pid, table[pid].start_time) for pid in members if pid in table)
        for signum in signums:
            if group:
                with contextlib.suppress(OSError):
                    os.killpg(group, signum)
            for pid in members:
                row = table.get(pid)
                if row is not None and (not group or row.group != group):
                    send_signal(ProcessIdentity(pid, row.start_time, boot_id()), signum)

    def find_orphans(self) -> dict[str, list[int]]:
        """What ended commands have left behind: attempt id to pids whose parent has gone.

        As their subreaper we inherit every process whose parent has ended, whatever session or group it made for itself.
        So all that an ended attempt left is below a child of ours that is no command: one small file tells, and mostly
        that there is none.
        """
        found: dict[str, list[int]] = {}
        if not self.subreaper:
            for pid, attempt_id in carriers(self.ending).items():
                if pid not in self.by_pid:
                    found.setdefault(attempt_id, []).append(pid)
            return found
        for pid in self.children():
            if pid in self.by_pid or pid in self.abandoned:
                continue
            owners = self.orphans.get(pid, set()) & self.attempts.keys()
            if not owners:
                owners = self.orphans[pid] = self.owners_of(pid)
            # Where nothing on it says whose it is, it falls to the last of those that it may belong to.
            if len(owners) == 1 or owners <= self.ending.keys():
                found.setdefault(min(owners), []).append(pid)
        return found

    def children(self) -> list[int]:
        """Our children, zombies included. Exact, because nobody else can take one off the list."""
        if self.children_fd < 0:
            own = self.identity.pid
            return [row.pid for row in processes().values() if row.parent == own]
        listed = b""
        while chunk := os.pread(self.children_fd, 65536, len(listed)):
            listed += chunk
        return [int(pid) for pid in listed.split()]

    def owners_of(self, pid: int) -> set[str]:
        """Which attempts an orphan may come from: one where anything tells, else all that are old enough."""
        row = process_row(pid)
        identity = (pid, row.start_time if row else 0)
        for attempt in self.attempts.values():
            if identity in attempt.known or (row is not None and row.group == attempt.pid):
                return {attempt.attempt_id}
        marker = marker_of(pid)
        if marker in self.attempts:
            return {marker}
        for fd in (1, 2):
            with contextlib.suppress(OSError):
                folder = os.path.dirname(os.readlink(f"/proc/{pid}/fd/{fd}"))
                for attempt in self.attempts.values():
                    if folder == attempt.folder:
                        return {attempt.attempt_id}
        old_enough = {one.attempt_id for one in self.attempts.values() if one.start_time <= identity[1]}
        return old_enough or set(self.attempts)

    def finish(self, attempt: Attempt) -> None:
        """Write the exit file, let go of the lock, tell."""
        assert attempt.status is not None
        if (output := self.outputs.pop(attempt.attempt_id, None)) is not None:
            with contextlib.suppress(TooMuch):  # What it has printed at the very last. It has ended by itself.
                output.look(self.now_s())
        code = os.waitstatus_to_exitcode(attempt.status)
        errors = [attempt.error] if attempt.error else []
        killed = bool(attempt.group) and code != 0 and attempt.cause == "exited" and was_killed(attempt.group)
        if attempt.cause == "timed_out":
            errors.insert(0, f"timed out after {attempt.timeout_s:g} s")
        elif attempt.cause == "stopped":
            errors.insert(0, "stopped")
        elif killed or attempt.cause == "limit":
            errors.insert(0, attempt.why.get("error") or too_much(attempt.limits.memory_bytes or 0))
        elif code:
            said = last_line(f"{attempt.folder}/{STDERR}") or last_line(f"{attempt.folder}/{STDOUT}")
            how = f"exit code {code}" if code > 0 else f"killed by signal {_signal_name(-code)}"
            errors.insert(0, f"{how}: {said}" if said else how)
        outcome = "exited" if attempt.cause == "limit" else attempt.cause
        ended = _ended(attempt.attempt_id, outcome, "; ".join(errors) or None)
        if killed or attempt.cause == "limit":
            ended["kind"], ended["retryable"] = attempt.why.get("kind", MEMORY), False
        ended["exit_code"] = code
        ended["started_at_us"] = attempt.started_at_us
        ended["ended_at_us"] = attempt.ended_at_us
        ended["cpu_s"] = round(attempt.cpu_s, 6)
        ended["peak_memory_bytes"] = attempt.peak_memory_bytes
        ended["disk_written_bytes"] = attempt.disk_written_bytes
        ended["output"] = last_line(f"{attempt.folder}/{STDOUT}")
        if attempt.group:
            remove_group(attempt.group)
        reach("supervisor.before-exit-file")
        if self.tell(attempt, ended, write=True):
            reach("supervisor.exit-file")
            os.close(attempt.lock_fd)
            reach("supervisor.unlocked")
        del self.attempts[attempt.attempt_id]
        del self.ending[attempt.attempt_id]
        if len(self.timeouts) > 2 * len(self.attempts) + 64:
            self.timeouts = [one for one in self.timeouts if one[1] in self.attempts]
            heapq.heapify(self.timeouts)


def ring(folder: str, prefix: str) -> None:
    """Wake whoever listens on the store. A hint: never waits, never fails."""
    if not folder:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.setblocking(False)
        for name in os.listdir(folder):
            if name.startswith(prefix):
                with contextlib.suppress(OSError):
                    bell.sendto(b"!", f"{folder}/{name}")


def _is_written(attempt: Attempt, content: bytes) -> bool:
    """Write an exit file. True also where its folder is gone, and with it whoever would read it."""
    try:
        write_whole(attempt.folder, EXIT, content)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _ended(attempt_id: str, outcome: str, error: str | None) -> dict[str, Any]:
    """The fields of ``protocol.Ended``, as they stand in ``exit.json`` and on the socket."""
    now_us = time.time_ns() // 1000
    return {
        "attempt_id": attempt_id,
        "outcome": outcome,
        "exit_code": None,
        "error": error,
        "retryable": True,
        "output": None,
        "started_at_us": now_us,
        "ended_at_us": now_us,
        "cpu_s": 0.0,
        "peak_memory_bytes": 0,
        "disk_written_bytes": 0,
    }


def _cause(wish: dict[str, Any]) -> str:
    """Why somebody wants an attempt ended."""
    return "limit" if wish.get("why") else "timed_out" if wish.get("timed_out") else "stopped"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # A real-time signal.
        return str(number)


def _catch_signals() -> int:
    """Be woken by children and by other dispatchers, be deaf to terminals; gives the pipe that a signal writes to.

    Handlers and not SIG_IGN, because a command would inherit that.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    for one in (
        signal.SIGCHLD,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
    ):
        signal.signal(one, lambda _signum, _frame: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return read_end


def _become_subreaper() -> bool:
    """Have every orphan below us fall to us, where the system can do that."""
    if not _LINUX:
        return False
    import ctypes

    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def _open_children() -> int:
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
    except OSError:  # A kernel without it: the whole table is read instead.
        return -1


def main() -> None:
    """Serve the dispatcher whose socket is our standard input. Arguments: the doorbell's folder and prefix."""
    os.closerange(3, 65536)
    link = socket.socket(fileno=os.dup(0))
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.close(devnull)
    link.setblocking(False)
    doorbell_dir, doorbell_prefix = sys.argv[1:3]
    Supervisor(link, doorbell_dir, doorbell_prefix).run()
