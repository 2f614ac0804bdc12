"""The open edges of a block, and those that are computed; for networks and costs.

Operations are numbered level by level, ``len(OPERATION_NAMES)`` of them in each; source ``INPUT``
is the input of the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from nasrun.search_space.graph import Graph, words

OPERATION_NAMES = ("sep_conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3")
"""The operations of a level, in the order of the released code."""

CONVOLUTION_COUNT = 2
"""Number of convolutions, which are the first operations of a level."""

REDUCTIONS = ("conv_1x1", "conv_3x3")
"""The operations of a reduction, which are summed."""

INPUT = -1


def operation_of(index: int) -> str:
    """Name an operation by level and kind: ``level2/sep_conv_3x3`` of operation 4."""
    level, kind = divmod(index, len(OPERATION_NAMES))
    return f"level{level + 1}/{OPERATION_NAMES[kind]}"


def sources_of(index: int) -> range:
    """List the possible sources of an operation: the input, and all of the levels before."""
    return range(INPUT, index // len(OPERATION_NAMES) * len(OPERATION_NAMES))


@dataclass(frozen=True)
class Edges:
    """The places of a block's decisions.

    First come the inputs of every operation above level 1, then the edge of each operation to the
    output. Operations of level 1 always read the input.

    Four levels have 4·(5 + 9 + 13) + 16 = 124 decisions.
    """

    levels: int

    @cached_property
    def operations(self) -> range:
        return range(self.levels * len(OPERATION_NAMES))

    @cached_property
    def _first(self) -> list[int]:
        """The index of each operation's first input, and at the end that of the first output."""
        first = [0]
        for index in self.operations:
            first.append(
                first[-1] + (len(sources_of(index)) if index >= len(OPERATION_NAMES) else 0)
            )
        return first

    @property
    def count(self) -> int:
        return self._first[-1] + len(self.operations)

    def inputs(self, index: int) -> range:
        """List the decisions on the inputs of an operation, in the order of its sources.

        An operation of level 1 has none.
        """
        return range(self._first[index], self._first[index + 1])

    def output(self, index: int) -> int:
        """Return the decision on the edge from the operation to the output."""
        return self._first[-1] + index

    def names(self) -> Iterator[str]:
        """Yield ``level2.sep_conv_3x3/level1.max_pool_3x3``, then ``output/level1.sep_conv_3x3``.

        Names of the summands of one sum differ only after the last slash.
        """
        for index in self.operations[len(OPERATION_NAMES) :]:
            for source in sources_of(index):
                name = "input" if source == INPUT else operation_of(source).replace("/", ".")
                yield f"{operation_of(index).replace('/', '.')}/{name}"
        for index in self.operations:
            yield f"output/{operation_of(index).replace('/', '.')}"


@dataclass(frozen=True)
class Node:
    """A computed operation: the sources that it reads, and whether the output reads it."""

    index: int
    inputs: tuple[int, ...]
    output: bool


@dataclass(frozen=True)
class Wiring:
    """The computed operations of a block, in order; none: the block is its shortcut."""

    nodes: tuple[Node, ...]


def wire(opened: Sequence[bool], edges: Edges) -> Wiring:
    """Find the operations of a block that are computed, from its open decisions.

    An operation and all of its edges are dead if it has no live input, or if no path leads from it
    to the output.
    """
    sources: dict[int, tuple[int, ...]] = {}
    for index in edges.operations:
        if index < len(OPERATION_NAMES):
            sources[index] = (INPUT,)
            continue
        pairs = zip(sources_of(index), edges.inputs(index), strict=True)
        reached = tuple(s for s, d in pairs if opened[d] and (s == INPUT or s in sources))
        if reached:
            sources[index] = reached
    needed: set[int] = set()
    nodes: list[Node] = []
    for index in sorted(sources, reverse=True):
        output = bool(opened[edges.output(index)])
        if output or index in needed:
            needed.update(sources[index])
            nodes.append(Node(index, sources[index], output))
    return Wiring(tuple(nodes[::-1]))


def open_edges(wiring: Wiring, edges: Edges) -> list[int]:
    """Return the decisions of a block, 1 for computed edges; inverse of ``wire``."""
    opened = [0] * edges.count
    for node in wiring.nodes:
        for source, decision in zip(sources_of(node.index), edges.inputs(node.index), strict=False):
            opened[decision] = int(source in node.inputs)
        opened[edges.output(node.index)] = int(node.output)
    return opened


def graph_of(wiring: Wiring) -> Graph:
    """Return the block as a graph, its shortcut included; names begin with the level."""
    nodes, places = ["input"], {INPUT: 0}
    for node in wiring.nodes:
        places[node.index] = len(nodes)
        level, kind = divmod(node.index, len(OPERATION_NAMES))
        nodes.append(f"L{level + 1} {words(OPERATION_NAMES[kind])}")
    edges = [(places[s], places[node.index], "") for node in wiring.nodes for s in node.inputs]
    edges += [(places[node.index], len(nodes), "") for node in wiring.nodes if node.output]
    edges.append((0, len(nodes), "shortcut"))
    return Graph((*nodes, "output"), edges)
