"""What the machine lets start: by its processors, by its memory, by the width of the pool; and that something always goes on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from paper import PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.circuits import Circuit, Circuits
from parallel_agents.projections.needs import Needs
from parallel_agents.projections.needs import fold as fold_needs
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.scheduler.breaker import CircuitFacts
from parallel_agents.scheduler.governing import (
    LEFT_BYTES,
    MEGABYTE,
    Machine,
    ask,
    limited,
    machine_of,
    most_workers,
    width,
)
from parallel_agents.scheduler.machine_load import MachineLoad, Usage
from parallel_agents.scheduler.plan import Facts, plan, why_not
from parallel_agents.scheduler.throttle import decide_eased

GOVERNED: dict[str, Any] = {
    "max_cpu_percent": 80.0,
    "throttle_cpu_percent": 90.0,
    "max_memory_mb": 4000,
    "min_workers": 2,
}


def machine(running: int = 0, *, cpu: float | None = None, free_mb: int | None = None, **more: Any) -> Machine:
    """A machine on which so many processes run, of which nothing is known but what is given."""
    made = Machine(cpu, None if free_mb is None else free_mb * MEGABYTE, **more)
    made.running = running
    return made


def needs(**peaks_mb: int) -> Needs:
    """What one attempt of each agent type has needed."""
    made = Needs()
    for number, (agent_type, peak_mb) in enumerate(peaks_mb.items()):
        name = f"before{number}"
        facts = {"agent_type": agent_type}
        events = [
            ev.TaskStarted(task_id="x", attempt_id=name, attempt=1, runner="claude", facts=facts),
            ev.TaskCompleted(task_id="x", attempt_id=name, duration_s=1.0, peak_memory_bytes=peak_mb * MEGABYTE),
        ]
        for event in events:
            fold_needs(made, record_of(event))
    return made


def record_of(event: ev.Event) -> Any:
    """A record of which only the event is looked at."""
    return Recorded(1, "before", 1, 0, "test", event)


class Governed(PaperRun):
    """A run whose machine the test sets; what it starts is counted in by ``plan``."""

    machine = Machine()
    circuits: CircuitFacts | None = None

    def facts(self) -> Facts:
        """With a copy of the machine, as a tick has it."""
        found = super().facts()
        now = self.machine
        found.machine = Machine(
            now.cpu_percent, now.available_bytes, max(now.running, len(self.state.running)), now.taken_bytes,
            now.used_bytes, now.coming_bytes, now.needs, now.first,
        )  # fmt: skip
        found.circuits = None if self.circuits is None else self.circuits.copy()
        return found


def governed(*names: str, **limits: Any) -> Governed:
    """A run of tasks that need nothing of each other."""
    return Governed(plan_of(*(task(name) for name in names), **{**GOVERNED, **limits}))


def said(run: Governed, name: str) -> tuple[str, str]:
    """Why a task does not start, as code and text."""
    return why_not(run.state, name, run.facts(), run.now_us)[:2]


def test_above_the_limit_of_the_processors_nothing_starts_but_what_keeps_the_run_going() -> None:
    """Two may run at any load; the third waits until the mean is down."""
    run = governed(*"abc")
    run.machine = machine(cpu=80.1)
    assert run.tick() == ["a", "b"]
    assert said(run, "c") == (
        "cpu", "the processors are at 80 %, and nothing starts above 80 %; 2 of ours run, and 2 may at any load",
    )  # fmt: skip
    run.machine = machine(cpu=80.0)
    assert run.tick() == ["c"]


@pytest.mark.parametrize(("limit", "threshold", "below"), [(100.0, 90.0, 81.0), (None, 60.0, 54.0), (70.0, 90.0, 70.0)])
def test_starts_that_were_throttled_go_on_where_there_is_room_again(
    limit: float | None, threshold: float, below: float
) -> None:
    """A tenth below the threshold, and not above the limit: or each sample would stop or release them."""
    run = governed("a", max_cpu_percent=limit, throttle_cpu_percent=threshold)
    run.machine = machine(2, cpu=below + 0.1)
    assert run.why("a") == ("cpu" if limit == below else "due")
    run.add(ev.DispatchThrottled(reason="busy", code="cpu"))
    assert run.why("a") == "cpu"
    assert decide_eased(run.state, run.machine, 0) == []
    run.machine = machine(2, cpu=below)
    assert [one.code for one in decide_eased(run.state, run.machine, 0)] == ["cpu"]
    assert run.tick() == ["a"]


def test_what_runs_of_others_counts_for_the_least() -> None:
    """Two processes of another run are going on already."""
    run = governed("a")
    run.machine = machine(2, cpu=99.0)
    assert run.tick() == []
    assert run.why("a") == "cpu"
    run.machine = machine(1, cpu=99.0)
    assert run.tick() == ["a"]


def test_what_is_not_known_holds_nothing_back() -> None:
    """Before the mean of five seconds is known, and where nothing is sampled."""
    run = governed(*"abcde")
    run.machine = machine(7)
    assert run.tick() == list("abcde")


def test_callables_are_not_governed_and_pass_what_is() -> None:
    """They are no processes: they start while a process has to wait."""
    tasks = [task("a"), task("b").model_copy(update={"command": None}), task("c")]
    run = Governed(plan_of(*tasks, **GOVERNED))
    run.state.callables = True
    run.machine = machine(2, cpu=95.0)
    assert run.tick() == ["b"]
    assert (run.why("a"), run.why("c")) == ("cpu", "cpu")
    processes = [task("large", agent_type="large"), task("small", agent_type="small")]
    run = Governed(plan_of(*processes, tasks[1], **GOVERNED))
    run.state.callables = True
    run.machine = Machine(running=1, taken_bytes=2500 * MEGABYTE, needs=needs(large=2000, small=10))
    assert run.tick() == ["b"]


def test_a_process_that_would_not_fit_waits_and_says_what_its_kind_has_needed() -> None:
    """By nine in ten of the attempts of its agent type."""
    run = Governed(plan_of(*(task(name, agent_type="writer") for name in "abc"), **GOVERNED))
    run.machine = machine(needs=needs(writer=1500))
    assert run.tick() == ["a", "b"]
    run.machine = Machine(running=2, taken_bytes=3000 * MEGABYTE, needs=needs(writer=1500))
    code, text = said(run, "c")
    assert code == "memory"
    assert text.startswith(
        "memory: it is expected to need 1,500 MB (by one attempt of 'writer' before), what runs takes 3,000"
    )
    assert text.endswith("all may take 4,000 MB")
    run.machine = Machine(running=1, taken_bytes=1500 * MEGABYTE, needs=needs(writer=1500))
    assert run.tick() == ["c"]


def test_where_a_type_is_new_its_runner_counts() -> None:
    """Better than nothing; and the last attempt of the task itself counts where that was more."""
    run = Governed(plan_of(task("a", agent_type="newcomer", runner="claude"), **GOVERNED))
    known = needs(writer=100)
    assert known.of("newcomer", "claude") == (100 * MEGABYTE, 1, "claude")
    assert known.of("newcomer", "codex") is None
    run.machine = machine(needs=known)
    run.state.tasks["a"].peak_memory_bytes = 700 * MEGABYTE
    found = ask(run.state, run.state.tasks["a"], 0, run.facts().machine or Machine())
    assert found[0] == 700 * MEGABYTE


def test_memory_that_the_machine_does_not_have_is_not_given_out() -> None:
    """What those that run are going to need is as good as gone, and something is left for everybody else."""
    run = Governed(plan_of(task("a", agent_type="writer"), **GOVERNED))
    free = Machine(available_bytes=1400 * MEGABYTE, running=1, coming_bytes=801 * MEGABYTE, needs=needs(writer=500))
    run.machine = free
    assert run.why("a") == "memory"
    assert said(run, "a")[1].startswith("599 MB of the machine's memory are free: it is expected to need 500 MB")
    free.coming_bytes = 1400 * MEGABYTE - 500 * MEGABYTE - LEFT_BYTES
    assert run.tick() == ["a"]


def test_a_task_that_alone_needs_more_than_the_limit_starts_alone_and_with_a_warning() -> None:
    """A run must come to its end; nothing starts beside it."""
    run = Governed(plan_of(task("huge", agent_type="huge"), task("b", agent_type="small"), **GOVERNED))
    run.machine = machine(needs=needs(huge=9000, small=10))
    decision = run.plan()
    assert decision.rooms["huge"].warning.startswith("memory: it is expected to need 9,000 MB")
    assert run.tick() == ["huge"]
    run.machine = Machine(running=1, taken_bytes=9000 * MEGABYTE, needs=needs(huge=9000, small=10))
    assert run.tick() == []
    assert run.why("b") == "memory"


def test_nothing_small_passes_what_waits_for_memory() -> None:
    """Else a stream of small ones would hold a large one up for ever."""
    plan_ = plan_of(task("large", agent_type="large"), task("small", agent_type="small"), **GOVERNED)
    run = Governed(plan_)
    run.machine = Machine(running=1, taken_bytes=2500 * MEGABYTE, needs=needs(large=2000, small=10))
    assert run.tick() == []
    assert (run.why("large"), run.why("small")) == ("memory", "lower_rank")
    younger = governed("other")
    shared = Machine(running=1, taken_bytes=2500 * MEGABYTE, needs=needs(large=2000, small=10))
    run.add(ev.DispatchThrottled(reason="full", code="memory"))
    facts = run.facts()
    facts.machine = shared
    plan(run.state, run.agenda, facts, run.now_us)
    assert shared.first == ("paper", "large")
    younger.state.run_id = "younger"
    younger.machine = shared
    assert said(younger, "other")[1] == "memory goes first to large of run paper, which has waited for it longer"


def test_the_width_of_the_pool_is_the_smallest_limit() -> None:
    """And never below the least."""
    run = governed(*"abcd", max_parallel_agents=4, max_workers=3, auto_scale=True)
    assert (width(run.state), most_workers(run.state.plan.settings)) == (3, 3)
    assert run.tick() == ["a", "b", "c"]
    assert said(run, "d") == ("workers", "no worker: 3 of 3 of this run are taken")
    run.add(ev.WorkersScaled(workers=2, reason="busy"))
    assert (
        said(run, "d")[1] == "no worker: 3 of 2 of this run are taken, scaled down from 3 to what the machine can bear"
    )
    run.end("a", "b")
    assert run.tick() == ["d"]
    run.add(ev.WorkersScaled(workers=1))
    assert width(run.state) == 2
    run.add(ev.RunPaused(), ev.RunResumed())
    assert width(run.state) == 3


def test_a_plan_of_an_older_release_asks_for_nothing() -> None:
    """Its limits are none."""
    run = PaperRun(plan_of(task("a")))
    assert not limited(run.state.plan.settings)
    assert run.plan().rooms == {}


def test_a_start_tells_what_it_was_decided_on() -> None:
    """As far as it was known; a replay can decide the same by it."""
    run = Governed(plan_of(task("a", agent_type="writer"), auto_scale=True, **{**GOVERNED, "max_parallel_agents": 3}))
    assert run.plan().rooms["a"].figures == {"workers": 3, "processes": 0, "agent_type": "writer"}
    run.machine = Machine(41.26, 10**10, 1, 5, needs=needs(writer=2))
    assert run.plan().rooms["a"].figures == {
        "workers": 3, "processes": 1, "agent_type": "writer", "cpu_percent": 41.3, "available_bytes": 10**10,
        "memory_bytes": 2 * MEGABYTE, "taken_bytes": 5,
    }  # fmt: skip


def test_the_machine_counts_what_each_process_uses_or_will() -> None:
    """What somebody else started cannot be measured here, and what it was expected to need counts."""
    slots = dict.fromkeys(("mine", "fresh", "theirs", "call"), "run")
    occupancy = Occupancy(slots=slots, calls={"call"}, memory={"mine": 100, "fresh": 30, "theirs": 50})
    load = MachineLoad(1, 50.0, 1000, {"mine": Usage(memory_bytes=170)})
    found = machine_of(load, occupancy, Needs(), {"mine": "run", "fresh": "run"})
    assert (found.running, found.taken_bytes, found.used_bytes, found.coming_bytes) == (3, 250, 170, 30)


@given(
    cpu=some.none() | some.floats(0, 100), free_mb=some.none() | some.integers(0, 9000), slots=some.integers(0, 6),
    taken_mb=some.integers(0, 9000), peak_mb=some.integers(1, 9000), least=some.integers(1, 4),
    throttled=some.sets(some.sampled_from(["cpu", "memory"])),
)  # fmt: skip
def test_something_always_goes_on(
    cpu: float | None, free_mb: int | None, slots: int, taken_mb: int, peak_mb: int, least: int, throttled: set[str]
) -> None:
    """Whatever the machine is like, one process starts where none runs, and no load keeps back what is below the least."""
    run = Governed(plan_of(task("a", agent_type="writer"), **{**GOVERNED, "min_workers": least}))
    run.add(*(ev.DispatchThrottled(reason="short", code=code) for code in sorted(throttled)))
    run.machine = machine(slots, cpu=cpu, free_mb=free_mb, needs=needs(writer=peak_mb))
    run.machine.taken_bytes = taken_mb * MEGABYTE if slots else 0
    code = run.why("a")
    if slots == 0:
        assert code == "due"
    if slots < least:
        assert code != "cpu"
    if code == "due" and slots >= least and cpu is not None:
        assert cpu <= 80
    if code == "due" and slots:
        assert taken_mb + peak_mb <= 4000
        assert free_mb is None or peak_mb + 100 <= free_mb


@pytest.mark.parametrize("code", ["cpu", "memory"])
def test_without_a_sampler_the_log_says_why_starts_wait(code: str) -> None:
    """Who asks in another process knows the reason that was recorded."""
    run = governed("a")
    run.machine = machine(2)
    assert run.why("a") == "due"
    run.add(ev.DispatchThrottled(reason="as it was", code=code))
    assert said(run, "a") == (code, "as it was")


@pytest.mark.timeout(20)
def test_a_full_queue_that_a_broken_runner_and_the_machine_hold_back_is_looked_at_once() -> None:
    """What is small and ready passes a task of a broken runner, but not one that waits for memory."""
    tasks = (task("broken", runner="broken"), task("large", agent_type="large"), task("small", agent_type="small"))
    run = Governed(plan_of(*tasks, **GOVERNED, max_queue_size=2))
    run.machine = Machine(running=1, taken_bytes=2500 * MEGABYTE, needs=needs(large=2000, small=10))
    circuits: Circuits = {"broken": Circuit(count=3, reason="gone", until_us=run.now_us + 10**6)}
    run.circuits = CircuitFacts(circuits, frozenset(), run.now_us, set())
    assert run.tick() == []
    assert (run.why("broken"), run.why("large")) == ("circuit_open", "memory")
    run.machine = Machine(running=1, taken_bytes=1500 * MEGABYTE, needs=needs(large=2000, small=10))
    assert run.tick() == ["large", "small"]
