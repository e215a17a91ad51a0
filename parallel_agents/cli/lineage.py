"""The verb lineage: who made a file or a line, and what of a run's money is still there."""

from __future__ import annotations

from typing import Any, Final

import click
from rich.text import Text

from parallel_agents import InvalidUsage
from parallel_agents.cli import drawing
from parallel_agents.cli.scene import complete_run, opened, print_json, project_of, reading

_FILES_SHOWN: Final = 20
_STYLES: Final = {"survived": "green", "overwritten": "yellow", "no_lines": "dim", "unsettled": "yellow"}
_KEPT: Final = {
    "added": "is not committed yet",
    "untracked": "is in no commit: git does not track it",
    "ignored": "is in no commit: git ignores it",
}


@click.command()
@click.argument("word", required=False, metavar="[PATH[:LINE|:FROM-TO]]", type=click.Path())
@click.option("--run", metavar="RUN", shell_complete=complete_run, help="Look at a run's files, not at yours.")
@click.option(
    "--spend", is_flag=True, help="Divide what a run has cost: lines that are left, and all else. Without PATH."
)
@click.option(
    "--here", is_flag=True, help="With --spend: lines left on the branch you stand on, not in the run's result."
)
@reading
@click.pass_context
def lineage(
    ctx: click.Context, word: str | None, run: str | None, spend: bool, here: bool, as_json: bool, at: str | None
) -> None:
    """Say which run, task, attempt, model and how many dollars made a file or a line of it.

    The file is the one that lies here; with --run or --at, the one of a run's result. With --spend [RUN], say what of a
    run's money is in lines that are left.
    """
    if spend:
        _spend(ctx, word, run, here, as_json, at)
        return
    if word is None:
        raise click.UsageError("a PATH is missing; or say --spend")
    if here:
        raise InvalidUsage("--here goes with --spend", hint="a file is looked at here unless --run is said")
    from parallel_agents import lineage as made_by
    from parallel_agents import look

    with opened(ctx) as log:
        upto = look.moment(log, at)
        # Where a branch of the user's stood is in no log.
        run_id = None if run is None and at is None else look.resolve_run(log, run, upto)
        found = made_by.lineage(log, project_of(ctx), word, run_id, upto)
    if as_json:
        print_json(found)
    elif "story" in found:
        _story_page(found)
    else:
        _file_page(found)


def _spend(ctx: click.Context, word: str | None, run: str | None, here: bool, as_json: bool, at: str | None) -> None:
    if word is not None and run is not None:
        raise InvalidUsage(f"two runs are named: {word} and {run}", hint="leave one of them out")
    if here and at is not None:
        raise InvalidUsage("--here and --at exclude each other", hint="where your branch stood then is in no log")
    from parallel_agents import look, survival

    with opened(ctx) as log:
        upto = look.moment(log, at)
        run_id = look.resolve_run(log, word or run, upto)
        found = survival.survival(log, run_id, upto, project_of(ctx) if here else None)
    if as_json:
        print_json(found)
        return
    _spend_page(found, survival.PARTS)


def _file_page(found: dict[str, Any]) -> None:
    where = f" in run {found['run_id']}" if found["run_id"] else ""
    drawing.show(Text(f"{drawing.one_line(found['path'])}", style="bold").append(_count(found) + where, style="dim"))
    if found["kept"] != "tracked":
        drawing.show(f"  {_KEPT[found['kept']]}")
    if not found["parts"]:
        return
    rows = [
        (
            _numbers(part),
            _run_and_task(part),
            part["attempt"],
            part["agent_type"],
            part["model"],
            _cost(part),
            drawing.local_time(part["at"]),
            _remark(part),
        )
        for part in found["parts"]
    ]
    headings = ("LINES", "RUN/TASK", "TRY", "AGENT", "MODEL", "COST", "WHEN", "BY…")
    drawing.show(*drawing.table(headings, rows, right=(2, 5)))
    costs = {part["attempt_id"]: part["cost_usd"] for part in found["parts"] if part["attempt_id"]}
    if costs:
        drawing.show(
            Text(f"  {len(costs)} attempt{'s' * (len(costs) != 1)} made it, and cost {drawing.dollars(sum(costs.values()))}"
                 " in all, for whatever else they made too", style="dim")
        )  # fmt: skip


def _count(found: dict[str, Any]) -> str:
    if (found["first"], found["last"]) != (1, found["lines"]):
        return f"  lines {found['first']}-{found['last']} of {found['lines']}"
    return f"  {found['lines']} line{'s' * (found['lines'] != 1)}"


def _numbers(part: dict[str, Any]) -> str:
    return f"{part['first']}" if part["lines"] == 1 else f"{part['first']}-{part['last']}"


