"""Bugs to be planted in the core, each with the check that has to find it, and the program that plants one.

    python tests/simulation/mutations.py [NAME]

With a name it imports the package with one place of one module said differently, without touching any file, and runs the
check: it ends with 0 where the bug is found, and says after how many stories; with 1 where it is not. Without one it does so
for each in turn, and prints what came of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutation:
    """One bug: ``old`` stands once in ``file`` (below the package), and ``new`` in place of it is wrong."""

    name: str
    file: str
    old: str
    new: str
    check: str  # A world of ``stories``, or a test as pytest names it, below ``tests``.
    stories: int = 60  # So many at most are told until one fails; they are those from seed 0 on.
    quick: bool = False  # Whether `make test` looks at it, too.


STORE: Final = "simulation/test_store_machine.py"
DECIDED: Final = "compat/test_decided_again.py"
MUTATIONS: Final = (
    # When an attempt is followed by another one.
    Mutation(
        "a task is tried once more than allowed", "scheduler/retry.py",
        "failures <= max_retries", "failures <= max_retries + 1", "scheduler", quick=True,
    ),
    Mutation(
        "a task is tried once less than allowed", "scheduler/retry.py",
        "failures <= max_retries", "failures < max_retries", "scheduler",
    ),
    Mutation(
        "what cannot be mended is tried again", "scheduler/retry.py",
        "return retryable and policy.enabled", "return policy.enabled", "scheduler",
    ),
    Mutation(
        "the first rest is twice as long", "scheduler/retry.py",
        "min(failures - 1, 64)", "min(failures, 64)", "scheduler",
    ),
    Mutation(
        "a rest is over at once", "scheduler/decide.py",
        "not_before = rfc3339(now_us + round((wait_s + jitter_s) * 1e6))", "not_before = rfc3339(now_us)", "scheduler",
    ),
    Mutation(
        "a rest stands still after the clock was set back", "scheduler/rests.py",
        "self.since_us + left_us) > self.now_us", "self.since_us + left_us) > 0", "scheduler",
    ),
    Mutation(
        "a rest is measured from a commit that failed", "scheduler/dispatcher.py",
        "self._rest_ends[run_id].pop(attempt_id, None)", "pass", "unit/test_rests_dispatched.py",
    ),
    Mutation(
        "a rest is measured from a claim that failed", "scheduler/dispatcher.py",
        "self._rest_ends.pop(run_id, None)  # Where", "pass  # Where", "unit/test_rests_dispatched.py",
    ),
    Mutation(
        "what was lost before it began counts as a failure", "scheduler/decide.py",
        "failures=task.failures, not_before=now, wait_s=0.0,", "failures=task.failures + 1, not_before=now, wait_s=0.0,",
        "scheduler",
    ),
    Mutation(
        "what was lost before it began is not made again", "scheduler/decide.py",
        "if isinstance(end, ev.AttemptLost) and not end.began:", "if isinstance(end, ev.AttemptLost) and end.began:",
        "scheduler",
    ),
    # Who starts when.
    Mutation(
        "a lost wake: nobody looks at what waited for a task", "projections/status.py",
        "state.tasks[name].open_dependencies -= change\n                state.touched.add(name)",
        "state.tasks[name].open_dependencies -= change", "scheduler", quick=True,
    ),
    Mutation(
        "a lost wake: nobody is called when a rest is over", "scheduler/plan.py",
        "left_us.append(due_us - now_us)", "pass", "scheduler",
    ),
    Mutation(
        "dependencies are counted wrong when a task is opened again", "projections/status.py",
        "open_dependencies -= change", "open_dependencies -= abs(change)", "scheduler",
    ),
    Mutation(
        "a failure that is allowed holds back what depends on it", "projections/status.py",
        "(task.allow_failure and status in BORNE)", "(task.allow_failure and status == COMPLETED)",
        "scheduler",
    ),
    Mutation(
        "fail_fast is ignored", "scheduler/plan.py",
        "if not state.plan.stages[number].fail_fast or", "if True or", "scheduler",
    ),
    Mutation(
        "a stage begins while one task of the one before it is open", "scheduler/plan.py",
        "state.stage_open[self.stage] == leaving[self.stage]:", "state.stage_open[self.stage] <= leaving[self.stage] + 1:",
        "scheduler",
    ),
    Mutation(
        "the limit of a run is off by one", "scheduler/plan.py",
        "facts.run_slots >= settings.max_parallel_agents", "facts.run_slots > settings.max_parallel_agents", "scheduler",
        quick=True,
    ),
    Mutation(
        "the limit of the store is off by one", "scheduler/plan.py",
        "facts.store_slots >= settings.store_limit", "facts.store_slots > settings.store_limit", "scheduler",
    ),
    Mutation(
        "a start does not count for those after it", "scheduler/plan.py",
        "facts.run_slots += 1\n            room += 1", "room += 1", "scheduler",
    ),
    Mutation(
        "tasks of a stage that runs one by one run by twos", "scheduler/plan.py",
        "if not stage.parallel and facts.run_slots > 0:", "if not stage.parallel and facts.run_slots > 1:", "scheduler",
    ),
    Mutation(
        "declared files are not kept apart", "scheduler/plan.py",
        "(task.task.files and scope_taken(task, busy))", "(task.task.files and scope_taken(task, {}))", "scheduler",
    ),
    Mutation(
        "a queue is longer than it may be", "scheduler/plan.py",
        "room = state.plan.settings.max_queue_size - state.counts[st.QUEUED] + freed",
        "room = state.plan.settings.max_queue_size + freed", "scheduler",
    ),
    Mutation(
        "a person's approval holds for later attempts, too", "scheduler/plan.py",
        "task.approved_attempt != task.attempts + 1", "task.attempts == 0 and task.approved_attempt is None", "scheduler",
    ),
    # What ends.
    Mutation(
        "a slot is not freed when a result is discarded", "projections/occupancy.py",
        "_free(state, event.attempt_id)", "isinstance(event, ev.ResultDiscarded) or _free(state, event.attempt_id)",
        "scheduler",
    ),
    Mutation(
        "the result of an attempt that was undone is not told", "scheduler/dispatcher.py",
        "elif attempt_id in self._occupancy.slots:", "elif not attempt_id:", "scheduler",
    ),
    Mutation(
        "starts precede ends in a commit", "scheduler/dispatcher.py",
        "self._take_ends(draft)\n            self._let_go(draft)\n            self._plan(draft, started)",
        "self._let_go(draft)\n            self._plan(draft, started)\n            self._take_ends(draft)", "scheduler",
    ),
    Mutation(
        "what was to be cancelled has failed instead", "scheduler/decide.py",
        "if task.cancel_requested or state.cancel_requested:", "if task.cancel_requested and state.cancel_requested:",
        "scheduler",
    ),
    Mutation(
        "a run ends while a person is asked", "scheduler/decide.py",
        "for status in (st.PENDING, st.QUEUED, st.RUNNING, st.BLOCKED))\n    if state.ended or open_tasks",
        "for status in (st.PENDING, st.QUEUED, st.RUNNING))\n    if state.ended or open_tasks", "scheduler",
    ),
    Mutation(
        "nobody stops what a rollback has undone", "scheduler/attempts.py",
        "for runner in self._runners.values():\n                        runner.stop(attempt_id)",
        "for runner in ():\n                        runner.stop(attempt_id)", "scheduler",
    ),
    # Going back, branching off.
    Mutation(
        "what ran there is not queued again by a rollback", "scheduler/decide_past.py",
        "events += [ev.TaskQueued(task_id=name, reason=ROLLED_BACK) for name in there.running.values()]",
        "", "scheduler",
    ),
    Mutation(
        "a fork goes on without being asked", "scheduler/decide_past.py",
        'events.append(ev.RunPaused(reason=f"forked from {there.run_id} at event {seq}"))', "pass", "scheduler",
    ),
    Mutation(
        "a rollback goes one event further back", "projections/effective.py",
        "bisect_right(seqs, target, 0, position) - 1", "bisect_right(seqs, target - 1, 0, position) - 1", "scheduler",
    ),
    Mutation(
        "a snapshot lacks a field", "projections/status.py",
        '"active_since_us", "used_us",', '"used_us",', "scheduler", quick=True,
    ),
    # Who holds a run.
    Mutation(
        "a run is taken from a process that lives", "scheduler/dispatcher.py",
        "(self._draining or (summary.holder and holder_alive(summary.holder)))", "self._draining", "scheduler",
        quick=True,
    ),
    Mutation(
        "nobody takes over from a dead process", "scheduler/dispatcher.py",
        "candidates |= self._free_runs", "candidates |= {one for one in self._free_runs if not self._summaries[one].holder}",
        "scheduler",
    ),
    Mutation(
        "what a dead process had running is not adopted", "scheduler/dispatcher.py",
        "adopted.append(run_id)", "adopted += []", "scheduler", quick=True,
    ),
    Mutation(
        "what a failed commit was to say is taken for true", "scheduler/dispatcher.py",
        "self._forget()\n            raise", "raise", "scheduler",
    ),
    Mutation(
        "who was overtaken goes on", "scheduler/dispatcher.py",
        "if isinstance(record.event, ev.RunClaimed) and record.event.holder != self._me:",
        "if isinstance(record.event, ev.RunClaimed) and record.event.holder == {}:", "scheduler",
    ),
    Mutation(
        "the epoch of a lease does not grow", "scheduler/dispatcher.py",
        "epoch=summary.epoch + 1", "epoch=max(1, summary.epoch)", "scheduler",
    ),
    Mutation(
        "the epoch of a release is not compared", "projections/runs.py",
        "if event.epoch == run.epoch:", "if event.epoch:", "unit/test_runs_fold.py",
    ),
    # The log.
    Mutation(
        "a version is not checked", "eventstore/log.py",
        "if found != version:", "if found < version:", STORE, quick=True,
    ),
    Mutation(
        "the end of the log is remembered for too long", "eventstore/log.py",
        "if version == self._seen_version:", "if self._seen_version >= 0:", STORE,
    ),
    Mutation(
        "the versions that a commit leads to are forgotten", "eventstore/log.py",
        "self._versions.update(draft.versions)", "pass", STORE,
    ),
    Mutation(
        "time goes back with the clock", "eventstore/log.py",
        "self.at_us = max(log._clock(), last_at)", "self.at_us = log._clock()", "scheduler", quick=True,
    ),
    Mutation(
        "a time is found one event too late", "eventstore/reading.py",
        "if found and found[0][0] <= at_us:", "if found and found[0][0] <= at_us + 1_000_000:", STORE,
    ),
    Mutation(
        "an old snapshot is preferred", "eventstore/caches.py",
        'ORDER BY seq DESC LIMIT 1",\n                (run_id', 'ORDER BY seq LIMIT 1",\n                (run_id', STORE,
    ),
    Mutation(
        "a link of the chain does not cover who said it", "eventstore/links.py",
        "{at_us}\\x1f{actor}\\x1f\".encode(\"utf-8\"", "{at_us}\\x1f\\x1f\".encode(\"utf-8\"", "unit/test_chain.py",
    ),
    Mutation(
        "a link of the chain follows the wrong one", "eventstore/log.py",
        "            prev_hash = link\n", "            prev_hash = digest\n", "scheduler",
    ),
    # Money, providers, disks.
    Mutation(
        "an attempt is charged twice", "scheduler/accounts.py",
        "for number, one in enumerate(ended.charges)", "for number, one in enumerate(ended.charges * 2)", "agents",
    ),
    Mutation(
        "an attempt that was adopted is not charged", "scheduler/dispatcher.py",
        "if held.agents:\n                    self._settled(draft, held.state, ended)\n                task_id",
        "task_id", "agents",
    ),
    Mutation(
        "what attempts hold back does not count", "scheduler/budget.py",
        "return self.budget_usd_micros - self.spent_usd_micros - self.held_usd_micros",
        "return self.budget_usd_micros - self.spent_usd_micros", "agents",
    ),
    Mutation(
        "agents start while their provider lets nobody work", "scheduler/agents/granting.py",
        "if wait is None and broken is None:", "if broken is None:", "agents",
    ),
    Mutation(
        "nobody wakes when a provider lets us work again", "scheduler/accounts.py",
        "due = [wait.until_us for wait in self.spend.waits.values()]", "due = [0 for wait in self.spend.waits.values()]",
        "agents",
    ),
    Mutation(
        "a full disk holds starts back for ever", "scheduler/throttle.py",
        "room = free_bytes is None or", "room = False and", "unit/test_throttle.py",
    ),
    Mutation(
        "a circuit opens one failure too late", "scheduler/breaker.py",
        "if count >= policy.failures:", "if count > policy.failures:", "unit/test_breaker.py",
    ),
    Mutation(
        "a worker is added without a look at what it will take", "scheduler/scaling.py",
        "gauge.calm_us = since(waits and with_one_more <= threshold, gauge.calm_us)",
        "gauge.calm_us = since(waits, gauge.calm_us)", "simulation/test_scaling.py",
    ),
    Mutation(
        "a throttle of the processors never lifts", "scheduler/throttle.py",
        "if not waits or cpu is None or cpu <= eased_cpu_percent(state.plan.settings):", "if not waits:",
        "unit/test_governor.py",
    ),
    # Files.
    Mutation(
        "work is merged with a line that has moved on", "scheduler/run_files.py",
        "if work is None or work.onto is None or work.onto == state.integration:", "if True:", "memory",
    ),
    Mutation(
        "work that clashes counts as merged", "scheduler/work.py",
        "return work.clashes if gate is None else", "return () if gate is None else", "memory",
    ),
    Mutation(
        "what an attempt leaves is not held before it is told", "scheduler/checkouts.py",
        "refs.hold(repository, {refs.checkpoint_ref(order.run_id, order.after_id): commit})", "pass", "memory",
    ),
    Mutation(
        "an attempt begins where its run began", "scheduler/run_files.py",
        "base = task.base_commit or state.integration", "base = state.base_commit or task.base_commit", "memory",
    ),
    Mutation(
        "a run ends before its branch follows", "scheduler/run_files.py",
        "or known.foreign is not None or known.answered == state.integration", "or True", "memory", stories=200,
    ),
    # What the frozen histories of earlier schedulers are decided by.
    Mutation(
        "the next scheduler tries once more", "scheduler/retry.py",
        "failures <= max_retries", "failures <= max_retries + 1", DECIDED,
    ),
    Mutation(
        "the next scheduler rests longer", "scheduler/retry.py",
        "min(failures - 1, 64)", "min(failures, 64)", DECIDED,
    ),
    Mutation(
        "the next scheduler ranks the shortest path first", "scheduler/plan.py",
        "-tail[name], index)", "tail[name], index)", DECIDED, quick=True,
    ),
    Mutation(
        "the next scheduler lets one more task run", "scheduler/plan.py",
        "facts.run_slots >= settings.max_parallel_agents", "facts.run_slots > settings.max_parallel_agents", DECIDED, quick=True,
    ),
    Mutation(
        "the next scheduler lets one less task run", "scheduler/plan.py",
        "facts.run_slots >= settings.max_parallel_agents", "facts.run_slots + 1 >= settings.max_parallel_agents", DECIDED,
    ),
    Mutation(
        "the next scheduler has a longer queue", "scheduler/plan.py",
        "room = state.plan.settings.max_queue_size", "room = 1 + state.plan.settings.max_queue_size", DECIDED,
    ),
    Mutation(
        "the next scheduler tells of a budget later", "scheduler/budget.py",
        "share * use.budget_usd_micros", "(share + 0.04) * use.budget_usd_micros", DECIDED,
    ),
    Mutation(
        "the next scheduler pauses no run whose budget is spent", "scheduler/decide_money.py",
        "if spent is None or not budgets.settings.pause", "if spent is not None or not budgets.settings.pause", DECIDED,
    ),
    Mutation(
        "the next scheduler waits for a provider for longer", "scheduler/decide_money.py",
        "return min(FIRST_WAIT_US <<", "return min(2 * FIRST_WAIT_US <<", DECIDED,
    ),
    Mutation(
        "the next scheduler says nothing at the end of such a wait", "scheduler/decide_money.py",
        ">= LONG_WAIT_US:", ">= 2**60:", DECIDED,
    ),
    Mutation(
        "the next scheduler throttles at another load", "scheduler/governing.py",
        "cpu > settings.throttle_cpu_percent", "cpu > settings.throttle_cpu_percent + 60", DECIDED,
    ),
    Mutation(
        "the next scheduler throttles at other memory", "scheduler/governing.py",
        "(expected + LEFT_BYTES) * 100 > free * ease:", "(expected + LEFT_BYTES) * 100 > 9 * free * ease:", DECIDED,
    ),
    Mutation(
        "the next scheduler holds starts back where nothing runs", "scheduler/throttle.py",
        "if not limit or not machine.running:", "if not limit:", DECIDED,
    ),
    Mutation(
        "the next scheduler needs no approval twice", "scheduler/plan.py",
        "task.approved_attempt != task.attempts + 1", "task.attempts == 0 and task.approved_attempt is None", DECIDED,
    ),
)  # fmt: skip


class _Loader(SourceFileLoader):
    """Loads one module with one place said differently."""

    def __init__(self, name: str, path: str, mutation: Mutation) -> None:
        super().__init__(name, path)
        self.mutation = mutation

    def get_code(self, fullname: str) -> CodeType:
        """Never from a cache, nor into one."""
        return compile(mutated(self.mutation), self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Finds one module before anybody else does."""

    def __init__(self, mutation: Mutation) -> None:
        self.mutation = mutation
        self.module = "parallel_agents." + mutation.file.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """That module, or none."""
        spec = PathFinder.find_spec(name, path) if name == self.module else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin, self.mutation)
        return spec


