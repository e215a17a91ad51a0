"""Makes the frozen log of a release: one store that holds every type of event, as SQL, byte for byte as it was stored.

Run once for a release, before it is made: ``python tests/compat/freeze.py``. The file of a release that is out is never
made again: every later release has to read it as it is.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.submission import Plan, RunSettings, Stage, Task
from parallel_agents.version import RELEASE

NOON_US = 1_772_366_400_000_000  # 2026-03-01T12:00:00Z
HOLDER = {"pid": 4711, "start_time": 1234.5, "boot_id": "0c9e", "kind": "daemon"}
PLAN = Plan(
    name="house",
    strategy="pipeline",
    stages=(Stage(name="first", fail_fast=True), Stage(name="second", parallel=False)),
    tasks=(
        Task(task_id="dig", agent_type="qa-engineer", description="Grab — tief", command=("true",), tags=("a", "b")),
        Task(task_id="lint", allow_failure=True, max_retries=1, env={"STAGE": "test"}, env_from=("API_TOKEN",)),
        Task(task_id="build", dependencies=("dig", "lint"), priority="high", timeout_s=2.5, stage=1),
        Task(task_id="paint", dependencies=("build",), context={"colour": ["red", None, 1.5]}, stage=1),
    ),
    settings=RunSettings(max_parallel_agents=2),
)
DIG, LINT = {"task_id": "dig", "attempt_id": "adig000001"}, {"task_id": "lint", "attempt_id": "alint00001"}
LINT_2, BUILD = {"task_id": "lint", "attempt_id": "alint00002"}, {"task_id": "build", "attempt_id": "abuild0001"}

# (type, fields) of every commit. Seqs are counted from 1 over all of them; the rollbacks name them.
STORY: list[tuple[str, list[tuple[str, dict[str, object]]]]] = [
    ("alphaalpha", [
        ("RunSubmitted", {
            "name": "house", "plan_digest": digest_of(PLAN.to_bytes()), "task_count": 4, "strategy": "pipeline",
            "workspace": "shared", "workdir": "/srv/house", "environment": {"LANG": "C.UTF-8", "PATH": "/usr/bin"},
            "budget_usd_micros": 5_000_000,
        }),
    ]),
    ("alphaalpha", [
        ("RunClaimed", {"holder": HOLDER, "epoch": 1}),
        ("RunStarted", {}),
        ("TaskQueued", {"task_id": "dig"}),
        ("TaskQueued", {"task_id": "lint"}),
        ("TaskStarted", {**DIG, "attempt": 1, "runner": "shell", "model": "haiku", "facts": {"slots": 2}}),
        ("TaskStarted", {**LINT, "attempt": 1, "runner": "shell", "base_commit": "0" * 40}),
    ]),
    ("alphaalpha", [
        ("CheckpointCreated", {"checkpoint_id": "cbefore001", "kind": "before", "label": "vorher", **DIG}),
        ("TaskCompleted", {**DIG, "duration_s": 1.25, "exit_code": 0, "output": {"made": ["Grube", None, 2.5]}, "cpu_s": 0.5}),
        ("CostCharged", {**DIG, "usd_micros": 1_200_000, "model": "haiku", "agent_type": "qa-engineer", "calls": 2}),
        ("TaskFailed", {**LINT, "duration_s": 0.5, "error": "exit 1", "exit_code": 1, "peak_memory_bytes": 4096}),
        ("TaskRetryScheduled", {
            **LINT, "failures": 1, "not_before": "2026-03-01T12:00:05.250000Z", "wait_s": 5.25, "jitter_s": 0.25,
        }),
        ("TaskStarted", {**LINT_2, "attempt": 2, "runner": "shell"}),
    ]),
    ("alphaalpha", [
        ("TaskTimedOut", {**LINT_2, "duration_s": 2.5, "timeout_s": 2.5, "error": "ran over 2.5 s"}),
        ("TaskQueued", {"task_id": "build"}),
        ("TaskStarted", {**BUILD, "attempt": 1, "runner": "shell"}),
        ("BudgetThresholdReached", {"scope": "run", "share": 0.5, "spent_usd_micros": 2_500_000}),
        ("ConflictDetected", {"task_id": "build", "other_task_id": "dig", "paths": ["a.py"]}),
        ("ConflictResolved", {"task_id": "build", "how": "ours"}),
        ("DispatchThrottled", {"reason": "memory"}),
        ("DispatchUnthrottled", {}),
        ("TaskCancelRequested", {"task_id": "build", "reason": "by hand"}),
    ]),
    ("alphaalpha", [
        ("RunRolledBack", {"to_seq": 16}),
        ("TaskQueued", {"task_id": "build", "reason": "rolled_back"}),
        ("RunPaused", {"reason": "rolled back"}),
        ("ResultDiscarded", {**BUILD, "reason": "undone"}),
        ("CostCharged", {**BUILD, "usd_micros": 300_000, "partial": True}),
        ("CheckpointRestored", {"checkpoint_id": "cbefore001", "reason": "rollback"}),
        ("RunResumed", {}),
        ("TaskStarted", {"task_id": "build", "attempt_id": "abuild0002", "attempt": 2, "runner": "shell"}),
        ("AttemptLost", {"task_id": "build", "attempt_id": "abuild0002", "error": "its process is gone", "retryable": False}),
        ("TaskSkipped", {"task_id": "paint", "because": "build"}),
        ("RunFailed", {"counts": {"completed": 1, "failed": 2, "skipped": 1}, "failed": ["lint", "build"]}),
    ]),
    ("alphaalpha", [
        ("TaskReopened", {"task_id": "build"}),
        ("TaskReopened", {"task_id": "paint"}),
        ("TaskBlocked", {"task_id": "paint", "reason": "approval required"}),
        ("RunResumed", {"reason": "retry"}),
        ("TaskUnblocked", {"task_id": "paint", "reason": "approved"}),
        ("BudgetExceeded", {"scope": "run", "spent_usd_micros": 5_000_001, "budget_usd_micros": 5_000_000}),
    ]),
    ("betabetabe", [
        ("RunSubmitted", {
            "name": "house", "plan_digest": digest_of(PLAN.to_bytes()), "task_count": 4, "strategy": "pipeline",
            "workspace": "none", "workdir": "/srv/house", "callables": True,
        }),
        ("RunClaimed", {"holder": HOLDER, "epoch": 1}),
        ("RunCancelRequested", {"reason": "not today"}),
        ("TaskCancelled", {"task_id": "dig"}),
        ("TaskCancelled", {"task_id": "lint"}),
        ("TaskCancelled", {"task_id": "build"}),
        ("TaskCancelled", {"task_id": "paint"}),
        ("RunCancelled", {"counts": {"cancelled": 4}, "reason": "not today"}),
        ("RunReleased", {"epoch": 1}),
    ]),
    ("gammagamma", [
        ("RunForked", {"parent": "alphaalpha", "seq": 8, "overrides": {"dig.model": "opus"}}),
        ("RunCompleted", {"counts": {"completed": 4}}),
    ]),
    ("store", [("SecretScrubbed", {"seq": 3, "old_digest": "0" * 64, "new_digest": "1" * 64})]),
]  # fmt: skip


def freeze(folder: Path) -> str:
    """The whole store as SQL."""
    missing = set(ev.EVENT_TYPES) - {type_ for _, commit in STORY for type_, _ in commit}
    assert not missing, f"the story tells nothing of {', '.join(sorted(missing))}"
    clock = iter(range(NOON_US, NOON_US + 10**12, 1_500_001))
    versions: dict[str, int] = {}
    with Log(folder / "events.db", clock=lambda: next(clock), environ={}, actor="ana") as log:
        for run_id, commit in STORY:
            events = [ev.EVENT_TYPES[type_].model_validate(fields) for type_, fields in commit]
            blobs = {digest_of(PLAN.to_bytes()): PLAN.to_bytes()}
            versions[run_id] = log.append(run_id, versions.get(run_id, 0), events, blobs=blobs)[-1].version
    with closing(sqlite3.connect(folder / "events.db")) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def main() -> None:
    """Write the file of this release, unless there is one."""
    path = Path(__file__).with_name(f"frozen_{RELEASE.replace('.', '_')}.sql")
    if path.exists() and "--again" not in sys.argv:
        sys.exit(f"{path.name} is there already; --again replaces it, which only the release in the making may")
    with tempfile.TemporaryDirectory() as folder:
        path.write_text(freeze(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
