"""Whole commands, as a shell starts them: what a person or a script waits for.

Every command runs in a scratch project of its own, so a run makes its store first. Peers (doit, snakemake, tsp) are measured
where they are installed. They version nothing, so neither do the plans beside them; what that costs is told at the end.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import ROUNDS, Goal, ratio, scratch, take_turns, tell
from bench.repositories import generate

COMMAND = [sys.executable, "-m", "parallel_agents.cli.main"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PARALLEL_AGENTS_")}


def seconds(command: Sequence[str], folder: Path) -> float:
    """How long a command takes, from its start to its end. It has to succeed."""
    begun = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - begun


def plan_runs(
    folder: Path,
    tasks: list[dict[str, Any]],
    at_once: int,
    workspace: str = "none",
    prepare: Callable[[Path], object] = Path.mkdir,
) -> Callable[[], float]:
    """A measure of ``run`` on these tasks, each time in a new project.

    Args:
        prepare: makes the project's directory.
    """
    number = itertools.count()
    settings = {"max_parallel_agents": at_once, "workspace": workspace, "defaults": {"max_retries": 0}}
    plan = json.dumps({**settings, "tasks": tasks})

    def measure() -> float:
        project = folder / f"{workspace}-{next(number)}"
        prepare(project)
        (project / "plan.json").write_text(plan)
        return seconds([*COMMAND, "run", "plan.json"], project)

    return measure


def starts(folder: Path) -> None:
    """``--version`` and ``--help`` against an interpreter that does nothing."""
    found = take_turns(
        {
            "nothing": lambda: seconds([sys.executable, "-c", "pass"], folder),
            "--version": lambda: seconds([*COMMAND, "--version"], folder),
            "--help": lambda: seconds([*COMMAND, "--help"], folder),
        },
        rounds=9,
    )
    for name in ("--version", "--help"):
        detail = f"`python -c pass` takes {median(found['nothing']):.3f} s"
        tell(f"commands: {name}", median(found[name]), Goal(0.3, 0.15, more_is_better=False), detail, unit="s")


def status(folder: Path) -> None:
    """``status`` of a run of seven tasks against the imports that it needs."""
    plan_runs(folder, [{"task_id": f"task-{number}", "command": ["true"]} for number in range(7)], 4)()
    project = folder / "none-0"
    modules = (  # With the collector set as the command sets it.
        "import gc; gc.set_threshold(20_000); "
        "import parallel_agents.cli.main, parallel_agents.cli.looking, parallel_agents.cli.pages, parallel_agents.look; "
        "gc.freeze()"
    )
    found = take_turns(
        {
            "imports": lambda: seconds([sys.executable, "-c", modules], project),
            "status": lambda: seconds([*COMMAND, "status"], project),
        },
        rounds=9,
    )
    detail = f"{median(found['status']):.3f} s"
    goal = Goal(1.3, 1.15, more_is_better=False)
    tell("commands: `status` against its own imports", ratio(found["status"], found["imports"]), goal, detail)
    goal = Goal(0.3, 0.2, more_is_better=False)
    tell("commands: the imports of `status`", median(found["imports"]), goal, "interpreter included", unit="s")


DEMO = {"arch": [], "ux": ["arch"], "backend": ["arch"], "frontend": ["ux", "backend"], "qa": ["frontend"],
        "security": ["frontend"], "deploy": ["qa", "security"]}  # fmt: skip


def demo(seconds_each: float) -> list[dict[str, Any]]:
    """Seven tasks in the demo's shape that sleep."""
    return [
        {"task_id": name, "command": ["sleep", str(seconds_each)], "dependencies": needed, "expected_s": seconds_each}
        for name, needed in DEMO.items()
    ]


def shapes(folder: Path) -> None:
    """Plans whose tasks sleep: what is over the longest path is ours."""
    found = take_turns({"ours": plan_runs(folder, demo(2), 5)})["ours"]
    goal = Goal(10.8, 10.3, more_is_better=False)
    tell(
        "commands: seven tasks of 2 s in the demo's shape", median(found), goal, "the longest path takes 10 s", unit="s"
    )
    folder = folder / "wide"
    folder.mkdir()
    tasks = [{"task_id": f"task-{number}", "command": ["sleep", "1"]} for number in range(20)]
    found = take_turns({"ours": plan_runs(folder, tasks, 5)})["ours"]
    goal = Goal(4.6, 4.3, more_is_better=False)
    tell("commands: 20 tasks of 1 s, 5 at once", median(found), goal, "the ideal is 4 s", unit="s")


