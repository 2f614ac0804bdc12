"""Layout of graphs by graphviz's ``dot``, where that is installed.

``dot`` gets boxes without text, of the sizes that we shall plot, and each label of an edge as a
box in the middle of two edges, so that it lies on its line. Its answer is data, which is checked.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from nasrun.report.graph_layout import Box, Layout, Line, Path, Point, box_size, ends_of, label_size
from nasrun.search_space.graph import Graph

TIMEOUT_SECONDS = 5.0
"""Longest time that ``dot`` may take; then the layout is our own."""

MAX_EDGES = 400
"""Edges of the largest graph that ``dot`` gets; its time grows fast."""


def dot_layout(graph: Graph) -> Layout | None:
    """Lay a graph out by ``dot``; None if it is not installed, fails, or takes too long."""
    if len(graph.edges) > MAX_EDGES or not graph.nodes:
        return None
    try:
        answer = subprocess.run(
            ["dot", "-Tjson0"],  # noqa: S607  # wherever it is installed
            input=question(graph).encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        ).stdout
        return read_answer(graph, json.loads(answer))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        return None


def question(graph: Graph) -> str:
    """Return the graph that ``dot`` reads: nodes n0, n1 ..., labels and lines by their edges.

    The line of edge 0 is a0; with a label l0 it is a0 to the label and b0 from there.
    """
    lines = [
        "digraph g {",
        f"graph [rankdir={'TB' if graph.down else 'LR'}, nodesep=0.16, ranksep=0.3];",
        'node [shape=box, fixedsize=true, label=""]; edge [arrowhead=none];',
    ]
    for node, label in enumerate(graph.nodes):
        lines.append(_sized(f"n{node}", box_size(label)))
    for edge, (source, target, label) in enumerate(graph.edges):
        if label:
            lines.append(_sized(f"l{edge}", label_size(label)))
            lines.append(f'n{source} -> l{edge} [id="a{edge}", weight=2];')
            lines.append(f'l{edge} -> n{target} [id="b{edge}", weight=2];')
        else:
            lines.append(f'n{source} -> n{target} [id="a{edge}"];')
    return "\n".join([*lines, "}", ""])


def _sized(name: str, size: Point) -> str:
    return f"{name} [width={size[0] / 72:.4f}, height={size[1] / 72:.4f}];"


def read_answer(graph: Graph, answer: Mapping[str, Any]) -> Layout | None:
    """Return the layout in an answer of ``dot -Tjson0``; None if boxes in it overlap.

    Raises ValueError, LookupError or TypeError if the answer is none.
    """
    _, _, _, height = _numbers(answer["bb"])
    centres = {
        str(node["name"]): _flipped(_numbers(node["pos"]), height) for node in answer["objects"]
    }
    curves = {str(edge["id"]): _curve(str(edge["pos"]), height) for edge in answer.get("edges", [])}

    def box(name: str, text: str, size: Point) -> Box:
        return Box(text, *centres[name][0], *size)

    boxes = [box(f"n{node}", label, box_size(label)) for node, label in enumerate(graph.nodes)]
    lines = []
    for edge, (source, target, text) in enumerate(graph.edges):
        paths = (curves[f"a{edge}"], *((curves[f"b{edge}"],) if text else ()))
        label = box(f"l{edge}", text, label_size(text)) if text else None
        lines.append(Line(source, target, paths, label))
    solid = [*boxes, *(line.label for line in lines if line.label)]
    if _overlapping(solid):
        return None
    # The frame of dot is rounded to whole points, and so are the places.
    points = [point for line in lines for path in line.paths for point in path]
    left = min([*(box.left for box in solid), *(x for x, _ in points)])
    top = min([*(box.top for box in solid), *(y for _, y in points)])
    right = max([*(box.right for box in solid), *(x for x, _ in points)])
    bottom = max([*(box.bottom for box in solid), *(y for _, y in points)])
    found = Layout(right - left, bottom - top, tuple(boxes), tuple(lines), ends_of(graph))
    return found.moved(-left, -top)


def _numbers(text: str) -> list[float]:
    numbers = [float(word) for word in str(text).split(",")]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(text)
    return numbers


def _flipped(numbers: Sequence[float], height: float) -> Path:
    """Return points of dot, whose y grows upwards, as ours."""
    return tuple((x, height - y) for x, y in zip(numbers[::2], numbers[1::2], strict=True))


def _curve(text: str, height: float) -> Path:
    """Read ``x,y x,y ...``: a start, and three points for each Bézier curve."""
    words = [word for word in text.split() if word[0] not in "se"]
    path = _flipped([number for word in words for number in _numbers(word)], height)
    if len(path) < 4 or len(path) % 3 != 1:
        raise ValueError(text)
    return path


def _overlapping(boxes: Sequence[Box]) -> bool:
    return any(
        min(a.right, b.right) - max(a.left, b.left) > 0.5
        and min(a.bottom, b.bottom) - max(a.top, b.top) > 0.5
        for a, b in combinations(boxes, 2)
    )
