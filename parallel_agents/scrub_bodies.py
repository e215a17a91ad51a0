"""Takes a secret out of what the log holds: bodies of events and the documents that they name, nothing else changed in them.

What others refer to stays, or the log could not be folded: ids, commits, paths of folders, the names of tasks. Where the
secret stands in one of those it is told, and left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from parallel_agents.eventstore.events import EVENT_TYPES
from parallel_agents.eventstore.secret_spellings import Secret
from parallel_agents.eventstore.submission import Plan

WORDS: Final = frozenset(
    {"name", "model", "model_reason", "reason", "facts", "paths", "branch", "tags", "tools", "what", "output"}
)
"""Fields of events that nothing refers to, besides the free text of each."""
DIGESTS: Final = ("plan_digest", "state_digest")
"""Fields that name a document, which gets another name where it is changed."""
NAMING: Final = ("RunSubmitted", "RunForked", "PlanScheduled")
"""The events that have one of these."""
_KEPT_OF_TASK: Final = frozenset({"task_id", "dependencies", "agent_type", "runner"})
_KEPT_OF_STATE: Final = frozenset(
    {
        "seq", "version", "status", "plan_digest", "workdir", "repository", "base_commit", "integration", "before_run",
        "last_stage", "restoring", "running", "stage_failed", "task_budgets", "fields", "pause_code",
    }
)  # fmt: skip


def clean_event(type_: str, body: str, secret: Secret, renamed: Mapping[str, str]) -> tuple[str, list[str]]:
    """A body without the secret, and with the new names of documents.

    Args:
        renamed: old digest -> new digest, of documents.
    Returns:
        The body, the same text where there was nothing to change, and the fields in which the secret stays.
    Raises:
        ValueError: the body is no event's.
    """
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError("a body is a JSON object")
    cls = EVENT_TYPES.get(type_)
    free = WORDS if cls is None else WORDS | set(cls.free_text)
    changed, left = {}, []
    for name, value in values.items():
        if name in DIGESTS and value in renamed:
            changed[name] = renamed[value]
        elif not secret.is_in_value(value):
            continue
        elif name in free:
            changed[name] = secret.without_in(value)
        else:
            left.append(name)
    return (_text({**values, **changed}) if changed else body), left


def clean_document(content: bytes, secret: Secret, renamed: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """A plan, or the state that a fork begins with, without the secret.

    Returns:
        The document, the same bytes where there was nothing to change, and the places in which the secret stays.
    Raises:
        ValueError: it is neither.
    """
    whole = json.loads(content)
    if not isinstance(whole, dict):
        raise ValueError("a document is a JSON object")
    left: list[str] = []
    cleaned = _clean_state(whole, secret, renamed, left) if "plan_digest" in whole else _clean_plan(whole, secret, left)
    return (content if cleaned == whole else _text(cleaned).encode()), left


def names_plan(content: bytes) -> bool:
    """Whether a document names another one: the state that a fork begins with names the plan of its parent."""
    if b'"plan_digest"' not in content:
        return False
    whole = json.loads(content)
    return isinstance(whole, dict) and "plan_digest" in whole


def _clean_plan(plan: dict[str, Any], secret: Secret, left: list[str]) -> dict[str, Any]:
    cleaned = {name: _values(value, secret, left, name) for name, value in plan.items() if name != "tasks"}
    cleaned["tasks"] = []
    for task in plan.get("tasks", ()):
        of_task = {}
        for name, value in task.items():
            where = f"{name} of task {task.get('task_id')}"
            if name in _KEPT_OF_TASK:
                of_task[name] = value
                if secret.is_in_value(value):
                    left.append(name if name == "task_id" else where)
            elif name == "context":
                of_task[name] = secret.without_in(value)
            else:
                of_task[name] = _values(value, secret, left, where)
        cleaned["tasks"].append(of_task)
    try:
        Plan.model_validate_json(_text(cleaned))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        left.append(f"{where}, where {error.errors()[0]['type']} would be wrong")
        return plan
    return cleaned


def _clean_state(state: dict[str, Any], secret: Secret, renamed: Mapping[str, str], left: list[str]) -> dict[str, Any]:
    cleaned = {
        name: value if name in _KEPT_OF_STATE else _values(value, secret, left, name) for name, value in state.items()
    }
    left += [name for name in _KEPT_OF_STATE & state.keys() if secret.is_in_value(state[name])]
    return {**cleaned, "plan_digest": renamed.get(state["plan_digest"], state["plan_digest"])}


def _values(value: Any, secret: Secret, left: list[str], where: str) -> Any:
    """The same in every text but the keys of objects, which others may refer to."""
    match value:
        case str():
            return secret.without(value)
        case dict():
            left += [f"a key of {where}" for key in value if secret.is_in(key)]
            return {key: _values(item, secret, left, where) for key, item in value.items()}
        case list():
            return [_values(item, secret, left, where) for item in value]
        case _:
            return value


def _text(value: Any) -> str:
    """JSON as the log has it: no blanks, letters as they are, the order kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
