"""A text that is looked for in all events of a run, a stretch at a time, so that whoever waits can be told how far it is."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from parallel_agents.eventstore.blocks import KEEP_EVERY
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.selecting import Wanted, select

STRETCH: Final = KEEP_EVERY + 5_000
"""Events that are looked through between two words: some 60 ms, and enough for the marks of blocks to be asked."""


class TextSearch:
    """Looks for a text, whatever the case. ``steps`` does it; ``found`` then holds the seqs of the events, ascending.

    Args:
        seqs: of all events of the run that are looked through, ascending.
    """

    def __init__(self, run_id: str, text: str, seqs: Sequence[int], stretch: int = STRETCH) -> None:
        self.run_id = run_id
        self.text = text
        self.found: list[int] = []
        self.upto = seqs[-1]
        ends = [*range(stretch - 1, len(seqs) - 1, stretch), len(seqs) - 1]
        self._parts = [(seqs[end - end % stretch], seqs[end], (end + 1) / len(seqs)) for end in ends]

    def steps(self, log: Log) -> Generator[float]:
        """Search. Gives which share of all events was looked through, now and then; 1 at the end."""
        for first, last, share in self._parts:
            wanted = Wanted(self.run_id, text=self.text, first=first)
            self.found += [row.seq for row in select(log, wanted, last)]
            yield share

    def beside(self, log: Log) -> Generator[float]:
        """The same, by connections of its own: whoever reads of the log meanwhile waits for none of its queries."""
        with Log(log.path, create=False, environ={}) as own:
            yield from self.steps(own)
