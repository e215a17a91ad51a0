"""What choosing models saves against the strongest one for everything, and what that does to the share of tasks solved.

Both come from recorded runs, which are not part of the project; never read one without the other. Each choice is made by the
scheduler's own ``choose_model``; what a run costs and whether it solved its task is what was recorded for that model.

- Paired: tasks that a small and a strong model have both tried (a CSV file with the columns task, model, cost_usd, resolved).
  There are two models, so the table of models is set to them. The small one's costs look too low in the records that we know
  (no input tokens were counted), and so a second line has it cost what the strong one did on that task, times the ratio of
  their prices. The models ran under different harnesses, once for each task. Where a failure is followed by the strong model,
  it was noticed by the very test that says what is solved, and the strongest alone has had no second try.
- By type: ``aider_polyglot_models.csv`` beside it, models of one maker that stand for the three steps. One task of each built-in
  agent type; what a model solves and costs are its means over the same small exercises, at the prices of their time. Every type
  is given these, while the choice supposes that some types have easier tasks than others: this data cannot tell.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.measure import recorded_runs
from parallel_agents.eventstore.submission import AgentSettings, Task
from parallel_agents.scheduler.agents.models import LADDER, MODEL_OF, choose_model
from parallel_agents.scheduler.agents.prices import price_of
from parallel_agents.scheduler.agents.reading import Tokens

RUNS = "PARALLEL_AGENTS_AGENT_RUNS"
SMALL, STRONG = "haiku-4.5", "opus-4.5"
PRICED = {SMALL: "claude-haiku-4-5", STRONG: "claude-opus-4-5"}
STEPS = {  # In the table by exercise: no step has a model of the same age as the others.
    "haiku": "claude-3-5-haiku-20241022",
    "sonnet": "claude-sonnet-4-20250514 (no thinking)",
    "opus": "claude-opus-4-20250514 (no think)",
}
TWO_STEPS = {"haiku": {"claude": SMALL}, "sonnet": {"claude": STRONG}, "opus": {"claude": STRONG}}


class Once(NamedTuple):
    """One recorded try."""

    usd: float
    solved: float  # 0 or 1, or a share of many.


Records = Mapping[str, Mapping[str, Once]]
"""Task -> model -> how it went."""


def tried(records: Mapping[str, Once], task: Task, settings: AgentSettings, retries: int) -> Once:
    """A task with up to so many more attempts after a failure, each on the model that is chosen for it."""
    usd, models = 0.0, list[str]()
    for failures in range(retries + 1):
        name = choose_model(task, settings, failures_by_agent=failures).name
        assert name is not None
        if name in models:  # Nobody has recorded how the same again ends.
            break
        models.append(name)
        usd += records[name].usd
        if records[name].solved == 1:
            break
    return Once(usd, records[models[-1]].solved)


def tell(what: str, ours: Sequence[Once], strongest: Sequence[Once]) -> None:
    """The saving and what was solved, in one line."""
    usd, all_usd = sum(one.usd for one in ours), sum(one.usd for one in strongest)
    solved, all_solved = (sum(one.solved for one in group) / len(group) for group in (ours, strongest))
    line = f"{1 - usd / all_usd:8.1%} saved, {solved:.1%} solved against {all_solved:.1%}"
    print(f"model choice: {what:<44} {line}   (${usd:.2f} against ${all_usd:.2f}, {len(ours)} tasks)", flush=True)


def paired(path: Path) -> dict[str, dict[str, Once]]:
    """The tasks that both models have tried."""
    found: dict[str, dict[str, Once]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["task"], {})[row["model"]] = Once(float(row["cost_usd"]), float(row["resolved"]))
    return {task: tries for task, tries in found.items() if {SMALL, STRONG} <= tries.keys()}


def repriced(records: Records) -> dict[str, dict[str, Once]]:
    """The small model costs what the strong one did on the task, times the ratio of their prices."""
    small, strong = (price_of(PRICED[model], Tokens(input=1_000_000), 10) for model in (SMALL, STRONG))
    assert small is not None
    assert strong is not None
    ratio = small[0] / strong[0]
    return {
        task: {**tries, SMALL: Once(tries[STRONG].usd * ratio, tries[SMALL].solved)} for task, tries in records.items()
    }


def by_exercise(path: Path) -> dict[str, Once]:
    """The models of the three steps, and how one exercise goes on the mean."""
    with path.open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    return {
        alias: Once(float(rows[name]["total_cost_usd"]) / int(rows[name]["cases"]), float(rows[name]["pass_rate_2_pct"]) / 100)
        for alias, name in STEPS.items()
    }  # fmt: skip


def tell_paired(records: Records, note: str) -> None:
    """The ways to choose between two models."""
    strongest = [tries[STRONG] for tries in records.values()]
    two = AgentSettings(models=TWO_STEPS)
    ways: list[tuple[str, str, AgentSettings, int]] = [
        ("small for everything", "qa-engineer", two, 0),
        ("small, after a failure strong", "qa-engineer", two.model_copy(update={"retry_stronger": True}), 1),
    ]
    for what, agent_type, settings, retries in ways:
        task = Task(task_id="a", agent_type=agent_type, description="Mend it.", runner="claude")
        tell(f"{what}{note}", [tried(tries, task, settings, retries) for tries in records.values()], strongest)


def tell_types(records: Mapping[str, Once]) -> None:
    """One task of each built-in agent type, by profile."""
    strongest = [records[LADDER[-1]]] * len(MODEL_OF)
    for profile in ("quality", "balanced", "fast", "ultra-fast"):
        settings = AgentSettings(profile=profile)
        tasks = [Task(task_id="a", agent_type=kind, description="Do it.", runner="claude") for kind in MODEL_OF]
        tell(f"by agent type, profile {profile}", [tried(records, task, settings, 0) for task in tasks], strongest)


def given(argv: Sequence[str] | None = None) -> Path:
    """The file of paired runs: from the arguments, else from the environment."""
    parser = argparse.ArgumentParser(prog="python -m bench.bench_model_choice", description=__doc__)
    parser.add_argument("--agent-runs", help="a CSV file of runs with the columns task, model, cost_usd and resolved")
    named = parser.parse_args(argv).agent_runs or os.environ.get(RUNS)
    if not named:
        sys.exit(
            f"model_choice: recorded runs are needed, and not part of the project: set {RUNS}, or give --agent-runs PATH"
        )
    path = recorded_runs(named)
    if not path.is_file():
        sys.exit(f"model_choice: there is no file {path}")
    return path


def main() -> None:
    """Print the savings, each beside what was solved."""
    path = given()
    records = paired(path)
    kinds: list[tuple[str, Callable[[Records], Records]]] = [("", dict), (" *", repriced)]
    for note, change in kinds:
        tell_paired(change(records), note)
    print(f"  * with {SMALL} at the price ratio of its tokens instead of its recorded costs, which look too low")
    exercises = path.with_name("aider_polyglot_models.csv")
    if exercises.exists():
        tell_types(by_exercise(exercises))


if __name__ == "__main__":
    main()
