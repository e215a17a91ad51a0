"""A story is a world, a seed and the numbers of its steps: it is told again from these, and cut down to the few that matter.

Each step draws from a source of randomness of its own, seeded by the story's seed and the step's number. So a story goes on
being a story when steps are left out of it, which is what lets a failing one shrink.

    python tests/simulation/stories.py WORLD SEED [STEPS] [--shrink | --digest | --seeds N]

STEPS are numbers and ranges, as in 3,7,12-15; without them the story is told at its usual length.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

from parallel_agents.projections.projector import Projector
from parallel_agents.replaying import redecide

SHRINK_S: Final = 60.0  # How long a test spends on cutting a story down.
AGAIN: Final = "python tests/simulation/stories.py"
WORLDS: Final = {
    "scheduler": ("world", "simulated", 60),
    "torn": ("world", "torn", 40),
    "agents": ("agents_world", "simulated", 80),
    "governed": ("governed_world", "simulated", 60),
    "memory": ("memory_world", "simulated", 70),
    "git": ("files_world", "simulated", 45),
}
"""By name: the module and the function that open a world, and how many steps a story in it usually has."""


class Told(Protocol):
    """A world in which a story takes place."""

    random: Random
    log: Any

    def begin(self) -> None:
        """What there is before the first step."""

    def step(self) -> None:
        """One thing happens, and everything that must hold is looked at."""

    def finish(self) -> Counter[str]:
        """Nothing goes wrong any more; it comes to its end. Gives what has happened how often."""


@dataclass(frozen=True)
class Story:
    """What is told."""

    world: str
    seed: int
    steps: tuple[int, ...]

    @property
    def command(self) -> str:
        """What tells it again."""
        usual = self.steps == story(self.world, self.seed).steps
        return f"{AGAIN} {self.world} {self.seed}" + ("" if usual else f" {in_words(self.steps)}")


def story(world: str, seed: int) -> Story:
    """One of the usual length."""
    return Story(world, seed, tuple(range(WORLDS[world][2])))


def tell(one: Story, look: Callable[[Told], None] = lambda world: None) -> Counter[str]:
    """From its beginning to its end; raises whatever does not hold.

    Args:
        look: is shown the world at the end.
    """
    within = os.environ.get("PYTEST_DEBUG_TEMPROOT")  # Where the other tests write.
    with tempfile.TemporaryDirectory(dir=within) as folder, _opened(one.world, one.seed, Path(folder)) as world:
        world.begin()
        for number in one.steps:
            world.random = Random(f"{one.seed} {number}")
            world.step()
        world.random = Random(f"{one.seed} end")
        happened = world.finish()
        if one.world != "torn":  # What a commit decided is not judged where only a part of it is there.
            decide_again(world)
        look(world)
        return happened


def decide_again(world: Told) -> None:
    """The scheduler, run again on what each decision of the story was made on, decides the same."""
    for run_id in Projector(world.log).runs():
        found = redecide(world.log, run_id).divergence
        assert found is None, f"run {run_id}: {found}"


def digest(one: Story) -> str:
    """Of all that its log says, but for where its files lie. Two tellings of one story have the same."""
    found = sha256()

    def look(world: Told) -> None:
        for record in world.log.read():
            said = f"{record.run_id} {record.at_us} {record.actor} {record.event}"
            found.update(re.sub(r"(workdir|repository|state_digest)='[^']*'", "", said).encode())

    tell(one, look)
    return found.hexdigest()


def check(one: Story) -> Counter[str]:
    """The same as ``tell``. One that fails is cut down first; the error says how to tell the short one again."""
    try:
        return tell(one)
    except Exception as error:
        place = place_of(error)
    short, tries = shrunk(one, place)
    try:
        tell(short)
    except Exception as error:
        error.add_note(
            f"again: {short.command}\n({len(one.steps)} steps cut down to {len(short.steps)} in {tries} tries)"
        )
        raise
    raise AssertionError(f"it failed once, at {place}, and not again: {one.command}")


def shrunk(one: Story, place: str, budget_s: float = SHRINK_S) -> tuple[Story, int]:
    """The shortest found that fails at the same place, and how many were tried."""
    until, tries = time.monotonic() + budget_s, 0

    def fails(steps: tuple[int, ...]) -> bool:
        nonlocal tries
        if time.monotonic() > until:
            return False
        tries += 1
        try:
            tell(replace(one, steps=steps))
        except Exception as error:
            return place_of(error) == place
        return False

    return replace(one, steps=fewest(one.steps, fails)), tries


def fewest(steps: tuple[int, ...], fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """Steps that still fail, of which none can be left out.

    Args:
        fails: whether some of the steps fail as all of them do.
    Source: delta debugging, the minimising algorithm ddmin of Zeller & Hildebrandt 2002, by complements alone.
    """
    if fails(()):
        return ()
    parts = 2
    while len(steps) > 1:
        size = -(-len(steps) // parts)
        for at in range(0, len(steps), size):
            left = steps[:at] + steps[at + size :]
            if fails(left):
                steps, parts = left, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(len(steps), parts * 2)
    return steps


def place_of(error: BaseException) -> str:
    """What failed, and where: the line of the tests that objects, or that of ours that raises."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def in_words(steps: Sequence[int]) -> str:
    """Numbers and ranges; "none" for no step at all."""
    ranges: list[list[int]] = []
    for number in steps:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) or "none"


def from_words(text: str) -> tuple[int, ...]:
    """The reverse."""
    numbers: list[int] = []
    for part in text.split(",") if text != "none" else ():
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


def parts(first: int, count: int, number: int) -> list[range]:
    """So many seeds in so many parts, for tests that are run side by side."""
    return [range(first + count * at // number, first + count * (at + 1) // number) for at in range(number)]


def _opened(name: str, seed: int, folder: Path) -> AbstractContextManager[Told]:
    """A world of that name."""
    module, function, _ = WORLDS[name]
    opened: AbstractContextManager[Told] = getattr(import_module(module), function)(Random(f"{seed} begin"), folder)
    return opened


def main(words: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Tell a story of the simulation once more.", prog=AGAIN)
    parser.add_argument("world", choices=list(WORLDS))
    parser.add_argument("seed", type=int, help="or the first of several")
    parser.add_argument("steps", nargs="?", help="such as 3,7,12-15; all of them where there is nothing said")
    parser.add_argument("--shrink", action="store_true", help="cut a failing story down, however long that takes")
    parser.add_argument("--digest", action="store_true", help="say what the log of the story hashes to")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="tell N stories, one after the other")
    given = parser.parse_args(words)
    one = story(given.world, given.seed)
    if given.steps:
        one = replace(one, steps=from_words(given.steps))
    if given.digest:
        print(digest(one))
        return 0
    return _shrunk(one) if given.shrink else _told(replace(one, seed=one.seed + at) for at in range(given.seeds))


def _told(stories: Iterable[Story]) -> int:
    begin, told, failed = time.monotonic(), 0, 0
    happened: Counter[str] = Counter()
    for one in stories:
        told += 1
        try:
            happened += tell(one)
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"again: {one.command}", file=sys.stderr, flush=True)
    print(f"{told} stories, {failed} failed, {told / (time.monotonic() - begin):.1f} a second: {dict(happened)}")
    return 1 if failed else 0


def _shrunk(one: Story) -> int:
    try:
        tell(one)
    except Exception as error:
        short, tries = shrunk(one, place_of(error), float("inf"))
        print(f"{place_of(error)}\nagain: {short.command}\n({tries} tries)")
        return 1
    print("it does not fail")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # As pytest has it.
    raise SystemExit(main(sys.argv[1:]))
