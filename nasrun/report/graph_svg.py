"""Graphs as SVG text: small, self-contained, in the colours of the page around it.

Lines and texts have the colour of the text around them (``currentColor``). A style sheet may set
the classes ``graph-box``, ``graph-end`` (boxes), ``graph-line``, ``graph-name``, ``graph-detail``
and ``graph-label`` (texts).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from nasrun.report.graph_layout import (
    FONT,
    LINE_HEIGHT,
    SMALL_FONT,
    Box,
    Layout,
    Line,
    Path,
    Sheet,
    sheet_of,
)
from nasrun.search_space.graph import Graph

ACCENT = "#2f7ebc"
"""Colour of the labels of edges, readable on white and on black."""

ARROW_LENGTH, ARROW_WIDTH = 5.0, 4.0

_FONTS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
_CENTRE = 0.35
"""Baseline of a text below its centre, in sizes of the font."""


_PAPER = '<rect width="{}" height="{}" fill="#ffffff"/>'

_ATTRIBUTES = (
    r"(?: (?:xmlns|class|role|viewBox|[xyd]|rx|width|height|points|fill|fill-opacity|stroke"
    r'|stroke-opacity|stroke-width|font-family|font-size|font-weight|text-anchor)="[^"<>(]*")*'
)
_LINE = re.compile(
    rf"<(?:svg{_ATTRIBUTES}>|/svg>|(?:rect|path|polygon){_ATTRIBUTES}/>"
    rf"|(title|text){_ATTRIBUTES}>[^<>]*</\1>)"
)
"""A line of the files written here: one element, in which nothing can be run or fetched."""


def svg_of_panels(
    panels: Mapping[str, Graph], title: str = "architecture", *, paper: bool = False
) -> str:
    """Return several graphs as one ``<svg>`` element, each with its name if there are several.

    title: for those who cannot see it. paper: black on white, for a file of its own; else in the
    colours of the page.
    """
    sheet = sheet_of(panels)
    width, height = _number(sheet.width), _number(sheet.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nasrun-graph" role="img" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{_FONTS}" font-size="{FONT:g}" text-anchor="middle" fill="currentColor">',
        f"<title>{_text(title)}</title>",
    ]
    if paper:
        parts.append(_PAPER.format(width, height))
    parts += _sheet(sheet)
    return "\n".join([*parts, "</svg>\n"])


def without_paper(text: str) -> str | None:
    """Return an SVG file of ours as an element for a page; None for any other text."""
    lines = text.splitlines()
    if not text.startswith("<svg ") or not all(map(_LINE.fullmatch, lines)):
        return None
    paper = re.compile(_PAPER.format("[0-9.]+", "[0-9.]+"))
    return "\n".join(line for line in lines if not paper.fullmatch(line))


def _sheet(sheet: Sheet) -> list[str]:
    parts = [
        f'<text class="graph-title" x="{_number(x)}" y="{_number(y)}" text-anchor="start" '
        f'font-weight="bold">{_text(title)}</text>'
        for title, x, y in sheet.titles
    ]
    for layout in sheet.layouts:
        parts += [part for line in layout.lines for part in _line(line)]
        parts += [part for at, box in enumerate(layout.boxes) for part in _box(layout, at, box)]
        parts += [_label(line.label) for line in layout.lines if line.label]
    return parts


def _box(layout: Layout, at: int, box: Box) -> list[str]:
    kind = "end" if at in layout.ends else "box"
    name, *details = box.text.split("\n")
    top = box.y - LINE_HEIGHT * SMALL_FONT * len(details) / 2
    parts = [
        f'<rect class="graph-{kind}" x="{_number(box.left)}" y="{_number(box.top)}" '
        f'width="{_number(box.width)}" height="{_number(box.height)}" rx="4" fill="currentColor" '
        f'fill-opacity="{0.02 if kind == "end" else 0.07}" stroke="currentColor" '
        f'stroke-opacity="0.55" stroke-width="0.8"/>',
        f'<text class="graph-name" x="{_number(box.x)}" y="{_number(top + _CENTRE * FONT)}">'
        f"{_text(name)}</text>",
    ]
    for row, detail in enumerate(details):
        y = top + LINE_HEIGHT * ((FONT + SMALL_FONT) / 2 + SMALL_FONT * row) + _CENTRE * SMALL_FONT
        parts.append(
            f'<text class="graph-detail" x="{_number(box.x)}" y="{_number(y)}" '
            f'font-size="{SMALL_FONT:g}" fill-opacity="0.7">{_text(detail)}</text>'
        )
    return parts


def _line(line: Line) -> list[str]:
    drawn = " ".join(_path(path) for path in line.paths)
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in arrow_of(line.paths[-1]))
    return [
        f'<path class="graph-line" d="{drawn}" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.6" stroke-width="0.9"/>',
        f'<polygon class="graph-line" points="{points}" fill-opacity="0.75"/>',
    ]


def _path(path: Path) -> str:
    (x, y), *rest = path
    curves = " ".join(f"{_number(px)},{_number(py)}" for px, py in rest)
    return f"M{_number(x)},{_number(y)} C{curves}"


def arrow_of(path: Path) -> tuple[tuple[float, float], ...]:
    """Return the three corners of the arrow at the end of a line, the tip first."""
    tip_x, tip_y = path[-1]
    others = (point for point in reversed(path) if point != path[-1])
    from_x, from_y = next(others, (tip_x - 1, tip_y))
    length = ((tip_x - from_x) ** 2 + (tip_y - from_y) ** 2) ** 0.5
    ux, uy = (tip_x - from_x) / length, (tip_y - from_y) / length
    back_x, back_y = tip_x - ARROW_LENGTH * ux, tip_y - ARROW_LENGTH * uy
    half = ARROW_WIDTH / 2
    return (
        (tip_x, tip_y),
        (back_x - half * uy, back_y + half * ux),
        (back_x + half * uy, back_y - half * ux),
    )


def _label(box: Box) -> str:
    return (
        f'<text class="graph-label" x="{_number(box.x)}" '
        f'y="{_number(box.y + _CENTRE * SMALL_FONT)}" font-size="{SMALL_FONT:g}" '
        f'fill="{ACCENT}">{_text(box.text)}</text>'
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    """Escape a text; signs that XML forbids are left out."""
    return escape("".join(sign for sign in text if sign.isprintable()))
