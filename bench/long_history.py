"""A store as it stands after months of work: hundreds of runs of agents that have ended, made through the log itself."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.record import decode_brief, new_ids
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.projections import status as st
from parallel_agents.projections.at_hand import Writer
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.attempts import Held
from parallel_agents.scheduler.plan import Agenda
from parallel_agents.scheduler.upkeep import Upkeep

TASKS_OF_A_RUN = 400
ATTEMPTS_AT_ONCE = 5
PER_COMMIT = 100  # Tasks.
MICROS_A_SECOND = 1_000_000
_SENTENCE = "The checkout page shows the basket, takes an address and a card, and hands the order on. "
_AGENTS = ("backend-engineer", "frontend-engineer", "qa-engineer", "security-engineer", "technical-writer")


class Calendar:
    """The time that the events of a store are given: a minute passes between two commits."""

    def __init__(self) -> None:
        self.now_us = 1_750_000_000_000_000

    def __call__(self) -> int:
        self.now_us += 60 * MICROS_A_SECOND
        return self.now_us


def life(
    task_id: str, agent_type: str, ids: list[str], chance: random.Random, known: str | None = None
) -> Iterator[Event]:
    """The events of one task of an agent, from queued to completed; one in ten fails first.

    Args:
        known: a commit that is there; None: those that are named are nowhere.
    """
    attempt_id, second_id, before, after = ids
    commit = known or f"{chance.getrandbits(160):040x}"
    merged = known or commit[::-1]
    tries = [(attempt_id, True)] if chance.random() > 0.1 else [(second_id, False), (attempt_id, True)]
    yield ev.TaskQueued(task_id=task_id)
    for number, (each, well) in enumerate(tries, start=1):
        duration_s = 30 + chance.random() * 600
        yield ev.TaskStarted(
            task_id=task_id, attempt_id=each, attempt=number, runner="claude", model="sonnet", base_commit=commit,
            facts={"run_slots": 3, "store_slots": 4}, model_reason="its agent type asks for it",
            reserved_usd_micros=400_000,
        )  # fmt: skip
        yield ev.CheckpointCreated(
            checkpoint_id=before, kind="before_attempt", commit=commit, task_id=task_id, attempt_id=each
        )
        yield ev.CostCharged(
            task_id=task_id, attempt_id=each, usd_micros=chance.randrange(400_000), model="claude-sonnet-4-5",
            agent_type=agent_type, input_tokens=20_000, output_tokens=1_500, calls=12, cache_read_tokens=200_000,
            runner="claude", duration_s=duration_s, at_once=2,
        )  # fmt: skip
        if not well:
            yield ev.TaskFailed(
                task_id=task_id, attempt_id=each, duration_s=duration_s, exit_code=1, kind="overload", resumable=True,
                error="the provider is overloaded",
            )  # fmt: skip
            yield ev.TaskRetryScheduled(
                task_id=task_id, attempt_id=each, failures=1, not_before="2026-03-01T12:00:00.000000Z", wait_s=30.0,
                jitter_s=0.5,
            )  # fmt: skip
            continue
        paths = [f"src/module_{chance.randrange(400)}/part_{one}.py" for one in range(chance.randrange(1, 20))]
        yield ev.CheckpointCreated(
            checkpoint_id=after, kind="after_attempt", commit=merged, task_id=task_id, attempt_id=each,
            changed=len(paths), paths=paths, agent_type=agent_type,
        )  # fmt: skip
        yield ev.TaskCompleted(
            task_id=task_id, attempt_id=each, duration_s=duration_s, exit_code=0, commit=merged,
            output=_SENTENCE * chance.randrange(1, 16), cpu_s=2.5, peak_memory_bytes=300_000_000,
        )  # fmt: skip


def add_run(
    log: Log,
    run_id: str,
    plan: bytes,
    task_ids: list[str],
    chance: random.Random,
    *,
    repository: str | None = None,
    known: str | None = None,
    again: int = 0,
) -> None:
    """One run, from submitted to completed, released by its holder as every run that has ended is.

    Args:
        repository: that its files are in, with the commit that is ``known``.
        again: how often every task is opened again and done once more.
    """
    holder = {"pid": 1, "start_time": 1.0, "boot_id": "of another day", "kind": "run"}

    def begin(draft: Draft) -> None:
        draft.add_blob(digest_of(plan), plan)
        submitted = ev.RunSubmitted(
            name="checkout", plan_digest=digest_of(plan), task_count=len(task_ids), strategy="concurrent",
            workspace="worktree", workdir="/", environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            budget_usd_micros=500_000_000, repository=repository, base_commit=known,
        )  # fmt: skip
        draft.add_all(run_id, [submitted, ev.RunClaimed(holder=holder, epoch=1), ev.RunStarted()])

    log.transact(begin)
    rounds = [(again_now, first) for again_now in range(again + 1) for first in range(0, len(task_ids), PER_COMMIT)]
    for again_now, first in rounds:
        events: list[Event] = []
        for name in task_ids[first : first + PER_COMMIT]:
            events += [ev.TaskReopened(task_id=name)] if again_now else []
            events += life(name, chance.choice(_AGENTS), new_ids(4), chance, known)
        log.transact(lambda draft, events=events: draft.add_all(run_id, events) and None)  # type: ignore[misc]
    told = ev.BudgetThresholdReached(scope="run", share=0.5, spent_usd_micros=250_000_000)
    finish = ev.RunCompleted(counts={"completed": len(task_ids)})
    log.transact(lambda draft: draft.add_all(run_id, [told, finish]) and None)


def fill(log: Log, events: int) -> list[str]:
    """Make runs until the log holds so many events. Gives their ids, oldest first. The log should be given a ``Calendar``."""
    chance = random.Random(1)
    task_ids = [f"task-{number}" for number in range(TASKS_OF_A_RUN)]
    plan = Plan(
        name="checkout",
        tasks=tuple(Task(task_id=name, agent_type=_AGENTS[at % 5]) for at, name in enumerate(task_ids)),
    ).to_bytes()
    run_ids: list[str] = []
    while log.last_seq() < events:
        run_ids += new_ids(1)
        add_run(log, run_ids[-1], plan, task_ids, chance)
    return run_ids


def as_dispatched(log: Log, run_id: str) -> float:
    """Leave the snapshots of a run that a dispatcher leaves as it goes on, by its own code. Gives the seconds that it took."""
    projector = Projector(log)
    keeper = Upkeep(log, projector, lambda: 0)
    briefs = log.briefs(run_id)
    state = st.fold(st.initial(run_id), decode_brief(run_id, next(briefs)), log.blob)
    held = Held(state, Agenda(state), Path(), Writer(state))
    took_s = 0.0
    while some := [decode_brief(run_id, brief) for brief in islice(briefs, 5)]:
        for record in some:
            st.fold(state, record, log.blob)
        held.snapshot_seq_count += len(some)
        begun = time.perf_counter()
        keeper.keep_snapshots(held, some)
        took_s += time.perf_counter() - begun
    return took_s
