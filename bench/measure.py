"""How figures are taken and told: contestants take turns, so that a busy machine is busy for all of them; medians are quoted."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 5  # At least; whatever takes less than a second is measured more often.


RUNS_FILE = "swebench_verified_runs.csv"


def recorded_runs(named: str) -> Path:
    """The file of recorded runs: what is named, or the one in a folder that is named."""
    path = Path(named)
    return path / RUNS_FILE if path.is_dir() else path


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure has to reach, and what it aims at."""

    reach: float
    aim: float
    more_is_better: bool = True

    def verdict(self, value: float) -> str:
        """``aim``, ``reach`` or ``MISSED``."""
        sign = 1 if self.more_is_better else -1
        if sign * value >= sign * self.aim:
            return "aim"
        return "reach" if sign * value >= sign * self.reach else "MISSED"


def take_turns(contestants: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """The figures of every contestant, measured one after the other in each round. The first round is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, measure in contestants.items():
            figure = measure()
            if number:
                figures[name].append(figure)
    return figures


def ratio(ours: list[float], baseline: list[float]) -> float:
    """The median of the ratios round by round, which a change of the machine's load between rounds does not touch."""
    return statistics.median(mine / theirs for mine, theirs in zip(ours, baseline, strict=True))


def tell(what: str, value: float, goal: Goal | None, detail: str, *, unit: str = "x") -> None:
    """Print one figure with its goal."""
    judged = "" if goal is None else f"[{goal.verdict(value)}; reach {goal.reach:g}, aim {goal.aim:g}]"
    print(f"{what:<58} {value:8.3f}{unit:<3} {judged:<36} {detail}", flush=True)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for stores, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="parallel-agents-bench-") as folder:
        yield Path(folder)
