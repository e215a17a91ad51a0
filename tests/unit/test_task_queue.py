"""The queue that hands out tasks by priority, once what they depend on is completed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallel_agents.eventstore.errors import InvalidUsage, ParallelAgentsError
from parallel_agents.eventstore.submission import PRIORITIES
from parallel_agents.task_queue import Priority, QueuedTask, TaskQueue

DEADLINE_S = 30.0


def drain(queue: TaskQueue) -> list[str]:
    """The ids of all tasks that are ready, in the order they come."""
    found = []
    while task := queue.dequeue():
        found.append(task.task_id)
    return found


@pytest.fixture
def start_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], threading.Thread]:
    """Start a call in a thread and return once it waits; whoever takes the queue's lock then finds it asleep."""
    waiting = threading.Event()
    waiters: set[threading.Thread] = set()
    wait = threading.Condition.wait

    def spied(self: threading.Condition, timeout: float | None = None) -> bool:
        if threading.current_thread() in waiters:
            waiting.set()
        return wait(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", spied)

    def start(call: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=call, daemon=True)
        waiters.add(thread)
        waiting.clear()
        thread.start()
        assert waiting.wait(DEADLINE_S), "the call did not wait"
        return thread

    return start


def test_the_snippet_of_the_documentation_yields_the_critical_task() -> None:
    """As users know it."""
    # Create queue
    queue = TaskQueue(max_size=100)

    # Enqueue tasks with priorities
    queue.enqueue("task_1", "software-architect", priority="critical")
    queue.enqueue("task_2", "backend-engineer", priority="high")
    queue.enqueue("task_3", "frontend-engineer", priority="medium")
    queue.enqueue("task_4", "qa-engineer", priority="low")

    # Dequeue returns highest priority task with satisfied dependencies
    task = queue.dequeue()

    assert task is not None
    assert (task.task_id, task.agent_type, task.priority) == ("task_1", "software-architect", Priority.CRITICAL)
    assert drain(queue) == ["task_2", "task_3", "task_4"]


def test_priorities_are_numbered_and_named_like_those_of_a_plan() -> None:
    """The smaller number goes first."""
    assert [(priority.name.lower(), priority.value) for priority in Priority] == list(
        zip(PRIORITIES, range(4), strict=True)
    )


def test_a_task_comes_back_as_it_was_enqueued() -> None:
    """All fields, with the time of arrival in UTC and containers of its own."""
    queue = TaskQueue()
    needed, notes = ["t0"], {"ticket": 7}
    before = datetime.now(UTC)
    queue.enqueue("t1", "qa-engineer", Priority.LOW, needed, notes)
    needed.append("t9")
    notes.clear()
    queue.mark_completed("t0")
    task = queue.dequeue()
    assert task is not None
    assert before <= task.queued_at <= datetime.now(UTC)
    assert task == QueuedTask("t1", "qa-engineer", Priority.LOW, ["t0"], task.queued_at, {"ticket": 7})


def test_tasks_of_one_priority_come_in_the_order_of_arrival() -> None:
    """Medium where nothing is said; when a task became ready does not matter."""
    queue = TaskQueue()
    queue.enqueue("late", "x", dependencies=["gate"])
    queue.enqueue("b", "x")
    queue.enqueue("a", "x", "medium")
    queue.enqueue("c", "x", Priority.MEDIUM)
    queue.mark_completed("gate")
    assert drain(queue) == ["late", "b", "a", "c"]


def test_a_task_waits_until_everything_it_depends_on_is_completed() -> None:
    """A lower priority that is ready goes before a higher one that is not; dequeued is not completed."""
    queue = TaskQueue()
    queue.enqueue("deploy", "x", "critical", ["build", "test", "build"])
    queue.enqueue("build", "x", "low")
    queue.enqueue("test", "x", "low")
    assert drain(queue) == ["build", "test"]
    queue.mark_completed("build")
    queue.mark_completed("build")
    assert queue.dequeue() is None
    queue.mark_completed("test")
    assert drain(queue) == ["deploy"]


def test_a_dependency_that_never_was_in_the_queue_is_open_until_it_is_marked() -> None:
    """It may be completed before its dependent comes, or after."""
    queue = TaskQueue()
    queue.enqueue("after", "x", dependencies=["elsewhere"])
    assert queue.dequeue() is None
    queue.mark_completed("elsewhere")
    queue.enqueue("later", "x", dependencies=["elsewhere"])
    assert drain(queue) == ["after", "later"]


def test_marking_a_task_that_still_waits_leaves_it_in_the_queue() -> None:
    """The mark is about what depends on it."""
    queue = TaskQueue()
    queue.enqueue("b", "x", dependencies=["a"])
    queue.enqueue("a", "x")
    queue.mark_completed("a")
    assert drain(queue) == ["b", "a"]


def test_a_full_queue_takes_nothing_until_something_left() -> None:
    """The task that was not taken leaves no trace, and may come again."""
    queue = TaskQueue(max_size=2)
    assert queue.enqueue("a", "x")
    assert queue.enqueue("held", "x", dependencies=["nothing yet"])
    assert not queue.enqueue("b", "x", "critical")
    assert queue.size() == 2
    assert drain(queue) == ["a"]
    assert queue.enqueue("b", "x", "critical")
    assert drain(queue) == ["b"]


def test_a_queue_holds_a_hundred_tasks_unless_told_otherwise() -> None:
    """The hundred and first is not taken."""
    queue = TaskQueue()
    assert [queue.enqueue(f"t{number}", "x") for number in range(101)] == [True] * 100 + [False]


def test_an_id_that_waits_is_refused_and_one_that_left_is_taken_again() -> None:
    """A failed task is tried again under its own id."""
    queue = TaskQueue()
    queue.enqueue("a", "x")
    with pytest.raises(InvalidUsage, match="'a' is in the queue already"):
        queue.enqueue("a", "y", "critical")
    assert drain(queue) == ["a"]
    assert queue.enqueue("a", "x")
    assert drain(queue) == ["a"]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"priority": "hihg"}, "task 'a' has an unknown priority 'hihg'", "did you mean 'high'?"),
        ({"priority": "CRITICAL"}, "unknown priority 'CRITICAL'", "did you mean 'critical'?"),
        ({"priority": "urgently!"}, "unknown priority", "there are: critical, high, low, medium"),
        ({"priority": 1}, "unknown priority 1", "there are: critical, high, low, medium"),
        ({"priority": ["high"]}, r"unknown priority \['high'\]", ""),
        ({"dependencies": ["b", "a"]}, "task 'a' depends on itself", "never"),
        ({"dependencies": "task_1"}, "dependencies of task 'a' are the string 'task_1'", "['task_1']"),
    ],
)
def test_a_task_that_cannot_be_is_refused_with_a_hint(arguments: dict[str, Any], message: str, hint: str) -> None:
    """The message names the task and the value, the hint what to write; a full queue refuses no less."""
    queue = TaskQueue(max_size=1)
    with pytest.raises(InvalidUsage, match=message) as refused:
        queue.enqueue("a", "x", **arguments)
    assert isinstance(refused.value, ParallelAgentsError)
    assert hint in refused.value.hint
    assert queue.size() == 0
    queue.enqueue("b", "x")
    with pytest.raises(InvalidUsage, match=message):
        queue.enqueue("a", "x", **arguments)


