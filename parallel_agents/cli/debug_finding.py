"""A text looked for in all events, by a thread beside the screen. The newest search counts, and no other."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from textual.worker import Worker, get_current_worker

from parallel_agents import ParallelAgentsError

if TYPE_CHECKING:
    from parallel_agents.cli.debug_app import Debugger

_GROUP: Final = "find"


def find(app: Debugger, text: str) -> None:
    """Look for a text and go to the next event that holds it; an older search that goes on is given up."""
    if not text:
        return
    search = app.session.searching(text)
    app.finding = text

    def look() -> None:
        worker: Worker[None] = get_current_worker()
        try:
            with closing(search.beside(app.session.log)) as steps:
                for share in steps:
                    if worker.is_cancelled:
                        return
                    if share < 1:
                        app.call_from_thread(tell, worker, share)
            app.call_from_thread(end, worker, None)
        except ParallelAgentsError as error:
            app.call_from_thread(end, worker, error)

    def tell(worker: Worker[None], share: float) -> None:
        if not worker.is_cancelled:
            app.say(f"looking for {text!r}, {share:.0%} of all events; Esc stops")

    def end(worker: Worker[None], error: ParallelAgentsError | None) -> None:
        if worker.is_cancelled:  # Between its last look and this.
            return
        app.finding = ""
        if error is not None:
            app.complain(error)
            return
        app.session.take(search)
        app.action_hit(True)

    app.run_worker(look, thread=True, group=_GROUP, exclusive=True)


def stop_finding(app: Debugger) -> None:
    """Give a search up: what was found before it still counts."""
    app.workers.cancel_group(app, _GROUP)
    app.say(f"stopped looking for {app.finding!r}")
    app.finding = ""
