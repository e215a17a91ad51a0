"""`true` as a shell attempt, supervised and durable, 4 at once, against `make -j4` with as many `true` recipes.

The supervisor is up before the clock starts, as it is for every plan but a daemon's first; make's own start is some 2 ms.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.dispatching import run_commands
from bench.measure import Goal, ratio, scratch, take_turns, tell
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.engine import Engine

ATTEMPTS = 400


def ours(path: Path) -> float:
    """Attempts a second, from the submission to the run's end."""
    path.parent.mkdir()
    with Log(path) as log:
        engine = Engine(log, kind="run")
        try:
            engine.need_shell()
            engine.start()
            run_commands(log, {"first": ("true",)}, at_once=4, engine=engine)
            begun = time.perf_counter()
            run_commands(log, {f"task-{number}": ("true",) for number in range(ATTEMPTS)}, at_once=4, engine=engine)
            return ATTEMPTS / (time.perf_counter() - begun)
        finally:
            engine.close()


def make(makefile: Path) -> float:
    """Recipes a second."""
    names = " ".join(f"task-{number}" for number in range(ATTEMPTS))
    makefile.write_text(f".PHONY: all {names}\nall: {names}\n{names}:\n\t@true\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    begun = time.perf_counter()
    subprocess.run(["make", "-j4", "-f", str(makefile)], check=True, env=environ)
    return ATTEMPTS / (time.perf_counter() - begun)


def main() -> None:
    """Print the ratio."""
    if shutil.which("make") is None:
        sys.exit("make is not installed")
    with scratch() as folder:
        number = itertools.count()
        found = take_turns(
            {"ours": lambda: ours(folder / str(next(number)) / "events.db"), "make": lambda: make(folder / "Makefile")},
            rounds=7,
        )
    detail = f"{median(found['ours']):,.0f} attempts/s against {median(found['make']):,.0f} recipes/s of make -j4"
    tell("shell: `true`, 4 at once", ratio(found["ours"], found["make"]), Goal(0.3, 0.5), detail)


if __name__ == "__main__":
    main()
