"""Work done again after failures, in task-seconds, with checkpoints and without: the same plans, durations and failures.

The plans are graphs and the durations those of recorded agent runs, from files that are not part of the project. A seed says
which tasks fail, each once, and how far into the attempt. Without checkpoints a run begins again from nothing after every
failure. With them a failed attempt is tried again, or the run is taken back to a checkpoint. What attempts have taken beyond
what each task takes once is work done again; an attempt that was stopped or failed counts as far as it came.

Two kinds of failure: those that the attempt itself notices, and those that the first task to build on it notices, so that
the run has to go back to before it. Everything runs through the real decisions, on a clock of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

from bench.measure import recorded_runs
from bench.on_paper import SECOND_US, OnPaper, plan_of

AT_ONCE = 5
SEEDS = 5
RATES = (0.02, 0.05, 0.20)
MOST_TASKS = 250  # A run that begins again takes time by the square of its tasks.
RUNS, GRAPHS = "PARALLEL_AGENTS_AGENT_RUNS", "PARALLEL_AGENTS_DAGS"


@dataclass(slots=True)
class Trial:
    """A graph with durations and failures."""

    needs: dict[str, list[str]]
    lasts_us: dict[str, int]
    fails: dict[str, float]  # Task -> after which share of an attempt.
    late: bool  # Noticed by who builds on it.
    spent: set[str] = field(default_factory=set)

    def culprit(self, name: str) -> str | None:
        """Whose failure an attempt of a task meets now; None where it goes well."""
        suspects = [*self.needs[name], name] if self.late else [name]
        for one in suspects:
            if one in self.fails and one not in self.spent and (one != name or not self.late or self._is_last(name)):
                return one
        return None

    def _is_last(self, name: str) -> bool:
        """Nobody builds on it, so only its own attempt can notice."""
        return not any(name in needed for needed in self.needs.values())


def again_from_nothing(run: OnPaper, name: str, culprit: str) -> OnPaper | None:
    """Without checkpoints."""
    run.record_end(well=False, retryable=False)
    run.stop_all()
    return None


def tried_again(run: OnPaper, name: str, culprit: str) -> OnPaper | None:
    """The failed attempt alone is repeated, in a checkout of the last state; whatever else runs goes on."""
    run.record_end(well=False)
    return run


def back_to_the_last(run: OnPaper, name: str, culprit: str) -> OnPaper | None:
    """The run goes back to its last checkpoint; whatever runs is stopped and begins again."""
    to = run.last_checkpoint()
    run.record_end(well=False, retryable=False)
    run.roll_back(to)
    return run


def back_to_before(run: OnPaper, name: str, culprit: str) -> OnPaper | None:
    """The run goes back to before the attempt that is to blame."""
    to = run.before(culprit)
    run.record_end(well=False, retryable=False)
    run.roll_back(to)
    return run


Way = Callable[[OnPaper, str, str], OnPaper | None]


def done_again_s(trial: Trial, way: Way) -> float:
    """Task-seconds that were executed beyond one execution of each task."""
    trial.spent.clear()
    paper = plan_of(trial.needs, at_once=AT_ONCE)
    executed_us = 0
    run = OnPaper(paper)
    blamed: dict[str, str | None] = {}
    while not run.done:
        for name, attempt_id in run.start_what_can():
            culprit = blamed[name] = trial.culprit(name)
            share = 1.0 if culprit is None else trial.fails[culprit]
            run.will_end(attempt_id, max(1, round(trial.lasts_us[name] * share)), well=culprit is None)
        name, well = run.next_end()
        culprit = blamed[name]
        if well or culprit is None:
            run.record_end(well=True)
            continue
        trial.spent.add(culprit)
        after = way(run, name, culprit)
        if after is None:
            executed_us += run.executed_us
            after = OnPaper(paper)
        run = after
    return (executed_us + run.executed_us - sum(trial.lasts_us.values())) / SECOND_US


def trials(
    graphs: dict[str, dict[str, list[str]]], durations_s: Sequence[float], rate: float, late: bool
) -> list[Trial]:
    """Of every graph as many as there are seeds."""
    made = []
    for name, needs in graphs.items():
        for seed in range(SEEDS):
            random = Random(f"{name} {rate} {seed}")
            lasts = {task: round(random.choice(durations_s) * SECOND_US) for task in needs}
            fails = {task: 1 - random.random() for task in needs if random.random() < rate}
            made.append(Trial(needs, lasts, fails, late))
    return made


def tell(what: str, found: Sequence[tuple[float, float]]) -> None:
    """One line: of pairs of task-seconds, without checkpoints and with."""
    without, with_ = sum(pair[0] for pair in found), sum(pair[1] for pair in found)
    shares = [1 - kept / lost for lost, kept in found if lost > 0]
    print(
        f"{what:<58} {1 - with_ / without:8.1%} saved   {without:14,.0f} task-seconds without, {with_:12,.0f} with; "
        f"by run: median {median(shares):.1%}, worst {min(shares):.1%} of {len(shares)}",
        flush=True,
    )


def read_durations(path: Path) -> list[float]:
    """The durations of the model that most rows are of: others were recorded under other conditions."""
    by_model: dict[str, list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            by_model[row.get("model", "")].append(float(row["duration_s"]))
    return max(by_model.values(), key=len)


def read_graphs(path: Path) -> dict[str, dict[str, list[str]]]:
    """Every graph that is not too large: its tasks, and what each needs."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    graphs = {}
    for file in files:
        tasks = json.loads(file.read_text())["tasks"]
        if len(tasks) <= MOST_TASKS:
            graphs[file.stem] = {task["id"]: list(task["deps"]) for task in tasks}
    return graphs


