"""What would have happened otherwise: a recorded run, played again under other settings by the same scheduler.

As long as the scheduler decides what it decided then, the run is the recorded one, look by look. From the first decision
that differs on it goes its own way: an attempt takes as long as its recorded one, in the order of the attempts of its task,
and ends as it ended; what people did comes again, where it still can be done. What is not recorded is assumed, told, and
played at the ends of its range too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from parallel_agents.checkpoint.repository import Repository
from parallel_agents.costs import usd
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan
from parallel_agents.otherwise.assumptions import ENDED_BY_ITSELF, LEVELS, Assumed, Known, check_models, timed_out
from parallel_agents.otherwise.otherwise_settings import differently
from parallel_agents.otherwise.recording import BLOCKED, STOPPED, TIMED_OUT, Attempt, Recording
from parallel_agents.otherwise.reenacting import OF_THE_MACHINE, Reenactment, files_of, has_files
from parallel_agents.otherwise.reenacting_files import FilesAgain
from parallel_agents.otherwise.run_figures import Figures, figures_of
from parallel_agents.otherwise.settling_again import Answers, answers_of
from parallel_agents.otherwise.steering_again import Dropped, Steering, steering_of
from parallel_agents.otherwise.surroundings import Surroundings, recording_of
from parallel_agents.otherwise.virtual_run import AGAIN_US, IDLE_LOOKS
from parallel_agents.past_attempts import NOTHING, Past, read_past
from parallel_agents.projections import status as st
from parallel_agents.scheduler.redecide import THEN
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.scheduler.runners.recorded import FAR_US, Part
from parallel_agents.scheduler.strategies import StrategyOptions
from parallel_agents.scheduler.verdicts import Divergence
from parallel_agents.scheduler.work import PATHS_SHOWN

Told = Callable[[int, int], None]
PAST_RUNS: Final = 50  # Of the newest, that say what attempts take.
MOVED_SHOWN: Final = 100


@dataclass(slots=True)
class Played:
    """One way that it would have gone."""

    figures: Figures
    divergence: Divergence | None  # Where it leaves the recorded way; None: it never does.
    assumed: list[Assumed]
    dropped: list[Dropped]


class _Otherwise:
    """One run under another plan, at one level of what is assumed.

    Args:
        budgets: whether budgets are other ones, so that what running attempts spend has to be seen: evenly, as is assumed.
    """

    def __init__(
        self,
        log: Log,
        recording: Recording,
        plan: Plan,
        past: Past,
        level: float,
        around: Surroundings,
        files: FilesAgain | None = None,
        *,
        budgets: bool = False,
        told: Told = lambda done, total: None,
    ) -> None:
        self._told = told
        self.known = Known(past, plan.agents, level)
        self._plan = {task.task_id: task for task in plan.tasks}
        self._free = False
        self._number: dict[str, int] = {}
        self._starts: dict[str, tuple[str, int]] = {}
        self._before: dict[str, Attempt] = {}
        self.again = Reenactment(log, recording, plan, obeys=True, acts=self.act, around=around, files=files)
        self.again.world.evenly = self._budgets = budgets
        self._answers = Answers()

    def act(self, launch: Launch, attempt: Attempt | None) -> Part:
        """What an attempt does now."""
        task_id = launch.task_id
        task, number = self._plan[task_id], self._number.get(task_id, 0) + 1
        self._number[task_id] = number
        self._told(len(self._starts), len(self.again.recording.attempts))
        self._starts[launch.attempt_id] = task_id, number
        before = self._before.get(task_id)
        if attempt is None:
            return self.known.unheard_of(task, number, before, "it was never made")
        self._before[task_id] = attempt
        ended_by_itself = attempt.outcome in ENDED_BY_ITSELF | {BLOCKED} or (
            not self._free and attempt.outcome == STOPPED
        )
        if self._budgets and attempt.ended is not None and attempt.ended.kind == "budget":
            return self.known.unheard_of(task, number, attempt, "then its money was spent", cut_off=True)
        if not ended_by_itself or attempt.ended is None:
            return self.known.unheard_of(task, number, attempt, f"then it was {attempt.outcome}", cut_off=True)
        part = Part(attempt.took_us, attempt.ended, FAR_US if self._free else attempt.place)
        model = self._model_of(launch)
        if model != attempt.start.model:
            part = self.known.on_another_model(attempt, part, number, task.agent_type, model)
        if attempt.outcome == TIMED_OUT:
            return part if self._timeout_of(attempt) >= task.timeout_s else self.known.goes_on(task, number, attempt)
        span_s = max(0, part.ended.ended_at_us - part.ended.started_at_us) / 1e6
        if span_s > task.timeout_s:
            return replace(timed_out(task), ended=replace(timed_out(task).ended, charges=part.ended.charges))
        return part

    def _model_of(self, launch: Launch) -> str | None:
        state = self.again.world.dispatcher.held[launch.run_id].state
        return state.tasks[launch.task_id].model

    def _timeout_of(self, attempt: Attempt) -> float:
        """How long an attempt had that was stopped when its time was up."""
        took_us = attempt.took_us or 0
        return (
            FAR_US
            if attempt.ended is None
            else max(took_us, attempt.ended.ended_at_us - attempt.ended.started_at_us) / 1e6
        )

    def close(self) -> None:
        """Forget all of it."""
        self.again.close()

    def play(self) -> Played:
        """To its end."""
        recording, world = self.again.recording, self.again.world
        found = self.again.play()
        steering = Steering()
        if found.divergence is not None:
            self._free = True
            world.append([(recording.run_id, ev.WorkersScaled(workers=self.again.plan.settings.max_parallel_agents))])
            steering = steering_of(recording, found.looks)
            steering.begin(world.records, recording.run_id)
            if self.again.files is not None:
                self._answers = answers_of(recording, world.records)
            self._go_on(steering)
            self._assume_files()
        paths = {here: self.again.act_of(here) for here in self.again.ids.values()}
        figures = figures_of(world.records, recording.run_id, lambda here: _paths(paths.get(here)))
        return Played(figures, found.divergence, list(self.known.assumed.values()), steering.dropped)

    def _go_on(self, steering: Steering) -> None:
        world, idle = self.again.world, 0
        world.look()
        while world.state is not None and idle < IDLE_LOOKS:
            state = world.state
            comes = (world.next_us(), steering.next_us(state), self._answers.next_us())
            times = [at for at in comes if at is not None]
            if state.ended and not (steering.retries or state.running):
                return
            if not times:
                return
            watches = min(times) == world.watch_us()
            world.now_us = max(world.now_us + (AGAIN_US if idle > 1 else 0), min(times))
            steering.act(world, state)
            self._answers.act(world, state)
            made = world.look()
            for one in made:
                steering.look(one)
                if self.again.files is not None:
                    self._answers.look(one)
            idle = 0 if made or watches else idle + 1

    def _assume_files(self) -> None:
        """What had to be assumed of files."""
        files = self.again.files
        said: dict[tuple[str, int], list[str]] = defaultdict(list)
        for attempt_id, paths in ({} if files is None else files.moved).items():
            said[self._starts[attempt_id]].append(
                f"it began with other files; its own lines are taken in {_listed(paths)}"
            )
        for task_id, paths in self._answers.unasked.items():
            answer = f"its own lines are taken in {_listed(paths)}" if paths else "it is approved"
            said[task_id, self._number[task_id]].append(
                f"its work waits for a person, which it did not then: {answer}, at once"
            )
        for (task_id, number), words in said.items():
            self.known.assume(task_id, number, "; ".join(words))


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths[:PATHS_SHOWN]) + (
        f" and {len(paths) - PATHS_SHOWN} more" if len(paths) > PATHS_SHOWN else ""
    )


def _paths(attempt: Attempt | None) -> tuple[str, ...]:
    return () if attempt is None else attempt.paths


def as_it_was(recording: Recording) -> Figures:
    """The figures of a run as it was recorded."""
    records: Iterable[Recorded] = (one for look in recording.looks for one in look.records)
    return figures_of(records, recording.run_id, lambda attempt_id: _paths(recording.attempts.get(attempt_id)))


def otherwise(
    log: Log,
    run_id: str,
    settings: Mapping[str, str],
    options: StrategyOptions | None = None,
    past: Past | None = None,
    around: Surroundings | None = None,
    repository: Callable[[], Repository] | None = None,
    told: Told = lambda done, total: None,
) -> dict[str, Any]:
    """What a run would have come to under other settings.

    Args:
        settings: see ``otherwise_settings.differently``.
        options: what the configuration says of strategies.
        past: what the store knows of attempts, where somebody has read it already.
        around: what other runs held and had spent, likewise.
        repository: gives the repository that holds its files; left out: nothing is merged, and no conflict is found.
        told: told of progress: attempts that were started, and how many are recorded.
    Returns:
        ``{"run_id", "name", "settings", "recorded": figures, "otherwise": figures, "range": {"makespan_s": [low, high],
        "cost_usd": [low, high]}, "files_judged", "files_left", "differs_from": {"seq", "type", "field", "recorded", "now"} |
        None, "moved": [{"task_id", "recorded", "otherwise"}], "assumed": [...], "dropped": [...], "held_by_machine"}``. Figures
        are those of ``run_figures``; ``moved`` names tasks by their place in the order of starts, from 1. ``range`` is None
        where nothing had to be assumed. ``files_judged`` is false where the run has files that were not laid out, and
        ``files_left`` says why.
    Raises:
        UnknownRun: there is no such run.
        InvalidUsage: a setting names nothing that can be another one, or a model of which nothing is known.
    """
    recording, around = recording_of(log, run_id), around or Surroundings(log)
    first = recording.first
    state = st.fold(st.initial(run_id), first, log.blob)
    plan, understood = differently(
        state, settings, options or StrategyOptions(), fork=isinstance(first.event, ev.RunForked)
    )  # fmt: skip
    known = past or (read_past(log, state.name, runs=PAST_RUNS) if _needs_past(recording, plan, settings) else NOTHING)
    if any(name.endswith("model") for name in settings):
        models = {name: attempts[-1].start.model for name, attempts in recording.by_task.items()}
        check_models(known, {task.task_id: task for task in plan.tasks}, models)
    budgets = any(name.rpartition(".")[2] == "budget_usd" for name in settings)

    def play(level: float) -> tuple[Played, str, bool]:
        with ExitStack() as stack:
            files, why = files_of(log, recording, repository)
            if files is not None:
                stack.callback(files.close)
            again = _Otherwise(log, recording, plan, known, level, around, files, budgets=budgets, told=told)
            return stack.enter_context(closing(again)).play(), why, files is not None

    middle, why, with_files = play(LEVELS[0])
    played = [middle]
    if played[0].assumed:
        known = read_past(log, state.name, runs=PAST_RUNS) if known is NOTHING else known
        played = [play(level)[0] for level in LEVELS]
    judged = with_files or not has_files(recording)
    return {**_told(recording, state.name, understood, played), "files_judged": judged, "files_left": why}


def _needs_past(recording: Recording, plan: Plan, settings: Mapping[str, str]) -> bool:
    """Whether something will have to be assumed, as far as that can be told before."""
    unheard = len(recording.by_task) < len(plan.tasks) or any(
        one.outcome not in ENDED_BY_ITSELF for one in recording.attempts.values()
    )
    return unheard or any(name.rpartition(".")[2] in ("model", "timeout_s", "max_retries") for name in settings)


def _told(recording: Recording, name: str, understood: dict[str, Any], played: list[Played]) -> dict[str, Any]:
    before, divergence = as_it_was(recording), played[0].divergence
    after = before if divergence is None else played[0].figures
    spans = [one.figures.makespan_s for one in played]
    costs = [usd(one.figures.usd_micros) for one in played]
    return {
        "run_id": recording.run_id,
        "name": name,
        "settings": understood,
        "recorded": before.as_json(),
        "otherwise": after.as_json(),
        "range": None
        if len(played) == 1
        else {"makespan_s": [min(spans), max(spans)], "cost_usd": [min(costs), max(costs)]},
        "differs_from": None if divergence is None else divergence._asdict(),
        "moved": _moved(before.order, after.order)[:MOVED_SHOWN],
        "assumed": [asdict(one) for one in played[0].assumed],
        "dropped": [asdict(one) for one in played[0].dropped],
        "held_by_machine": sum(
            one.start.facts.get(THEN) in OF_THE_MACHINE for one in recording.attempts.values()
        ),
    }  # fmt: skip


def _moved(before: list[str], after: list[str]) -> list[dict[str, Any]]:
    """The tasks that start in another place of the order, as far as they start in both."""
    places = {task_id: place for place, task_id in enumerate(before, 1)}
    later = {task_id: place for place, task_id in enumerate(after, 1)}
    names = dict.fromkeys([*after, *before])
    return [
        {"task_id": name, "recorded": places.get(name), "otherwise": later.get(name)}
        for name in names
        if places.get(name) != later.get(name)
    ]
