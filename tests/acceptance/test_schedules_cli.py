"""Plans that run by a timetable, from the command line."""

from __future__ import annotations

from typing import Any

from scratch import Scratch, shell, wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log, wall_clock_us

HOUR_US = 3_600_000_000


def listed(cli: Scratch) -> list[dict[str, Any]]:
    """The schedules."""
    lines: list[dict[str, Any]] = cli.quick("schedules", "--json").data
    return lines


def aged(cli: Scratch, made: ev.PlanScheduled, plan: bytes, hours: int) -> None:
    """Put a schedule into an empty store as one of so many hours ago: nobody waits for an hour here."""
    past_us = wall_clock_us() - hours * HOUR_US
    with Log(cli.store, clock=lambda: past_us) as log:
        log.append(ev.STORE_RUN, 0, [made], blobs={made.plan_digest: plan})


def taken_out(cli: Scratch) -> tuple[ev.PlanScheduled, bytes]:
    """The one schedule and its plan; the store is gone."""
    with Log(cli.store) as log:
        [made] = [one.event for one in log.read() if isinstance(one.event, ev.PlanScheduled)]
        plan = log.blob(made.plan_digest)
    for path in cli.store.parent.glob("events.db*"):
        path.unlink()
    return made, plan


def test_a_plan_is_scheduled_listed_and_taken_out(cli: Scratch) -> None:
    """Without a daemon, which is said."""
    plan = cli.plan(shell("once", "echo x >> out.txt"), name="nightly")
    said = cli.quick("submit", plan, "--cron", "30 2 * * 1-5", "--zone", "Europe/Paris")
    schedule_id = said.out.strip()
    assert "due next" in said.err
    assert "daemon start" in said.err
    [line] = listed(cli)
    assert (line["schedule_id"], line["name"], line["cron"]) == (schedule_id, "nightly", "30 2 * * 1-5")
    assert (line["zone"], line["misfire"], line["last_run_id"]) == ("Europe/Paris", "run", None)
    page = cli.quick("schedules")
    assert schedule_id in page.out
    assert "no daemon is there" in page.err
    assert cli.quick("runs", "--json").data == []
    cli.quick("schedules", "--remove", schedule_id, "--reason", "enough")
    assert listed(cli) == []
    told = cli.quick("history", "--all").out
    assert "30 2 * * 1-5 (Europe/Paris)" in told
    assert "enough" in told


def test_wrong_timetables_are_refused_and_nothing_is_left(cli: Scratch) -> None:
    """Each with what would be right."""
    plan = cli.plan(shell("a", "true"))
    for words, said in [
        (("--cron", "0 9 * *"), "five fields"),
        (("--cron", "0 25 * * *"), "bad hour"),
        (("--cron", "0 9 * * *", "--zone", "Europe/Pari"), "did you mean 'Europe/Paris'"),
        (("--cron", "0 9 * * *", "--misfire", "perhaps"), "'run', 'skip'"),
        (("--zone", "UTC"), "is about --cron"),
    ]:
        assert said in cli.quick("submit", plan, *words, code=2).err
    assert not cli.store.exists()
    cli.quick("submit", plan)
    cli.quick("schedules", "--remove", "nobody", code=3)


def test_a_daemon_runs_what_was_due_while_there_was_none_once_and_says_so(cli: Scratch) -> None:
    """Three hours missed are one run."""
    cli.quick("submit", cli.plan(shell("once", "echo x >> out.txt"), name="hourly"), "--cron", "@hourly")
    aged(cli, *taken_out(cli), hours=3)
    cli.quick("daemon", "start")
    wait_until(cli.sparing(lambda: listed(cli)[0]["last_run_id"]), "the run")
    [line] = listed(cli)
    assert line["missed"] == 2
    found = cli.quick("wait", line["last_run_id"], "--json").data
    assert (found["name"], found["status"]) == ("hourly", "completed")
    assert (cli.root / "out.txt").read_text() == "x\n"
    assert len(cli.quick("runs", "--json").data) == 1
    assert "2 times before that nobody saw to it" in cli.quick("history", "--all", "--type", "ScheduleFired").out
    cli.quick("daemon", "stop")


def test_a_daemon_that_runs_hears_of_a_new_schedule(cli: Scratch) -> None:
    """And fires it when it is due, which here it is at once."""
    cli.quick("submit", cli.plan(shell("once", "echo x >> out.txt")), "--cron", "@hourly")
    schedule = taken_out(cli)
    cli.quick("daemon", "start")
    aged(cli, *schedule, hours=2)
    wait_until(cli.sparing(lambda: listed(cli)[0]["last_run_id"]), "the run")
    assert cli.quick("wait", "--json").data["status"] == "completed"
    assert "no daemon" not in cli.quick("schedules").err
    cli.quick("daemon", "stop")
    assert (cli.root / "out.txt").read_text() == "x\n"
