"""What a plan of agents would do, as a person and as a script read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from parallel_agents.cli.dry_run import dollars, duration, page, show_dry_run
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import AgentSettings, BudgetSettings, Plan, Stage, Task
from parallel_agents.outline import outline, outline_in
from parallel_agents.past_attempts import Past, Sample
from parallel_agents.project import Project


def agent(task_id: str, agent_type: str, *needs: str, **fields: Any) -> Task:
    return Task(task_id=task_id, agent_type=agent_type, dependencies=needs, runner="claude", **fields)


CHECKOUT = Plan(
    name="checkout",
    tasks=(
        agent("arch", "software-architect", priority="high"),
        agent("api", "api-engineer", "arch", description="Security of payments"),
        agent("web", "frontend-engineer", "arch", model="haiku"),
        Task(task_id="lint", command=("make", "lint"), dependencies=("api", "web")),
    ),
)


def text_of(plan: Plan, past: Past | None = None) -> str:
    return "\n".join(line.plain.rstrip() for line in page(outline(plan, past or Past())))


def row(text: str, task_id: str) -> list[str]:
    """The words of a task's line."""
    return next(line.split() for line in text.splitlines() if f" {task_id} " in line)


def test_each_task_shows_model_cost_and_time_and_what_they_rest_on() -> None:
    """An explicit model stands; what runs no agent has neither model nor cost."""
    past = Past()
    past.by_task["api"] = [Sample("api", "x", "api-engineer", "opus", "claude", 120.0, 0.5)] * 3
    text = text_of(CHECKOUT, past)
    assert {"software-architect", "high", "claude", "opus", "$1.60"} <= set(row(text, "arch"))
    assert {"opus", "$0.50", "2", "min", "3×", "itself"} <= set(row(text, "api"))
    assert {"haiku", "$0.04", "prior"} <= set(row(text, "web"))
    assert row(text, "lint")[-2:] == ["make", "lint"]
    assert "$" not in " ".join(row(text, "lint"))
    assert "one up for the word 'security': opus" in text
    assert "the task names haiku" in text
    assert "nobody knows of 1 task, which is as good as left out" in text
    assert "2 on a prior, 1 on own history, 1 on nothing" in text


def test_tasks_of_one_wave_hang_together() -> None:
    """The number stands at the first of them."""
    lines = text_of(CHECKOUT).splitlines()
    signs = [line[:3] for line in lines if any(f" {name} " in line for name in ("arch", "api", "web", "lint"))][:4]
    assert signs == ["1 ─", "2 ┬", "  └", "3 ─"]


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        (BudgetSettings(), "the run pauses when it is spent"),
        (BudgetSettings(enabled=False), "nothing stops when it is spent, as the configuration says"),
        (BudgetSettings(pause=False), "nothing stops when it is spent, as the configuration says"),
    ],
)
def test_a_budget_that_stops_nothing_is_told_as_that(budgets: BudgetSettings, told: str) -> None:
    """Where the configuration switches it off, or has it told only."""
    assert told in text_of(CHECKOUT.model_copy(update={"budget_usd_micros": 10_000, "budgets": budgets}))


def test_a_plan_of_commands_shows_no_money() -> None:
    """And no column of what nobody knows; its stages and priorities are there as ever."""
    text = text_of(Plan(name="x", tasks=(Task(task_id="a", command=("true",)),)))
    assert "$" not in text
    for word in ("MODEL", "COST", "TIME", "prior"):
        assert word not in text
    assert "PRIORITY  STAGE" in text


def test_what_is_the_same_for_all_agents_takes_no_column() -> None:
    """Where there are stages, they are shown."""
    same = Plan(name="x", tasks=(agent("a", "explore"), agent("b", "explore")))
    assert not {"PRIORITY", "STAGE", "RUNNER", "COMMAND"} & set(text_of(same).split())
    staged = same.model_copy(
        update={
            "stages": (Stage(name="one"), Stage(name="two")),
            "tasks": (same.tasks[0], same.tasks[1].model_copy(update={"stage": 1})),
        }
    )
    assert "two" in row(text_of(staged), "b")


