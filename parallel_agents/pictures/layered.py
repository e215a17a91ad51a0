"""A layered drawing of a graph: which column a name stands in, how high it stands there, and where its edges bend. Pure.

Source: Sugiyama, Tagawa & Toda 1981: layers, then few crossings by barycentres, then places. The layers are those of the
longest path; an edge over several of them bends at a place of its own in each. Places in a layer are the least squares of
what the neighbours ask for, under the order and the distances (pool adjacent violators, Ayer et al. 1955).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, sqrt
from typing import Final, NamedTuple

from parallel_agents.scheduler.graph import levels

_SWEEPS: Final = 12
_SWEEPS_OF_MANY: Final = 4  # Where there are more places than that
_MANY: Final = 4000
_SHAPE: Final = 4.0  # Width of a name, of its height.
_BEND: Final = 0.5  # Room of a bend, of that of a name.


class Drawing(NamedTuple):
    """Columns count from 0; heights are in rows and begin at 0.

    Attributes:
        at: column and height of each name.
        bends: of each edge (dependency, name) over several columns, column and height of each place in between.
        columns, rows: how large all of it is.
    """

    at: dict[str, tuple[int, float]]
    bends: dict[tuple[str, str], list[tuple[int, float]]]
    columns: int
    rows: float


def layered(dependencies: Mapping[str, Sequence[str]]) -> Drawing:
    """Lay a graph out. The same graph, in the same order, always comes out the same.

    Args:
        dependencies: each name's; one that is no name of the graph is left out.
    Raises:
        InvalidPlan: the graph has a cycle.
    """
    names = list(dependencies)
    number = {name: place for place, name in enumerate(names)}
    layer_of = _layers(dependencies, number)
    layers: list[list[int]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    for place, layer in enumerate(layer_of):
        layers[layer].append(place)
    up: list[list[int]] = [[] for _ in names]  # Neighbours in the layer before; of all places, names first.
    down: list[list[int]] = [[] for _ in names]
    chains: dict[tuple[str, str], list[int]] = {}
    for name, needed in dependencies.items():
        for other in dict.fromkeys(one for one in needed if one in number):
            chain = []
            before = number[other]
            for layer in range(layer_of[before] + 1, layer_of[number[name]]):
                place = len(up)
                up.append([])
                down.append([])
                layer_of.append(layer)
                layers[layer].append(place)
                _join(up, down, before, place)
                chain.append(place)
                before = place
            _join(up, down, before, number[name])
            chains[other, name] = chain
    _order(layers, up, down, _SWEEPS if len(up) <= _MANY else _SWEEPS_OF_MANY)
    heights = _heights(layers, up, down, len(names))
    least = min(heights, default=0.0)
    heights = [height - least for height in heights]
    return Drawing(
        {name: (layer_of[place], heights[place]) for place, name in enumerate(names)},
        {
            edge: [(layer_of[place], heights[place]) for place in chain] for edge, chain in chains.items() if chain
        },
        len(layers),
        max(heights, default=0.0) + 1,
    )  # fmt: skip


def arranged(dependencies: Mapping[str, Sequence[str]]) -> Drawing:
    """The same, with the names that have no edge at all side by side below the others: many of them make no long column."""
    tied = {name for name, needed in dependencies.items() if needed} | {o for of in dependencies.values() for o in of}
    loose = [name for name in dependencies if name not in tied]
    rest = layered({name: needed for name, needed in dependencies.items() if name in tied})
    # About as wide as high, where a name is some four times as wide as high; no wider than needed.
    wide = max(rest.columns, min(len(loose), ceil(sqrt(len(loose) / _SHAPE))), 1)
    top = rest.rows if rest.at else 0.0
    grid = {name: (place % wide, top + place // wide) for place, name in enumerate(loose)}
    at = {name: rest.at.get(name) or grid[name] for name in dependencies}
    return Drawing(at, rest.bends, max(rest.columns, min(wide, len(loose))), top + ceil(len(loose) / wide))


def _layers(dependencies: Mapping[str, Sequence[str]], number: Mapping[str, int]) -> list[int]:
    """The layer of each name: that of the longest path to it, or as near to what needs it as can be, where that is shorter.

    It is shorter where more names need it than it needs. Every layer keeps a name: the longest path does not move.
    """
    order = levels(dependencies)
    layer_of = [0] * len(number)
    dependents: list[list[int]] = [[] for _ in number]
    for layer, level in enumerate(order):
        for name in level:
            layer_of[number[name]] = layer
    for name, needed in dependencies.items():
        for other in needed:
            if other in number:
                dependents[number[other]].append(number[name])
    for level in reversed(order):
        for name in level:
            after = dependents[number[name]]
            if len(after) > len(dependencies[name]):
                layer_of[number[name]] = min(layer_of[one] for one in after) - 1
    return layer_of


def _join(up: list[list[int]], down: list[list[int]], before: int, after: int) -> None:
    up[after].append(before)
    down[before].append(after)


def _order(layers: list[list[int]], up: Sequence[list[int]], down: Sequence[list[int]], sweeps: int) -> None:
    """Sort each layer by the mean place of its neighbours, from the left and from the right in turn; the best order stays."""
    place = [0.0] * len(up)
    for layer in layers:
        for index, one in enumerate(layer):
            place[one] = index
    best, fewest = [list(layer) for layer in layers], crossings(layers, down)
    for sweep in range(sweeps):
        if not fewest:
            break
        near, todo = (up, range(1, len(layers))) if sweep % 2 == 0 else (down, range(len(layers) - 2, -1, -1))
        for index in todo:
            layer = layers[index]
            mean = {
                one: sum(place[o] for o in near[one]) / len(near[one]) if near[one] else place[one] for one in layer
            }
            layer.sort(key=mean.__getitem__)
            for spot, one in enumerate(layer):
                place[one] = spot
        found = crossings(layers, down)
        if found < fewest:
            best, fewest = [list(layer) for layer in layers], found
    layers[:] = best


def crossings(layers: Sequence[Sequence[int]], down: Sequence[Sequence[int]]) -> int:
    """How often edges between neighbouring layers cross: inversions, counted in a tree of sums (Barth, Juenger & Mutzel 2002)."""
    total = 0
    for layer, following in pairwise(layers):
        spot = {one: index for index, one in enumerate(following)}
        sums = [0] * (len(following) + 1)
        seen = 0
        for one in layer:
            ends = sorted(spot[other] for other in down[one])
            for end in ends:
                index, smaller = end + 1, 0
                while index:
                    smaller += sums[index]
                    index &= index - 1
                total += seen - smaller
            for end in ends:
                index = end + 1
                while index <= len(following):
                    sums[index] += 1
                    index += index & -index
                seen += 1
    return total


def _heights(
    layers: Sequence[Sequence[int]], up: Sequence[list[int]], down: Sequence[list[int]], names: int
) -> list[float]:
    """The height of each place: near its neighbours, in the order of its layer, and far enough from those beside it."""
    height = [0.0] * len(up)
    for layer in layers:
        for one, at in zip(layer, _offsets(layer, names), strict=True):
            height[one] = at
    for sweep in range(6):
        near = (up, down, None)[sweep % 3] if sweep < 5 else None
        for layer in layers if sweep % 3 != 1 else reversed(layers):
            wanted = []
            for one in layer:
                others = up[one] + down[one] if near is None else near[one]
                wanted.append(sum(height[other] for other in others) / len(others) if others else height[one])
            for one, at in zip(layer, _spread(wanted, _offsets(layer, names)), strict=True):
                height[one] = at
    return height


def _offsets(layer: Sequence[int], names: int) -> list[float]:
    """Where the places of a layer stand if they stand as close as they may."""
    found, at, last = [], 0.0, 0.0
    for index, one in enumerate(layer):
        room = 1.0 if one < names else _BEND
        at += (last + room) / 2 if index else 0.0
        found.append(at)
        last = room
    return found


def _spread(wanted: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """The heights nearest to what is wanted, by least squares, that keep the order and the distances of the offsets."""
    pools: list[tuple[float, int]] = []  # Sum and count of what is wanted less the offset.
    for want, offset in zip(wanted, offsets, strict=True):
        total, count = want - offset, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            more, many = pools.pop()
            total, count = total + more, count + many
        pools.append((total, count))
    level = [total / count for total, count in pools for _ in range(count)]
    return [at + offset for at, offset in zip(level, offsets, strict=True)]
