"""What every database under the log has to keep: order, versions, one commit, nothing half appended."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.errors import StaleRun, StoreError, UnknownEvent
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.record import Recorded

if TYPE_CHECKING:
    from backends import SqliteBackend

PROCESSES = 8
APPENDS = 25  # By each process.
RUNS = ("alpha", "beta", "gamma")


def paused(reason: str) -> ev.RunPaused:
    """The smallest event that carries a text."""
    return ev.RunPaused(reason=reason)


def reasons(log: Log) -> list[str]:
    """The texts of all events, in order."""
    return [record.event.reason for record in log.read() if isinstance(record.event, ev.RunPaused)]


def test_what_append_returns_is_what_is_read_back(log: Log) -> None:
    """Envelope and event are the same before and after the store."""
    appended = log.append("alpha", 0, [ev.RunStarted(), paused("lunch")], actor="ana")
    assert list(log.read()) == appended
    assert [(record.seq, record.run_id, record.version, record.actor) for record in appended] == [
        (1, "alpha", 1, "ana"),
        (2, "alpha", 2, "ana"),
    ]
    assert appended[1].event == paused("lunch")


def test_events_outlive_the_process_that_appended_them(backend: SqliteBackend) -> None:
    """A log that is opened again goes on where the last one ended, chain included."""
    with backend.open() as first:
        first.append("alpha", 0, [paused("one")])
    with backend.open() as second:
        second.append("alpha", 1, [paused("two")])
        assert reasons(second) == ["one", "two"]
        assert verify_rows(second.rows()).broken is None


def test_versions_count_per_run_and_seq_over_the_store(log: Log) -> None:
    """Two runs share one sequence and have versions of their own."""
    log.append("alpha", 0, [paused("a1"), paused("a2")])
    log.append("beta", 0, [paused("b1")])
    log.append("alpha", 2, [paused("a3")])
    assert [(record.seq, record.run_id, record.version) for record in log.read()] == [
        (1, "alpha", 1), (2, "alpha", 2), (3, "beta", 1), (4, "alpha", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("expected", [0, 1, 3, -1])
def test_an_append_at_another_version_is_refused_and_appends_nothing(log: Log, expected: int) -> None:
    """The error names the run and both versions; events and documents stay out."""
    log.append("alpha", 0, [paused("one"), paused("two")])
    content = b"a plan"
    with pytest.raises(StaleRun, match=f"run alpha is at version 2, not {expected}"):
        log.append("alpha", expected, [paused("late")], blobs={digest_of(content): content})
    assert reasons(log) == ["one", "two"]
    with pytest.raises(UnknownEvent):
        log.blob(digest_of(content))


def test_a_run_that_moved_in_another_process_is_stale_here(backend: SqliteBackend, log: Log) -> None:
    """What this process remembers of a run never hides what another one appended."""
    log.append("alpha", 0, [paused("ours")])
    with backend.open() as other:
        other.append("alpha", 1, [paused("theirs")])
    with pytest.raises(StaleRun):
        log.append("alpha", 1, [paused("late")])
    log.append("alpha", 2, [paused("ours again")])
    assert reasons(log) == ["ours", "theirs", "ours again"]


def test_a_document_is_kept_with_the_event_that_names_it(log: Log) -> None:
    """A blob is there once its commit is, and putting it twice changes nothing."""
    content = bytes(range(256)) * 40
    name = digest_of(content)
    for run_id in ("alpha", "beta"):
        log.append(run_id, 0, [paused(name)], blobs={name: content})
    assert log.blob(name) == content


def test_one_transaction_appends_to_several_runs_in_one_commit(backend: SqliteBackend, log: Log) -> None:
    """While it is open another reader sees none of it, afterwards all, at one time."""
    log.append("beta", 0, [paused("before")])
    seen_meanwhile = []

    with backend.open() as other:

        def decide(draft: Draft) -> None:
            for run_id in ("alpha", "beta", "alpha"):
                draft.add(run_id, paused(run_id))
                seen_meanwhile.append(other.last_seq())

        appended = log.transact(decide)
        assert seen_meanwhile == [1, 1, 1]
        assert list(other.read(after=1)) == appended
    assert [(record.seq, record.run_id, record.version) for record in appended] == [
        (2, "alpha", 1), (3, "beta", 2), (4, "alpha", 2),
    ]  # fmt: skip
    assert len({record.at_us for record in appended}) == 1


def test_a_decision_sees_its_own_events_and_what_is_stored(log: Log) -> None:
    """Versions, events and documents can be read while deciding."""
    content = b"a plan"
    log.append("alpha", 0, [paused("one")], blobs={digest_of(content): content})
    seen: list[Any] = []

    def decide(draft: Draft) -> None:
        seen.append((draft.version("alpha"), draft.version("beta"), len(log.read_run("alpha"))))
        seen.append(log.blob(digest_of(content)))
        recorded = draft.add("alpha", paused("two"))
        seen.append((draft.version("alpha"), draft.seq, recorded.version))
        draft.expect("alpha", 2)
        draft.expect("beta", 0)

    log.transact(decide)
    assert seen == [(1, 0, 1), content, (2, 2, 2)]


@pytest.mark.parametrize("error", [ValueError("no"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_exception_in_a_decision_comes_out_as_it_is_and_leaves_nothing(log: Log, error: BaseException) -> None:
    """The caller's own error is not taken for one of the store, and the log works on."""
    log.append("alpha", 0, [paused("one")])

    def decide(draft: Draft) -> None:
        draft.add("alpha", paused("half"))
        draft.add("beta", paused("half"))
        raise error

    with pytest.raises(type(error)) as caught:
        log.transact(decide)
    assert caught.value is error
    assert reasons(log) == ["one"]
    log.append("beta", 0, [paused("two")])
    assert [(record.seq, record.version) for record in log.read()] == [(1, 1), (2, 1)]
    assert verify_rows(log.rows()).broken is None


