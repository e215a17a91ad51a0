"""When a running attempt looks stuck, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dispatching import Scene, ScriptedRunner
from hypothesis import given
from hypothesis import strategies as st
from paper import SECOND_US, PaperRun, plan_of, task

from parallel_agents import look
from parallel_agents.eventstore import events as ev
from parallel_agents.projections import status as status_fold
from parallel_agents.scheduler import vitals
from parallel_agents.scheduler.health import GONE_US, IDLE_SHARE, Pulse, Vitals, beat, decide_health, problem_of
from parallel_agents.why import why

AFTER_US = 300 * SECOND_US
STILL = Vitals(printed_bytes=10, cpu_s=1.0)


class Watched:
    """A running attempt on paper that is looked at every thirty seconds."""

    def __init__(self) -> None:
        self.run = PaperRun(plan_of(task("a")))
        self.run.tick()
        self.now_us = 0
        self.pulse: Pulse | None = None
        self.seen = STILL

    def look(self, **changes: Any) -> str:
        """Half a minute later. Gives what is said, as type."""
        self.seen = replace(self.seen, **changes)
        self.now_us += 30 * SECOND_US
        self.pulse = beat(self.pulse, self.seen, self.now_us)
        event = decide_health(self.run.state.tasks["a"], self.pulse, AFTER_US, "the last words")
        if event is None:
            return ""
        self.run.add(event)
        return type(event).__name__

    def stuck(self) -> dict[str, Any]:
        """What the state knows of it."""
        found = self.run.state.tasks["a"].stuck
        assert found is not None
        return found


def test_a_silent_and_idle_attempt_is_named_once_until_it_goes_on() -> None:
    """With how long it has been silent and its last words; and again if it falls silent again."""
    watched = Watched()
    assert [watched.look() for _ in range(10)] == [""] * 10
    assert watched.look() == "AttemptStuck"
    assert watched.stuck()["reason"] == "it has printed nothing and used no CPU for 300 s"
    assert watched.stuck()["last_output"] == "the last words"
    assert [watched.look() for _ in range(3)] == [""] * 3
    assert watched.look(printed_bytes=11) == "AttemptRevived"
    assert watched.run.state.tasks["a"].stuck is None
    assert [watched.look() for _ in range(9)] == [""] * 9
    assert watched.look() == "AttemptStuck"


def test_one_that_works_without_a_word_is_well() -> None:
    """A compiler may be silent for an hour; a client that wakes now and then to wait is idle."""
    watched = Watched()
    for number in range(40):
        assert watched.look(cpu_s=1.0 + number) == ""
    idle = Watched()
    said = [idle.look(cpu_s=1.0 + number * 30 * IDLE_SHARE * 0.9) for number in range(20)]
    assert said.count("AttemptStuck") == 1


def test_a_part_of_it_that_ends_is_a_sign_of_life() -> None:
    """Its CPU is counted no more, which makes less of it in all."""
    watched = Watched()
    watched.look(cpu_s=100.0)
    assert [watched.look(cpu_s=100.0 - 10 * number) for number in range(12)] == [""] * 12


def test_a_process_that_is_gone_is_named_when_its_supervisor_has_had_its_time() -> None:
    """It ends what is left first."""
    watched = Watched()
    watched.look()
    assert watched.look(alive=False) == ""
    assert watched.look() == "AttemptStuck"
    assert watched.stuck()["kind"] == "process"
    assert GONE_US <= 30 * SECOND_US


def test_a_checkout_that_is_gone_is_named_at_once_and_lifted_when_it_is_back() -> None:
    """Whatever the attempt prints meanwhile."""
    watched = Watched()
    assert watched.look(checkout=False) == "AttemptStuck"
    assert watched.stuck()["kind"] == "checkout"
    assert watched.look(printed_bytes=99) == ""
    assert watched.look(checkout=True) == "AttemptRevived"


def test_who_takes_over_does_not_take_a_stuck_attempt_for_revived() -> None:
    """It has only begun to look."""
    watched = Watched()
    for _ in range(11):
        watched.look()
    watched.stuck()
    watched.pulse = None
    assert [watched.look() for _ in range(20)] == [""] * 20
    assert watched.look(cpu_s=9.0) == "AttemptRevived"


def test_the_end_of_an_attempt_ends_that_it_is_stuck() -> None:
    """And a late word of it is nothing to the next one."""
    run = PaperRun(plan_of(task("a")))
    run.tick()
    stuck = ev.AttemptStuck(task_id="a", attempt_id="a1", kind="silent", silent_s=300.0, reason="silent")
    run.add(stuck)
    assert run.state.tasks["a"].stuck is not None
    run.end("a", error="exit code 1")
    assert run.state.tasks["a"].stuck is None
    run.add(stuck)
    assert run.state.tasks["a"].stuck is None
    run.now_us += 10 * SECOND_US
    assert run.tick() == ["a"]
    run.add(stuck)
    assert run.state.tasks["a"].stuck is None


def test_a_snapshot_knows_of_it() -> None:
    """As does whoever folds all."""
    run = PaperRun(plan_of(task("a")))
    run.tick()
    run.add(ev.AttemptStuck(task_id="a", attempt_id="a1", kind="silent", silent_s=300.0, reason="silent"))
    again = status_fold.load("paper", status_fold.dump(run.state), lambda digest: plan_of(task("a")).to_bytes())
    assert run.state.tasks["a"].stuck is not None
    assert again.tasks["a"].stuck == run.state.tasks["a"].stuck


LOOKS = st.lists(st.tuples(st.integers(1, 200), st.booleans(), st.booleans(), st.booleans()), max_size=60)


@given(LOOKS)
def test_whatever_is_seen_each_word_is_said_in_turn(looks: list[tuple[int, bool, bool, bool]]) -> None:
    """Stuck and revived alternate; nothing is called silent that did something within the time, and nothing else is well."""
    watched = Watched()
    said, last_sign_us = [], None
    for seconds, acts, alive, checkout in looks:
        first = watched.pulse is None
        watched.now_us += seconds * SECOND_US
        printed = watched.seen.printed_bytes + acts
        watched.now_us -= 30 * SECOND_US
        word = watched.look(printed_bytes=printed, alive=alive, checkout=checkout)
        if first or acts:
            last_sign_us = watched.now_us
        assert last_sign_us is not None
        assert watched.pulse is not None
        if watched.now_us - last_sign_us >= AFTER_US:
            assert problem_of(watched.pulse, AFTER_US) is not None
        elif alive and checkout:
            assert problem_of(watched.pulse, AFTER_US) is None
        said += [word] if word else []
    assert said == [["AttemptStuck", "AttemptRevived"][number % 2] for number in range(len(said))]


class Living(ScriptedRunner):
    """Has a process for every attempt, as far as anybody asks."""

    def live(self) -> dict[str, int]:
        """All that were launched."""
        return {launch.attempt_id: 4242 for launch in self.launched}


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A dispatcher whose attempts have the vitals that a test gives them."""
    made = Scene(tmp_path)
    steady = [0]
    made.runner = Living()
    made.dispatcher = made.another("run", steady=lambda: steady[0])
    made.steady = steady  # type: ignore[attr-defined]
    made.looks = []  # type: ignore[attr-defined]

    def one_look(folder: str, pid: int, table: object) -> Vitals:
        made.looks.append(folder)  # type: ignore[attr-defined]
        return STILL

    monkeypatch.setattr(vitals, "vitals_of", one_look)
    yield made
    made.end_of_story()


