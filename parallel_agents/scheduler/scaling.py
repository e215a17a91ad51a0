"""How wide a run's pool of workers is, by what the machine can bear and what waits. Pure.

The width begins at the most that it may be. It goes down by one when all workers have been at work, and the processors above
the threshold, for ``PRESSED_S``; then what runs has to come down to that width before the next step down, because nothing is
ended for it. It goes up by one when a task has waited for a worker, and one more would have left the processors at or below the
threshold, for ``CALM_S``. Each time a step down follows a step up, that wait doubles: a load that one worker more is too
much for is tried ever more rarely. The wait halves with a step up that comes ``FORGOTTEN_S`` after the change before it,
and a quarter of it will do where one more would leave the processors at or below half of the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.governing import least_workers, most_workers, width
from parallel_agents.scheduler.machine_load import MachineLoad

PRESSED_S: Final = 10.0  # Two spans of the mean that is measured: what an attempt does as it starts is over.
CALM_S: Final = 20.0  # A step up costs more than none when it was wrong, so it takes longer.
LONGEST_S: Final = 640.0  # Five doublings.
FORGOTTEN_S: Final = 600.0


@dataclass(slots=True)
class Gauge:
    """Since when a run has been under pressure, or calm; by the steady clock, in microseconds."""

    seen_us: int = 0  # The sample that was looked at last.
    pressed_us: int | None = None
    calm_us: int | None = None
    easy_us: int | None = None  # Calm at half of the threshold.
    cpu_percent: float = 0.0


def observe(gauge: Gauge, state: RunState, load: MachineLoad, busy: int, *, waits: bool) -> None:
    """Take up a sample, as things are after a tick has started what it could.

    Args:
        busy: processes of the run.
        waits: whether a task of it waits for nothing but a worker.
    """
    if load.cpu_percent is None:
        gauge.pressed_us = gauge.calm_us = gauge.easy_us = None
        return
    if load.at_us == gauge.seen_us:
        return
    gauge.seen_us, gauge.cpu_percent = load.at_us, load.cpu_percent
    threshold = state.plan.settings.scaling_threshold * 100
    with_one_more = load.cpu_percent + _share(state, load, busy)

    def since(holds: bool, before: int | None) -> int | None:
        return None if not holds else load.at_us if before is None else before

    gauge.pressed_us = since(busy == width(state) and load.cpu_percent > threshold, gauge.pressed_us)
    gauge.calm_us = since(waits and with_one_more <= threshold, gauge.calm_us)
    gauge.easy_us = since(waits and with_one_more <= threshold / 2, gauge.easy_us)


def _share(state: RunState, load: MachineLoad, busy: int) -> float:
    """What one worker more is expected to take of the processors, in percent of all: as much as those that work do."""
    measured = [load.attempts[name].cpu_percent for name in state.running if name in load.attempts]
    if measured:
        return sum(measured) / len(measured)
    return (load.cpu_percent or 0.0) / max(1, busy)


def decide_width(state: RunState, gauge: Gauge, now_us: int) -> ev.WorkersScaled | None:
    """One worker less or more, where it is time.

    Args:
        now_us: microseconds since the epoch.
    """
    settings, wide = state.plan.settings, width(state)
    if not settings.auto_scale:
        return None
    wait_s = max(CALM_S, state.workers_wait_s)
    if _lasts(gauge, gauge.pressed_us, PRESSED_S) and wide > least_workers(settings):
        if state.workers is not None and state.workers_grew:
            wait_s = min(LONGEST_S, 2 * wait_s)
        reason = (
            f"the processors were above {settings.scaling_threshold:.0%} for {PRESSED_S:.0f} s ({gauge.cpu_percent:.0f} % in the "
            f"end) with all {wide} workers at work"
        )
        return ev.WorkersScaled(workers=wide - 1, reason=reason, wait_s=wait_s, facts=_lasting(gauge))
    calm = _lasts(gauge, gauge.calm_us, wait_s)
    if wide < most_workers(settings) and (calm or _lasts(gauge, gauge.easy_us, max(CALM_S, wait_s / 4))):
        calm_s = (gauge.seen_us - (gauge.seen_us if gauge.calm_us is None else gauge.calm_us)) / 1e6
        reason = (
            f"a task has waited for a worker, and one more would have left the processors at or below "
            f"{settings.scaling_threshold:.0%} for {calm_s:.0f} s ({gauge.cpu_percent:.0f} % in the end)"
        )
        if state.workers_at_us is not None and now_us - state.workers_at_us >= FORGOTTEN_S * 1e6:
            wait_s = max(CALM_S, wait_s / 2)
        return ev.WorkersScaled(workers=wide + 1, reason=reason, wait_s=wait_s, facts=_lasting(gauge))
    return None


def _lasts(gauge: Gauge, since_us: int | None, seconds: float) -> bool:
    return since_us is not None and gauge.seen_us - since_us >= seconds * 1e6


PRESSED, CALM, EASY = "pressed_s", "calm_s", "easy_s"
"""Among the facts of a step: for how long its run had been under pressure, calm, and calm at half of the threshold."""


def _lasting(gauge: Gauge) -> dict[str, float]:
    since = {PRESSED: gauge.pressed_us, CALM: gauge.calm_us, EASY: gauge.easy_us}
    return {name: (gauge.seen_us - at_us) / 1e6 for name, at_us in since.items() if at_us is not None}


def gauge_from(facts: Mapping[str, float]) -> Gauge:
    """What had been seen of a run when a step was decided, by the facts of that step."""
    seen_us = round(max(facts.values(), default=0.0) * 1e6)
    since = {name: seen_us - round(seconds * 1e6) for name, seconds in facts.items()}
    return Gauge(seen_us, since.get(PRESSED), since.get(CALM), since.get(EASY))


def start_anew(gauge: Gauge) -> None:
    """After a change: what was seen before says nothing of the width that it is now."""
    gauge.pressed_us = gauge.calm_us = gauge.easy_us = None
