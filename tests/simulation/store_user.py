"""Another process that uses a store until it is killed: it says what was acknowledged, and dies with a commit half made.

python store_user.py STORE RUN VERSION COMMITS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Draft, Log


def main(store: str, run_id: str, version: str, commits: str) -> None:
    """Append, acknowledge, and wait to be killed in the middle of another commit."""
    log, at = Log(Path(store), environ={}), int(version)
    for number in range(int(commits)):
        log.append(run_id, at, [ev.TaskQueued(task_id=f"k{number}")])
        at += 1
        print(at, flush=True)

    def never_done(draft: Draft) -> None:
        draft.add(run_id, ev.TaskQueued(task_id="half"))
        log._writer.execute("INSERT INTO blobs (digest, bytes) VALUES ('half', x'00')")
        print("half", flush=True)
        time.sleep(600)

    log.transact(never_done)


if __name__ == "__main__":
    main(*sys.argv[1:])
