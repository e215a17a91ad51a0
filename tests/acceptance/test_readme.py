"""What the README shows is what happens: its session and its Python program are run, and its table of codes is ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeagent.installing import install

from parallel_agents.project import Project

ROOT = Path(__file__).resolve().parents[2]
AGENTS = {  # What the agents of the README do.
    "design": ["write design.md # Checkout", "say One page: three calls, four errors."],
    "service": ["sleep 0.5", "write service/app.py pass", "say The service answers; 12 tests pass."],
    "page": ["sleep 1", "write web/index.html <h1>Checkout</h1>", "say The page is there."],
    "check": ["write report.md # Nothing", "say 9 checks, all passed."],
}
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What differs from run to run: ids, times of day, durations, process ids, hashes, bars and their scale, columns.
DIFFERS = (
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b"), "TIME"),
    (re.compile(r"\b\d+\.\d ?s\b"), "DURATION"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "WHEN"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,12}\b"), "COMMIT"),
    (re.compile(r"\b[a-z][a-z2-7]{9}\b"), "ID"),  # And a word of ten letters, on both sides.
    (re.compile(r"^ +╵.*$", re.MULTILINE), "SCALE"),
    (re.compile(r"[░▏▎▍▌▋▊▉█]+"), " "),
    (re.compile(r"[ \t]+"), " "),
)


def blocks(language: str) -> list[str]:
    """The README's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def alike(text: str) -> list[str]:
    """The lines of a text without what differs from run to run, in an order that no clock decides."""
    for pattern, instead in DIFFERS:
        text = pattern.sub(instead, text)
    return sorted(line.strip() for line in text.splitlines() if line.strip())


def commands(language: str = "console") -> Iterator[tuple[str, str]]:
    """Each command of one of the README's sessions, and what it shows below it."""
    for block in blocks(language):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def printed(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What a command line prints, on stdout and stderr."""
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=60,
    ).stdout  # fmt: skip


@pytest.fixture
def shell_environment() -> dict[str, str]:
    """The command on the PATH, no terminal, and nothing that configures us."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARALLEL_AGENTS_")}
    for role in ("AUTHOR", "COMMITTER"):
        kept |= {f"GIT_{role}_NAME": "you", f"GIT_{role}_EMAIL": "you@localhost"}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "COLUMNS": "100"}


def test_the_session_of_the_readme_goes_as_it_is_shown(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    """Command by command, in a new directory with the README's plan."""
    (plan,) = blocks("yaml")
    (tmp_path / "plan.yaml").write_text(plan, encoding="utf-8")
    for command, shown in commands():
        assert alike(printed(command, tmp_path, shell_environment)) == alike(shown), command


def test_the_session_with_agents_goes_as_it_is_shown(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    """With clients that have no model, and no configuration of the user's."""
    (plan,) = blocks("yaml agents")
    project = tmp_path / "project"
    project.mkdir()
    (project / "plan.yaml").write_text(plan, encoding="utf-8")
    script = tmp_path / "script.json"
    script.write_text(json.dumps({f"# Task `{task}`": steps for task, steps in AGENTS.items()}))
    client = install(tmp_path / "agents", "claude") / "claude"
    told = f"#!/bin/sh\nFAKE_AGENT_SCRIPT='{script}' exec '{client}' \"$@\"\n"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").write_text(told)
    (tmp_path / "bin" / "claude").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{shell_environment['PATH']}"
    environment = {**shell_environment, "PATH": path, "HOME": str(tmp_path)}
    printed("git init -q -b main && git add -A && git commit -qm 'Plan the checkout'", project, environment)
    for command, shown in commands("console agents"):
        assert alike(printed(command, project, environment)) == alike(shown), command


def test_the_program_of_the_readme_runs(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    """As it stands, and its run is in the store."""
    (program,) = blocks("python")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=shell_environment, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "2/2 completed: [{'words': 3}, 'done']\n", ended.stderr
    assert (tmp_path / ".parallel-agents" / "events.db").exists()


def test_the_configuration_of_the_readme_is_accepted(tmp_path: Path) -> None:
    """And every line of it changes a default."""
    (text,) = blocks("toml")
    (tmp_path / "parallel-agents.toml").write_text(text, encoding="utf-8")
    found = Project.find(start=tmp_path, root=tmp_path).configuration(environ={})
    explicit = [found.is_explicit(key) for key in ("maxParallelAgents", "execution.taskQueue.timeout")]
    assert explicit == [True, True]
    retries = tomllib.loads(text)["execution"]["retry_policy"]
    assert found.get("execution.retryPolicy.maxRetries") == retries["max_retries"]
    assert found.get("execution.retryPolicy.retryDelay") == retries["retry_delay"]


def test_the_links_of_the_papers_lead_somewhere() -> None:
    """Pictures, papers and folders that README and docs point to are there."""
    papers = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    missing = [
        f"{paper.name}: {target}"
        for paper in papers
        for target in re.findall(r"\]\(([^)#:]+)\)", paper.read_text(encoding="utf-8"))
        if not (paper.parent / target).exists()
    ]
    assert missing == []
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert [name for name in named if not ((ROOT / "parallel_agents" / name).exists() or (ROOT / name).exists())] == []
    assert len(named) > 10