@pytest.mark.parametrize("max_size", [0, -1])
def test_a_queue_that_could_hold_nothing_is_refused(max_size: int) -> None:
    """At least one task must fit."""
    with pytest.raises(InvalidUsage, match=f"max_size is {max_size}"):
        TaskQueue(max_size)


def test_the_statistics_count_what_waits_and_what_is_completed() -> None:
    """Exactly three keys; all four priorities are there, by their lower-case names."""
    queue = TaskQueue()
    assert queue.get_statistics() == {
        "total_queued": 0,
        "by_priority": {"critical": 0, "high": 0, "medium": 0, "low": 0},
        "completed": 0,
    }
    queue.enqueue("a", "x", "high")
    queue.enqueue("b", "x", "high", ["a"])
    queue.enqueue("c", "x", "low")
    assert queue.dequeue() is not None
    queue.mark_completed("a")
    queue.mark_completed("a")
    assert queue.get_statistics() == {
        "total_queued": 2,
        "by_priority": {"critical": 0, "high": 1, "medium": 0, "low": 1},
        "completed": 1,
    }


@pytest.mark.parametrize("timeout", [None, 0, -1.0])
def test_without_a_timeout_nobody_waits(timeout: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ready is answered at once."""
    queue = TaskQueue()
    queue.enqueue("held", "x", dependencies=["open"])
    waits: list[object] = []
    monkeypatch.setattr(threading.Condition, "wait", lambda *arguments: waits.append(arguments))
    assert queue.dequeue(timeout) is None
    assert waits == []


def test_a_timeout_is_waited_for_before_none_is_answered() -> None:
    """Not shorter than asked for; a held task and somebody else's completion end no wait."""
    queue = TaskQueue()
    queue.enqueue("held", "x", dependencies=["open"])
    queue.mark_completed("unrelated")
    began = time.monotonic()
    assert queue.dequeue(timeout=0.05) is None
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("timeout", [3600.0, float("inf")])
@pytest.mark.parametrize("awaited", ["task", "dependency"])
def test_a_waiting_dequeue_is_woken_by_what_makes_a_task_ready(
    awaited: str, timeout: float, start_waiting: Callable[[Callable[[], Any]], threading.Thread]
) -> None:
    """By a task that arrives, or by the completion of the last thing that one waited for."""
    queue = TaskQueue()
    if awaited == "dependency":
        queue.enqueue("t", "x", dependencies=["first", "last"])
        queue.mark_completed("first")
    got: list[QueuedTask | None] = []
    thread = start_waiting(lambda: got.append(queue.dequeue(timeout)))
    if awaited == "dependency":
        queue.mark_completed("last")
    else:
        queue.enqueue("t", "x")
    thread.join(DEADLINE_S)
    assert [task and task.task_id for task in got] == ["t"]


def test_one_completion_wakes_as_many_as_there_is_work_for(
    start_waiting: Callable[[Callable[[], Any]], threading.Thread],
) -> None:
    """Three waiting, three tasks made ready by one mark: each gets one."""
    queue = TaskQueue()
    for number in range(3):
        queue.enqueue(f"t{number}", "x", dependencies=["gate"])
    got: list[QueuedTask | None] = []
    threads = [start_waiting(lambda: got.append(queue.dequeue(3600.0))) for _ in range(3)]
    queue.mark_completed("gate")
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(task.task_id for task in got if task) == ["t0", "t1", "t2"]


def test_many_threads_dequeue_every_task_exactly_once() -> None:
    """Producers and consumers at once: none is lost, none comes twice, none before what it depends on."""
    producers, consumers, each = 3, 4, 150
    queue = TaskQueue(max_size=producers * each + consumers)
    completed: set[str] = set()
    taken: list[str] = []  # list.append and set.add are atomic under the interpreter's lock.
    wrong: list[str] = []

    def produce(producer: int) -> None:
        for number in range(each):
            # Upwards and to another producer's tasks, most of which are not there yet.
            needed = [f"{(producer + 1) % producers}-{number - 1}", f"{producer}-{number // 2}"] if number > 1 else []
            if not queue.enqueue(f"{producer}-{number}", "x", PRIORITIES[number % 4], needed):
                wrong.append(f"{producer}-{number} was not taken")

    def consume() -> None:
        while True:
            task = queue.dequeue(timeout=DEADLINE_S)
            if task is None:
                wrong.append("waited for nothing")
                return
            wrong.extend(f"{task.task_id} before {name}" for name in task.dependencies if name not in completed)
            if task.agent_type == "stop":
                return
            taken.append(task.task_id)
            completed.add(task.task_id)
            queue.mark_completed(task.task_id)

    expected = [f"{producer}-{number}" for producer in range(producers) for number in range(each)]
    for number in range(consumers):  # Ready only when all is done, so each consumer ends by taking one.
        queue.enqueue(f"stop-{number}", "stop", "critical", expected)
    threads = [threading.Thread(target=consume, daemon=True) for _ in range(consumers)]
    threads += [threading.Thread(target=produce, args=(number,), daemon=True) for number in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE_S)
    assert wrong == []
    assert sorted(taken) == sorted(expected)
    assert queue.size() == 0


IDS = st.sampled_from([f"t{number}" for number in range(8)])


class QueueAgainstModel(RuleBasedStateMachine):
    """The queue against a list that is searched from the start each time."""

    MAX_SIZE = 5

    def __init__(self) -> None:
        super().__init__()
        self.queue = TaskQueue(self.MAX_SIZE)
        self.waiting: list[tuple[str, str, list[str]]] = []  # Id, priority, dependencies; in the order of arrival.
        self.completed: set[str] = set()

    @rule(task_id=IDS, priority=st.sampled_from(PRIORITIES), as_name=st.booleans(), needed=st.lists(IDS, max_size=3))
    def enqueue(self, task_id: str, priority: str, as_name: bool, needed: list[str]) -> None:
        """Taken, not taken, or refused, as the model says."""
        given = priority if as_name else Priority[priority.upper()]
        if task_id in needed or any(task_id == waiting for waiting, _, _ in self.waiting):
            with pytest.raises(InvalidUsage):
                self.queue.enqueue(task_id, "x", given, needed)
            return
        fits = len(self.waiting) < self.MAX_SIZE
        assert self.queue.enqueue(task_id, "x", given, needed) is fits
        if fits:
            self.waiting.append((task_id, priority, needed))

    @rule()
    def dequeue(self) -> None:
        """The first of the best priority among those whose dependencies are all completed."""
        ready = [entry for entry in self.waiting if self.completed.issuperset(entry[2])]
        best = min(ready, key=lambda entry: PRIORITIES.index(entry[1]), default=None)
        task = self.queue.dequeue()
        if best is None:
            assert task is None
        else:
            assert task is not None
            assert (task.task_id, task.priority.name.lower(), task.dependencies) == best
            self.waiting.remove(best)

    @rule(task_id=IDS)
    def mark_completed(self, task_id: str) -> None:
        """Known or not, waiting or not, once or again."""
        self.queue.mark_completed(task_id)
        self.completed.add(task_id)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def mark_what_somebody_waits_for(self, data: st.DataObject) -> None:
        """The same, aimed at tasks that are held."""
        wanted = sorted({name for _, _, needed in self.waiting for name in needed} - self.completed)
        if wanted:
            self.mark_completed(data.draw(st.sampled_from(wanted)))

    @invariant()
    def counts(self) -> None:
        """Size and statistics are those of the model."""
        assert self.queue.size() == len(self.waiting)
        assert self.queue.get_statistics() == {
            "total_queued": len(self.waiting),
            "by_priority": {name: sum(priority == name for _, priority, _ in self.waiting) for name in PRIORITIES},
            "completed": len(self.completed),
        }


QueueAgainstModel.TestCase.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)


TestQueueAgainstModel = QueueAgainstModel.TestCase