def test_an_event_that_cannot_be_written_leaves_no_gap_behind(log: Log) -> None:
    """A decision that goes on without it still numbers without gaps."""
    unwritable = ev.TaskCompleted(task_id="build", attempt_id="x", duration_s=1.0, output=object())

    def decide(draft: Draft) -> None:
        draft.add("alpha", paused("one"))
        with pytest.raises(ValueError, match="serialize"):
            draft.add("alpha", unwritable)
        assert (draft.version("alpha"), draft.seq) == (1, 1)
        draft.add("alpha", paused("two"))

    log.transact(decide)
    assert [(record.seq, record.version) for record in log.read()] == [(1, 1), (2, 2)]
    assert verify_rows(log.rows()).broken is None


def test_a_decision_that_adds_nothing_commits_nothing(backend: SqliteBackend, log: Log) -> None:
    """Nobody else sees a change, and nobody is kept waiting."""
    with backend.open() as other:
        other.append("alpha", 0, [paused("one")])
        assert log.transact(lambda draft: None) == []
        assert log.append("alpha", 1, []) == []
        assert not other.changed_by_others()
        other.append("alpha", 1, [paused("two")])


def test_time_never_falls_along_the_log_when_the_clock_goes_back(backend: SqliteBackend) -> None:
    """A clock set back, here or before a restart, stands still until it has caught up."""
    clock = iter([1_000, 400, 2_000])
    with backend.open(clock=lambda: next(clock)) as log:
        for version in range(2):
            log.append("alpha", version, [paused("")])
    with backend.open(clock=lambda: 500) as log:
        log.append("beta", 0, [paused("")])
    with backend.open(clock=lambda: next(clock)) as log:
        log.append("beta", 1, [paused("")])
        assert [record.at_us for record in log.read()] == [1_000, 1_000, 1_000, 2_000]


