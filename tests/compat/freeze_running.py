"""Makes the frozen store of a release in the middle of a run: its log, and the folders of its attempts as they lay there.

Run once for a release, before it is made: ``python tests/compat/freeze_running.py``. As with ``freeze``, what a release that
is out has left is never made again. Who runs is written as pid 4711 of a boot that is long over.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from freeze import HOLDER, NOON_US

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Task
from parallel_agents.scheduler.runners.folder import EXIT, PROCESS, STDERR, STDOUT
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.scheduler.runners.shell import ShellRunner
from parallel_agents.version import RELEASE

RUN = "middleofit"
ATTEMPTS = {"alive": "aalive0001", "done": "adone00001", "failed": "afailed001", "vanished": "avanished1"}
COMMANDS = {
    "alive": ("sh", "-c", "echo begun; sleep 600"),
    "done": ("sh", "-c", "echo 'all done'"),
    "failed": ("sh", "-c", "echo 'no luck' >&2; exit 3"),
    "vanished": ("sh", "-c", "sleep 600"),
}
PLAN = Plan(
    name="middle",
    tasks=(
        *(Task(task_id=name, command=command, max_retries=0) for name, command in COMMANDS.items()),
        Task(task_id="next", command=("true",), dependencies=("alive", "done")),
    ),
    settings=RunSettings(max_parallel_agents=4, retry=RetryPolicy(delay_s=0.05)),
    workspace="none",
)


def freeze(folder: Path) -> str:
    """The log as SQL, with the attempts' folders beside it."""
    clock = iter(range(NOON_US, NOON_US + 10**12, 1_500_001))
    content = PLAN.to_bytes()
    submitted = ev.RunSubmitted(
        name=PLAN.name, plan_digest=digest_of(content), task_count=len(PLAN.tasks), strategy=PLAN.strategy,
        workspace=PLAN.workspace, workdir="/", environment={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip
    events: list[ev.Event] = [submitted, ev.RunClaimed(holder=HOLDER, epoch=1), ev.RunStarted()]
    events += [ev.TaskQueued(task_id=name) for name in ATTEMPTS]
    events += [
        ev.TaskStarted(task_id=name, attempt_id=attempt_id, attempt=1, runner="shell")
        for name, attempt_id in ATTEMPTS.items()
    ]
    with Log(folder / "events.db", clock=lambda: next(clock), environ={}, actor="daemon") as log:
        log.append(RUN, 0, events, blobs={digest_of(content): content})
    runner = ShellRunner(lambda: None)
    launches = {
        name: Launch(RUN, name, attempt_id, folder / "runs" / RUN / name / attempt_id, Path("/"), COMMANDS[name])
        for name, attempt_id in ATTEMPTS.items()
    }
    for launch in launches.values():
        launch.env = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        runner.start(launch)
    while runner.running() > 2 or len(runner.live()) < 2:
        time.sleep(0.01)
    for launch in launches.values():
        keep(Path(launch.folder))
        runner.stop(launch.attempt_id, grace_s=0.0)
    runner.close()
    with closing(sqlite3.connect(folder / "events.db")) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def keep(folder: Path) -> None:
    """Write the files of an attempt again, beside themselves, with what depends on the machine made the same everywhere."""
    kept = folder.with_name(f"{folder.name}.kept")
    kept.mkdir()
    for name in (STDOUT, STDERR):
        shutil.copy(folder / name, kept / name)
    (kept / "lock").touch()
    who = {"pid": 4711, "start_time": 1234, "boot_id": "0c9e"}
    process = json.loads((folder / PROCESS).read_text())
    content = json.dumps({**process, **who, "supervisor": {**who, "pid": 4710}})
    (kept / PROCESS).write_text(content.ljust(400) + "\n")
    if (folder / EXIT).exists():
        moments = {
            "started_at_us": NOON_US,
            "ended_at_us": NOON_US + 250_000,
            "cpu_s": 0.01,
            "peak_memory_bytes": 1 << 20,
        }
        (kept / EXIT).write_text(json.dumps({**json.loads((folder / EXIT).read_text()), **moments}))


def main() -> None:
    """Write the folder of this release, unless there is one."""
    target = Path(__file__).with_name(f"running_{RELEASE.replace('.', '_')}")
    if target.exists() and "--again" not in sys.argv:
        sys.exit(f"{target.name} is there already; --again replaces it, which only the release in the making may")
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        sql = freeze(Path(folder))
        for kept in sorted(Path(folder).glob("runs/*/*/*.kept")):
            shutil.copytree(kept, target / kept.relative_to(folder).with_suffix(""))
    (target / "events.sql").write_text(sql, encoding="utf-8")


if __name__ == "__main__":
    main()
