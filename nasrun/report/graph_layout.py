"""Places of boxes, lines and labels of graphs, by graphviz's ``dot`` or by our own layers.

Lengths are points, 1/72 inch; x grows to the right, y downwards. In every layout boxes and labels
do not overlap, lines go one way and meet no box but those that they join, and a label sits on its
line, which is cut there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nasrun.search_space.graph import Graph

Point = tuple[float, float]
Path = tuple[Point, ...]
"""A start, then three points for each cubic Bézier curve."""

FONT, SMALL_FONT = 10.0, 8.0
"""Size of names, and of details and labels of edges."""

LINE_HEIGHT = 1.3
"""Distance of two lines of text, in sizes of the font."""

PADDING_X, PADDING_Y = 7.0, 4.0
"""Space between the text and the border of a box."""

TITLE_HEIGHT = 18.0
PANEL_GAP = 26.0
MARGIN = 6.0

MAX_SHEET_WIDTH = 1000.0
"""Width of several graphs beside each other; a wider graph has a row of its own."""

_NARROW, _WIDE = frozenset("iljtfrI.,:;'|()[]!/ -"), frozenset("mwMW@%×→←+=~")


@dataclass(frozen=True)
class Box:
    """A text and the rectangle around it; x, y: its centre."""

    text: str
    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    def moved(self, x: float, y: float) -> Box:
        return Box(self.text, self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class Line:
    """An edge from box to box.

    paths: one, or two with the label in between; the last one ends in an arrow.
    """

    source: int
    target: int
    paths: tuple[Path, ...]
    label: Box | None = None

    def moved(self, x: float, y: float) -> Line:
        paths = tuple(tuple((px + x, py + y) for px, py in path) for path in self.paths)
        return Line(self.source, self.target, paths, self.label and self.label.moved(x, y))


@dataclass(frozen=True)
class Layout:
    """A graph in place: a box for each node and a line for each edge, in their order.

    ends: indices of the nodes that are inputs or outputs, which look different.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    ends: frozenset[int]

    def moved(self, x: float, y: float) -> Layout:
        """Return the layout at another place."""
        return Layout(
            self.width,
            self.height,
            tuple(box.moved(x, y) for box in self.boxes),
            tuple(line.moved(x, y) for line in self.lines),
            self.ends,
        )


@dataclass(frozen=True)
class Sheet:
    """Several graphs on one sheet, each with its title; titles: (text, left side, baseline)."""

    width: float
    height: float
    layouts: tuple[Layout, ...]
    titles: tuple[tuple[str, float, float], ...]


def text_width(text: str, font: float) -> float:
    """Estimate the width of a line of text from above, for common sans-serif fonts."""

    def size(sign: str) -> float:
        if sign in _NARROW:
            return 0.4
        return 0.98 if sign in _WIDE else 0.72 if sign.isupper() else 0.64

    return font * sum(map(size, text))


def box_size(label: str) -> Point:
    """Return width and height of the box of a node."""
    name, *details = label.split("\n")
    widest = max([text_width(name, FONT), *(text_width(line, SMALL_FONT) for line in details)])
    height = LINE_HEIGHT * (FONT + SMALL_FONT * len(details))
    return max(widest, FONT) + 2 * PADDING_X, height + 2 * PADDING_Y


def label_size(label: str) -> Point:
    """Return width and height of the label of an edge."""
    return text_width(label, SMALL_FONT) + 6, LINE_HEIGHT * SMALL_FONT


def ends_of(graph: Graph) -> frozenset[int]:
    """Return the nodes that nothing leads to, or that lead nowhere; a part of a chain has none."""
    if graph.down:
        return frozenset()
    sources = {source for source, _, _ in graph.edges}
    targets = {target for _, target, _ in graph.edges}
    return frozenset(range(len(graph.nodes))) - (sources & targets)


def lay_out(graph: Graph) -> Layout:
    """Find the places by ``dot`` if it is there, else by layers.

    Raises ValueError if the graph has a circle.
    """
    from nasrun.report.graph_dot import dot_layout
    from nasrun.report.graph_layers import layered

    return dot_layout(graph) or layered(graph)


def sheet_of(panels: Mapping[str, Graph]) -> Sheet:
    """Put graphs on one sheet, in rows; a single graph has no title."""
    layouts = [lay_out(graph) for graph in panels.values()]
    titled = len(panels) > 1
    above = TITLE_HEIGHT if titled else 0.0
    limit = max([MAX_SHEET_WIDTH, *(layout.width for layout in layouts)])
    placed: list[Layout] = []
    titles: list[tuple[str, float, float]] = []
    x = y = MARGIN
    row_height = width = 0.0
    for name, layout in zip(panels, layouts, strict=True):
        own = max(layout.width, text_width(name, FONT) * 1.1 if titled else 0)
        if x > MARGIN and x + own > limit + MARGIN:
            x, y, row_height = MARGIN, y + row_height + PANEL_GAP, 0.0
        if titled:
            titles.append((name, x, y + FONT))
        placed.append(layout.moved(x, y + above))
        row_height = max(row_height, layout.height + above)
        width = max(width, x + own)
        x += own + PANEL_GAP
    return Sheet(width + MARGIN, y + row_height + MARGIN, tuple(placed), tuple(titles))
