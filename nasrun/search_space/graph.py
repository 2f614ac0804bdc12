"""An architecture as a graph that can be plotted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """An operation or a state, at a place of the picture; x and y count boxes, y upwards."""

    label: str
    x: float
    y: float


@dataclass(frozen=True)
class Graph:
    """A graph.

    edges: (index of source node, index of target node, label of the edge or an empty string).
    """

    nodes: Sequence[Node]
    edges: Sequence[tuple[int, int, str]]
