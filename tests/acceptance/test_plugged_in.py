"""A runner that another package brings along: found by its entry point, given what to do, and believed."""

from __future__ import annotations

from pathlib import Path

from scratch import Scratch

MODULE = """
import time
from parallel_agents.scheduler.runners.protocol import Charge, Ended

class Echo:
    name = "echoing"

    def __init__(self, on_end):
        self.on_end, self.ends = on_end, []

    def start(self, launch):
        now_us = time.time_ns() // 1000
        said = next(line for line in launch.errand.prompt.splitlines() if "Say" in line)
        said = f"{said} ({launch.task_id}) on {launch.errand.model}"
        charges = (Charge("a-model", 5_000, "agent", 70, 7, calls=1),)
        self.ends.append(Ended(
            launch.attempt_id, "exited", 0, output=said, charges=charges, started_at_us=now_us, ended_at_us=now_us))
        self.on_end()

    def adopt(self, launches):
        for launch in launches:
            self.ends.append(Ended(launch.attempt_id, "lost"))
        self.on_end()

    def stop(self, attempt_id, *, timed_out=False, grace_s=3.0):
        pass

    def poll(self):
        ends, self.ends = self.ends, []
        return ends

    def close(self):
        pass
"""


def test_a_runner_of_another_package_is_driven_as_ours_are(cli: Scratch, tmp_path: Path) -> None:
    """It gets the prompt and the model, and its output and its charges are those of the task."""
    package = tmp_path / "installed"
    about = package / "echoing-1.0.dist-info"
    about.mkdir(parents=True)
    (package / "echoing.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: echoing\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[parallel_agents.runners]\nechoing = echoing:Echo\n")
    cli.environment["PYTHONPATH"] = str(package)
    task = {"task_id": "a", "agent_type": "worker", "description": "Say this.", "runner": "echoing", "model": "of-mine"}
    cli("run", cli.plan(task))
    events = {event["type"]: event["data"] for event in cli.events()}
    assert events["TaskCompleted"]["output"] == "Say this. (a) on of-mine"
    assert (events["CostCharged"]["usd_micros"], events["CostCharged"]["runner"]) == (5_000, "echoing")
    assert events["TaskStarted"]["model"] == "of-mine"