def given(argv: Sequence[str] | None = None) -> tuple[Path, Path]:
    """The files to read: from the arguments, else from the environment."""
    parser = argparse.ArgumentParser(prog="python -m bench.bench_rework", description=__doc__)
    parser.add_argument("--agent-runs", help="a CSV file with the columns model and duration_s, a row for each run")
    parser.add_argument("--graphs", help='a JSON file, or a folder of them: {"tasks": [{"id": ..., "deps": [...]}]}')
    options = parser.parse_args(argv)
    runs, graphs = options.agent_runs or os.environ.get(RUNS), options.graphs or os.environ.get(GRAPHS)
    for what, named, variable, option in (
        ("a CSV file of agent runs (columns model, duration_s)", runs, RUNS, "--agent-runs"),
        ('JSON files of graphs ({"tasks": [{"id": ..., "deps": [...]}]})', graphs, GRAPHS, "--graphs"),
    ):
        if not named:
            sys.exit(f"rework: {what} is needed, and not part of the project: set {variable}, or give {option} PATH")
        if not Path(named).exists():
            sys.exit(f"rework: {named} does not exist")
    return recorded_runs(str(runs)), Path(str(graphs))


def main() -> None:
    """Print the share of repeated work that checkpoints save."""
    runs, folder = given()
    durations, graphs = read_durations(runs), read_graphs(folder)
    tasks = Counter({name: len(needs) for name, needs in graphs.items()})
    print(
        f"{len(graphs)} graphs of {min(tasks.values())} to {max(tasks.values())} tasks, {len(durations)} durations"
        f" (median {median(durations):.0f} s), {SEEDS} seeds, {AT_ONCE} at once; each task that fails does so once"
    )
    ways: list[tuple[str, bool, Way]] = [
        ("attempt tried again", False, tried_again),
        ("back to the last checkpoint", False, back_to_the_last),
        ("noticed by the next task, back to before", True, back_to_before),
    ]
    for rate in RATES:
        for what, late, way in ways:
            found = []
            for trial in trials(graphs, durations, rate, late):
                if trial.fails:
                    found.append((done_again_s(trial, again_from_nothing), done_again_s(trial, way)))
            tell(f"rework: {rate:.0%} of tasks fail, {what}", found)


if __name__ == "__main__":
    main()
