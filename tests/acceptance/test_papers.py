"""The paper on agents says what is so: its clients, its keys, its agent types and its numbers are those of the program."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from parallel_agents.agent_settings import client_rows
from parallel_agents.configuration_keys import BY_PATH
from parallel_agents.project import Project
from parallel_agents.scheduler import decide_money
from parallel_agents.scheduler.agents.clients import BUILT_IN, FIELDS, clients
from parallel_agents.scheduler.agents.models import LADDER, MODEL_OF

PAPER = (Path(__file__).resolve().parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
FLAT = " ".join(PAPER.split())
GROUPS = ("agents", "costOptimization", "resourceManagement", "safetyFeatures", "conflictResolution")


def rows(head: str) -> list[list[str]]:
    """The cells of the table with that head."""
    table = PAPER.split(f"| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_table_of_clients_is_the_programs() -> None:
    """Every client, what it can tell, and whether it was tried."""
    told = {row[0].strip("`"): (row[2], row[3].startswith("yes")) for row in rows("runner | starts | tells | tested")}
    assert told == {name: (", ".join(one.tells) or "–", one.tested) for name, one in BUILT_IN.items()}


def test_the_row_that_is_shown_is_a_client(tmp_path: Path) -> None:
    """A configuration with it is accepted, and drives it as it says."""
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAPER, re.DOTALL | re.MULTILINE)
    (tmp_path / "parallel-agents.toml").write_text(text, encoding="utf-8")
    found = Project.find(start=tmp_path, root=tmp_path).configuration(environ={})
    mine = clients(client_rows(found))["mine"]
    assert (mine.command[0], mine.prompt, mine.takes_model, mine.provider) == ("my-agent", "file", True, "mine")


def test_every_field_of_a_row_is_named() -> None:
    """In the example, or in the list after it."""
    spelled = {re.sub(r"_(\w)", lambda found: found[1].upper(), name) for name in FIELDS}
    missing = [name for name in spelled if not re.search(rf"`{name}`|^{name} = ", PAPER, re.MULTILINE)]
    assert missing == []


def test_every_key_that_is_named_is_one() -> None:
    """Of the configuration; a group of them counts."""
    named = set(re.findall(rf"`((?:{'|'.join(GROUPS)})\.[\w.]+)", PAPER))
    known = {path.rsplit(".", cut)[0] for path in BY_PATH for cut in range(path.count(".") + 1)}
    wrong = {name for name in named if name.rstrip(".") not in known and not name.startswith("agents.runners.")}
    assert wrong == set()
    assert len(named) > 10


def test_agent_types_and_their_models_are_those_that_there_are() -> None:
    """Those that come along, and those that do not get the usual model."""
    names = {file.name for file in files("parallel_agents").joinpath("agents").iterdir()}
    (listed,) = re.findall(r"\(`parallel_agents/agents/`\): (.*?)\.", FLAT)
    told = [name + "engineer" if name.endswith("-") else name for name in re.split(", | and ", listed)]
    assert sorted(f"{name}.md" for name in told) == sorted(name for name in names if name.endswith(".md"))
    (models,) = re.findall(r"the table: (.*?) `opus`; (.*?) `haiku`; all others `sonnet`", FLAT)
    by_model = {alias: set(types.split(", ")) for alias, types in zip(("opus", "haiku"), models, strict=True)}
    assert by_model == {alias: {name for name in MODEL_OF if MODEL_OF[name] == alias} for alias in by_model}
    assert set(MODEL_OF.values()) == set(LADDER)


def test_the_times_and_shares_that_are_named_are_those_in_force() -> None:
    """Waits for providers, timers, and the shares of a budget."""
    first_s, longest_s = decide_money.FIRST_WAIT_US // 1_000_000, decide_money.LONGEST_WAIT_US // 1_000_000
    assert f"for {first_s} s, then {2 * first_s} s, up to {longest_s // 60} min" in FLAT
    for key in ("agents.silenceTimeout", "agents.resultGrace"):
        assert f"(`{key}`, {BY_PATH[key].default} s)" in FLAT or f"`{key}` ({BY_PATH[key].default} s)" in FLAT
    for share in ("warning", "critical", "emergency"):
        assert f"{BY_PATH[f'costOptimization.costThresholds.{share}'].default:.0%}".replace("%", " %") in FLAT
