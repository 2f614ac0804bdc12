"""An architecture as a graph that can be plotted: labels alone, a layout finds the places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nasrun.values import MapSize, Problem


@dataclass(frozen=True)
class Graph:
    """A graph without circles.

    nodes: their labels; the first line names the node, further lines are details.
    edges: (index of source node, index of target node, label of the edge or an empty string).
    down: whether it is read from top to bottom, as a chain; else from left to right.
    """

    nodes: Sequence[str]
    edges: Sequence[tuple[int, int, str]]
    down: bool = False


def chain(labels: Sequence[str]) -> Graph:
    """Return the graph of nodes that follow each other, from top to bottom."""
    return Graph(labels, [(at, at + 1, "") for at in range(len(labels) - 1)], down=True)


def words(name: str) -> str:
    """Write the name of an operation for people: ``sep conv 3×3`` of ``sep_conv_3x3``."""
    return re.sub(r"(?<=\d)x(?=\d)", "×", name).replace("_", " ")


def with_shape(text: str, channels: int, size: MapSize, stride: int = 1) -> str:
    """Add the shape of the output, and a stride that is not 1, as a second line of a label.

    size: of the output.
    """
    shape = f"{channels}×{size.words}"
    return f"{text}\n{shape}, stride {stride}" if stride > 1 else f"{text}\n{shape}"


def staged(labels: Sequence[str], counts: Sequence[int]) -> dict[str, Graph]:
    """Return a chain as a graph for each of its stages, ``stage 1`` and so on.

    labels: those of all nodes. counts: the number of nodes of each stage.
    """
    found, start = {}, 0
    for stage, count in enumerate(counts, 1):
        found[f"stage {stage}"] = chain(labels[start : start + count])
        start += count
    return found


def chain_in_stages(
    problem: Problem, stem: str, layers: Sequence[str], head: str, counts: Sequence[int]
) -> dict[str, Graph]:
    """Return a chain from images to classes as a graph for each stage.

    layers: labels of the layers between stem and head. counts: layers of each stage; the first
    stage has the stem as well, and the last one the head.
    """
    first, *rest, last = counts
    labels = [image_node(problem), stem, *layers, head, classes_node(problem)]
    return staged(labels, [2 + first, *rest, last + 2])


def image_node(problem: Problem) -> str:
    """Return the label of the images that a network reads."""
    return f"image\n{problem.channels}×{problem.size.words}"


def classes_node(problem: Problem) -> str:
    """Return the label of a network's classifier."""
    return f"classifier\n{problem.classes:,} classes"
