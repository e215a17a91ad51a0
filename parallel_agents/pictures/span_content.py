"""What agents were told and what they answered, for spans that are to hold it: messages by the schema of the conventions."""

from __future__ import annotations

import json
from typing import Any

from parallel_agents.archived import at_hand, is_kept
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log
from parallel_agents.pictures.course import Course
from parallel_agents.pictures.span_model import Content
from parallel_agents.scheduler.runners.folder import PROMPT


def content_of(log: Log, course: Course) -> Content:
    """The prompt of each agent's attempt, as far as its file is left, and its output. Secrets were taken out when it was kept."""
    inputs, outputs = {}, {}
    folder = attempts_folder(log.path) / course.state.run_id
    for span in course.spans.values():
        file = folder / span.task_id / span.attempt_id / PROMPT
        if is_kept(log.path, file):
            with at_hand(log.path, file.parent, file.name) as there:
                inputs[span.attempt_id] = _message("user", (there / file.name).read_text("utf-8", "replace"))
    for record in course.records:
        event = record.event
        if isinstance(event, ev.TaskCompleted | ev.TaskFailed | ev.TaskBlocked) and event.output is not None:
            reason = "error" if isinstance(event, ev.TaskFailed) else "stop"
            text = event.output if isinstance(event.output, str) else json.dumps(event.output, ensure_ascii=False)
            outputs[event.attempt_id or ""] = _message("assistant", text, finish_reason=reason)
    return Content(inputs, outputs)


def _message(role: str, text: str, **more: Any) -> str:
    """A list of one message, as a text of JSON."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}], **more}], ensure_ascii=False)
