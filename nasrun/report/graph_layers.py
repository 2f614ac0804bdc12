"""Our own layout of graphs: layers, few crossings, straight edges (Sugiyama et al. 1981).

Every node has a rank, larger than those that lead to it. Labels of edges are items of ranks in
between, and so are the places where a long edge passes a rank; so nothing can overlap. Lines bend
between two ranks only and cross each rank straight, at a place of their own.

Inside, ``along`` is the direction of reading and ``across`` the other one.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from nasrun.report.graph_layout import (
    Box,
    Layout,
    Line,
    Path,
    Point,
    box_size,
    ends_of,
    label_size,
)
from nasrun.search_space.graph import Graph

LINE_SPACE, BOX_SPACE = 7.0, 11.0
"""Smallest distance across of a line, or of two boxes."""

MIN_GAP, MAX_GAP = 22.0, 70.0
"""Distance of two ranks; wider where lines between them are steep."""

STRAIGHT_OUT, STRAIGHT_IN = 3.0, 9.0
"""Straight pieces of a line behind a rank, and before one, where arrows are."""

PORT_SPACE = 9.0
"""Largest distance of two lines that leave or reach a box on the same side."""

SWEEPS, ITEMS_SWEPT = 24, 40_000
"""Passes over all ranks that reduce crossings; fewer where more items would be swept in all."""

ONE_SIDED = 4
"""First passes that set places, in which items follow their neighbours on one side alone."""

MAX_ITEMS_SWAPPED = 600
"""Items of the largest graph in which neighbours are also swapped one by one."""


@dataclass
class _Items:
    """Nodes, labels and passing places, in this order, as parallel lists.

    steps: neighbours in adjacent ranks, (earlier, later), each pair once.
    """

    along: list[float] = field(default_factory=list)
    across: list[float] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)
    steps: dict[tuple[int, int], None] = field(default_factory=dict)
    solid: int = 0
    """Number of nodes and labels; all later items are passing places."""

    def add(self, along: float, across: float, rank: int) -> int:
        self.along.append(along)
        self.across.append(across)
        self.rank.append(rank)
        return len(self.rank) - 1

    def weight(self, first: int, second: int) -> int:
        """Tell how much a step should be straight (as in dot: 1, 2 or 8)."""
        return (1, 2, 8)[(first >= self.solid) + (second >= self.solid)]

    def space(self, first: int, second: int) -> float:
        """Return the smallest distance of the centres of two neighbours of a rank."""
        free = BOX_SPACE if max(first, second) < self.solid else LINE_SPACE
        return (self.across[first] + self.across[second]) / 2 + free


def layered(graph: Graph) -> Layout:
    """Lay a graph out by layers; raises ValueError if it has a circle."""
    items, routes = _items_of(graph)
    layers = _ordered(items)
    across = _positions(items, layers)
    bands = _bands(items, layers, across)
    ports = _ports(items, layers, across)
    sizes = [*map(box_size, graph.nodes), *(label_size(label) for *_, label in graph.edges)]

    def place(along: float, across: float) -> Point:
        return (across, along) if graph.down else (along, across)

    def box(item: int, text: str, size: Point) -> Box:
        first, last = bands[items.rank[item]]
        return Box(text, *place((first + last) / 2, across[item]), *size)

    boxes = [box(node, label, sizes[node]) for node, label in enumerate(graph.nodes)]
    lines = []
    for edge, ((source, target, text), route) in enumerate(zip(graph.edges, routes, strict=True)):
        paths = tuple(
            tuple(place(*point) for point in _path(items, part, bands, ports)) for part in route
        )
        label = box(route[0][-1], text, sizes[len(graph.nodes) + edge]) if text else None
        lines.append(Line(source, target, paths, label))
    length = max((last for _, last in bands), default=0.0)
    reach = max((at + items.across[item] / 2 for item, at in enumerate(across)), default=0.0)
    return Layout(*place(length, reach), tuple(boxes), tuple(lines), ends_of(graph))


def _items_of(graph: Graph) -> tuple[_Items, list[list[list[int]]]]:
    """Return all items, and for each edge its parts: items from box to label, label to box."""
    ranks = _ranks(graph)
    # A label needs a rank of its own between its two nodes.
    step = 1 + any(label and ranks[t] - ranks[s] < 2 for s, t, label in graph.edges)
    ranks = [step * rank for rank in ranks]
    items = _Items()

    def add(size: Point, rank: int) -> int:
        width, height = size
        return items.add(height, width, rank) if graph.down else items.add(width, height, rank)

    for label, rank in zip(graph.nodes, ranks, strict=True):
        add(box_size(label), rank)
    middles = []
    for source, target, label in graph.edges:
        middle = (ranks[source] + ranks[target]) // 2
        # Where nodes are in even ranks, labels are in odd ones: neither widens the other's rank.
        middle |= step == 2
        middles.append(add(label_size(label), middle) if label else None)
    items.solid = len(items.rank)
    trunks: dict[tuple[int, int], int] = {}

    def part(first: int, last: int, *, shared: bool) -> list[int]:
        found = [first]
        for rank in range(items.rank[first] + 1, items.rank[last]):
            key = (first, rank)
            if not shared or key not in trunks:
                passing = items.add(0.0, 0.0, rank)
                if shared:
                    trunks[key] = passing
            else:
                passing = trunks[key]
            found.append(passing)
        found.append(last)
        items.steps.update(dict.fromkeys(pairwise(found)))
        return found

    routes = []
    for (source, target, _), between in zip(graph.edges, middles, strict=True):
        if between is None:  # edges from one box share their way until they part
            routes.append([part(source, target, shared=True)])
        else:
            ends = part(source, between, shared=False), part(between, target, shared=False)
            routes.append(list(ends))
    return items, routes


def _ranks(graph: Graph) -> list[int]:
    """Return the number of edges on the longest path to each node."""
    after, waiting = defaultdict(list), [0] * len(graph.nodes)
    for source, target, _ in graph.edges:
        after[source].append(target)
        waiting[target] += 1
    ranks = [0] * len(graph.nodes)
    ready = [node for node, count in enumerate(waiting) if not count]
    for node in ready:  # grows while it is read
        for target in after[node]:
            ranks[target] = max(ranks[target], ranks[node] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    if len(ready) < len(graph.nodes):
        raise ValueError("the graph has a circle")
    return ranks


def _ordered(items: _Items) -> list[list[int]]:
    """Return the items of each rank, in an order with few crossings."""
    layers: list[list[int]] = [[] for _ in range(max(items.rank, default=-1) + 1)]
    for item in _visited(items):
        layers[items.rank[item]].append(item)
    before, after = _neighbours(items)
    best, fewest = [list(layer) for layer in layers], _crossings(items, layers)
    sweeps = max(2, min(SWEEPS, ITEMS_SWEPT // max(len(items.rank), 1)))
    for sweep in range(sweeps):
        if not fewest:
            break
        forwards = sweep % 2 == 0
        place = {item: at for layer in layers for at, item in enumerate(layer)}
        for layer in layers if forwards else reversed(layers):
            near = before if forwards else after
            centre = {
                item: sum(place[other] for other in near[item]) / len(near[item])
                if near[item]
                else float(place[item])
                for item in layer
            }
            layer.sort(key=lambda item: (centre[item], place[item]))
            place.update((item, at) for at, item in enumerate(layer))
        # Sweeps go on from their own order: from a swapped one they would not get away.
        trial = [list(layer) for layer in layers]
        if len(items.rank) <= MAX_ITEMS_SWAPPED:
            _swap_neighbours(trial, before, after)
        found = _crossings(items, trial)
        if found < fewest:
            best, fewest = trial, found
    if best and best[0][0] > best[0][-1]:  # the mirror image has the inputs in their order
        best = [layer[::-1] for layer in best]
    return best


def _swap_neighbours(
    layers: Sequence[list[int]],
    before: Mapping[int, Sequence[int]],
    after: Mapping[int, Sequence[int]],
) -> None:
    """Swap neighbours of a rank where that removes crossings, until nothing improves."""
    place = {item: at for layer in layers for at, item in enumerate(layer)}
    improved = True
    while improved:
        improved = False
        for layer in layers:
            for at in range(len(layer) - 1):
                first, second = layer[at], layer[at + 1]
                now = swapped = 0
                for near in (before, after):
                    for a in near[first]:
                        now += sum(place[a] > place[b] for b in near[second])
                        swapped += sum(place[a] < place[b] for b in near[second])
                if swapped < now:
                    layer[at], layer[at + 1] = second, first
                    place[first], place[second] = at + 1, at
                    improved = True


def _visited(items: _Items) -> list[int]:
    """Return all items in the order of a walk from the first ones."""
    _, after = _neighbours(items)
    found: dict[int, None] = {}
    starts = sorted(range(len(items.rank)), key=lambda item: (items.rank[item], item))
    for start in starts:
        stack = [start]
        while stack:
            item = stack.pop()
            if item not in found:
                found[item] = None
                stack += reversed(after[item])
    return list(found)


def _neighbours(items: _Items) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Return the items before and after each item."""
    before, after = defaultdict(list), defaultdict(list)
    for first, second in items.steps:
        after[first].append(second)
        before[second].append(first)
    return before, after


