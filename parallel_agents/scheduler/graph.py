"""The graph of a plan: cycles, levels, order, critical path.

A graph is a mapping from each name to the names that it depends on. A dependency on a name that is no key of the
mapping is ignored: whether that is an error is for the caller to say. Every answer follows from the order of the
mapping alone, so a replay gets the same one. Nothing here recurses, a chain of 100,000 tasks being a plan like any
other, and every function takes time in proportion to names plus dependencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parallel_agents.eventstore.errors import InvalidPlan

_SHOWN = 40  # Names of a cycle that a message shows; a longer path is cut in its middle.


def find_cycle(dependencies: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The first cycle, as a path along "depends on".

    It is the one that a depth-first search meets first, names and dependencies taken in the order given. Its path
    begins with the member that stands first in the mapping.

    Returns:
        ``[a, b, a]`` where a depends on b and b on a, the first name repeated last; None where there is no cycle.
    """
    on_path: dict[str, bool] = {}  # True while a name is on the path, False once all below it is known to be sound.
    for root in dependencies:
        if root in on_path:
            continue
        path = [root]
        branches = [iter(dependencies[root])]
        on_path[root] = True
        while path:
            for name in branches[-1]:
                state = on_path.get(name)
                if state:
                    return _from_its_first(path[path.index(name) :], dependencies)
                if state is None and name in dependencies:
                    on_path[name] = True
                    path.append(name)
                    branches.append(iter(dependencies[name]))
                    break
            else:
                on_path[path.pop()] = False
                branches.pop()
    return None


def check_acyclic(dependencies: Mapping[str, Sequence[str]]) -> None:
    """Refuse a graph that has a cycle.

    Raises:
        InvalidPlan: the message names the path of the first cycle (see ``find_cycle``).
    """
    cycle = find_cycle(dependencies)
    if cycle is not None:
        raise _circular(cycle)


def levels(dependencies: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The topological levels: a name stands one level above the highest of its dependencies.

    Returns:
        Level 0 (no dependencies) first; within a level the order of the mapping.
    Raises:
        InvalidPlan: the graph has a cycle.
    """
    names, dependents, order = _arrange(dependencies)
    level = [0] * len(names)
    for position in order:
        above = level[position] + 1
        for dependent in dependents[position]:
            level[dependent] = above  # The order rises by level, so the last dependency to write is the highest.
    found: list[list[str]] = [[] for _ in range(max(level, default=-1) + 1)]
    for name, height in zip(names, level, strict=True):
        found[height].append(name)
    return found


def topological_order(dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """Every name after all its dependencies: the levels, one after the other.

    Raises:
        InvalidPlan: the graph has a cycle.
    """
    return [name for level in levels(dependencies) for name in level]


def tails(dependencies: Mapping[str, Sequence[str]], duration_s: Mapping[str, float]) -> dict[str, float]:
    """How long the longest path from each name to the end of the graph takes, the name itself included.

    Args:
        dependencies: the graph.
        duration_s: the expected seconds of every name of the graph, >= 0.
    Returns:
        Seconds, by name, in the order of the mapping.
    Raises:
        InvalidPlan: the graph has a cycle.
    Source: the critical path method, Kelley & Walker 1959; as a rank of tasks "b-level", Adam, Chandy & Dickson 1974.
    """
    names, dependents, order = _arrange(dependencies)
    return dict(zip(names, _tails(names, dependents, order, duration_s), strict=True))


def critical_path(
    dependencies: Mapping[str, Sequence[str]], duration_s: Mapping[str, float]
) -> tuple[float, list[str]]:
    """The longest path through the graph: no number of agents ends the plan sooner.

    Of paths of one length, the one whose names stand first in the mapping, compared from the start of the path.

    Args:
        dependencies: the graph.
        duration_s: the expected seconds of every name of the graph, >= 0.
    Returns:
        Its seconds, and its names from a name without dependencies to one that nothing depends on. (0.0, []) for an
        empty graph.
    Raises:
        InvalidPlan: the graph has a cycle.
    """
    names, dependents, order = _arrange(dependencies)
    if not names:
        return 0.0, []
    longest = _tails(names, dependents, order, duration_s)
    with_dependencies = {dependent for below in dependents for dependent in below}
    roots = (position for position in range(len(names)) if position not in with_dependencies)
    at = max(roots, key=longest.__getitem__)  # max() keeps the first of equals, here and below.
    total_s = longest[at]
    path = [names[at]]
    while dependents[at]:
        at = max(dependents[at], key=longest.__getitem__)
        path.append(names[at])
    return total_s, path


def _arrange(dependencies: Mapping[str, Sequence[str]]) -> tuple[list[str], list[list[int]], list[int]]:
    """The names, the dependents of each, and a topological order; names are given by their position in the mapping.

    The order rises by level: a name joins it when the last of its dependencies is reached, first come, first served.

    Raises:
        InvalidPlan: the graph has a cycle.
    Source: Kahn 1962.
    """
    position_of = {name: position for position, name in enumerate(dependencies)}
    dependents: list[list[int]] = [[] for _ in position_of]
    waiting_for = [0] * len(position_of)
    for position, needed in enumerate(dependencies.values()):
        for name in needed:
            below = position_of.get(name)
            if below is not None:
                # A dependency named twice is counted twice here and taken off twice below, which needs no set.
                dependents[below].append(position)
                waiting_for[position] += 1
    order = [position for position, count in enumerate(waiting_for) if not count]
    for position in order:  # The list grows while it is read: it is the queue of what is ready, too.
        for dependent in dependents[position]:
            waiting_for[dependent] -= 1
            if not waiting_for[dependent]:
                order.append(dependent)
    if len(order) < len(position_of):
        check_acyclic(dependencies)
        raise AssertionError("names are left over, so there is a cycle")
    return list(position_of), dependents, order


def _tails(
    names: Sequence[str], dependents: Sequence[Sequence[int]], order: Sequence[int], duration_s: Mapping[str, float]
) -> list[float]:
    """``tails``, by position."""
    longest = [0.0] * len(names)
    for position in reversed(order):
        after_s = 0.0
        for dependent in dependents[position]:
            if longest[dependent] > after_s:
                after_s = longest[dependent]
        longest[position] = duration_s[names[position]] + after_s
    return longest


def _from_its_first(members: list[str], dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle's path turned so that it begins, and ends, with the member that stands first in the mapping."""
    inside = set(members)
    start = members.index(next(name for name in dependencies if name in inside))
    return [*members[start:], *members[: start + 1]]


def _circular(cycle: Sequence[str]) -> InvalidPlan:
    """The error for a cycle's path."""
    shown = list(cycle)
    if len(shown) > _SHOWN:
        half = _SHOWN // 2
        shown = [*shown[:half], f"({len(shown) - 2 * half} more)", *shown[-half:]]
    return InvalidPlan(
        f"circular dependency: {' -> '.join(shown)}", hint="each arrow means 'depends on'; take one of them away"
    )