def test_a_narrow_terminal_loses_what_can_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never tasks, models or what they cost; a wide one shows all."""
    monkeypatch.setattr("parallel_agents.cli.drawing.console", lambda: Console(width=80))
    heading, *rest = (line.plain for line in page(outline(CHECKOUT))[2:8])
    assert {"TASK", "MODEL", "COST", "TIME"} <= set(heading.split())
    assert not {"RUNNER", "PRIORITY"} & set(heading.split())
    assert max(map(cell_len, [heading, *rest[:4]])) <= 80
    monkeypatch.setattr("parallel_agents.cli.drawing.console", lambda: Console(width=300))
    assert {"RUNNER", "PRIORITY", "FROM", "AFTER"} <= set(page(outline(CHECKOUT))[2].plain.split())


def test_many_reasons_and_long_paths_are_cut() -> None:
    """The page stays a page; as wide as its longest line."""
    tasks = [
        agent(f"t{number}", f"type-{number}", *([f"t{number - 1}"] if number else []), model=f"model-{number}")
        for number in range(30)
    ]
    text = text_of(Plan(name="x", tasks=tuple(tasks)))
    assert "(18 more)" in text
    assert "and 18 more reasons" in text
    assert len(text.splitlines()) < 60
    assert max(map(cell_len, text.splitlines())) < 200


def test_scripts_get_every_figure_with_its_source() -> None:
    """Values are numbers or null; fields that were there stay."""
    found = json.loads(json.dumps(outline(CHECKOUT)))
    assert {"name", "strategy", "workspace", "limits", "expected_s", "critical_path", "tasks"} <= found.keys()
    arch, lint = found["tasks"][0], found["tasks"][-1]
    assert (arch["model"], arch["model_name"], arch["model_reason"]) == ("opus", "opus", "software-architect gets opus")
    assert arch["cost_usd"]["low"] < arch["cost_usd"]["value"] < arch["cost_usd"]["high"]
    assert arch["cost_usd"]["basis"] == "prior"
    assert (lint["model"], lint["cost_usd"], lint["duration_s"]["value"]) == (None, None, None)
    assert found["makespan_s"]["unknown_tasks"] == 1
    assert found["cost_usd"]["low"] < found["cost_usd"]["value"] < found["cost_usd"]["high"]
    assert found["expected_s"] == pytest.approx(265 + 265 + 1)


def test_the_projects_own_store_is_asked_and_never_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a task took there is what it is expected to take."""
    project = Project(tmp_path, tmp_path / ".parallel-agents" / "events.db", tmp_path)
    assert outline_in(project, CHECKOUT)["tasks"][0]["duration_s"]["basis"] == "prior"
    assert not project.store.parent.exists()
    names = {"task_id": "arch", "attempt_id": "x"}
    with project.open(create=True) as log:
        log.append("abc", 0, [
            ev.RunSubmitted(name="checkout", plan_digest="x", task_count=1, strategy="concurrent", workspace="none", workdir="/"),
            ev.TaskStarted(**names, attempt=1, runner="claude", model="opus"),
            ev.CostCharged(**names, usd_micros=2_500_000, agent_type="software-architect"),
            ev.TaskCompleted(**names, duration_s=33.0),
        ])  # fmt: skip
        before = log.last_seq()
    show_dry_run(CHECKOUT, project, as_json=True)
    [arch] = [task for task in json.loads(capsys.readouterr().out)["tasks"] if task["task_id"] == "arch"]
    assert arch["duration_s"]["value"] == pytest.approx(33)
    assert arch["cost_usd"]["value"] == pytest.approx(2.5)
    assert arch["cost_usd"]["source"] == "1 attempt of this task"
    show_dry_run(CHECKOUT, project, as_json=False)
    assert "1× itself" in capsys.readouterr().out
    with project.open() as log:
        assert log.last_seq() == before


def test_a_client_that_chooses_its_model_itself_is_told() -> None:
    """Its cost is a prior of an unknown price."""
    plan = CHECKOUT.model_copy(update={"agents": AgentSettings(choose_models=False)})
    text = text_of(plan)
    assert "client's own" in text
    assert "switched off" in text


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "$0"), (0.0061234, "$0.0061"), (0.058, "$0.058"), (0.1, "$0.10"), (1.6, "$1.60"), (5.213, "$5.20"), (22.4, "$22"),
     (1234.0, "$1,200")],
)  # fmt: skip
def test_a_guess_of_money_has_two_digits(value: float, told: str) -> None:
    """More would say that it is known."""
    assert dollars(value) == told


@pytest.mark.parametrize(
    ("value", "told"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (87.2, "87 s"), (265, "4 min"), (7200, "2.0 h")]
)
def test_a_guess_of_time_is_rounded(value: float, told: str) -> None:
    """To what people say."""
    assert duration(value) == told
