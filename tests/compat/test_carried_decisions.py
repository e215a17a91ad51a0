"""A run of a frozen history that is exported and imported is decided the same as in the store of which it was a part.

Several runs of these histories held slots, money and circuits at the same time, so what came along of the others counts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_decided_again import DECIDED, opened

from parallel_agents import imported
from parallel_agents.eventstore.log import Log
from parallel_agents.exporting import export
from parallel_agents.importing import bring_in
from parallel_agents.look import status
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.replaying import prove, redecide


@pytest.mark.parametrize("redact", [False, True], ids=["whole", "redacted"])
@pytest.mark.parametrize("name", DECIDED)
def test_every_run_of_a_frozen_history_is_decided_the_same_where_it_was_imported(
    name: str, redact: bool, tmp_path: Path
) -> None:
    """Event by event, with as many decisions; no texts are needed for that."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    project = Project.find(start=here, root=here)
    with opened(DECIDED[name], there) as log:
        for run_id in Projector(log).runs():
            file = tmp_path / f"{run_id}.tar.gz"
            said = export(log, Project(there, log.path, there), run_id, file, redact=redact)
            bring_in(file, project)
            with Log(imported.store_of(project.store, run_id), create=False, environ={}) as carried:
                found = prove(carried, run_id, lambda what, done, total: None)
                wanted = redecide(log, run_id)
                assert found["ok"], found
                assert found["chain"]["events"] == said["links"]
                assert found["decisions"]["same"] == dict(wanted.decisions)
                assert found["decisions"]["sampled"] == dict(wanted.sampled)
                shape = [task["status"] for task in status(carried, run_id)["tasks"]]
                assert shape == [task["status"] for task in status(log, run_id)["tasks"]]


def test_without_what_others_held_it_would_be_decided_otherwise(tmp_path: Path) -> None:
    """Or the test above would prove nothing about what comes along."""
    otherwise = 0
    for name, file in DECIDED.items():
        folder = tmp_path / name
        folder.mkdir()
        project = Project(folder, folder / ".parallel-agents" / "events.db", folder)
        with opened(file, folder) as log:
            for run_id in Projector(log).runs():
                export(log, project, run_id, folder / run_id)
                store = Path(bring_in(folder / run_id, project)["store"])
                with Log(store, create=False, environ={}) as carried:
                    carried._writer.execute("DELETE FROM events WHERE run_id != ?", (run_id,))
                    otherwise += redecide(carried, run_id).divergence is not None
    assert otherwise > 0
