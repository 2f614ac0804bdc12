"""Pictures of searches: fronts of score against costs, and comparisons by evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from nasrun.metrics import Estimate
from nasrun.report.canvas import COLUMN_INCHES, LINES, house_style, new_figure, save_figure
from nasrun.report.graph_layers import nearest
from nasrun.report.units import in_unit, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MAX_DIRECT_CHARACTERS, MAX_DIRECT_CURVES = 24, 10
"""Names at the ends of curves are so long and so many at most; else there is a legend."""

PICK_INCHES = (0.15, 0.1)
"""Width and height of a number of a front; two of them must not overlap."""


@dataclass(frozen=True)
class Point:
    """An architecture in a picture: its costs by the name of the goal, and its score in [0, 1]."""

    costs: Mapping[str, float]
    score: float


def plot_front(
    front: Sequence[Point],
    visited: Sequence[Point],
    path: Path,
    *,
    winner: Point | None = None,
) -> list[Path]:
    """Plot the architectures that no other beats, with their pick numbers, and all visited ones.

    A panel for each cost that is a goal. front: in the order of front.json. winner: the one that
    is retrained. path: without suffix; returns the files written.
    """
    goals = list(front[0].costs)
    with house_style():
        columns = min(len(goals), 3)
        rows = -(-len(goals) // columns)
        width = COLUMN_INCHES if columns == 1 else 2 * COLUMN_INCHES
        figure = new_figure(width, 0.3 + 2.5 * rows)
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for axes in grid[len(goals) :]:
            axes.remove()
        for axes, goal in zip(grid, goals, strict=False):
            _plot_goal(axes, goal, front, visited, winner, stairs=len(goals) == 1)
        for at in range(0, len(goals), columns):
            grid[at].set_ylabel("score in the search (%)")
        figure.draw_without_rendering()  # sets the sizes of the panels
        picked = None if winner is None or winner not in front else list(front).index(winner)
        for axes, goal in zip(grid, goals, strict=False):
            _number(axes, [_place(point, goal) for point in front], picked)
        if len(goals) > 1:
            handles, labels = grid[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        else:
            grid[0].legend(frameon=False, loc="best")
        return save_figure(figure, path)


def _place(point: Point, goal: str) -> tuple[float, float]:
    return in_unit(goal, point.costs[goal]), 100 * point.score


def _plot_goal(
    axes: Axes,
    goal: str,
    front: Sequence[Point],
    visited: Sequence[Point],
    winner: Point | None,
    *,
    stairs: bool,
) -> None:
    seen = np.array([_place(point, goal) for point in visited]).reshape(-1, 2)
    axes.plot(*seen.T, linestyle="", marker=".", markersize=4, color="0.75", label="visited")
    best = np.array(sorted(_place(point, goal) for point in front)).reshape(-1, 2)
    line: dict[str, Any] = {"drawstyle": "steps-post", "linewidth": 1.0} if stairs else {}
    axes.plot(
        *best.T,
        **{"linestyle": "-" if stairs else "", **line},
        marker="o",
        markersize=4,
        color="C0",
        label="front, by pick",
    )
    if winner is not None:
        x, y = _place(winner, goal)
        axes.plot(
            *([x], [y]),
            linestyle="",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor="C1",
            markeredgewidth=1.5,
            label="retrained",
        )
    axes.set_xlabel(with_unit(goal))
    for axis in (axes.xaxis, axes.yaxis):
        _few_ticks(axis)
    axes.margins(0.08, 0.1)


def _few_ticks(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(ScalarFormatter(useOffset=False, useMathText=False))


def _number(axes: Axes, places: Sequence[tuple[float, float]], first: int | None) -> None:
    """Write the place in the front beside each point, none over another.

    first: the point that must have its number, if any; then both ends, then the best ones.
    """
    count = len(places)
    order = dict.fromkeys([*([] if first is None else [first]), 0, count - 1, *range(count)])
    shown: list[npt.NDArray[np.float64]] = []
    for pick in order:
        at = axes.transData.transform(places[pick]) / axes.figure.dpi
        if any((np.abs(at - other) < PICK_INCHES).all() for other in shown):
            continue
        shown.append(at)
        axes.annotate(
            str(pick),
            places[pick],
            xytext=(-3, 3),
            textcoords="offset points",
            fontsize=6,
            color="0.25",
            ha="right",
            va="bottom",
        )


def plot_steps(
    curves: Mapping[str, Sequence[Estimate]],
    path: Path,
    *,
    x: str = "evaluations",
    y: str,
    title: str = "",
) -> list[Path]:
    """Plot what holds after each evaluation as steps, with intervals as bands.

    curves: values after evaluation 1, 2 ... by name. Axes are logarithmic where the values span
    more than a factor of ten; a value of 0 then lies below the frame. path: without suffix.
    Returns the files written.
    """
    with house_style():
        figure = new_figure(COLUMN_INCHES, 2.6)
        axes = figure.add_subplot()
        for (name, points), line, color in zip(
            curves.items(), cycle(LINES), cycle(range(10)), strict=False
        ):
            at, values = _changes(points)
            value, low, high = values.T
            axes.plot(
                *(at, value),
                drawstyle="steps-post",
                linestyle=line,
                linewidth=1.3,
                color=f"C{color}",
                label=name,
            )
            axes.fill_between(
                *(at, low, high), step="post", color=f"C{color}", alpha=0.13, linewidth=0
            )
        count = max(map(len, curves.values()), default=1)
        _scale(axes, "x", [1, count])
        axes.set_xlim(1, max(count, 2))
        ends = {name: points[-1].value for name, points in curves.items() if points}
        every = [point.value for points in curves.values() for point in points]
        _scale(axes, "y", every)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_title(title, loc="left")
        direct = len(ends) <= MAX_DIRECT_CURVES and all(
            len(name) <= MAX_DIRECT_CHARACTERS for name in ends
        )
        if len(ends) > 1 and direct:
            _name_ends(axes, ends, height=2.6)
        elif len(ends) > 1:
            figure.set_figheight(2.6 + 0.15 * len(ends))
            figure.legend(loc="outside lower center", frameon=False, handlelength=3)
        return save_figure(figure, path)


def _changes(points: Sequence[Estimate]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where a curve changes, [m], and its values from there on, [m, 3]; also its end."""
    values = np.array([(p.value, p.low, p.high) for p in points], dtype=float).reshape(-1, 3)
    if not len(values):
        return np.empty(0), values
    kept = np.full(len(values), True)
    kept[1:-1] = (values[1:-1] != values[:-2]).any(axis=1)
    return np.flatnonzero(kept).astype(np.float64) + 1, values[kept]