def _run_and_task(part: dict[str, Any]) -> str | None:
    return f"{part['run_id']}/{part['task_id']}" if part["task_id"] else part["run_id"]


def _cost(part: dict[str, Any]) -> Text | str | None:
    if part["unknown_cost"]:
        amount = drawing.dollars(part["cost_usd"])
        return Text(f"≥ {amount}" if part["cost_usd"] else "unknown", style="yellow")
    return None if part["cost_usd"] is None else drawing.dollars(part["cost_usd"])


def _remark(part: dict[str, Any]) -> str:
    """Whose the lines are, in words."""
    commit = (part["commit"] or "")[:12]
    match part["by"]:
        case "uncommitted":
            return "not committed yet"
        case "commit":
            return f"no run: {part['author']}, commit {commit}"
        case "before":
            return f"no run: not committed when run {part['run_id']} began"
        case "run":
            return f"the run as a whole, commit {commit}: its own commits are gone"
        case "settled":
            return f"settled by {part['settled_by']}: its conflict, commit {commit}"
        case "attempt":
            again = ", committed anew" if part["joined"] == "trailers" else ""
            return f"commit {commit}{again}"
        case _:
            raise AssertionError(part["by"])


def _story_page(found: dict[str, Any]) -> None:
    (part,), told = found["parts"], found["story"]
    line = f"{drawing.one_line(found['path'])}:{found['first']}"
    drawing.show(Text(line, style="bold").append(f"  in run {found['run_id']}" if found["run_id"] else "", style="dim"))
    fate = ", undone by a rollback" if told["undone"] else ""
    gates = [f"{gate['command']} {'passed' if gate['passed'] else 'did not pass'}" for gate in told["gates"]]
    fields = {
        "run": f"{part['run_id']} ({part['run_name']})",
        "task": part["task_id"],
        "asked": (told["description"] or "").strip().partition("\n")[0],
        "attempt": f"{part['attempt']} of {told['attempts']}: {told['outcome']}{fate}",
        "agent": f"{part['agent_type']} by {part['runner']}",
        "model": _model(part, told),
        "cost": _cost(part),
        "commit": f"{part['commit'][:12]} {drawing.local_time(part['at'])}: {part['summary']}",
        "joined": "by its trailers: the commit was made anew" if part["joined"] == "trailers" else None,
        "checkpoint": told["checkpoint_id"],
        "gates": ", ".join(gates),
        "approved by": told["approved_by"],
        "reviewed by": ", ".join(told["reviewed_by"]),
        "settled by": part["settled_by"],
        "events": ", ".join(f"{event['seq']} {event['type']}" for event in told["events"]),
    }
    rows = [(Text(name, style="dim"), value) for name, value in fields.items() if value not in (None, "")]
    drawing.show(drawing.table(("", "…"), rows))
    for command in told["commands"]:
        drawing.show(Text(f"  {command}", style="dim"))


def _model(part: dict[str, Any], told: dict[str, Any]) -> str | None:
    if part["model"] is None:
        return None
    names = [name for name in part["models"] if name != part["model"]]
    return (
        f"{part['model']}{' (' + ', '.join(names) + ')' if names else ''}: {told['model_reason'] or 'as the task says'}"
    )


def _spend_page(found: dict[str, Any], parts: dict[str, str]) -> None:
    against = "the branch you stand on" if found["against"] == "branch" else "its result"
    head = Text(drawing.dollars(found["cost_usd"]), style="bold").append(
        f"  run {found['run_id']}, against {against} ({found['commit'][:12]})", style="dim"
    )
    drawing.show(head)
    if found["unknown_attempts"]:
        drawing.show(
            Text(f"  {found['unknown_attempts']} attempts of unknown cost: in no sum of money", style="yellow")
        )
    drawing.show(f"  {found['lines_left']} of {found['lines_added']} lines that it added are left")
    whole = found["cost_usd"] or 1
    rows = [
        (Text(part, style=_STYLES.get(part, "red")), drawing.dollars(found[f"{part}_usd"]),
         f"{100 * found[f'{part}_usd'] / whole:.0f} %", said)
        for part, said in parts.items()
        if found[f"{part}_usd"]
    ]  # fmt: skip
    if rows:
        drawing.show("", *drawing.table(("PART", "COST", "SHARE", "WHAT…"), rows, right=(1, 2)))
    files = sorted(found["files"], key=lambda one: (-one["cost_usd"], -one["lines_left"], one["path"]))
    if files:
        lines = [(one["path"], one["lines_left"], drawing.dollars(one["cost_usd"])) for one in files[:_FILES_SHOWN]]
        drawing.show("", *drawing.table(("FILE…", "LINES LEFT", "COST"), lines, right=(1, 2)))
        if len(files) > _FILES_SHOWN:
            drawing.show(f"  and {len(files) - _FILES_SHOWN} more files; --json has them all")