def wait(hospital: Any, seconds: int) -> None:
    """Time passes, with a tick each second."""
    for _ in range(seconds):
        hospital.now_us += SECOND_US
        hospital.steady[0] += SECOND_US
        hospital.tick()


def test_a_dispatcher_looks_as_often_as_the_run_says(hospital: Any) -> None:
    """And tells once; the setting of each clock does not matter."""
    run_id = hospital.submit(task("a"), health_check_s=30.0, stuck_after_s=100.0)
    hospital.tick()
    (launch,) = hospital.runner.launched
    Path(launch.folder).mkdir(parents=True)
    (Path(launch.folder) / "stdout.log").write_text("compiling\nwaiting for the lock\n")
    wait(hospital, 90)
    hospital.now_us += 10**12
    wait(hospital, 30)
    assert len(hospital.looks) == 4
    assert hospital.types(of="Attempt") == []
    wait(hospital, 200)
    assert hospital.types(of="Attempt") == ["AttemptStuck a"]
    told = hospital.last(ev.AttemptStuck)
    assert (told.kind, told.last_output, told.attempt_id) == ("silent", "waiting for the lock", launch.attempt_id)
    found = look.status(hospital.log, run_id)["tasks"][0]["stuck"]
    assert (found["kind"], found["last_output"]) == ("silent", "waiting for the lock")
    assert "looks stuck" in why(hospital.log, run_id, "a")["why"]
    hospital.runner.end("a")
    wait(hospital, 1)
    assert look.status(hospital.log, run_id)["tasks"][0]["stuck"] is None


def test_where_nobody_wants_it_nobody_looks(hospital: Any) -> None:
    """As in plans of releases that did not know it."""
    hospital.submit(task("a"))
    hospital.tick()
    wait(hospital, 400)
    assert hospital.looks == []


def test_what_could_not_be_appended_is_said_with_the_next_commit(hospital: Any) -> None:
    """It is not looked at again for that."""
    hospital.submit(task("a"), health_check_s=30.0, stuck_after_s=80.0)
    hospital.tick()
    wait(hospital, 90)
    assert hospital.types(of="Attempt") == []
    hospital.log.refusals = 1
    with pytest.raises(Exception, match="full"):
        wait(hospital, 1)
    assert len(hospital.looks) == 4
    hospital.tick()
    assert hospital.types(of="Attempt") == ["AttemptStuck a"]
