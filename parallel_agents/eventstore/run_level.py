"""Which events are about a run as a whole. Of itself, because who makes the tables needs none of the events."""

from __future__ import annotations

from typing import Final

RUN_LEVEL: Final = "type >= 'Run' AND type < 'Ruo'"
"""The condition on a row: its type begins with ``Run``. As the partial index has it, or the index is not used."""