def mutated(mutation: Mutation) -> str:
    """The source of its module with the bug in it."""
    source = (ROOT / "parallel_agents" / mutation.file).read_text(encoding="utf-8")
    assert source.count(mutation.old) == 1, (
        f"{mutation.old!r} stands {source.count(mutation.old)} times in {mutation.file}"
    )
    return source.replace(mutation.old, mutation.new)


def caught(mutation: Mutation) -> tuple[int, str]:
    """Plant it in this process, which must not have imported the package; gives after how many stories it is found, and how.

    None are 0 stories. A test counts as one.
    """
    sys.meta_path.insert(0, _Finder(mutation))
    if mutation.check.partition("/")[2]:
        return _caught_by_test(mutation.check)
    from stories import place_of, story, tell

    for seed in range(mutation.stories):
        try:
            tell(story(mutation.check, seed))
        except Exception as error:
            return seed + 1, f"{place_of(error)}: {str(error).splitlines()[0] if str(error) else ''}"
    return 0, f"not found in {mutation.stories} stories"


def _caught_by_test(test: str) -> tuple[int, str]:
    import pytest
    from hypothesis import Phase, settings

    settings.register_profile("found", deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])

    class Collected:
        """What was run, and what of it failed."""

        failed = ""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            """By its name."""
            if report.failed and not self.failed:
                self.failed = report.nodeid.rpartition("::")[2]

    seen = Collected()
    words = [
        "-q",
        "-x",
        "--hypothesis-profile=found",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "--no-header",
        str(ROOT / "tests" / test),
    ]
    code = pytest.main(words, plugins=[seen])
    return (1, seen.failed) if code == pytest.ExitCode.TESTS_FAILED else (0, f"pytest ends with {code!r}")


def main(name: str) -> int:
    """Plant the bug of that name, run its check, and say what came of it on the last line, as JSON."""
    mutation = next(one for one in MUTATIONS if one.name == name)
    stories, how = caught(mutation)
    print(json.dumps({"check": mutation.check, "stories": stories, "how": how}), flush=True)
    return 0 if stories else 1


def planted(name: str, timeout_s: float) -> tuple[bool, str]:
    """The same in a process of its own. Gives whether it was found, and in words where and after how many stories."""
    words = [sys.executable, __file__, name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    if not last.startswith("{"):
        return False, f"it cannot be planted: {done.stderr[-2000:]}"
    said = json.loads(last)
    return done.returncode == 0, f"{said['check']}, {said['stories']}: {said['how']}"


def table() -> int:
    """Each of them, found or not."""
    missed = 0
    for one in MUTATIONS:
        found, how = planted(one.name, 3600.0)
        missed += not found
        print(f"{'found ' if found else 'MISSED'}  {one.name}: {how}", flush=True)
    print(f"{len(MUTATIONS) - missed} of {len(MUTATIONS)} are found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.path[1:1] = [str(Path(__file__).parents[1])]
    raise SystemExit(main(sys.argv[1]) if sys.argv[1:] else table())
