"""Checkpoints as a line with branches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.checkpoints import Line, fold
from parallel_agents.projections.effective import effective


def line_of(*events: ev.Event) -> tuple[Line, list[Recorded]]:
    """The line after events, one a microsecond."""
    records = [Recorded(seq, "r", seq, seq, "", event) for seq, event in enumerate(events, start=1)]
    line = Line()
    for record in records:
        fold(line, record)
    return line, records


def created(name: str) -> ev.CheckpointCreated:
    """A checkpoint of that id."""
    return ev.CheckpointCreated(checkpoint_id=name, kind="manual")


def went_back(name: str, *, in_place: bool = True) -> ev.CheckpointRestored:
    """Files were taken back to it."""
    return ev.CheckpointRestored(checkpoint_id=name, in_place=in_place)


def undone(line: Line) -> dict[str, int]:
    """Which checkpoints are undone, and since when."""
    return {name: one.undone_at_us for name, one in line.checkpoints.items() if one.undone_at_us is not None}


def parents(line: Line) -> dict[str, str | None]:
    """Which follows which."""
    return {name: None if one.parent is None else one.parent.checkpoint_id for name, one in line.checkpoints.items()}


def test_checkpoints_follow_each_other() -> None:
    """As long as nobody goes back."""
    line, _ = line_of(created("a"), created("b"), created("c"))
    assert parents(line) == {"a": None, "b": "a", "c": "b"}
    assert undone(line) == {}


def test_going_back_in_place_leaves_what_came_after_and_begins_a_branch() -> None:
    """From then on; and going on again takes it back."""
    line, _ = line_of(created("a"), created("b"), went_back("a"), created("c"))
    assert parents(line) == {"a": None, "b": "a", "c": "a"}
    assert undone(line) == {"b": 3}
    line, _ = line_of(created("a"), created("b"), went_back("a"), created("c"), went_back("b"))
    assert undone(line) == {"c": 5}


def test_restoring_elsewhere_leaves_the_line_as_it_is() -> None:
    """And so does the restoration of what another run made."""
    line, _ = line_of(created("a"), created("b"), went_back("a", in_place=False), went_back("other"), created("c"))
    assert parents(line)["c"] == "b"
    assert undone(line) == {}


def test_a_rollback_of_the_run_goes_to_where_the_line_stood() -> None:
    """Before its first checkpoint too; a rollback to an undone event is redo."""
    line, _ = line_of(created("a"), ev.RunStarted(), created("b"), ev.RunRolledBack(to_seq=2))
    assert undone(line) == {"b": 4}
    line, _ = line_of(ev.RunStarted(), created("a"), ev.RunRolledBack(to_seq=1), created("b"))
    assert (undone(line), parents(line)) == ({"a": 3}, {"a": None, "b": None})
    redo = line_of(created("a"), created("b"), ev.RunRolledBack(to_seq=1), created("c"), ev.RunRolledBack(to_seq=2))
    assert undone(redo[0]) == {"c": 5}


@st.composite
def histories(draw: st.DrawFn) -> list[ev.Event]:
    """Checkpoints, other events and rollbacks to any event before."""
    events: list[ev.Event] = []
    for seq in range(1, draw(st.integers(1, 25)) + 1):
        match draw(st.sampled_from("ccoor" if seq > 1 else "co")):
            case "c":
                events.append(created(f"c{seq}"))
            case "o":
                events.append(ev.RunStarted())
            case _:
                events.append(ev.RunRolledBack(to_seq=draw(st.integers(1, seq - 1))))
    return events


@given(histories())
def test_what_is_undone_is_what_the_effective_history_leaves_out(events: list[ev.Event]) -> None:
    """At every prefix, and the head is its last checkpoint."""
    for end in range(1, len(events) + 1):
        line, records = line_of(*events[:end])
        kept = [
            record.event.checkpoint_id
            for record in effective(records)[0]
            if isinstance(record.event, ev.CheckpointCreated)
        ]
        assert [name for name in line.checkpoints if name not in undone(line)] == kept
        assert (None if line.head is None else line.head.checkpoint_id) == (kept[-1] if kept else None)
