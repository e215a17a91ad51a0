"""What we add to the time that an agent's client takes to its first byte of output, and what is done for it meanwhile.

The client's own start is measured alone, with the same words, input and environment. Of ours the clock starts at the event
``TaskStarted`` and stops at the first byte in the attempt's stdout.log, which is looked for every half millisecond in both.
The engine is up: the first agent of a process also waits for its supervisor and the import of the price table. With a checkout
there is a worktree to be made before, for which the time of a plain ``git worktree add`` is told.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.agents_at_work import SETTINGS, Found, fake, real, submit_agents, wait_for_end
from bench.measure import Goal, scratch, take_turns, tell
from bench.repositories import generate, git, typed
from parallel_agents.eventstore.events import TaskStarted
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.agents.clients import BUILT_IN, words
from parallel_agents.scheduler.agents.models import MODELS
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.runners.protocol import Errand
from parallel_agents.versioning import Start

GOAL = Goal(50, 20, more_is_better=False)
LOOK_S = 0.0005
FILES = 1_000
ROUNDS = 15
GIVE_UP_S = 60.0


def first_byte_s(look: Callable[[], Path | None]) -> float:
    """When (since the epoch) a file has something in it. ``look`` finds it, and is asked no more once it has."""
    deadline = time.monotonic() + GIVE_UP_S
    path = look()
    while time.monotonic() < deadline:
        path = path or look()
        if path is not None and os.stat(path).st_size:
            return time.time()
        time.sleep(LOOK_S)
    raise AssertionError("no output comes")


@dataclass(slots=True)
class Alone:
    """A client by itself."""

    found: Found
    folder: Path

    def __call__(self) -> float:
        """Milliseconds from its start to its first byte."""
        client, session = BUILT_IN["claude"], str(uuid.uuid4())
        errand = Errand(
            client, "Do what you are told.", session_id=session, model=MODELS["sonnet"]["claude"],
            permission_mode=SETTINGS.permission_mode,
        )  # fmt: skip
        parts = words(client, errand, session=None, prompt=errand.prompt, prompt_file="", role_file="")
        message = {"type": "user", "message": {"role": "user", "content": errand.prompt}}
        self.folder.mkdir(parents=True, exist_ok=True)
        out = self.folder / f"{session}.log"
        with out.open("wb") as stdout, (self.folder / "stderr.log").open("wb") as stderr:
            begun = time.time()
            process = subprocess.Popen(
                [self.found.program, *parts[1:]], cwd=self.folder, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr,
                env={**self.found.environ, "FAKE_AGENT": "say done"}, start_new_session=True,
            )  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            took = first_byte_s(lambda: out) - begun
            process.stdin.close()
            process.wait(GIVE_UP_S)
        return took * 1000


class Ours:
    """The same as a task of a run."""

    def __init__(self, found: Found, folder: Path, start: Start | None) -> None:
        folder.mkdir(parents=True)
        self.found, self.folder, self.start = found, folder, start
        self.log = Log(folder / "events.db")
        self.engine = Engine(self.log, kind="run", environ=found.environ)
        self.engine.start()
        self.first_ms: float | None = None
        self._numbers = itertools.count()

    def __call__(self) -> float:
        """Milliseconds from the event to the first byte."""
        name = f"task-{next(self._numbers)}"
        workdir = self.folder if self.start is None or self.start.repository is None else self.start.repository.top
        run_id = submit_agents(self.log, self.found, workdir, [name], "say done", self.start)
        home = self.folder / "runs" / run_id / name
        came: list[float] = []
        watching = threading.Thread(
            target=lambda: came.append(first_byte_s(lambda: next(home.glob("*/stdout.log"), None)))
        )
        watching.start()
        self.engine.hold(run_id)
        watching.join()
        wait_for_end(self.engine, run_id)
        at_us = next(one.at_us for one in self.log.read_run(run_id) if isinstance(one.event, TaskStarted))
        took_ms = (came[0] - at_us / 1e6) * 1000
        self.first_ms = took_ms if self.first_ms is None else self.first_ms
        return took_ms

    def close(self) -> None:
        """End its engine."""
        self.engine.close()
        self.log.close()


def plain_git(top: Path, folder: Path) -> float:
    """Milliseconds of git for such a checkout."""
    took = typed(top, f"git worktree add -q --detach '{folder}' HEAD")
    git(top, "worktree", "remove", "--force", str(folder))
    return took * 1000


def measure(found: Found, folder: Path) -> None:
    """Print what we add to one client."""
    start = Start("worktree", generate(folder / "repository", FILES))
    ours = {"plain": Ours(found, folder / "plain", None), "in a worktree": Ours(found, folder / "worktree", start)}
    others = {
        "alone": Alone(found, folder / "alone"),
        "git": lambda: plain_git(folder / "repository", folder / "by git"),
    }
    try:
        figures = take_turns({**others, **ours}, ROUNDS)
    finally:
        for one in ours.values():
            one.close()
    alone = figures["alone"]
    for what, one in ours.items():
        added = median(mine - theirs for mine, theirs in zip(figures[what], alone, strict=True))
        detail = f"{median(figures[what]):.0f} ms to its first byte against {median(alone):.0f} ms alone"
        if what == "plain":
            detail += f"; the first agent of a process {one.first_ms or 0:.0f} ms"
            tell(f"agents: a start adds to {found.name}", added, GOAL, detail, unit="ms")
        else:
            detail += f"; `git worktree add` takes {median(figures['git']):.0f} ms"
            tell(f"agents: the same with a checkout of {FILES:,} files", added, None, detail, unit="ms")


def main() -> None:
    """Print the figures, of the real client too where there is one."""
    with scratch() as folder:
        measure(fake(folder / "fake"), folder / "fake")
        with real(folder / "real") as found:
            if found is None:
                print("agents: no claude on PATH or in the package claude-agent-sdk; only the fake agent was measured")
            else:
                measure(found, folder / "real")


if __name__ == "__main__":
    main()