def many(folder: Path) -> None:
    """300 times ``true`` as one plan, beside whatever peers there are."""
    names = [f"t{number}" for number in range(300)]
    contestants = {"ours": plan_runs(folder, [{"task_id": name, "command": ["true"]} for name in names], 4)}
    if found := shutil.which("doit", path=_paths()):
        contestants["doit"] = _doit(found, folder)
    if found := shutil.which("snakemake", path=_paths()):
        contestants["snakemake"] = _snakemake(found, folder, names)
    if found := shutil.which("tsp", path=_paths()):
        contestants["tsp"] = _tsp(found, folder)
    figures = take_turns(contestants, rounds=ROUNDS)
    ours = median(figures["ours"])
    tell(
        "commands: 300 x `true` as one plan",
        ours,
        None,
        f"{300 / ours:,.0f} attempts/s, start and end included",
        unit="s",
    )
    for peer, goal in (("doit", Goal(1.5, 1.0, more_is_better=False)), ("snakemake", Goal(0.25, 0.15, more_is_better=False)),
                       ("tsp", None)):  # fmt: skip
        if peer in figures:
            tell(f"commands: the same against {peer}", ratio(figures["ours"], figures[peer]), goal,
                 f"{peer}: {median(figures[peer]):.2f} s")  # fmt: skip
        else:
            print(f"commands: the same against {peer}: not installed", flush=True)


def versioned(folder: Path) -> None:
    """What it costs that every attempt has a worktree, is snapshot and merged: the same plans in the same git repository."""
    trues = [{"task_id": f"t{number}", "command": ["true"]} for number in range(300)]
    for what, tasks, at_once in (("300 x `true`", trues, 4), ("seven tasks of 2 s in the demo's shape", demo(2), 5)):
        place = folder / str(len(tasks))
        place.mkdir()
        found = take_turns(
            {
                workspace: plan_runs(place, tasks, at_once, workspace, lambda project: generate(project, 100))
                for workspace in ("worktree", "none")
            }
        )
        with_, without = median(found["worktree"]), median(found["none"])
        each_ms = (with_ - without) / len(tasks) * 1000
        detail = f"{with_:.2f} s against {without:.2f} s with workspace none: {each_ms:.0f} ms a task"
        tell(f"commands: {what} in worktrees", ratio(found["worktree"], found["none"]), None, detail)


def _paths() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _doit(program: str, folder: Path) -> Callable[[], float]:
    """Without a record of the last run, with 4 processes."""
    place = folder / "doit"
    place.mkdir()
    (place / "dodo.py").write_text(
        "def task_t():\n    for number in range(300):\n        yield {'name': str(number), 'actions': [['true']]}\n"
    )
    return lambda: seconds([program, "-n", "4", "--db-file", ":memory:", "--backend", "json"], place)


def _snakemake(program: str, folder: Path, names: list[str]) -> Callable[[], float]:
    place = folder / "snakemake"
    place.mkdir()
    (place / "Snakefile").write_text(
        f"rule all:\n    input: {[f'out/{name}' for name in names]!r}\n"
        "rule one:\n    output: 'out/{name}'\n    shell: 'true > {output}'\n"
    )

    def measure() -> float:
        shutil.rmtree(place / "out", ignore_errors=True)
        return seconds([program, "--cores", "4", "--quiet"], place)

    return measure


def _tsp(program: str, folder: Path) -> Callable[[], float]:
    """A server of its own, 4 slots; the last job is waited for, then the server is ended."""
    jobs = f"{program} -S 4; for n in $(seq 300); do {program} -n true; done; {program} -w; {program} -K"
    script = f"export TS_SOCKET={folder}/tsp.socket; {jobs}"
    return lambda: seconds(["sh", "-c", script], folder)


def main() -> None:
    """Print the figures."""
    for part in (starts, status, many, shapes, versioned):
        with scratch() as folder:
            part(folder)


if __name__ == "__main__":
    main()
