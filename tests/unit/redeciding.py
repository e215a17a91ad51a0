"""Events of one run that are decided again one after the other, on paper."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from paper import PaperRun

from parallel_agents.eventstore.events import STORE_RUN, Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import circuits as circuits_fold
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.scheduler.redecide import Redecider
from parallel_agents.scheduler.verdicts import Around, Divergence, Judged

ACTOR = "daemon"


class Again:
    """What comes of it.

    Attributes:
        named: event, field, what is recorded and what is due, of the first that differs; None where all are the same.
    """

    def __init__(self, run: PaperRun, events: Sequence[Event], around: Around | None = None) -> None:
        """Judge what was appended together to a run as it stands.

        Args:
            events: in their order.
            around: the rest of the store; moved on by these events.
        """
        self.judged = Judged()
        self.named: tuple[str, str, object, object] | None = None
        state, around, decider = copy.deepcopy(run.state), around or Around(), Redecider(self.judged)
        around.actor = ACTOR
        records = [Recorded(1000 + at, "paper", at, run.now_us, ACTOR, event) for at, event in enumerate(events)]
        for at, record in enumerate(records):
            said = decider.judge(state, records, at, around)
            if said is not None:
                self.named = _told(said)
                return
            state = status_fold.fold(state, record, _no_blob)
            for_all = Recorded(record.seq, STORE_RUN, record.version, record.at_us, ACTOR, record.event)
            occupancy_fold.fold(around.occupancy, record)
            circuits_fold.fold(around.circuits, for_all)
            if around.spend is not None:
                spend_fold.fold(around.spend, record)


def _told(said: Divergence) -> tuple[str, str, object, object]:
    return said.type, said.field, said.recorded, said.now


def _no_blob(digest: str) -> bytes:
    raise AssertionError(f"nothing here names a document: {digest}")
