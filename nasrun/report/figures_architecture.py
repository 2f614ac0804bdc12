"""Pictures of architectures: their graphs, and the cost of each block by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun.report.canvas import (
    COLUMN_INCHES,
    LINES,
    column_figure,
    house_style,
    new_figure,
    save_figure,
)
from nasrun.run.files import write_json
from nasrun.run.layout import BLOCK_MACS, BLOCK_MACS_PICTURE
from nasrun.search_space.graph import Graph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_PER_ROW = 4
"""Graphs side by side in a picture."""


def plot_graphs(panels: Mapping[str, Graph], path: Path) -> list[Path]:
    """Plot a panel for each graph, with its name; returns the files written.

    path: without suffix.
    """
    labelled = any(label for graph in panels.values() for *_, label in graph.edges)
    columns = 1 if labelled else min(len(panels), PANELS_PER_ROW)
    rows = ceil(len(panels) / columns)
    several = len(panels) > 2 and not labelled
    size = (
        (2 * COLUMN_INCHES, 2.1 * rows)
        if several or labelled
        else (COLUMN_INCHES * columns, COLUMN_INCHES)
    )
    with house_style():
        figure = new_figure(*size)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (name, graph) in zip(grid.flat, panels.items(), strict=False):
            axes.set_title(name)
            _plot_graph(axes, graph, font=4 if several else 6)
        return save_figure(figure, path)


def _plot_graph(axes: Axes, graph: Graph, font: float) -> None:
    for start, end, label in graph.edges:
        a, b = graph.nodes[start], graph.nodes[end]
        # Edges that skip a level are curved, so that they do not cross the boxes in between.
        bend = 0.0 if abs(b.y - a.y) <= 1 and a.x == b.x else 0.12
        axes.annotate(
            "",
            xy=(b.x, b.y),
            xytext=(a.x, a.y),
            arrowprops={
                "arrowstyle": "-|>",
                "mutation_scale": font,
                "linewidth": 0.5,
                "color": "0.45",
                "shrinkA": 1.2 * font,  # to the edge of the boxes
                "shrinkB": 1.2 * font,
                "connectionstyle": f"arc3,rad={bend}",
            },
        )
        if label:  # near the end of the edge, where labels of edges with one source are apart
            near = (0.4 * a.x + 0.6 * b.x, 0.4 * a.y + 0.6 * b.y)
            white = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
            axes.text(
                *(*near, label.replace("_", " ")),
                fontsize=font - 1,
                color="C0",
                ha="center",
                va="center",
                bbox=white,
            )
    for node in graph.nodes:
        box = {"boxstyle": "round,pad=0.25", "facecolor": "0.95", "edgecolor": "0.3"}
        axes.text(
            *(node.x, node.y, node.label),
            fontsize=font,
            ha="center",
            va="center",
            bbox={**box, "linewidth": 0.5},
        )
    xs, ys = [node.x for node in graph.nodes], [node.y for node in graph.nodes]
    axes.set_xlim(min(xs) - 0.6, max(xs) + 0.6)
    axes.set_ylim(min(ys) - 0.5, max(ys) + 0.5)


def plot_block_macs(
    epochs: Sequence[float], macs: Mapping[str, Sequence[float]], path: Path
) -> list[Path]:
    """Plot the multiply-adds of each block by epoch; returns the files written.

    macs: [epochs] by name of the block. path: without suffix. If there are many
    blocks, the legend names the first and the last one.
    """
    from matplotlib import colormaps  # slow to import

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
