"""Motifs: small graphs with an operation on each edge, which may be a motif itself.

The edges of a motif are the pairs of an earlier and a later node, (0, 1), (0, 2), (1, 2), (0, 3)
and so on. Node 0 is its input and the last node its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

ABSENT = 0
"""The option of an edge that does not exist; option i + 1 is operation i of the level below."""


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """List the edges of a motif as (source, target)."""
    return [(source, target) for target in range(1, nodes) for source in range(target)]


def edge_index(source: int, target: int) -> int:
    """Return the place of an edge in the list of all edges."""
    return target * (target - 1) // 2 + source


def assemble(
    options: Sequence[int],
    nodes: int,
    start: T,
    apply: Callable[[int, int, T], T],
    merge: Callable[[list[T]], T],
    passes: Callable[[int], bool] = lambda operation: True,
) -> T | None:
    """Return the value of the last node from that of the first; None if nothing leads there.

    A node merges the operations on all earlier nodes that have a value (Liu et al. 2018, Eq. 2).
    Only edges on a way from the first node to the last are computed. The same function makes
    tensors of tensors, and widths of widths.

    options: of each edge. apply: (edge, operation, value of its source) -> its value.
    passes: whether an operation leads from its input to its output.
    """
    known: dict[int, T | None] = {0: start}

    def value(node: int) -> T | None:
        if node not in known:
            inputs = []
            for source in range(node):
                edge = edge_index(source, node)
                operation = options[edge] - 1
                if operation < 0 or not passes(operation):
                    continue
                before = value(source)
                if before is not None:
                    inputs.append(apply(edge, operation, before))
            known[node] = merge(inputs) if inputs else None
        return known[node]

    return value(nodes - 1)


def live_edges(
    options: Sequence[int], nodes: int, passes: Callable[[int], bool] = lambda operation: True
) -> list[int]:
    """List the edges on a way from the first node to the last."""
    found: list[int] = []

    def apply(edge: int, operation: int, value: int) -> int:
        found.append(edge)
        return value

    assemble(options, nodes, 0, apply, max, passes)
    return sorted(found)
