"""A layered drawing: edges go one way, nothing lies on something else, few lines cross."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from parallel_agents.pictures.layered import arranged, crossings, layered


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Up to 14 names, each of which may need any before it."""
    names = [f"n{number}" for number in range(draw(st.integers(0, 14)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:place]), max_size=4)) if place else []
        for place, name in enumerate(names)
    }


@settings(max_examples=examples(40), deadline=None)
@given(graphs())
def test_what_is_needed_stands_to_the_left(graph: dict[str, list[str]]) -> None:
    """An edge bends once in each column between, and in a column everything has its room."""
    drawing = layered(graph)
    assert drawing == layered(graph)
    assert drawing.at.keys() == graph.keys()
    for name, needed in graph.items():
        for other in needed:
            bends = drawing.bends.get((other, name), [])
            columns = [drawing.at[other][0], *(column for column, _ in bends), drawing.at[name][0]]
            assert columns == list(range(columns[0], columns[-1] + 1))
            assert columns[0] < columns[-1]
    by_column: dict[int, list[float]] = {}
    for column, height in drawing.at.values():
        by_column.setdefault(column, []).append(height)
    for heights in by_column.values():
        assert all(abs(a - b) > 1 - 1e-6 for a, b in combinations(heights, 2))
    assert set(by_column) == set(range(drawing.columns))
    assert all(0 <= height <= drawing.rows - 1 + 1e-9 for _, height in drawing.at.values())


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
def test_crossings_are_pairs_of_edges_that_cross(edges: list[tuple[int, int]]) -> None:
    """Counted one by one."""
    layers = [list(range(7)), list(range(7, 14))]
    down: list[list[int]] = [[] for _ in range(14)]
    for a, b in edges:
        down[a].append(b + 7)
    slowly = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(edges, 2))
    assert crossings(layers, down) == slowly


def test_lines_that_need_not_cross_do_not() -> None:
    """Two chains that are told crosswise lie beside each other; a name is next to what needs it."""
    drawing = layered({"a": [], "b": [], "y": ["b"], "x": ["a"], "late": [], "end": ["x", "y"], "after": ["late", "end"],
                       "more": ["late", "end"]})  # fmt: skip
    assert (drawing.at["a"][1] - drawing.at["b"][1]) * (drawing.at["x"][1] - drawing.at["y"][1]) > 0
    assert drawing.at["late"][0] == 2


def test_names_without_edges_stand_side_by_side_below() -> None:
    """No two in one place, and no column as long as there are names."""
    graph: dict[str, list[str]] = {f"n{number}": [] for number in range(200)}
    alone = arranged(graph)
    assert len(set(alone.at.values())) == 200
    assert (alone.columns, alone.rows) == (8, 25)
    graph |= {"end": ["n0"]}
    drawing = arranged(graph)
    assert (drawing.at["n0"], drawing.at["end"]) == ((0, 0.0), (1, 0.0))
    assert min(height for name, (_, height) in drawing.at.items() if name not in ("n0", "end")) == 1.0
    assert len(set(drawing.at.values())) == 201
    assert arranged({}).at == {}
