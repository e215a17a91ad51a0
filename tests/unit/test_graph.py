"""The graph of a plan: cycles, levels, order, critical path."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from examples import examples
from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.scheduler.graph import (
    check_acyclic,
    critical_path,
    find_cycle,
    levels,
    tails,
    topological_order,
)

Graph = dict[str, list[str]]

NAMES = "abcdefg"
OUTSIDE = "z"  # Named as a dependency, never a key.
UNHURRIED = settings(deadline=None, max_examples=examples(80), suppress_health_check=[HealthCheck.too_slow])
DEEP = 20_000  # Twenty times as deep as Python calls.

# The use case of a full stack feature.
FULL_STACK: Graph = {
    "arch": [],
    "ux": ["arch"],
    "backend": ["arch"],
    "frontend": ["ux", "backend"],
    "qa": ["frontend"],
    "security": ["frontend"],
    "deploy": ["qa", "security"],
}


@st.composite
def any_graphs(draw: st.DrawFn) -> Graph:
    """Graphs of up to seven names in any order, cyclic or not, with repeated and unknown dependencies."""
    names = draw(st.permutations(NAMES[: draw(st.integers(0, len(NAMES)))]))
    dependency = st.sampled_from([*names, OUTSIDE])
    return {name: draw(st.lists(dependency, max_size=3)) for name in names}


@st.composite
def acyclic_graphs(draw: st.DrawFn) -> Graph:
    """The same without cycles: a name depends on smaller ones only, and the order of the mapping is free."""
    names = draw(st.permutations(NAMES[: draw(st.integers(0, len(NAMES)))]))
    return {
        name: draw(st.lists(st.sampled_from([*(other for other in names if other < name), OUTSIDE]), max_size=4))
        for name in names
    }


def durations(graph: Graph) -> st.SearchStrategy[dict[str, float]]:
    """Whole seconds, zero among them, so that sums are exact and ties are frequent."""
    return st.fixed_dictionaries({name: st.integers(0, 4).map(float) for name in graph})


def paths_from(graph: Graph, name: str) -> Iterator[list[str]]:
    """Every path from a name to the end of the graph, by brute force."""
    dependents = [other for other in graph if name in graph[other]]
    if not dependents:
        yield [name]
    for dependent in dependents:
        for rest in paths_from(graph, dependent):
            yield [name, *rest]


def is_acyclic(graph: Graph) -> bool:
    """What the standard library says."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError:
        return False
    return True


@pytest.mark.parametrize(
    ("graph", "cycle"),
    [
        ({}, None),
        (FULL_STACK, None),
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["a"]}, ["a", "b", "a"]),
        ({"a": ["c"], "b": ["a"], "c": ["b"]}, ["a", "c", "b", "a"]),
        ({"start": ["b"], "a": ["b"], "b": ["a"]}, ["a", "b", "a"]),
        ({"a": [], "b": ["c"], "c": ["b"], "d": ["e"], "e": ["d"]}, ["b", "c", "b"]),
        ({"a": ["unknown"]}, None),
    ],
)
def test_a_cycle_is_named_along_its_dependencies_from_its_first_member(graph: Graph, cycle: list[str] | None) -> None:
    """Edges read "a depends on b", and the first name is repeated last."""
    assert find_cycle(graph) == cycle


@UNHURRIED
@given(any_graphs())
def test_a_cycle_is_found_exactly_where_there_is_one(graph: Graph) -> None:
    """What is found is a path of real dependencies that passes no name twice and starts with its first member."""
    cycle = find_cycle(graph)
    assert (cycle is None) == is_acyclic(graph)
    if cycle is not None:
        members = cycle[:-1]
        assert cycle[-1] == cycle[0]
        assert len(set(members)) == len(members) >= 1
        assert all(below in graph[above] for above, below in itertools.pairwise(cycle))
        assert members[0] == next(name for name in graph if name in members)


def test_a_cyclic_graph_is_refused_with_the_path_of_its_cycle() -> None:
    """The message can be read without looking at the plan."""
    with pytest.raises(InvalidPlan, match=r"circular dependency: a -> b -> a$") as refused:
        check_acyclic({"a": ["b"], "b": ["a"]})
    assert "depends on" in refused.value.hint
    check_acyclic(FULL_STACK)


def test_the_path_of_a_very_long_cycle_is_cut_in_the_middle() -> None:
    """A message of thousands of names helps nobody; both ends of the path stay, and the rest is counted."""
    names = [f"t{number}" for number in range(1000)]
    graph = {name: [after] for name, after in zip(names, [*names[1:], names[0]], strict=True)}
    with pytest.raises(InvalidPlan) as refused:
        check_acyclic(graph)
    path = refused.value.message.removeprefix("circular dependency: ").split(" -> ")
    assert path == [*names[:20], "(961 more)", *names[-19:], names[0]]


@pytest.mark.parametrize(
    "ask",
    [
        levels,
        topological_order,
        lambda graph: tails(graph, dict.fromkeys(graph, 1.0)),
        lambda graph: critical_path(graph, dict.fromkeys(graph, 1.0)),
    ],
    ids=["levels", "topological_order", "tails", "critical_path"],
)
def test_no_question_is_answered_about_a_cyclic_graph(ask: Callable[[Mapping[str, Sequence[str]]], object]) -> None:
    """Each refuses it with the path, rather than leaving names out."""
    with pytest.raises(InvalidPlan, match="b -> c -> b"):
        ask({"a": [], "b": ["c", "a"], "c": ["b"]})


