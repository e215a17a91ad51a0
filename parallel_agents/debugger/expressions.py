"""Expressions over the state of a run, such as ``failed >= 2 and cost > 1.5`` or ``status('api') == 'running'``.

They are read by Python's own parser and by nothing else of Python: of its tree only the kinds of nodes below are taken, names
are those of ``NAMES``, calls those of ``CALLS``. Every part has a kind (number, text, truth) that is known once it is read, so
whatever is wrong with an expression is said then, and evaluating one cannot fail. What nobody knows yet, such as how long a task
took that has not started, is nothing: it equals nothing else, and is neither more nor less than anything.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from parallel_agents.debugger.tape import Tape
from parallel_agents.eventstore.errors import InvalidUsage, nearest
from parallel_agents.projections import status as st
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.status import RunState, TaskState

LONGEST: Final = 500  # Characters.
MOST_NODES: Final = 200
_LARGEST: Final = 10**15  # Of numbers that are written down.

Kind = Literal["number", "text", "truth", "nothing"]
Value = float | str | bool | None
Evaluate = Callable[["Here"], Any]


class Here(NamedTuple):
    """What an expression is evaluated on: a run after one of its events."""

    state: RunState
    cost: Cost
    tape: Tape
    position: int  # Of the event.


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that makes sense for its run."""

    text: str
    kind: Kind
    value: Evaluate


class ExpressionError(InvalidUsage):
    """An expression does not make sense; the message names the column."""


class _Part(NamedTuple):
    kind: Kind
    value: Evaluate


def _status_count(status: str) -> Evaluate:
    return lambda here: here.state.counts[status]


def _left(here: Here) -> float | None:
    budget = here.state.budget_usd_micros
    return None if budget is None else (budget - here.cost.usd_micros) / 1e6


def _budget(here: Here) -> float | None:
    budget = here.state.budget_usd_micros
    return None if budget is None else budget / 1e6


def _elapsed_s(here: Here) -> float | None:
    began_us = here.state.started_at_us
    return None if began_us is None else ((here.state.ended_at_us or here.tape.at_us[here.position]) - began_us) / 1e6


NAMES: Final[dict[str, tuple[Kind, Evaluate, str]]] = {
    **{status: ("number", _status_count(status), f"tasks that are {status}") for status in st.TASK_STATUSES},
    "tasks": ("number", lambda here: len(here.state.tasks), "all tasks"),
    "cost": ("number", lambda here: here.cost.usd_micros / 1e6, "dollars spent, undone work included"),
    "budget": ("number", _budget, "dollars the run may spend"),
    "left": ("number", _left, "dollars left of that"),
    "unknown": ("number", lambda here: len(here.cost.unknown), "attempts of unknown cost"),
    "elapsed": ("number", _elapsed_s, "seconds since the run began"),
    "stuck": (
        "number",
        lambda here: sum(here.state.tasks[name].stuck is not None for name in here.state.running.values()),
        "running attempts that look stuck",
    ),
    "seq": ("number", lambda here: here.state.seq, "number of the event"),
    "run": ("text", lambda here: here.state.status, "status of the run"),
    "reason": ("text", lambda here: here.state.reason, "why the run is paused or ended"),
    "short": ("text", lambda here: ", ".join(here.state.throttled), "what the machine is short of"),
    "type": ("text", lambda here: here.tape.type_of(here.position), "type of the event"),
    "task": ("text", lambda here: here.tape.task_of(here.position), "task that the event names"),
}  # fmt: skip
"""Name -> kind, value, what it is."""

_OfTask = Callable[[TaskState, Here], Any]
CALLS: Final[dict[str, tuple[Kind, _OfTask, str]]] = {
    "status": ("text", lambda task, here: task.status, "its status"),
    "attempts": ("number", lambda task, here: task.attempts, "attempts started"),
    "failures": ("number", lambda task, here: task.failures, "attempts failed"),
    "spent": ("number", lambda task, here: here.cost.by_task.get(task.task.task_id, 0) / 1e6, "dollars it cost"),
    "took": ("number", lambda task, here: task.duration_s, "seconds of its last attempt"),
    "exit_code": ("number", lambda task, here: task.exit_code, "of its last attempt"),
    "error": ("text", lambda task, here: task.error or "", "why it failed"),
    "model": ("text", lambda task, here: task.model or "", "of its last attempt"),
    "runner": ("text", lambda task, here: task.runner or "", "of its last attempt"),
}
"""Name of a function of a task's id -> kind, value, what it is."""

