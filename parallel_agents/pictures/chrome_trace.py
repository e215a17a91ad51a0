"""A run as a trace of Chrome's: for Perfetto and chrome://tracing, which zoom and search where a picture ends. Pure.

Source: "Trace Event Format", the public document of the Chromium project, JSON object format. Times are microseconds since
the submission. Three processes: the tasks (a thread each: its attempts, and its waits by reason), the slots that attempts
held, and the critical path; counters of running attempts and of cost; arrows for dependencies.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.pictures.course import CHECKPOINT, Course
from parallel_agents.pictures.graph_data import hop_words
from parallel_agents.pictures.stretches import ATTEMPT, OVER, Stretch
from parallel_agents.pictures.wait_words import phrase
from parallel_agents.version import RELEASE

BEGINS: Final = '{"displayTimeUnit":'  # So begins every file of ours.
_TASKS, _SLOTS, _PATH = 1, 2, 3
_Event = dict[str, Any]


def chrome_trace(course: Course, *, redact: bool = False) -> str:
    """The trace, as JSON.

    Args:
        redact: without the name of the run and without reasons in words, which may hold what somebody wrote.
    """
    state, waits = course.state, course.waits
    shown = {
        "displayTimeUnit": "ms",
        "otherData": {
            "run_id": state.run_id, "name": "" if redact else state.name, "status": state.status, "seq": waits.seq,
            "submitted_at": rfc3339(waits.begin_us), "version": f"parallel-agents {RELEASE}",
        },
        "traceEvents": [
            *_names(course, redact), *_tasks(course, redact), *_slots(course), *_path(course), *_flows(course),
            *_counters(course), *_marks(course, redact),
        ],
    }  # fmt: skip
    return json.dumps(shown, ensure_ascii=True, separators=(",", ":")) + "\n"


def _names(course: Course, redact: bool) -> Iterator[_Event]:
    state = course.state
    run = f"run {state.run_id}" + ("" if redact or not state.name else f" ({state.name})")
    for pid, name in ((_TASKS, f"{run}: tasks"), (_SLOTS, f"{run}: slots"), (_PATH, f"{run}: critical path")):
        yield _meta("process_name", pid, 0, {"name": name})
        yield _meta("process_sort_index", pid, 0, {"sort_index": {_PATH: 0, _SLOTS: 1, _TASKS: 2}[pid]})
    yield _meta("thread_name", _PATH, 1, {"name": "critical path"})
    for name, task in state.tasks.items():
        yield _meta("thread_name", _TASKS, task.index + 1, {"name": name})
        yield _meta("thread_sort_index", _TASKS, task.index + 1, {"sort_index": task.index})


def _meta(name: str, pid: int, tid: int, args: dict[str, Any]) -> _Event:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}


def _tasks(course: Course, redact: bool) -> Iterator[_Event]:
    for name, stretches in course.waits.by_task.items():
        tid = course.state.tasks[name].index + 1
        for one in stretches:
            if one.kind == ATTEMPT:
                title, args = _attempt(course, one)
                yield _slice(course, title, "attempt", _TASKS, tid, one.start_us, one.length_us, args)
            elif one.kind != OVER:
                args = {"code": one.code, **({} if redact else {"why": one.why}), "tasks": list(one.tasks[:20])}
                yield _slice(
                    course, f"waits {phrase(one.code)}", "wait", _TASKS, tid, one.start_us, one.length_us, args
                )


def _attempt(course: Course, one: Stretch) -> tuple[str, dict[str, Any]]:
    span, task = course.spans[one.attempt_id], course.state.tasks[one.task_id]
    outcome = one.code if one.open else span.outcome
    args = {
        "task_id": one.task_id, "attempt_id": one.attempt_id, "attempt": span.attempt, "outcome": outcome,
        "undone": span.undone, "agent_type": task.task.agent_type, "started_at": rfc3339(span.started_at_us),
    }  # fmt: skip
    return f"attempt {span.attempt}: {outcome.replace('_', ' ')}", args


def _slice(
    course: Course, name: str, category: str, pid: int, tid: int, start_us: int, length_us: int, args: dict[str, Any]
) -> _Event:
    return {
        "ph": "X", "name": name, "cat": category, "pid": pid, "tid": tid, "ts": start_us - course.waits.begin_us,
        "dur": length_us, "args": args,
    }  # fmt: skip


def _slots(course: Course) -> Iterator[_Event]:
    """Each attempt in the first slot that was free when it began; it held it until its end, also where it was undone."""
    busy: list[tuple[int, int]] = []  # Until when, and which.
    free: list[int] = []
    made = 0
    for span in course.spans.values():
        if span.task_id not in course.state.tasks:
            continue
        while busy and busy[0][0] <= span.started_at_us:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            made += 1
            heapq.heappush(free, made)
            yield _meta("thread_name", _SLOTS, made, {"name": f"slot {made}"})
        slot, end_us = heapq.heappop(free), course.end_us(span)
        heapq.heappush(busy, (end_us, slot))
        args = {"attempt_id": span.attempt_id, "attempt": span.attempt, "outcome": span.outcome, "undone": span.undone}
        length_us = end_us - span.started_at_us
        yield _slice(course, span.task_id, "slot", _SLOTS, slot, span.started_at_us, length_us, args)


def _path(course: Course) -> Iterator[_Event]:
    for hop in course.hops:
        args = {"task_id": hop.task_id, "code": hop.code, "link": hop.link}
        name = f"{hop.task_id}: {hop_words(hop)}"
        yield _slice(course, name, "critical", _PATH, 1, hop.start_us, hop.length_us, args)


def _flows(course: Course) -> Iterator[_Event]:
    """From the end of what a task needed to the first start after it."""
    by_task, begin_us = course.waits.by_task, course.waits.begin_us
    number = 0
    for name, task in course.state.tasks.items():
        for needed in task.task.dependencies:
            ends = [one for one in by_task.get(needed, ()) if one.kind == ATTEMPT and not one.open]
            starts = [one for one in by_task[name] if one.kind == ATTEMPT and ends and one.start_us >= ends[-1].end_us]
            if not starts:
                continue
            number += 1
            last, first = ends[-1], starts[0]
            shared = {"name": "dependency", "cat": "dependency", "id": number, "pid": _TASKS}
            out_us = max(last.start_us, last.end_us - 1)  # Inside of the slice that it leaves.
            yield {**shared, "ph": "s", "tid": course.state.tasks[needed].index + 1, "ts": out_us - begin_us}
            yield {**shared, "ph": "f", "bp": "e", "tid": task.index + 1, "ts": first.start_us - begin_us}


def _counters(course: Course) -> Iterator[_Event]:
    """How many attempts ran, and what had been spent, whenever that changed."""
    changes: list[tuple[int, int]] = []
    for span in course.spans.values():
        changes += [(span.started_at_us, 1), (course.end_us(span), -1)]
    running, begin_us = 0, course.waits.begin_us
    changes.sort()
    for place, (at_us, change) in enumerate(changes):
        running += change
        if place + 1 == len(changes) or changes[place + 1][0] != at_us:
            yield _counter("running attempts", at_us - begin_us, {"attempts": running})
    spent = 0
    for record in course.records:
        if isinstance(record.event, ev.CostCharged) and record.event.usd_micros:
            spent += record.event.usd_micros
            yield _counter("cost in USD", max(0, record.at_us - begin_us), {"usd": spent / 1e6})


def _counter(name: str, at_us: int, values: dict[str, float]) -> _Event:
    return {"ph": "C", "name": name, "pid": _TASKS, "tid": 0, "ts": at_us, "args": values}


def _marks(course: Course, redact: bool) -> Iterator[_Event]:
    for mark in course.marks:
        task = course.state.tasks.get(mark.task_id or "")
        name = mark.kind if redact and mark.kind != CHECKPOINT else mark.text
        yield {
            "ph": "i", "name": name, "cat": mark.kind, "pid": _TASKS, "tid": 0 if task is None else task.index + 1,
            "ts": mark.at_us - course.waits.begin_us, "s": "p" if task is None else "t",
            "args": {"seq": mark.seq, "undone": mark.undone},
        }  # fmt: skip
