"""A run as spans of OpenTelemetry: the run, its tasks, their attempts, with the conventions for generative AI. Pure.

Source: the semantic conventions for GenAI of the OpenTelemetry project (status: development), the spans "invoke workflow" and
"invoke agent", and ``error.type`` of its general conventions. What these have no name for is called ``parallel_agents.*``.

Ids follow from the ids of the run, of tasks and of attempts alone: whoever writes the same run twice writes the same trace,
and a fork can point to the trace of its parent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.pictures.course import Course
from parallel_agents.pictures.span_events import span_event
from parallel_agents.pictures.span_model import Attributes, Content, RunSpan, SpanEvent, SpanLink
from parallel_agents.pictures.stretches import ATTEMPT, WAIT
from parallel_agents.projections import status as st
from parallel_agents.projections.timeline import Span as Attempt
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.agents.granting import is_agent, provider_of
from parallel_agents.scheduler.agents.models import name_for

OPERATION, AGENT_NAME, AGENT_ID = "gen_ai.operation.name", "gen_ai.agent.name", "gen_ai.agent.id"
WORKFLOW, PROVIDER, CONVERSATION = "gen_ai.workflow.name", "gen_ai.provider.name", "gen_ai.conversation.id"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS, CACHE_WRITE_TOKENS = (
    "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
)  # fmt: skip
INPUT_MESSAGES, OUTPUT_MESSAGES, ERROR_TYPE = "gen_ai.input.messages", "gen_ai.output.messages", "error.type"
INVOKE_AGENT, INVOKE_WORKFLOW = "invoke_agent", "invoke_workflow"
_PROVIDERS: Final = {"google": "gcp.gen_ai"}  # Where ours has another name there.
_NO_ERROR: Final = frozenset({"completed", "running", "blocked", "cancelled", "discarded"})


def trace_id_of(run_id: str) -> str:
    """Of a run: 16 bytes, in hex."""
    return _digest(f"run {run_id}", 16)


def span_id_of(run_id: str, what: str = "", name: str = "") -> str:
    """Of a run (without more), or of one of its tasks or attempts: 8 bytes, in hex."""
    return _digest(f"span {run_id} {what} {name}", 8)


def _digest(text: str, size: int) -> str:
    made = sha256(text.encode()).digest()[:size]
    return made.hex() if any(made) else "01" * size  # All zeros is no id.


def run_spans(course: Course, content: Content | None = None, *, redact: bool = False) -> list[RunSpan]:
    """The spans of a run, parents first. What has not ended is cut where the run was looked at, and says so.

    Args:
        content: None: no text that a person, an agent or a command wrote, but for the name of the run and of its tasks.
        redact: without the name of the run too.
    """
    made = _Maker(course, content, redact)
    run = made.run()
    tasks = [made.task(name) for name in course.state.tasks]
    attempts = [made.attempt(span) for span in course.spans.values() if span.task_id in course.state.tasks]
    by_task = dict(zip(course.state.tasks, tasks, strict=True))
    by_attempt = {span.attributes["parallel_agents.attempt.id"]: span for span in attempts}
    for record in course.records:
        said = span_event(record, words=content is not None)
        if said is None:
            continue
        attempt_id, task_id = (getattr(record.event, name, None) or "" for name in ("attempt_id", "task_id"))
        if course.undone is not None and course.undone.holds(record.seq):
            said.attributes["parallel_agents.undone"] = True
        (by_attempt.get(attempt_id) or by_task.get(task_id) or run).events.append(said)
    return [run, *tasks, *attempts]


class _Maker:
    """Makes spans of one run."""

    def __init__(self, course: Course, content: Content | None, redact: bool) -> None:
        self._course, self._content, self._redact = course, content, redact
        self._run_id = course.state.run_id
        self._trace = trace_id_of(self._run_id)
        self._starts: dict[str, Recorded] = {}
        self._ends: dict[str, Recorded] = {}
        self._charges: dict[str, list[ev.CostCharged]] = {}
        self._of_task: dict[str, list[Attempt]] = defaultdict(list)
        for span in course.spans.values():
            self._of_task[span.task_id].append(span)
        for record in course.records:
            event = record.event
            if isinstance(event, ev.TaskStarted):
                self._starts[event.attempt_id] = record
            elif isinstance(event, ev.CostCharged):
                self._charges.setdefault(event.attempt_id, []).append(event)
            elif isinstance(
                event, ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost | ev.TaskBlocked
            ):
                self._ends[event.attempt_id or ""] = record

    def run(self) -> RunSpan:
        """The run itself: a workflow."""
        course, state = self._course, self._course.state
        name = "" if self._redact else state.name
        attributes: Attributes = {
            OPERATION: INVOKE_WORKFLOW,
            **({WORKFLOW: name} if name else {}),
            "parallel_agents.run.id": state.run_id, "parallel_agents.run.status": state.status,
            "parallel_agents.run.strategy": state.plan.strategy, "parallel_agents.run.seq": course.waits.seq,
            "parallel_agents.run.tasks": len(state.tasks), "parallel_agents.cost.usd": course.cost.usd_micros / 1e6,
        }  # fmt: skip
        failed = state.status == st.FAILED
        if failed:
            attributes[ERROR_TYPE] = "task_failed" if state.reason == "task_failed" else "limit"
        span = self._span(f"{INVOKE_WORKFLOW} {name}".strip(), span_id_of(self._run_id), "", attributes, failed)
        span.start_ns, span.end_ns = course.waits.begin_us * 1000, course.waits.end_us * 1000
        if not state.ended:
            span.attributes["parallel_agents.open"] = True
        first = course.records[0].event
        if isinstance(first, ev.RunForked):
            span.links.append(_link(trace_id_of(first.parent), span_id_of(first.parent), "fork"))
        return span

    def task(self, name: str) -> RunSpan:
        """A task: from the submission to its last end, with its waits as events."""
        course, task = self._course, self._course.state.tasks[name]
        stretches = course.waits.by_task[name]
        failed = task.status == st.FAILED
        attributes: Attributes = {
            "parallel_agents.task.id": name, "parallel_agents.task.status": task.status,
            "parallel_agents.task.agent_type": task.task.agent_type, "parallel_agents.task.priority": task.task.priority,
            "parallel_agents.task.attempts": task.attempts, "parallel_agents.task.dependencies": task.task.dependencies,
            "parallel_agents.cost.usd": course.cost.by_task[name] / 1e6,
        }  # fmt: skip
        if any(hop.task_id == name and (hop.kind == ATTEMPT or hop.length_us) for hop in course.hops):
            attributes["parallel_agents.critical"] = True
        if failed:
            attributes[ERROR_TYPE] = task.failure_kind or "failed"
        span = self._span(f"task {name}", self._id("task", name), span_id_of(self._run_id), attributes, failed)
        if stretches:
            span.start_ns, span.end_ns = stretches[0].start_us * 1000, stretches[-1].end_us * 1000
            if stretches[-1].open:
                span.attributes["parallel_agents.open"] = True
        for one in stretches:
            if one.kind == WAIT:
                told: Attributes = {
                    "parallel_agents.wait.code": one.code,
                    "parallel_agents.wait.s": one.length_us / 1e6,
                }
                told |= {"parallel_agents.wait.why": one.why} if self._content is not None else {}
                span.events.append(SpanEvent("wait", one.start_us * 1000, told))
        for needed in task.task.dependencies:
            span.links.append(_link(self._trace, self._id("task", needed), "dependency"))
        return span

    def attempt(self, known: Attempt) -> RunSpan:
        """An attempt: of an agent the invocation of it."""
        course, task = self._course, self._course.state.tasks[known.task_id]
        start = self._starts[known.attempt_id].event
        assert isinstance(start, ev.TaskStarted)
        attributes: Attributes = {
            "parallel_agents.attempt.id": known.attempt_id, "parallel_agents.attempt.number": known.attempt,
            "parallel_agents.attempt.outcome": known.outcome, "parallel_agents.task.id": known.task_id,
            "parallel_agents.runner": start.runner,
        }  # fmt: skip
        name = f"attempt {known.attempt}"
        agent = bool(start.model_reason) or is_agent(task.task)
        if agent:
            of_agent = self._agent(start, task.task.agent_type)
            name, attributes = f"{INVOKE_AGENT} {of_agent[AGENT_NAME]}", {**of_agent, **attributes}
        attributes |= self._measured(known.attempt_id)
        error = known.outcome not in _NO_ERROR
        if error:
            attributes[ERROR_TYPE] = self._error_type(known)
        if known.undone:
            attributes["parallel_agents.undone"] = True
        span = self._span(
            name, self._id("attempt", known.attempt_id), self._id("task", known.task_id), attributes, error
        )
        span.start_ns, span.end_ns = known.started_at_us * 1000, course.end_us(known) * 1000
        if known.ended_at_us is None:
            span.attributes["parallel_agents.open"] = True
        span.links += self._links(known, start)
        span.events.append(SpanEvent("decision", span.start_ns, self._decision(start)))
        if self._content is not None:
            for key, texts in ((INPUT_MESSAGES, self._content.inputs), (OUTPUT_MESSAGES, self._content.outputs)):
                if agent and (text := texts.get(known.attempt_id)) is not None:
                    span.attributes[key] = text
            if error and (end := self._ends.get(known.attempt_id)) is not None:
                span.message = str(getattr(end.event, "error", ""))
        return span

    def _id(self, what: str, name: str) -> str:
        return span_id_of(self._run_id, what, name)

    def _span(self, name: str, span_id: str, parent_id: str, attributes: Attributes, error: bool) -> RunSpan:
        at_ns = self._course.waits.begin_us * 1000
        return RunSpan(name, self._trace, span_id, parent_id, at_ns, at_ns, attributes, error=error)

    def _agent(self, start: ev.TaskStarted, agent_type: str) -> Attributes:
        """What the conventions say of an agent. The tokens of a cache are input as well."""
        settings = self._course.state.plan.agents
        provider = provider_of(start.runner, clients(settings.clients))
        attributes: Attributes = {
            OPERATION: INVOKE_AGENT, PROVIDER: _PROVIDERS.get(provider, provider) or start.runner,
            AGENT_NAME: start.role or agent_type, CONVERSATION: self._conversation(start),
        }  # fmt: skip
        if start.model:
            attributes[REQUEST_MODEL] = name_for(start.model, start.runner, settings)
        charges = self._charges.get(start.attempt_id, [])
        models = dict.fromkeys(one.model for one in charges if one.model)
        if len(models) == 1:
            attributes[RESPONSE_MODEL] = next(iter(models))
        if charges:
            read, written = (
                sum(one.cache_read_tokens for one in charges),
                sum(one.cache_write_tokens for one in charges),
            )
            attributes |= {
                INPUT_TOKENS: sum(one.input_tokens for one in charges) + read + written,
                OUTPUT_TOKENS: sum(one.output_tokens for one in charges),
                CACHE_READ_TOKENS: read, CACHE_WRITE_TOKENS: written,
                "parallel_agents.cost.usd": sum(one.usd_micros or 0 for one in charges) / 1e6,
                "parallel_agents.cost.known": all(one.usd_micros is not None for one in charges),
            }  # fmt: skip
        return attributes

    def _conversation(self, start: ev.TaskStarted) -> str:
        """The attempt that began the session which this one goes on with, or itself."""
        while start.resumes and start.resumes in self._starts:
            before = self._starts[start.resumes].event
            assert isinstance(before, ev.TaskStarted)
            start = before
        return start.attempt_id

    def _measured(self, attempt_id: str) -> Attributes:
        end = self._ends.get(attempt_id)
        if end is None or isinstance(end.event, ev.AttemptLost):
            return {}
        found: Attributes = {}
        for name in ("cpu_s", "peak_memory_bytes", "peak_open_files", "disk_written_bytes"):
            if value := getattr(end.event, name, None):
                found[f"parallel_agents.{name}"] = value
        if (code := getattr(end.event, "exit_code", None)) is not None:
            found["process.exit.code"] = code
        return found

    def _error_type(self, known: Attempt) -> str:
        end = self._ends.get(known.attempt_id)
        kind = getattr(end.event, "kind", "") if end is not None else ""
        return kind or {"timed_out": "timeout"}.get(known.outcome, known.outcome)

    def _links(self, known: Attempt, start: ev.TaskStarted) -> Iterator[SpanLink]:
        """To the attempts whose ends it needed, and to the one that it tries again or whose session it goes on with."""
        for needed in self._course.state.tasks[known.task_id].task.dependencies:
            if (other := self._before(needed, known)) is not None:
                yield _link(self._trace, self._id("attempt", other.attempt_id), "dependency")
        before = self._before(known.task_id, known)
        if before is not None:
            yield _link(self._trace, self._id("attempt", before.attempt_id), "retry")
        if start.resumes and (before is None or before.attempt_id != start.resumes):
            yield _link(self._trace, self._id("attempt", start.resumes), "resumes")

    def _before(self, task_id: str, known: Attempt) -> Attempt | None:
        """The last attempt of a task that had ended when another one began."""
        others = reversed(self._of_task[task_id])
        return next((one for one in others if one.ended_seq is not None and one.ended_seq <= known.started_seq), None)

    def _decision(self, start: ev.TaskStarted) -> Attributes:
        """What the start was decided on, as far as that is numbers."""
        numbers = {
            f"parallel_agents.decision.{name}": value
            for name, value in start.facts.items()
            if isinstance(value, int | float)
        }
        reason: Attributes = {"parallel_agents.decision.model_reason": start.model_reason} if start.model_reason else {}
        return {**numbers, **reason}


def _link(trace_id: str, span_id: str, kind: str) -> SpanLink:
    return SpanLink(trace_id, span_id, {"parallel_agents.link": kind})
