"""What a plan would do, without doing it."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from parallel_agents.cli import drawing
from parallel_agents.cli.scene import print_json
from parallel_agents.outline import outline


def show_dry_run(plan: Any, *, as_json: bool) -> None:
    """Print the waves in which a plan's tasks could start, its longest path and its limits."""
    found = outline(plan)
    if as_json:
        print_json(found)
        return
    limits = found["limits"]
    drawing.show(
        Text.assemble((found["name"], "bold"), f"  {found['strategy']}, {len(found['tasks'])} tasks, ",
                      f"at most {limits['max_parallel_agents']} at once; nothing was run")
    )  # fmt: skip
    rows = [
        (task["wave"], task["task_id"], task["agent_type"], task["priority"], task["stage"], ", ".join(task["dependencies"]),
         " ".join(task["command"] or ()))
        for task in found["tasks"]
    ]  # fmt: skip
    drawing.show(drawing.table(("WAVE", "TASK", "AGENT", "PRIORITY", "STAGE", "AFTER", "COMMAND…"), rows, right=(0,)))
    drawing.show(Text("longest path: " + " → ".join(found["critical_path"]), style="dim"))
