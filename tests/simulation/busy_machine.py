"""A machine that attempts and foreign programs keep busy, and a run whose pool of workers is scaled on its samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from statistics import fmean

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, RunSettings, Task
from parallel_agents.projections import status as status_fold
from parallel_agents.scheduler import scaling
from parallel_agents.scheduler.governing import Machine, Pressure, ask, width
from parallel_agents.scheduler.machine_load import MachineLoad, Usage
from parallel_agents.scheduler.scaling import Gauge

SECOND_US = 1_000_000
SPAN_S = 5  # Of the mean that is measured.


class BusyMachine:
    """Steps of one second.

    Args:
        wants: percent of all processors that an attempt would take at some second of its life, if it had them.
        lasts: seconds that an attempt takes.
        foreign: percent that other programs take at a second.
        noise: standard deviation of what each attempt takes, as a share of that.
    Attributes:
        widths: of the pool, second by second.
        turns: changes of the width against the direction of the one before.
    """

    def __init__(
        self, random: Random, *, wants: Callable[[int], float], lasts: Callable[[], int],
        foreign: Callable[[int], float] = lambda second: 0.0, noise: float = 0.2, **settings: float | bool,
    ) -> None:  # fmt: skip
        self.random = random
        self.wants, self.lasts, self.foreign, self.noise = wants, lasts, foreign, noise
        given = {"max_parallel_agents": 5, "min_workers": 2, "auto_scale": True, "max_cpu_percent": 80.0, **settings}
        plan = Plan(name="busy", tasks=(Task(task_id="waits", command=("true",)),), settings=RunSettings(**given))
        self._content = plan.to_bytes()
        self.state = status_fold.initial("busy")
        self.second = 0
        self._events = 0
        submitted = ev.RunSubmitted(
            name="busy", plan_digest=digest_of(self._content), task_count=1, strategy="concurrent", workspace="none",
            workdir="/project",
        )  # fmt: skip
        self._fold(submitted)
        self._fold(ev.RunStarted())
        self.gauge = Gauge()
        self.running: list[tuple[int, int]] = []  # When each began, and when it ends.
        self.recent: deque[float] = deque(maxlen=SPAN_S)
        self.widths: list[int] = []
        self.cpu: list[float] = []
        self.started = 0
        self.turns = 0
        self._direction = 0

    def _fold(self, event: ev.Event) -> None:
        self._events += 1
        record = Recorded(self._events, "busy", self._events, self.second * SECOND_US, "test", event)
        self.state = status_fold.fold(self.state, record, lambda digest: self._content)

    def run(self, seconds: int, *, queue: bool = True) -> None:
        """Go on for a while.

        Args:
            queue: whether tasks wait all the time; without, nothing starts.
        """
        for _ in range(seconds):
            self._step(queue)

    def _step(self, queue: bool) -> None:
        self.second += 1
        self.running = [one for one in self.running if one[1] > self.second]
        load = self._sample()
        change = scaling.decide_width(self.state, self.gauge, self.second * SECOND_US)
        if change is not None:
            direction = 1 if change.workers > width(self.state) else -1
            self.turns += direction == -self._direction
            self._direction = direction
            self._fold(change)
            scaling.start_anew(self.gauge)
        waits = queue and self._start(load)
        scaling.observe(self.gauge, self.state, load, len(self.running), waits=waits)
        self.widths.append(width(self.state))

    def _start(self, load: MachineLoad) -> bool:
        """Start what may. Gives whether a task waits for a worker then."""
        while True:
            machine = Machine(load.cpu_percent, running=len(self.running))
            answer = ask(self.state, self.state.tasks["waits"], len(self.running), machine)
            if isinstance(answer, Pressure):
                return answer.code == "workers"
            self.running.append((self.second, self.second + self.lasts()))
            self.started += 1

    def _sample(self) -> MachineLoad:
        """What a sampler sees: the mean of five seconds, and what each attempt took in the last one."""
        takes = [
            max(0.0, self.random.gauss(1.0, self.noise)) * self.wants(self.second - began) for began, _ in self.running
        ]
        others = max(0.0, self.foreign(self.second))
        asked = sum(takes) + others
        squeeze = min(1.0, 100.0 / asked) if asked else 1.0  # All get less where there is not enough for all.
        self.cpu.append(min(100.0, asked))
        self.recent.append(min(100.0, asked))
        known = fmean(self.recent) if len(self.recent) == SPAN_S else None
        attempts = {f"attempt{number}": Usage(cpu_percent=one * squeeze) for number, one in enumerate(takes)}
        self.state.running = dict.fromkeys(attempts, "waits")
        return MachineLoad(self.second * SECOND_US, known, None, attempts)