def test_a_long_log_is_read_whole_however_it_is_cut(log: Log) -> None:
    """Bounds, limits and single runs hold over more rows than are read at once."""
    total = 4_501

    def decide(draft: Draft) -> None:
        for index in range(total):
            draft.add(RUNS[index % 3], paused(""))

    log.transact(decide)
    assert [row.seq for row in log.rows()] == list(range(1, total + 1))
    assert [row.seq for row in log.rows(after=1_999, upto=4_400)] == list(range(2_000, 4_401))
    assert [row.seq for row in log.rows(after=10, limit=4_000)] == list(range(11, 4_011))
    assert [row.seq for row in log.rows(limit=0)] == []
    assert [row.seq for row in log.rows(run_id="beta", limit=1_100)] == list(range(2, 3_302, 3))
    assert [row.seq for row in log.rows(after=total)] == []
    assert [row.version for row in log.run_rows("gamma")] == list(range(1, total // 3 + 1))
    assert [row.seq for row in log.run_rows("gamma", 2, 12)] == [9, 12]
    assert log.row(total) is not None
    assert log.row(total + 1) is None
    assert verify_rows(log.rows()).events == total


def test_run_level_events_are_found_apart(log: Log) -> None:
    """The list of runs is read without the tasks, as of any seq."""
    log.append("alpha", 0, [ev.RunStarted(), ev.TaskQueued(task_id="a"), paused("x"), ev.DispatchUnthrottled()])
    assert [record.seq for record in log.run_level()] == [1, 3]
    assert [record.seq for record in log.run_level(upto=2)] == [1]


def test_a_time_names_the_last_event_at_or_before_it(backend: SqliteBackend) -> None:
    """Of several events at one time it is the last; before the first there is none."""
    clock = iter([100, 200, 200, 300])
    with backend.open(clock=lambda: next(clock)) as log:
        with pytest.raises(UnknownEvent):
            log.seq_at(100)
        for version in range(4):
            log.append("alpha", version * 2, [paused(""), paused("")])
        assert {at: log.seq_at(at) for at in (100, 199, 200, 299, 300, 10**18)} == {
            100: 2, 199: 2, 200: 6, 299: 6, 300: 8, 10**18: 8,
        }  # fmt: skip
        with pytest.raises(UnknownEvent, match="at or before"):
            log.seq_at(99)


def test_a_snapshot_is_the_newest_one_that_is_not_later(log: Log) -> None:
    """By run, projection and version; saving one again replaces it."""
    for seq, state in ((5, b"five"), (9, b"nine"), (9, b"nine again")):
        log.save_snapshot("alpha", "status", 1, seq, state)
    assert log.load_snapshot("alpha", "status", 1, 8) == (5, b"five")
    assert log.load_snapshot("alpha", "status", 1, 9) == (9, b"nine again")
    assert log.load_snapshot("alpha", "status", 1, 4) is None
    assert log.load_snapshot("alpha", "status", 2, 9) is None
    assert log.load_snapshot("alpha", "queue", 1, 9) is None
    assert log.load_snapshot("beta", "status", 1, 9) is None


def test_a_snapshot_that_cannot_be_saved_does_not_hold_the_store(backend: SqliteBackend, log: Log) -> None:
    """It is only a cache: afterwards everybody appends as before."""
    with pytest.raises(StoreError):
        log.save_snapshot("alpha", "status", 1, 1, None)  # type: ignore[arg-type]
    log.append("alpha", 0, [paused("ours")])
    with backend.open() as other:
        other.append("alpha", 1, [paused("theirs")])
    assert reasons(log) == ["ours", "theirs"]


def test_another_processes_commit_is_noticed_and_ones_own_is_not(backend: SqliteBackend, log: Log) -> None:
    """Looking again inside a transaction settles it."""
    log.append("alpha", 0, [paused("ours")])
    assert not log.changed_by_others()
    with backend.open() as other:
        other.append("alpha", 1, [paused("theirs")])
    assert log.changed_by_others()
    log.transact(lambda draft: None)
    assert not log.changed_by_others()


def test_threads_that_share_a_log_append_one_after_the_other(log: Log) -> None:
    """Four writers and a reader on one connection: no error, no gap, the chain holds."""
    written = threading.Event()

    def write(name: str) -> None:
        for version in range(50):
            log.append(name, version, [paused(name)])

    def read() -> None:
        done = False
        while not done:
            done = written.is_set()  # One look more after the last commit.
            found = [row.seq for row in log.rows()]
            assert found == list(range(1, len(found) + 1))
        assert len(found) == 200

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        for writer in [pool.submit(write, f"run{index}") for index in range(4)]:
            writer.result(60)
        written.set()
        reader.result(60)
    assert Counter(reasons(log)) == {f"run{index}": 50 for index in range(4)}
    assert verify_rows(log.rows()).broken is None


def test_a_closed_log_says_so_instead_of_failing_oddly(backend: SqliteBackend) -> None:
    """Both ways, in and out."""
    log = backend.open()
    log.append("alpha", 0, [paused("one")])
    log.close()
    with pytest.raises(StoreError, match="closed"):
        log.append("alpha", 1, [paused("two")])
    with pytest.raises(StoreError, match="closed"):
        log.last_seq()


def append_until_accepted(log: Log, run_id: str, event: ev.Event) -> tuple[Recorded, int]:
    """Append at the version that is read, again for as long as somebody else was first; with how often that was."""
    for lost in range(10_000):
        version = len(log.run_rows(run_id))
        try:
            return log.append(run_id, version, [event])[0], lost
        except StaleRun:
            continue
    raise AssertionError("never came through")


def append_many(opened: Callable[[str], Log], address: str, name: str, start: Any, results: Any) -> None:
    """One of several processes: append to shared runs, singly and two runs at once, and report what was acknowledged."""
    acknowledged: list[tuple[int, str, int, str]] = []
    try:
        start.wait(60)
        with opened(address) as log:
            for index in range(APPENDS):
                label = f"{name}-{index}"
                if index % 5 == 4:

                    def decide(draft: Draft, label: str = label) -> None:
                        draft.add("alpha", paused(label + "-first"))
                        draft.add("beta", paused(label + "-second"))

                    found = log.transact(decide)
                else:
                    found = [append_until_accepted(log, RUNS[index % 3], paused(label))[0]]
                acknowledged += [
                    (record.seq, record.run_id, record.version, record.event.reason)
                    for record in found
                    if isinstance(record.event, ev.RunPaused)
                ]
        results.put((name, acknowledged, ""))
    except BaseException as error:
        results.put((name, acknowledged, repr(error)))
        raise


def open_each(opened: Callable[[str], Log], addresses: list[str], start: Any, results: Any) -> None:
    """One of several processes: open new stores one after the other, each at the same moment as everybody else."""
    errors = []
    for index, address in enumerate(addresses):
        start.wait(60)
        try:
            with opened(address) as log:
                append_until_accepted(log, "alpha", paused(""))
        except Exception as error:
            errors.append(f"store {index}: {error!r}")
    results.put(errors)


@pytest.mark.slow
def test_eight_processes_may_make_the_same_store_at_the_same_moment(backend: SqliteBackend) -> None:
    """Fifteen times over: each of them can use it, none is told that it is locked."""
    stores = [backend.another(f"store{index}") for index in range(15)]
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(PROCESSES), context.Queue()
    arguments = (backend.opened_elsewhere, [store.address for store in stores], start, results)
    workers = [context.Process(target=open_each, args=arguments) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    try:
        assert [results.get(timeout=100) for _ in workers] == [[]] * PROCESSES
        for worker in workers:
            worker.join(20)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
    for store in stores:
        with store.open() as log:
            assert log.last_seq() == PROCESSES


def test_eight_processes_append_at_once_and_nothing_that_was_acknowledged_is_lost(backend: SqliteBackend) -> None:
    """No error, no gap, no event lost or changed, and the chain holds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # So that one process imports us, and not eight.
    start, results = context.Barrier(PROCESSES), context.Queue()
    workers = [
        context.Process(
            target=append_many, args=(backend.opened_elsewhere, backend.address, f"p{index}", start, results)
        )
        for index in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    try:
        reports = [results.get(timeout=100) for _ in workers]
        for worker in workers:
            worker.join(20)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
    assert {name: error for name, _, error in reports if error} == {}

    with backend.open() as log:
        rows = list(log.rows())
        stored = [
            (record.seq, record.run_id, record.version, record.event.reason)
            for record in log.read()
            if isinstance(record.event, ev.RunPaused)
        ]
    assert sorted(event for _, acknowledged, _ in reports for event in acknowledged) == stored
    assert [row.seq for row in rows] == list(range(1, PROCESSES * (APPENDS + APPENDS // 5) + 1))
    for run_id in RUNS:
        versions = [row.version for row in rows if row.run_id == run_id]
        assert versions == list(range(1, len(versions) + 1))
    assert verify_rows(rows).broken is None
