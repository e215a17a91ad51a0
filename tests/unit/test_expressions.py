"""What expressions over the state of a run say, and that nothing but expressions is ever taken for one."""

from __future__ import annotations

import contextlib

import pytest
from dispatching import Scene
from hypothesis import given
from hypothesis import strategies as st
from paper import task

from parallel_agents.debugger.breakpoints import breakpoint_of, here_at
from parallel_agents.debugger.expressions import CALLS, NAMES, ExpressionError, Here, condition, expression
from parallel_agents.debugger.frames import Frames
from parallel_agents.debugger.tape import Tape
from parallel_agents.eventstore.errors import ParallelAgentsError, UnknownTask
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.status import RunState, TaskState

TASKS = ("api", "web")


@pytest.fixture
def value(scene: Scene):  # type: ignore[no-untyped-def]
    """Evaluates on a run in which one task has failed for good and the other runs."""
    run_id = scene.submit(task("api", max_retries=0), task("web"))
    scene.tick()
    scene.runner.end("api", error="it broke")
    scene.tick()
    tape = Tape(scene.log, run_id)
    here = here_at(tape, Frames(tape).at(len(tape) - 1))
    return lambda text: expression(text, TASKS).value(here)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("failed", 1), ("failed >= 1 and running == 1", True), ("tasks - running * 2 / 2", 1.0), ("-failed", -1),
        ("status('api')", "failed"), ("status('api') == 'failed' and not status('web') == 'failed'", True),
        ("'broke' in error('api')", True), ("status('web') in ('queued', 'running')", True), ("failed in (2, 3)", False),
        ("status('web') not in ['queued']", True), ("run", "running"), ("budget", None), ("budget > 0", False),
        ("budget < 0", False), ("budget == None", True), ("left is None", True), ("took('web') > 0", False), ("1 / 0", None),
        ("1 / 0 > 1 or True", True), ("0 < failed <= 1 < tasks", True), ("attempts('api') + failures('api')", 2),
        ("cost", 0.0), ("spent('web') == 0", True), ("unknown + stuck", 0), ("short == ''", True), ("1e3 % 7 // 2", 3.0),
    ],
)  # fmt: skip
def test_an_expression_says(value, text: str, expected: object) -> None:  # type: ignore[no-untyped-def]
    """By name, by task, by arithmetic; what is not known is neither more nor less than anything."""
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "empty", "failed >= 2"),
        ("faild > 1", "column 1: there is no name 'faild'", "failed"),
        ("cost > 1 and runing == 2", "column 14: there is no name 'runing'", "running"),
        ("status('apy') == 'x'", "column 8: the run has no task 'apy'", "api"),
        ("stats('api')", "column 1: there is no function 'stats'", "status"),
        ("status(api)", "column 1: status takes the id of one task", "status('TASK')"),
        ("status == 'failed'", "column 1: status of which task?", "status('api')"),
        ("api == 'running'", "column 1: api is a task", "status('api')"),
        ("'ä' == 'ä' and cost > 'much'", "column 23: a number is compared with a text", ""),
        ("cost + 'much'", "column 8: this is a text, where a number belongs", ""),
        ("cost and failed", "column 1: this is a number, where a truth belongs", ""),
        ("failed >", "column 9: ", ""),
        ("cost.real", "column 1: a dot has no place", ""),
        ("__import__('os').system('x')", "column 1: this cannot be called", ""),
        ("__import__('os')", "there is no function '__import__'", ""),
        ("2 ** 99999999", "column 1: this sign has no place", ""),
        ("'a' * 999999999", "this is a text, where a number belongs", ""),
        ("99999999999999999999", "a number beyond", ""),
        ("[x for x in 'a']", "a loop has no place", ""),
        ("(lambda: 1)()", "this cannot be called", ""),
        ("f'{cost}'", "a text with parts has no place", ""),
        ("status(*'a')", "takes the id of one task", ""),
        ("b'x' == 'x'", "neither a number nor a text", ""),
        ("cost if failed else 1", "if ... else has no place", ""),
        ("(" * 300 + "1" + ")" * 300, "characters", ""),
        ("(" * 240 + "1" + ")" * 240, "column", ""),
        ("1" + "+1" * 240, "parts", ""),
        ("1 in (cost := 1, 2)", "an assignment has no place", ""),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_with_its_column(text: str, message: str, hint: str) -> None:
    """And with the nearest name that there is."""
    with pytest.raises(ExpressionError) as raised:
        expression(text, TASKS)
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_a_breakpoint_is_a_type_a_task_a_conflict_or_a_condition() -> None:
    """Whatever else is typed is told with what is near."""
    assert breakpoint_of("TaskFailed TaskTimedOut", TASKS).types == {"TaskFailed", "TaskTimedOut"}
    assert breakpoint_of(" task  api ", TASKS).task_id == "api"
    assert breakpoint_of("conflict", TASKS).types == {"ConflictDetected"}
    assert breakpoint_of("task == 'api'", TASKS).holds is not None
    assert breakpoint_of("task in ('api', 'web')", TASKS).holds is not None
    for text, error, hint in (
        ("TaskFaild", ParallelAgentsError, "TaskFailed"),
        ("task apy", UnknownTask, "api"),
        ("cost", ExpressionError, "cost > 0"),
        ("run", ExpressionError, "run == "),
        ("", ParallelAgentsError, "such as"),
    ):
        with pytest.raises(error) as raised:
            breakpoint_of(text, TASKS)
        assert hint in raised.value.hint


WORDS = st.sampled_from(
    [*NAMES, *(f"{name}('api')" for name in CALLS), "1", "0.5", "'x'", "None", "True", "+", "-", "*", "/", "%", "<", ">=", "==",
     "!=", "and", "or", "not", "in", "is", "(", ")", ",", "[", "]", "**", ".", "lambda:", "if", "else", ":=", "\\", "\x00", "é"]
)  # fmt: skip


class OneEvent:
    """Of a tape no more than an expression asks for."""

    at_us = (5_000_000,)

    def type_of(self, position: int) -> str:
        """Of its one event."""
        return "RunStarted"

    def task_of(self, position: int) -> str:
        """It names none."""
        return ""


HERE = Here(
    RunState("r", tasks={name: TaskState(task(name), 0, 0) for name in TASKS}, started_at_us=1), Cost(), OneEvent(), 0
)  # type: ignore[arg-type]


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=40))
def test_whatever_is_typed_is_an_expression_or_an_error_of_ours(text: str) -> None:
    """Never an error of Python's, neither when it is read nor when it is evaluated."""
    found = None
    with contextlib.suppress(ExpressionError):
        found = expression(text, TASKS)
    if found is None:
        return
    result = found.value(HERE)
    kinds = {"number": int | float, "text": str, "truth": bool, "nothing": type(None)}
    assert result is None or isinstance(result, kinds[found.kind])
    if found.kind == "truth":
        assert condition(text, TASKS).value(HERE) is result
