"""Pictures of architectures: their graphs, and the cost of each block by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun.report.canvas import LINES, column_figure, house_style, png_of_figure, save_figure
from nasrun.report.graph_layout import FONT, LINE_HEIGHT, SMALL_FONT, Layout, Point, sheet_of
from nasrun.report.graph_svg import ACCENT, arrow_of, svg_of_panels
from nasrun.report.graph_text import dot_of, mermaid_of
from nasrun.run.files import write_bytes, write_json
from nasrun.run.layout import (
    ARCHITECTURE_PICTURE,
    ARCHITECTURE_TEXT,
    BLOCK_MACS,
    BLOCK_MACS_PICTURE,
)
from nasrun.search_space.graph import Graph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 72
"""Points of an inch."""

DOTS_PER_INCH, MAX_PIXELS = 200, 8000
"""Resolution of a picture of graphs, lower where a side would have more pixels."""


def save_graphs(panels: Mapping[str, Graph], directory: Path) -> None:
    """Write architecture.png, .svg and .mmd: the graphs, each with its name."""
    for kind in ("png", "svg"):
        write_bytes(directory / f"{ARCHITECTURE_PICTURE}.{kind}", FORMATS[kind](panels))
    write_bytes(directory / ARCHITECTURE_TEXT, FORMATS["mmd"](panels))


def png_of(panels: Mapping[str, Graph]) -> bytes:
    """Return a picture of the graphs, each with its name, as a PNG file."""
    from matplotlib.figure import Figure

    sheet = sheet_of(panels)
    with house_style():
        # One unit of the axes is a point, so that boxes fit their texts.
        figure = Figure(figsize=(sheet.width / POINTS, sheet.height / POINTS))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, sheet.width)
        axes.set_ylim(sheet.height, 0)
        for title, x, y in sheet.titles:
            axes.text(x, y, title, fontsize=FONT, fontweight="bold")
        for layout in sheet.layouts:
            _plot_layout(axes, layout)
        sharpest = MAX_PIXELS * POINTS / max(sheet.width, sheet.height)
        return png_of_figure(figure, min(DOTS_PER_INCH, sharpest))


def _plot_layout(axes: Axes, layout: Layout) -> None:
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve

    for line in layout.lines:
        for points in line.paths:
            codes = [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1)
            curve = Curve(points, codes)
            axes.add_patch(PathPatch(curve, facecolor="none", edgecolor="0.4", linewidth=0.9))
        axes.add_patch(Polygon(arrow_of(line.paths[-1]), facecolor="0.25", linewidth=0))
        if line.label:
            box = line.label
            _write(axes, box.text, (box.x, box.y), SMALL_FONT, ACCENT)
    for at, box in enumerate(layout.boxes):
        axes.add_patch(
            FancyBboxPatch(
                *((box.left + 3, box.top + 3), box.width - 6, box.height - 6),
                boxstyle="round,pad=3",
                facecolor="white" if at in layout.ends else "0.94",
                edgecolor="0.45",
                linewidth=0.8,
            )
        )
        name, *details = box.text.split("\n")
        top = box.y - LINE_HEIGHT * SMALL_FONT * len(details) / 2
        _write(axes, name, (box.x, top), FONT, "black")
        for row, detail in enumerate(details):
            y = top + LINE_HEIGHT * ((FONT + SMALL_FONT) / 2 + SMALL_FONT * row)
            _write(axes, detail, (box.x, y), SMALL_FONT, "0.35")


def _write(axes: Axes, text: str, at: Point, font: float, color: str) -> None:
    axes.text(*at, text, fontsize=font, color=color, ha="center", va="center_baseline")


def _paper_svg(panels: Mapping[str, Graph]) -> bytes:
    return svg_of_panels(panels, paper=True).encode()


FORMATS: Mapping[str, Callable[[Mapping[str, Graph]], bytes]] = {
    "svg": _paper_svg,
    "png": png_of,
    "mmd": lambda panels: mermaid_of(panels).encode(),
    "dot": lambda panels: dot_of(panels).encode(),
}
"""Kinds of files that show graphs, by their suffix."""


def plot_block_macs(
    epochs: Sequence[float], macs: Mapping[str, Sequence[float]], path: Path
) -> list[Path]:
    """Plot the multiply-adds of each block by epoch; returns the files written.

    macs: [epochs] by name of the block. path: without suffix. If there are many
    blocks, the legend names the first and the last one.
    """
    from matplotlib import colormaps  # slow to import
    from matplotlib.ticker import MaxNLocator

    with house_style():
        figure, axes = column_figure(2.6)
        names = list(macs)
        few = len(names) <= 8
        for index, (name, line) in enumerate(zip(names, cycle(LINES), strict=False)):
            ends = index in (0, len(names) - 1)
            axes.plot(
                epochs,
                [value / 1e6 for value in macs[name]],
                linestyle=line if few else "-",
                color=colormaps["viridis"](index / max(len(names) - 1, 1)),
                linewidth=1.0,
                label=name if few or ends else None,
            )
        if all(epoch == round(epoch) for epoch in epochs):
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("multiply-adds of the block (M)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return save_figure(figure, path)


def save_block_history(
    epochs: Sequence[float], macs: Mapping[str, Sequence[int]], directory: Path
) -> None:
    """Write block_macs.json, .png and .svg: the multiply-adds of each block by epoch."""
    write_json(directory / BLOCK_MACS, {"epoch": epochs, **macs})
    plot_block_macs(epochs, macs, directory / BLOCK_MACS_PICTURE)
