"""Whose each process is, and what an attempt has used: on made-up process tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.scheduler.trees import Account, Held, Membership, Row

SECOND_US = 1_000_000


def row(pid: int, parent: int = 1, *, cpu_s: float = 0.0, waited_s: float = 0.0, memory: int = 1000) -> Row:
    """A process that began at its pid."""
    return Row(pid, parent, pid, pid, 0, cpu_s, waited_s, memory)


def pids(found: dict[str, list[Row]]) -> dict[str, set[int]]:
    return {attempt_id: {one.pid for one in rows} for attempt_id, rows in found.items()}


def table(*rows: Row) -> dict[int, Row]:
    return {one.pid: one for one in rows}


def test_members_are_found_by_descent() -> None:
    """Children and their children; a stranger's are nobody's."""
    membership = Membership(lambda pid: None)
    found = membership.members(
        {"a": 10, "b": 20}, table(row(1), row(10), row(11, 10), row(12, 11), row(20), row(30), row(31, 30))
    )
    assert pids(found) == {"a": {10, 11, 12}, "b": {20}}


def test_members_are_found_by_their_marker_with_all_that_descends_from_them() -> None:
    """Whoever has lost its parent before it was first seen; the marker of an attempt of somebody else is nobody's."""
    markers = {40: "a", 50: "other"}
    membership = Membership(markers.get)
    found = membership.members({"a": 10}, table(row(10), row(40), row(41, 40), row(50)))
    assert pids(found) == {"a": {10, 40, 41}}


def test_a_member_stays_one_when_its_parent_has_gone() -> None:
    """As a daemon does that has cleared its environment after the first sample saw it. Another process of its pid is none."""
    membership = Membership(lambda pid: None)
    membership.members({"a": 10}, table(row(10), row(11, 10)))
    assert pids(membership.members({"a": 10}, table(row(10), row(11, 1), row(12, 11)))) == {"a": {10, 11, 12}}
    another = row(11)._replace(start_time=99)
    assert pids(membership.members({"a": 10}, table(row(10), another))) == {"a": {10}}


def test_a_marker_is_read_once_for_each_process() -> None:
    """Of strangers too, but for another one that gets the pid; of members never."""
    read = []
    membership = Membership(lambda pid: read.append(pid))
    for _ in range(3):
        membership.members({"a": 10}, table(row(10), row(11, 10), row(30), row(31, memory=0)))
    assert read == [30]
    membership.members({"a": 10}, table(row(10), row(30)._replace(start_time=31)))
    assert read == [30, 30]


def test_an_attempt_that_has_ended_has_no_members() -> None:
    """Whoever carries its marker still, or was its member, is a stranger."""
    membership = Membership({11: "a"}.get)
    membership.members({"a": 10}, table(row(10), row(11)))
    assert membership.members({}, table(row(11))) == {}
    assert pids(membership.members({"b": 20}, table(row(20), row(11)))) == {"b": {20}}


def taken(account: Account, *rows: Row, at_s: float, held: dict[int, Held] | None = None) -> Usage:
    """One pass of a machine with two processors, of an attempt that began at 0."""
    return account.take(rows, held or {}, round(at_s * SECOND_US), age_s=at_s, processors=2)


def test_shares_are_of_all_processors_and_between_two_samples() -> None:
    """Two processors for a second are the whole machine; the peak stays."""
    account = Account()
    assert taken(account, row(10, cpu_s=1.0), at_s=1).cpu_percent == 50
    assert taken(account, row(10, cpu_s=1.5), row(11, 10, cpu_s=1.5), at_s=2).cpu_percent == 100
    last = taken(account, row(10, cpu_s=1.5), row(11, 10, cpu_s=1.5), at_s=3)
    assert (last.cpu_percent, last.peak_cpu_percent, last.cpu_s, last.samples) == (0, 100, 3.0, 3)


def test_memory_and_files_are_sums_of_the_moment_with_their_peaks() -> None:
    """Bytes written only grow."""
    account = Account()
    taken(account, row(10, memory=70), row(11, 10, memory=50), at_s=1, held={10: Held(3, 100), 11: Held(4, 20)})
    last = taken(account, row(10, memory=60), at_s=2, held={10: Held(5, 100)})
    assert (last.memory_bytes, last.peak_memory_bytes) == (60, 120)
    assert (last.open_files, last.peak_open_files) == (5, 7)
    assert last.disk_written_bytes == 120


def test_a_child_that_was_waited_for_counts_once() -> None:
    """Its time is in its parent's then; where nobody waited, or the parent has gone too, it is not forgotten."""
    account = Account()
    taken(account, row(10), row(11, 10, cpu_s=3.0), at_s=1)
    assert taken(account, row(10, waited_s=3.5), at_s=2).cpu_s == 3.5
    account = Account()
    taken(account, row(10), row(11, 10, cpu_s=3.0), at_s=1)
    assert taken(account, row(10, cpu_s=0.25), at_s=2).cpu_s == 3.25
    account = Account()
    taken(account, row(10), row(11, 10, cpu_s=1.0), row(12, 11, cpu_s=2.0), at_s=1)
    assert taken(account, row(10, waited_s=3.0), at_s=2).cpu_s == 3.0, "11 had waited for 12, and 10 for 11"
    account = Account()
    taken(account, row(10, cpu_s=1.0), row(11, 10, cpu_s=1.0), row(12, cpu_s=1.0), at_s=1)
    assert taken(account, row(12, cpu_s=1.5), at_s=2).cpu_s == 3.5


@dataclass(slots=True)
class One:
    """A process of a made-up world: what it has used truly, in whole seconds."""

    pid: int
    parent: int
    cpu_s: int = 0
    waited_s: int = 0
    children: set[int] = field(default_factory=set)


@given(st.data())
def test_what_an_attempt_has_used_never_shrinks_and_is_never_too_much(data: st.DataObject) -> None:
    """Whatever forks, works, ends, is waited for or orphaned; and where all is waited for or seen, it is exact."""
    world = {10: One(10, 1)}
    account, truth, next_pid, before = Account(), 0, 11, 0.0
    sloppy = False  # Somebody ended unseen and nobody waited.
    unseen: dict[int, int] = {}
    for second in range(1, data.draw(st.integers(2, 12))):
        for _ in range(data.draw(st.integers(0, 4))):
            one = world[data.draw(st.sampled_from(sorted(world)))]
            what = data.draw(st.sampled_from(["fork", "work", "end", "end unwaited"]))
            if what == "fork":
                world[next_pid] = One(next_pid, one.pid)
                next_pid += 1
            elif what == "work":
                one.cpu_s += 1
                truth += 1
                unseen[one.pid] = unseen.get(one.pid, 0) + 1
            elif one.pid != 10:
                del world[one.pid]
                parent = world.get(one.parent)
                for other in world.values():
                    if other.parent == one.pid:
                        other.parent = 1
                if what == "end" and parent is not None:
                    parent.waited_s += one.cpu_s + one.waited_s
                    unseen[parent.pid] = unseen.get(parent.pid, 0) + unseen.pop(one.pid, 0)
                else:
                    sloppy = sloppy or parent is not None or bool(unseen.get(one.pid))
        rows = [row(one.pid, one.parent, cpu_s=one.cpu_s, waited_s=one.waited_s) for one in world.values()]
        found = taken(account, *rows, at_s=second).cpu_s
        unseen.clear()
        assert before <= found <= truth
        if not sloppy:
            assert found == truth
        before = found
