"""What is done to files around an attempt, in a repository of 50,000 files, against plain git as a careful person types it.

What follows a snapshot or a merge of ours is on the disk when it is done. Git by itself leaves that to the system, so the
figures against a git that is told to do the same stand beside them.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from statistics import median

from bench.bench_commands import COMMAND
from bench.measure import Goal, ratio, scratch, take_turns, tell
from bench.repositories import FLUSHED, NOBODYS_SETTINGS, commit, generate, git, path_of, text_of, typed
from parallel_agents import travel
from parallel_agents.checkpoint import merging, refs, snapshot, worktrees
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore.location import FOLDER
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector

FILES = 50_000
AT_US = 1_700_000_000_000_000
GOAL = Goal(1.3, 1.1, more_is_better=False)
QUICK = 15  # Rounds of what takes less than a second.


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def against_git(what: str, found: Mapping[str, list[float]], unit: str = "ms") -> None:
    """Tell the ratio to git, and to the git that writes through where that was measured."""
    scale = 1000 if unit == "ms" else 1
    detail = f"{median(found['ours']) * scale:,.1f} {unit} against {median(found['git']) * scale:,.1f} {unit} of git"
    if "flushed" in found:
        detail += f"; {ratio(found['ours'], found['flushed']):.2f}x of git with core.fsync=committed"
    tell(f"files: {what}", ratio(found["ours"], found["git"]), GOAL, detail)


def edits(top: Path, seed: int) -> None:
    """What an agent leaves: 40 files changed, 20 new, 5 deleted or back again."""
    random = Random(seed)
    for number in random.sample(range(1000, FILES), 40):
        (top / path_of(number)).write_text(text_of(random))
    for number in range(20):
        (top / f"area-{number:02d}" / f"new-{number}.txt").write_text(text_of(random))
    for _ in range(5):
        deleted = top / path_of(random.randrange(1000))
        if deleted.exists():
            deleted.unlink()
        else:
            deleted.write_text(text_of(random))


def snapshots(repository: Repository) -> None:
    """A commit of a dirty tree. Each is of edits of its own, so that there is as much to write each time."""
    top, seeds = repository.top, itertools.count()
    head = git(top, "rev-parse", "HEAD")

    def after_edits(measure: Callable[[int], float]) -> float:
        seed = next(seeds)
        edits(top, seed)
        return measure(seed)

    def ours(seed: int) -> float:
        at_us = AT_US + seed * 1_000_000
        return timed(lambda: snapshot.snapshot(repository, top, message="snapshot", parents=(head,), at_us=at_us))

    found = take_turns(
        {
            "ours": lambda: after_edits(ours),
            "git": lambda: after_edits(lambda _: typed(top, CAREFUL)),
            "flushed": lambda: after_edits(lambda _: typed(top, CAREFUL, FLUSHED)),
        },
        QUICK,
    )
    against_git("snapshot of a dirty tree", found)
    git(top, "reset", "-q", "--hard")
    git(top, "clean", "-fdq")


def checkouts(repository: Repository, folder: Path) -> None:
    """A worktree made whole, made sparse, taken away, and used again for another commit."""
    top, head = repository.top, git(repository.top, "rev-parse", "HEAD")
    numbers = itertools.count()
    removed: dict[str, list[float]] = {"ours": [], "git": []}

    def ours(sparse: tuple[str, ...] = ()) -> float:
        path = folder / f"ours-{next(numbers)}"
        took = timed(lambda: worktrees.add(repository, path, head, sparse=sparse))
        removed["ours"].append(timed(lambda: worktrees.remove(repository, path)))
        return took

    def plain(script: str) -> float:
        path = folder / f"git-{next(numbers)}"
        took = typed(top, script.format(path=path, commit=head))
        removed["git"].append(typed(top, f"git worktree remove {path}"))
        return took

    whole = "git worktree add --detach {path} {commit}"
    found = take_turns({"ours": ours, "git": lambda: plain(whole)})
    against_git("worktree, whole", found, "s")
    against_git("worktree, whole, taken away", {name: took[1:] for name, took in removed.items()}, "s")
    areas = "area-00 area-07"
    cone = f"""
        git worktree add --no-checkout --detach {{path}} {{commit}}; cd {{path}}
        git sparse-checkout set --cone {areas}; git checkout -q"""
    found = take_turns({"ours": lambda: ours(tuple(areas.split())), "git": lambda: plain(cone)}, QUICK)
    against_git("worktree, two folders of 20", found)
    used_again(repository, folder)


def used_again(repository: Repository, folder: Path) -> None:
    """A finished worktree with what an attempt left in it becomes the next one, of a commit where 200 files differ."""
    top, random, numbers = repository.top, Random(2), itertools.count(1)
    head = git(top, "rev-parse", "HEAD")
    other = commit(
        top, "refs/heads/other", {path_of(number): text_of(random) for number in range(5000, 45_000, 200)}, head
    )
    worktrees.add(repository, folder / "ours-used-0", head)
    git(top, "worktree", "add", "-q", "--detach", str(folder / "git-used-0"), head)

    def leave(path: Path, number: int) -> str:
        edits(path, number)
        (path / "build").mkdir()
        for made in range(50):
            (path / "build" / f"{made}.log").write_text("made\n")
        return other if number % 2 else head

    def ours(number: int) -> float:
        old, new = (folder / f"ours-used-{at}" for at in (number - 1, number))
        wanted = leave(old, number)
        return timed(lambda: worktrees.reuse(repository, old, new, wanted))

    def plain(number: int) -> float:
        old, new = (folder / f"git-used-{at}" for at in (number - 1, number))
        wanted = leave(old, number)
        return typed(
            top,
            f"git worktree move {old} {new}; cd {new}; git checkout -q --force --detach {wanted}; git clean -ffdxq",
        )

    found = take_turns({"ours": lambda: ours(next(numbers)), "git": _counted(plain)}, QUICK)
    against_git("worktree, used again", found)
    for path in folder.glob("ours-used-*"):
        worktrees.remove(repository, path)
    for path in folder.glob("git-used-*"):
        git(top, "worktree", "remove", "--force", str(path))


def _counted(measure: Callable[[int], float]) -> Callable[[], float]:
    numbers = itertools.count(1)
    return lambda: measure(next(numbers))


def merges(repository: Repository) -> None:
    """Two pieces of work merged and held by a ref. Both changed the same five files in other lines, and 30 of their own."""
    top, head = repository.top, git(repository.top, "rev-parse", "HEAD")
    random = Random(3)
    texts = {number: (top / path_of(number)).read_text().splitlines(keepends=True) for number in range(5)}

    def pieces() -> Iterator[tuple[str, str]]:
        for number in itertools.count():
            sides = []
            for side in (0, 1):
                changed = {path_of(at): text_of(random) for at in random.sample(range(100 + side, FILES, 2), 30)}
                for at, lines in texts.items():
                    edited = list(lines)
                    edited[-side] = f"{side} {number}\n"
                    changed[path_of(at)] = "".join(edited)
                sides.append(commit(top, f"refs/heads/work-{side}", changed, head))
            yield sides[0], sides[1]

    pair = pieces()
    script = """
        tree=$(git merge-tree --write-tree {a} {b}); commit=$(git commit-tree -p {a} -p {b} -m merge $tree)
        git update-ref refs/heads/result $commit"""

    def ours() -> float:
        onto, work = next(pair)

        def both() -> None:
            made = merging.merge(repository, onto, work, message="merge", at_us=AT_US, base=head)
            assert made.commit is not None
            refs.hold(repository, {refs.checkpoint_ref("bench", "merge"): made.commit})

        return timed(both)

    def plain(extra: Mapping[str, str] | None = None) -> float:
        onto, work = next(pair)
        return typed(top, script.format(a=onto, b=work), extra)

    found = take_turns({"ours": ours, "git": plain, "flushed": lambda: plain(FLUSHED)}, 2 * QUICK)
    against_git("merge of two pieces of work", found)


CAREFUL = """
    cp -p .git/index .git/careful; export GIT_INDEX_FILE=.git/careful
    git add -A; tree=$(git write-tree); found=$(git commit-tree -p HEAD -m snapshot $tree)"""


def rollbacks(repository: Repository, workspace: str) -> None:
    """A run of three tasks taken back to its first one, and forth again: shown, recorded and done.

    Of git, for a run in worktrees: the lists of merges (tasks) and paths that differ, and the branch moved. For one in the
    project's own directory: what is there committed first, as in ``snapshots``, held by a ref, the lists, and the files.
    Git has no queue and no log to write to.
    """
    top = repository.top
    command = "for n in $(seq 40); do echo {0} > area-00/part-{0}/made-by-{0}-$n.txt; done"
    tasks = [
        {"task_id": f"task-{number}", "command": ["sh", "-c", command.format(f"{number:02d}")]}
        | ({"dependencies": [f"task-{number - 1}"]} if number else {})
        for number in range(3)
    ]
    plan = {"workspace": workspace, "tasks": tasks} | ({"sparse": ["area-00"]} if workspace == "worktree" else {})
    (top.parent / "plan.json").write_text(json.dumps(plan))
    shutil.rmtree(top / FOLDER, ignore_errors=True)
    subprocess.run([*COMMAND, "run", str(top.parent / "plan.json")], cwd=top, check=True, capture_output=True)
    project = Project.find(start=top)
    with project.open() as log:
        run_id = next(log.rows(0)).run_id
        moments = next(log.rows(0, where="type = 'TaskCompleted'")).seq, log.last_seq()
        states = [Projector(log).state(run_id, seq) for seq in moments]
        commits = [state.integration for state in states]
        turns = itertools.count()  # Of all contestants, one after the other, so that each finds the other moment.
        listed = "git log --oneline --left-right {of}...{to}; "
        careful = CAREFUL + "; git update-ref refs/heads/found $found; " + listed + "git diff --name-status $found {to}"
        script = {
            "worktree": listed + "git diff --name-status {of} {to}; git branch -f {branch} {to}",
            "shared": careful + "; git read-tree -m -u $found {to}",
        }[workspace]

        def ours() -> float:
            seq = moments[next(turns) % 2]

            def shown_and_done() -> None:
                target = travel.target_of(log, run_id, str(seq))
                travel.preview(log, run_id, target)
                travel.rollback(log, project, run_id, target)

            return timed(shown_and_done)

        def plain(extra: Mapping[str, str] | None = None) -> float:
            turn = next(turns)
            branch = "flushed" if extra else "plain"
            return typed(top, script.format(of=commits[1 - turn % 2], to=commits[turn % 2], branch=branch), extra)

        contestants = {"ours": ours, "git": plain, "flushed": lambda: plain(FLUSHED)}
        found = take_turns(contestants, QUICK if workspace == "shared" else 2 * QUICK)
    against_git(f"rollback of a run, workspace {workspace}", found)


def main() -> None:
    """Print the ratios."""
    if shutil.which("git") is None:
        raise SystemExit("git is not installed")
    os.environ.update(NOBODYS_SETTINGS)
    with scratch() as folder:
        begun = time.perf_counter()
        repository = generate(folder / "project", FILES)
        print(f"a repository of {FILES:,} files made in {time.perf_counter() - begun:.0f} s", flush=True)
        snapshots(repository)
        merges(repository)
        rollbacks(repository, "worktree")
        rollbacks(repository, "shared")
        checkouts(repository, folder)


if __name__ == "__main__":
    main()
