"""The plan for real agents is one: it is looked at without asking anybody, and driven to its end by agents without a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fakeagent.installing import install
from scratch import Scratch
from versioned import git, versioned

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "with_claude"
TASKS = ["design", "store", "guide", "cli", "review"]
TEST = (
    r"import unittest\nfrom shelf.store import LENT\n\n\nclass Lending(unittest.TestCase):\n"
    r"    def test_it(self):\n        self.assertEqual(LENT, 1)\n"
)


def scripted() -> dict[str, list[str]]:
    """What each agent does: something small in the files of its scope; the code's authors with a test that needs it."""
    steps = {
        "design": ["write docs/lending.md # Lending", "say One page in docs/lending.md."],
        "store": [
            "run echo 'LENT = 1' >> shelf/store.py",
            f"run printf '{TEST}' > tests/test_lending.py",
            "say Lending is built and tested.",
        ],
        "guide": ["write docs/guide.md # How to lend a book", "say The guide is written."],
        "cli": [
            "run echo 'from shelf.store import LENT' >> shelf/__main__.py",
            f"run printf '{TEST}' > tests/test_commands.py",
            "say The commands are there.",
        ],
        "review": ["write docs/review.md Nothing grave.", "say Nothing grave was found."],
    }
    return {f"# Task `{task}`": said for task, said in steps.items()}


def ready(cli: Scratch, tmp_path: Path) -> str:
    """The example as a repository, agents that do what they are told on PATH; gives the flag that tells them."""
    shutil.copytree(EXAMPLE, cli.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".gitignore"))
    versioned(cli, {})
    script = tmp_path / "script.json"
    script.write_text(json.dumps(scripted()))
    cli.environment["PATH"] = f"{install(tmp_path / 'bin')}{os.pathsep}{cli.environment['PATH']}"
    return f"agents.runners={json.dumps({'claude': {'sets': {'FAKE_AGENT_SCRIPT': str(script)}}})}"


def test_the_dry_run_of_the_example_tells_models_and_costs_and_runs_nothing(cli: Scratch, tmp_path: Path) -> None:
    """Each agent type has the model that its users know, and the whole is expected to cost less than its budget."""
    ready(cli, tmp_path)
    found = cli.quick("run", "plan.yaml", "--dry-run", "--json").data
    models = {task["task_id"]: task["model"] for task in found["tasks"]}
    assert models == {"design": "opus", "store": "sonnet", "guide": "haiku", "cli": "sonnet", "review": "sonnet"}
    assert 0 < found["cost_usd"]["value"] < 5
    assert not (cli.root / ".parallel-agents" / "runs").exists()


def test_the_example_runs_to_its_end_and_its_tests_are_green(cli: Scratch, tmp_path: Path) -> None:
    """Every agent's work is merged and has passed the tests, and the bill is what five agents cost."""
    told = ready(cli, tmp_path)
    cli.quick("run", "plan.yaml", "--set", told)
    tasks = {task["task_id"]: task for task in cli.quick("status", "--json").data["tasks"]}
    assert [tasks[name]["status"] for name in TASKS] == ["completed"] * 5
    assert tasks["review"]["output"] == "Nothing grave was found."
    gates = [event["data"] for event in cli.events() if event["type"] == "GateChecked"]
    assert {gate["task_id"] for gate in gates if gate["passed"]} == set(TASKS)
    assert all(gate["passed"] for gate in gates)
    bill = cli.quick("cost", "--json").data
    assert (bill["attempts"], bill["calls"], bill["budget_usd"]) == (5, 12, 5)
    cli.quick("merge", "--yes")
    assert git(cli, "log", "--no-merges", "--format=%s").count("\n") == len(TASKS)
    tests = subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=cli.root, capture_output=True, text=True)
    assert tests.returncode == 0, tests.stderr
    assert "Ran 6 tests" in tests.stderr