def _scale(axes: Axes, name: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make an axis logarithmic where its values span more than a factor of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis = axes.xaxis if name == "x" else axes.yaxis
    positive = [value for value in values if value > 0]
    if not positive or max(positive) <= 10 * min(positive):
        _few_ticks(axis)
        return
    if name == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log", nonpositive="clip")
    decades = np.log10(max(positive) / min(positive))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades <= 2 else (1,)))
    axis.set_major_formatter("{x:g}")  # the default is a formula
    axis.set_minor_formatter(NullFormatter())


def _name_ends(axes: Axes, ends: Mapping[str, float], height: float) -> None:
    """Write each name beside the end of its curve, none over another."""
    low, high = axes.get_ylim()
    scale = axes.get_yscale()

    def along(value: float) -> float:
        if scale == "log":
            share = (np.log(max(value, low)) - np.log(low)) / (np.log(high) - np.log(low))
        else:
            share = (value - low) / (high - low)
        return float(np.clip(share, 0, 1))

    colors = {name: f"C{index % 10}" for index, name in enumerate(ends)}
    ordered = sorted(ends, key=lambda name: along(ends[name]))
    space = 0.13 / (0.75 * height)  # height of a line, as a share of the frame
    places = nearest(
        [along(ends[name]) for name in ordered],
        [1.0] * len(ordered),
        [space] * (len(ordered) - 1),
    )
    for name, at in zip(ordered, places, strict=True):
        axes.text(
            *(1.02, at, name),
            transform=axes.transAxes,
            fontsize=7,
            color=colors[name],
            va="center",
        )
