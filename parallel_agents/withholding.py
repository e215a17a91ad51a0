"""What is left out of a run that is shown to a stranger: whatever people described, and whatever agents and commands wrote.

Texts stay only where their field is listed here, so that a field which nobody has thought of yet is left out. What stays are
the names that hold a run together (ids of tasks, attempts and checkpoints, commits, types of agents, runners, models), codes,
times, numbers and switches. Paths become numbers that are the same within one export and tell nothing outside of it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any, Final

import orjson

from parallel_agents.scheduler import scopes
from parallel_agents.scheduler.decide import MAX_EXECUTION
from parallel_agents.scheduler.decide_past import FORKED, ROLLED_BACK
from parallel_agents.scheduler.work import APPROVAL, CONFLICT, RESULT_APPROVAL

KEPT: Final = frozenset(
    {
        "schema_version", "task_id", "attempt_id", "other_task_id", "checkpoint_id", "run_id", "parent", "because", "failed",
        "resumes", "resumed", "strategy", "workspace", "status", "kind", "kinds", "outcome", "code", "level", "scope",
        "base_commit", "begin_commit", "commit", "onto", "kept_commit", "work_commit", "integration", "restoring",
        "plan_digest", "state_digest", "old_digest", "new_digest", "runner", "model", "model_reason", "role", "agent_type",
        "provider", "source", "prices", "not_before", "until", "facts", "failure_kind", "pause_code", "running",
        "before_run", "last_stage", "stage_failed", "fields",
    }
)  # fmt: skip
"""Fields of events and states whose texts stay."""
KEPT_OF_PLANS: Final = frozenset(
    {
        "task_id", "agent_type", "priority", "dependencies", "runner", "approval", "model", "expected_model", "strategy",
        "workspace", "profile", "conflicts", "model_of", "models", "failover", "resolver", "permission_mode", "after",
        "provider",
    }
)  # fmt: skip
"""Fields of plans whose texts stay."""
PATHS: Final = frozenset({"paths", "changed"})
"""Fields that hold lists of paths."""
_GONE: Final = frozenset({"output", "lesson"})  # What was written, whatever form it has.
_EMPTIED: Final = frozenset(
    {"environment", "env", "context", "overrides", "clients"}
)  # Names in it tell something, too.
_WORDS: Final = frozenset(
    {
        "dependency", "fail_fast", "task_failed", "retry", "approved", MAX_EXECUTION, FORKED, ROLLED_BACK, APPROVAL,
        RESULT_APPROVAL, CONFLICT,
    }
)  # fmt: skip
"""Reasons that only the scheduler gives."""


class Withholding:
    """Leaves out, for one export."""

    def __init__(self) -> None:
        self._key = os.urandom(32)  # Kept nowhere: whoever guesses a path cannot tell whether it is right.
        self.documents: dict[str, tuple[str, bytes]] = {}
        """By the digest of a document: what takes its place, with its digest."""

    def body(self, type_: str, body: str) -> str:
        """The body of an event. Where nothing has to go it is the same text, which its digest still proves."""
        values = orjson.loads(body)
        shown = {name: self._shown(name, value, KEPT) for name, value in values.items()}
        if type_ == "RunClaimed":
            holder = {"kind": values["holder"].get("kind"), "pid": 0, "start_time": 0, "boot_id": ""}
            shown["holder"] = holder
        if type_ in ("RunSubmitted", "RunMoved"):
            shown["repository"] = None
        for name in ("plan_digest", "state_digest"):
            if type_ in ("RunSubmitted", "RunForked") and values.get(name) in self.documents:
                shown[name] = self.documents[values[name]][0]
        return body if shown == values else orjson.dumps(shown).decode()

    def _shown(self, name: str, value: Any, kept: frozenset[str]) -> Any:
        if name in kept or value is None or isinstance(value, bool | int | float):
            return value
        if name in _GONE:
            return None
        if name in _EMPTIED:
            return {}
        if name in PATHS:
            return [self._path(str(path)) for path in value]
        match value:
            case str():
                word = value.partition(":")[0]
                return word if name == "reason" and word in _WORDS else ""
            case list():
                return [self._shown(name, one, kept) for one in value]
            case dict():
                return {key: self._shown(key, one, kept) for key, one in value.items()}
            case _:
                raise AssertionError(f"JSON holds no {type(value).__name__}")

    def _path(self, path: str) -> str:
        return f"path-{hmac.digest(self._key, path.encode('utf-8', 'surrogateescape'), 'sha256').hex()[:12]}"

    def add_plan(self, digest: str, content: bytes) -> None:
        """Leave out of a plan. Tasks that may not run at once because of their files are still such tasks."""
        plan = orjson.loads(content)
        globs = [tuple(task.get("files", ())) for task in plan["tasks"]]
        roles = plan.get("agents", {}).pop("roles", {})
        shown = {name: self._shown(name, value, KEPT_OF_PLANS) for name, value in plan.items()}
        for task, files in zip(shown["tasks"], _stand_ins(globs), strict=True):
            if files:
                task["files"] = files
        if roles:
            shown["agents"]["roles"] = {
                name: {"name": name, "model": role.get("model"), "source": role.get("source", "built-in")}
                for name, role in roles.items()
            }
        self._keep(digest, orjson.dumps(shown))

    def add_state(self, digest: str, content: bytes) -> None:
        """Leave out of the state that a fork begins with. Its plan comes first."""
        state = orjson.loads(content)
        fields, tasks = state.get("fields"), state.pop("tasks")
        shown = {name: self._shown(name, value, KEPT) for name, value in state.items()}
        shown["repository"] = None
        shown["throttled"] = dict.fromkeys(state["throttled"], "") if isinstance(state.get("throttled"), dict) else None
        shown["task_budgets"] = state.get("task_budgets", {})
        shown["tasks"] = {name: self._task(fields, values) for name, values in tasks.items()}
        if state["plan_digest"] in self.documents:
            shown["plan_digest"] = self.documents[state["plan_digest"]][0]
        self._keep(digest, orjson.dumps(shown))

    def _task(self, fields: list[str] | None, values: Any) -> Any:
        if fields is None:  # Until version 2 of the state each task had its fields by name.
            return {name: self._shown(name, value, KEPT) for name, value in values.items()}
        return [self._shown(name, value, KEPT) for name, value in zip(fields, values, strict=True)]

    def _keep(self, digest: str, content: bytes) -> None:
        self.documents[digest] = (hashlib.sha256(content).hexdigest(), content)


def _stand_ins(globs: list[tuple[str, ...]]) -> list[list[str]]:
    """Other globs, of which two meet exactly where those did that they stand for."""
    kinds = {one: f"scope-{number}" for number, one in enumerate(dict.fromkeys(filter(None, globs)))}
    of: Mapping[tuple[str, ...], list[str]] = {one: [name] for one, name in kinds.items()}
    names = list(kinds)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            if scopes.meet(one, other):
                both = f"{kinds[one]}-and-{kinds[other]}"
                of[one].append(both)
                of[other].append(both)
    return [of[one] if one else [] for one in globs]