def test_the_full_stack_plan_has_five_levels() -> None:
    """A full stack feature, in the stages that users know."""
    assert levels(FULL_STACK) == [["arch"], ["ux", "backend"], ["frontend"], ["qa", "security"], ["deploy"]]
    assert topological_order(FULL_STACK) == ["arch", "ux", "backend", "frontend", "qa", "security", "deploy"]


def test_names_that_are_ready_together_keep_their_order() -> None:
    """The order of the mapping decides, whatever order the dependencies were finished in."""
    graph = {"d": ["b"], "c": ["a"], "a": [], "b": []}
    assert levels(graph) == [["a", "b"], ["d", "c"]]
    assert topological_order(graph) == ["a", "b", "d", "c"]


def test_an_empty_graph_has_an_answer_to_everything() -> None:
    """No names, no levels, no path."""
    assert (levels({}), topological_order({}), tails({}, {}), critical_path({}, {})) == ([], [], {}, (0.0, []))


@UNHURRIED
@given(acyclic_graphs())
@example({"b": ["a", "a", OUTSIDE], "a": [OUTSIDE]})
def test_every_name_stands_on_the_lowest_level_above_its_dependencies(graph: Graph) -> None:
    """One level above the highest dependency, the bottom without any; each name once, and in the order given."""
    found = levels(graph)
    level_of = {name: number for number, level in enumerate(found) for name in level}
    for name, needed in graph.items():
        assert level_of[name] == 1 + max((level_of[below] for below in needed if below in graph), default=-1)
    assert sum(map(len, found)) == len(graph)
    order_given = list(graph)
    assert all(level == sorted(level, key=order_given.index) for level in found)


@UNHURRIED
@given(acyclic_graphs())
def test_the_order_puts_every_name_after_its_dependencies(graph: Graph) -> None:
    """Each name once, none before what it needs."""
    order = topological_order(graph)
    assert sorted(order) == sorted(graph)
    for name, needed in graph.items():
        assert all(order.index(below) < order.index(name) for below in needed if below in graph)


def test_the_critical_path_is_the_longest_chain_of_work() -> None:
    """The slower of two branches, from the first task to the last, and its seconds."""
    duration_s = {"arch": 1.0, "ux": 2.0, "backend": 4.0, "frontend": 2.0, "qa": 1.0, "security": 3.0, "deploy": 1.0}
    path = ["arch", "backend", "frontend", "security", "deploy"]
    assert critical_path(FULL_STACK, duration_s) == (11.0, path)
    assert tails(FULL_STACK, duration_s) == {
        "arch": 11.0,
        "ux": 8.0,
        "backend": 10.0,
        "frontend": 6.0,
        "qa": 2.0,
        "security": 4.0,
        "deploy": 1.0,
    }


@UNHURRIED
@given(st.data())
def test_a_tail_is_the_longest_of_all_paths_to_the_end(data: st.DataObject) -> None:
    """Compared with every path there is, written out."""
    graph = data.draw(acyclic_graphs())
    duration_s = data.draw(durations(graph))
    expected = {name: max(sum(duration_s[step] for step in path) for path in paths_from(graph, name)) for name in graph}
    found = tails(graph, duration_s)
    assert found == expected
    assert list(found) == list(graph)


@UNHURRIED
@given(st.data())
def test_the_critical_path_is_the_first_of_the_longest_paths(data: st.DataObject) -> None:
    """Of all whole paths the longest; of equals the one whose names stand first in the mapping."""
    graph = data.draw(acyclic_graphs())
    duration_s = data.draw(durations(graph))
    roots = [name for name, needed in graph.items() if not any(below in graph for below in needed)]
    order = list(graph)
    whole = [path for root in roots for path in paths_from(graph, root)]
    ranked = sorted(whole, key=lambda path: (-sum(duration_s[step] for step in path), [order.index(n) for n in path]))
    total_s, path = critical_path(graph, duration_s)
    assert path == (ranked[0] if ranked else [])
    assert total_s == sum(duration_s[step] for step in path)


@pytest.mark.parametrize("backwards", [False, True], ids=["first to last", "last to first"])
def test_a_chain_of_20000_names_is_a_graph_like_any_other(backwards: bool) -> None:
    """No depth of Python's stack limits a plan, in whichever direction it is written down."""
    chain = [(f"t{number}", [f"t{number - 1}"] if number else []) for number in range(DEEP)]
    graph = dict(reversed(chain) if backwards else chain)
    in_order = [name for name, _ in chain]
    duration_s = dict.fromkeys(graph, 1.0)
    assert find_cycle(graph) is None
    assert levels(graph) == [[name] for name in in_order]
    assert topological_order(graph) == in_order
    assert critical_path(graph, duration_s) == (float(DEEP), in_order)
    assert tails(graph, duration_s)["t0"] == DEEP


def test_a_cycle_of_100000_names_is_found_whole() -> None:
    """The path passes all of them and comes back to the first."""
    names = [f"t{number}" for number in range(DEEP)]
    graph = {name: [after] for name, after in zip(names, [*names[1:], names[0]], strict=True)}
    assert find_cycle(graph) == [*names, names[0]]