_ORDER: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


def expression(text: str, task_ids: Collection[str]) -> Expression:
    """Read an expression.

    Args:
        task_ids: the tasks that there are.
    Raises:
        ExpressionError: it makes no sense; the message says in which column, the hint what would.
    """
    said = text.strip()
    if not said:
        raise ExpressionError("an expression is empty", hint="such as failed >= 2, or status('TASK') == 'running'")
    if len(said) > LONGEST:
        raise ExpressionError(f"an expression has {len(said)} characters", hint=f"at most {LONGEST} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of escapes that Python would rather not have.
            tree = ast.parse(said, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = getattr(error, "offset", None) or len(said) + 1  # What is missing at the end has no place of its own.
        what = getattr(error, "msg", None) or "this cannot be read"
        raise ExpressionError(f"column {column}: {what}", hint=_SUCH_AS) from None
    nodes = sum(1 for _ in ast.walk(tree))
    if nodes > MOST_NODES:
        raise ExpressionError(f"an expression has {nodes} parts", hint=f"at most {MOST_NODES} are read")
    found = _Reader(said, task_ids).read(tree)
    return Expression(said, found.kind, found.value)


def condition(text: str, task_ids: Collection[str]) -> Expression:
    """Read an expression that is true or not.

    Raises:
        ExpressionError: as above, or it is a number or a text.
    """
    found = expression(text, task_ids)
    if found.kind != "truth":
        raise ExpressionError(
            f"column 1: {found.text!r} is a {found.kind}, and nothing that holds or does not",
            hint=f"compare it, such as {found.text} {'> 0' if found.kind == 'number' else '== ...'}",
        )
    return found


_SUCH_AS: Final = "such as failed >= 2, cost > 1.5, or status('TASK') == 'running'"


class _Reader:
    """Makes functions of the nodes of one expression."""

    def __init__(self, text: str, task_ids: Collection[str]) -> None:
        self._text = text.encode()
        self._task_ids = task_ids

    def wrong(self, node: ast.AST, what: str, hint: str = _SUCH_AS) -> ExpressionError:
        """The error that says where something is wrong."""
        before = self._text[: getattr(node, "col_offset", 0)]
        return ExpressionError(f"column {len(before.decode(errors='replace')) + 1}: {what}", hint=hint)

    def read(self, node: ast.expr) -> _Part:
        """Any node."""
        match node:
            case ast.Constant(value=value):
                return self._constant(node, value)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.Call():
                return self._call(node)
            case ast.BoolOp(op=op, values=values):
                return self._all_or_any([self._of(one, "truth") for one in values], every=isinstance(op, ast.And))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                held = self._of(operand, "truth")
                return _Part("truth", lambda here: not held(here))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                number = self._of(operand, "number")
                return _Part("number", number if isinstance(sign, ast.UAdd) else _negative(number))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _Part(
                    "number", _reckoned(_ARITHMETIC[type(op)], self._of(left, "number"), self._of(right, "number"))
                )
            case ast.Compare():
                return self._compare(node)
            case _:
                raise self.wrong(node, f"{_WORDS.get(type(node), 'this')} has no place in an expression")

    def _of(self, node: ast.expr, kind: Kind) -> Evaluate:
        """A node that has to be of a kind."""
        found = self.read(node)
        if found.kind != kind:
            raise self.wrong(node, f"this is a {found.kind}, where a {kind} belongs")
        return found.value

    def _constant(self, node: ast.Constant, value: Any) -> _Part:
        match value:
            case bool():
                return _Part("truth", lambda here: value)
            case None:
                return _Part("nothing", lambda here: None)
            case int() | float():
                if not abs(value) <= _LARGEST:
                    raise self.wrong(node, f"a number beyond {_LARGEST:,}")
                return _Part("number", lambda here: value)
            case str():
                return _Part("text", lambda here: value)
            case _:
                raise self.wrong(node, "this is neither a number nor a text")

    def _name(self, node: ast.expr, name: str) -> _Part:
        found = NAMES.get(name)
        if found is not None:
            return _Part(found[0], found[1])
        if name in CALLS:
            raise self.wrong(node, f"{name} of which task?", hint=f"{name}('{next(iter(self._task_ids), 'TASK')}')")
        if name in self._task_ids:
            raise self.wrong(node, f"{name} is a task; what of it?", hint=f"such as status('{name}') == 'running'")
        raise self.wrong(node, f"there is no name {name!r}", hint=nearest(name, [*NAMES, *CALLS]))

    def _call(self, node: ast.Call) -> _Part:
        if not isinstance(node.func, ast.Name) or node.func.id not in CALLS:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            raise self.wrong(node, f"there is no function {name!r}" if name else "this cannot be called",
                        hint=nearest(name, CALLS))  # fmt: skip
        kind, of_task, _ = CALLS[node.func.id]
        match node.args, node.keywords:
            case [ast.Constant(value=str() as task_id)], []:
                if task_id not in self._task_ids:
                    raise self.wrong(
                        node.args[0], f"the run has no task {task_id!r}", hint=nearest(task_id, self._task_ids)
                    )
                return _Part(kind, _asked_of(of_task, task_id))
            case _:
                raise self.wrong(
                    node, f"{node.func.id} takes the id of one task, as a text", hint=f"{node.func.id}('TASK')"
                )

    def _all_or_any(self, values: list[Evaluate], *, every: bool) -> _Part:
        if every:
            return _Part("truth", lambda here: all(value(here) for value in values))
        return _Part("truth", lambda here: any(value(here) for value in values))

    def _compare(self, node: ast.Compare) -> _Part:
        parts: list[Evaluate] = []
        left_node, left = node.left, self.read(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                parts.append(self._in(left_node, left, right_node, within=isinstance(op, ast.In)))
                if len(node.ops) > 1:
                    raise self.wrong(right_node, "`in` stands by itself: join it with `and`")
                break
            right = self.read(right_node)
            same = left.kind == right.kind or "nothing" in (left.kind, right.kind)
            if not same:
                raise self.wrong(right_node, f"a {left.kind} is compared with a {right.kind}")
            match op:
                case ast.Eq() | ast.Is():
                    parts.append(_equal(left.value, right.value))
                case ast.NotEq() | ast.IsNot():
                    parts.append(_unequal(left.value, right.value))
                case _:
                    if left.kind not in ("number", "text") or right.kind not in ("number", "text"):
                        raise self.wrong(right_node, "only numbers and texts are more or less than another")
                    parts.append(_ordered(_ORDER[type(op)], left.value, right.value))
            left_node, left = right_node, right
        return self._all_or_any(parts, every=True)

    def _in(self, left_node: ast.expr, left: _Part, right_node: ast.expr, *, within: bool) -> Evaluate:
        if isinstance(right_node, ast.Tuple | ast.List | ast.Set):
            known = [self.read(one) for one in right_node.elts]
            for one, element in zip(known, right_node.elts, strict=True):
                if one.kind != left.kind:
                    raise self.wrong(element, f"a {left.kind} is looked for, and this is a {one.kind}")
            values = [one.value for one in known]
            if within:
                return lambda here: left.value(here) in [value(here) for value in values]
            return lambda here: left.value(here) not in [value(here) for value in values]
        whole = self._of(right_node, "text")
        if left.kind != "text":
            raise self.wrong(left_node, f"only a text is found in a text, and this is a {left.kind}")
        if within:
            return lambda here: left.value(here) in whole(here)
        return lambda here: left.value(here) not in whole(here)


_WORDS: Final[dict[type[ast.AST], str]] = {
    ast.Attribute: "a dot", ast.Subscript: "a part in brackets", ast.Lambda: "a function", ast.IfExp: "if ... else",
    ast.NamedExpr: "an assignment", ast.ListComp: "a loop", ast.GeneratorExp: "a loop", ast.BinOp: "this sign",
    ast.Tuple: "a list", ast.List: "a list", ast.Set: "a list", ast.Dict: "a table", ast.JoinedStr: "a text with parts",
}  # fmt: skip


def _asked_of(of_task: _OfTask, task_id: str) -> Evaluate:
    return lambda here: of_task(here.state.tasks[task_id], here) if task_id in here.state.tasks else None


def _negative(value: Evaluate) -> Evaluate:
    return lambda here: None if (found := value(here)) is None else -found


def _reckoned(how: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    def reckon(here: Here) -> Any:
        one, other = left(here), right(here)
        if one is None or other is None:
            return None
        try:
            return how(one, other)
        except (ZeroDivisionError, OverflowError):
            return None

    return reckon


def _equal(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda here: left(here) == right(here)


def _unequal(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda here: left(here) != right(here)


def _ordered(how: Callable[[Any, Any], bool], left: Evaluate, right: Evaluate) -> Evaluate:
    def order(here: Here) -> bool:
        one, other = left(here), right(here)
        return one is not None and other is not None and how(one, other)

    return order