def _crossings(items: _Items, layers: Sequence[Sequence[int]]) -> int:
    """Count the crossings of steps between adjacent ranks."""
    place = {item: at for layer in layers for at, item in enumerate(layer)}
    by_rank: list[list[tuple[int, int]]] = [[] for _ in layers]
    for first, second in items.steps:
        by_rank[items.rank[first]].append((place[first], place[second]))
    count = 0
    for pairs in by_rank:
        seen: list[int] = []
        for _, second in sorted(pairs):
            count += len(seen) - bisect_right(seen, second)
            insort(seen, second)
    return count


def _positions(items: _Items, layers: Sequence[Sequence[int]]) -> list[float]:
    """Return the centre of each item across, from 0 on: neighbours near, long edges straight."""
    found = [0.0] * len(items.rank)
    spaces = [[items.space(*pair) for pair in pairwise(layer)] for layer in layers]
    for layer, space in zip(layers, spaces, strict=True):
        _set(found, layer, nearest([0.0] * len(layer), [1.0] * len(layer), space))
    before, after = _neighbours(items)
    count = max(ONE_SIDED, min(ONE_SIDED + SWEEPS, ITEMS_SWEPT // max(len(found), 1)))
    for sweep in range(count):
        both = sweep >= ONE_SIDED
        for index in range(len(layers)) if sweep % 2 == 0 else reversed(range(len(layers))):
            layer, wanted, weights = layers[index], [], []
            for item in layer:
                near = [*before[item], *after[item]]
                if not both:
                    near = before[item] if sweep % 2 == 0 else after[item]
                weighed = [(items.weight(item, other), found[other]) for other in near]
                total = sum(weight for weight, _ in weighed)
                wanted.append(
                    sum(weight * at for weight, at in weighed) / total if total else found[item]
                )
                weights.append(float(total) or 0.1)
            _set(found, layer, nearest(wanted, weights, spaces[index]))
    low = min((at - items.across[item] / 2 for item, at in enumerate(found)), default=0.0)
    return [at - low for at in found]


def _set(found: list[float], layer: Sequence[int], places: Sequence[float]) -> None:
    for item, at in zip(layer, places, strict=True):
        found[item] = at


def nearest(
    wanted: Sequence[float], weights: Sequence[float], spaces: Sequence[float]
) -> list[float]:
    """Return the positions nearest to the wanted ones, each ``spaces`` after the one before.

    wanted, weights: [n]; spaces: [n - 1]. Minimises the weighted squares of the distances exactly,
    by pooling adjacent violators.
    """
    offsets = [0.0]
    for space in spaces:
        offsets.append(offsets[-1] + space)
    pools: list[tuple[float, float, int]] = []  # mean, weight, count
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, total, count = want - offset, weight, 1
        while pools and pools[-1][0] >= mean:
            other, other_weight, other_count = pools.pop()
            mean = (mean * total + other * other_weight) / (total + other_weight)
            total, count = total + other_weight, count + other_count
        pools.append((mean, total, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def _bands(
    items: _Items, layers: Sequence[Sequence[int]], across: Sequence[float]
) -> list[tuple[float, float]]:
    """Return the beginning and the end of each rank along."""
    steepest = [0.0] * len(layers)
    for first, second in items.steps:
        rank = items.rank[second]
        steepest[rank] = max(steepest[rank], abs(across[second] - across[first]))
    found: list[tuple[float, float]] = []
    end = 0.0
    for rank, layer in enumerate(layers):
        gap = min(MIN_GAP + 0.15 * steepest[rank], MAX_GAP) if rank else 0.0
        begin = end + gap
        end = begin + max(items.along[item] for item in layer) if layer else begin
        found.append((begin, end))
    return found


Ports = dict[tuple[int, int], tuple[float, float]]
"""Places across at which each step leaves its first item and reaches its second one."""


def _ports(items: _Items, layers: Sequence[Sequence[int]], across: Sequence[float]) -> Ports:
    """Spread the lines at the sides of boxes, in the order of their other ends."""
    before, after = _neighbours(items)
    out: dict[tuple[int, int], float] = {}
    into: dict[tuple[int, int], float] = {}
    for layer in layers:
        for item in layer:
            room = max(items.across[item] - 6, 0) if item < items.solid else 0.0
            for others, ports, forwards in ((after, out, True), (before, into, False)):
                near = sorted(others[item], key=lambda other: (across[other], other))
                space = min(PORT_SPACE, room / len(near)) if near else 0.0
                for at, other in enumerate(near):
                    step = (item, other) if forwards else (other, item)
                    ports[step] = across[item] + space * (at - (len(near) - 1) / 2)
    return {step: (out[step], into[step]) for step in items.steps}


def _path(
    items: _Items, part: Sequence[int], bands: Sequence[tuple[float, float]], ports: Ports
) -> Path:
    """Return the curve through the items of a part of a route, as (along, across)."""

    def side(item: int, sign: int) -> float:
        first, last = bands[items.rank[item]]
        return (first + last + sign * items.along[item]) / 2

    points: list[Point] = [(side(part[0], 1), ports[part[0], part[1]][0])]

    def straight_to(along: float) -> None:
        (x, at) = points[-1]
        points.extend([(x + (along - x) / 3, at), (x + 2 * (along - x) / 3, at), (along, at)])

    for first, second in pairwise(part):
        start, end = bands[items.rank[first]][1], bands[items.rank[second]][0]
        leave, reach = ports[first, second]
        straight_to(start + STRAIGHT_OUT)
        bend, stop = (start + STRAIGHT_OUT + end - STRAIGHT_IN) / 2, end - STRAIGHT_IN
        points.extend([(bend, leave), (bend, reach), (stop, reach)])
        straight_to(side(second, -1))
    return tuple(points)
