"""Pictures of rankings: scatter plots, curves and spreads, as PNG and SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nasrun.metrics import Estimate
from nasrun.report.canvas import (
    COLUMN_INCHES,
    LINES,
    column_figure,
    house_style,
    new_figure,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX"
"""Markers of curves, in turn."""

MIN_BOX_VALUES = 8
"""Values in a group that gets a box; quartiles of fewer say less than the values."""

MIN_RASTER_POINTS = 2000
"""A picture with at least so many points is a bitmap; as vectors it would take megabytes."""


def plot_scatter(
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    size: npt.ArrayLike,
    path: Path,
    *,
    tau: Estimate,
    confidence: float = 0.95,
    title: str = "",
    x: str = "supernet accuracy",
    y: str = "true accuracy",
    size_label: str = "parameters (M)",
) -> list[Path]:
    """Plot scores against truth ([n] each), coloured by ``size`` ([n], in ``size_label``).

    path: without suffix; returns the files written. tau: for the title. If a few low
    values would squeeze all others into a corner, the frame ends above them and says how many.
    """
    a, b, c = (np.asarray(values, dtype=np.float64) for values in (scores, truth, size))
    with house_style():
        figure, axes = column_figure(2.9)
        order = np.argsort(c, kind="stable")[::-1]  # small architectures are fewer and come on top
        points = axes.scatter(
            a[order],
            b[order],
            c=c[order],
            s=float(np.clip(3000 / len(a), 1.5, 16)),
            cmap="viridis",
            linewidths=0,
            rasterized=len(a) > MIN_RASTER_POINTS,
        )
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _leave_out_the_worst(axes, a, b)
        bar = figure.colorbar(points, ax=axes, pad=0.02, aspect=30)
        bar.set_label(size_label)
        bar.outline.set_visible(False)
        axes.set_title(_wrapped(title, _tau_in_words(tau, len(a), confidence)), loc="left")
        return save_figure(figure, path)


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, Estimate]]],
    path: Path,
    *,
    x: str = "epoch",
    y: str = "Kendall's τ-b",
    title: str = "",
) -> list[Path]:
    """Plot a line for each name, its interval as a band; returns the files written.

    curves: points (x, estimate) for each name, e.g. of each sampler; path: without suffix.
    """
    from matplotlib.ticker import MaxNLocator

    with house_style():
        figure, axes = column_figure(2.4 + 0.15 * ((len(curves) + 1) // 2))
        for (name, points), line, marker, color in zip(
            curves.items(), cycle(LINES), cycle(MARKERS), cycle(range(10)), strict=False
        ):
            at = [place for place, _ in points]
            value, low, high = (
                np.array([astuple(e) for _, e in points], dtype=float).reshape(-1, 3).T
            )
            axes.plot(
                *(at, value),
                linestyle=line,
                marker=marker,
                markersize=3,
                linewidth=1.2,
                color=f"C{color}",
                label=name,
            )
            axes.fill_between(at, low, high, color=f"C{color}", alpha=0.13, linewidth=0)
            if len(points) == 1:  # a band without width
                axes.vlines(at, low, high, color=f"C{color}", linewidth=1.2)
        places = [place for points in curves.values() for place, _ in points]
        if all(place == round(place) for place in places):
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))  # there is no epoch 1.5
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_title(_wrapped(title), loc="left")
        if len(curves) > 1:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=3)
        return save_figure(figure, path)


@dataclass(frozen=True)
class Panel:
    """One of several scatter plots: points ``a``, ``b`` ([n] each) coloured by ``size`` ([n]).

    y: label of the vertical axis, if the panels differ in it.
    """

    title: str
    a: npt.ArrayLike
    b: npt.ArrayLike
    size: npt.ArrayLike
    tau: Estimate
    y: str = ""


def plot_panels(
    panels: Sequence[Panel],
    path: Path,
    *,
    x: str = "supernet accuracy",
    y: str = "",
    title: str = "",
    size_label: str = "parameters (M)",
) -> list[Path]:
    """Plot panels side by side, two or three in a row, with one colour scale for all.

    path: without suffix; returns the files written. Each panel shows its tau and interval.
    """
    columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    sizes = np.concatenate([np.asarray(panel.size, dtype=np.float64) for panel in panels])
    with house_style():
        figure = new_figure(2 * COLUMN_INCHES if columns > 1 else COLUMN_INCHES, 0.5 + 2.1 * rows)
        found = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in found[len(panels) :]:
            axes.remove()
        for panel, axes in zip(panels, found, strict=False):
            a, b = (np.asarray(values, dtype=np.float64) for values in (panel.a, panel.b))
            order = np.argsort(np.asarray(panel.size), kind="stable")[::-1]
            points = axes.scatter(
                a[order],
                b[order],
                c=np.asarray(panel.size, dtype=np.float64)[order],
                s=float(np.clip(2000 / len(a), 1.5, 14)),
                cmap="viridis",
                vmin=sizes.min(),
                vmax=sizes.max(),
                linewidths=0,
                rasterized=len(a) > MIN_RASTER_POINTS,
            )
            _leave_out_the_worst(axes, a, b)
            words = _tau_in_words(panel.tau, len(a), None)
            width = 36 if columns == 3 else 50
            axes.set_title(_wrapped(panel.title, words, width=width), loc="left", fontsize=7)
            axes.set_ylabel(panel.y)
        figure.supxlabel(x, fontsize=8)
        figure.supylabel(y, fontsize=8)
        figure.suptitle(title, fontsize=8)
        bar = figure.colorbar(points, ax=list(found[: len(panels)]), pad=0.02, aspect=30)
        bar.set_label(size_label)
        bar.outline.set_visible(False)
        return save_figure(figure, path)


def plot_spread(
    groups: Mapping[str, npt.ArrayLike],
    path: Path,
    *,
    x: str = "accuracy",
    y: str = "",
    apart: int = 0,
) -> list[Path]:
    """Plot the values of each group, their median, and their quartiles as a box.

    A group of few values has no box.

    groups: values [n] by name, from top to bottom; the last ``apart`` get another colour.
    y: label of the names. path: without suffix; returns the files written. Many values are
    plotted faintly.
    """
    from matplotlib.ticker import MaxNLocator

    with house_style():
        figure = new_figure(COLUMN_INCHES, 0.7 + 0.4 * len(groups))
        axes = figure.add_subplot()
        for place, values in enumerate(groups.values()):
            numbers = np.asarray(values, dtype=np.float64)
            color = "C1" if place >= len(groups) - apart else "C0"
            few = len(numbers) < MIN_BOX_VALUES
            # The golden ratio spreads neighbours without random numbers: equal inputs, equal bytes.
            at = place + (0 if few else 0.5) * ((np.arange(len(numbers)) * 0.618034) % 1 - 0.5)
            low, first, middle, third, high = np.quantile(numbers, np.linspace(0, 1, 5))
            axes.hlines(place, low, high, color="0.3", linewidth=0.6)
            if not few:
                axes.broken_barh(
                    *([(first, third - first)], (place - 0.3, 0.6)),
                    facecolor="none",
                    edgecolor="0.3",
                    linewidth=0.8,
                )
            axes.vlines(middle, place - 0.3, place + 0.3, color=color, linewidth=1.8)
            axes.plot(
                *(numbers, at),
                linestyle="",
                marker="o" if few else ".",
                markersize=5 if few else 3,
                markeredgewidth=0.6 if few else 0,
                markeredgecolor="white",
                color=color,
                alpha=1 if few else float(np.clip(60 / len(numbers), 0.05, 0.8)),
                rasterized=len(numbers) > MIN_RASTER_POINTS,
                zorder=3,
            )
        axes.set_yticks(range(len(groups)), [textwrap.fill(name, 24) for name in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.margins(x=0.08)
        # The layout must not change the number of ticks, or the last label may be cut off.
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return save_figure(figure, path)


def _tau_in_words(tau: Estimate, n: int, confidence: float | None) -> str:
    """Write tau-b, its interval and n. confidence: None if the picture shows it elsewhere."""
    level = "" if confidence is None else f"{confidence:.0%}: "
    interval = f" ({level}{tau.low:.3f} to {tau.high:.3f})"
    return f"τ-b {tau.value:.3f}{interval if np.isfinite(tau.low) else ''}, n = {n:,}"


def _wrapped(*lines: str, width: int = 52) -> str:
    return "\n".join(textwrap.fill(line, width) for line in lines if line)


def _leave_out_the_worst(
    axes: Axes, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> None:
    """End an axis above the lowest twentieth of the values if these take more than half of it."""
    shown = np.full(len(a), True)
    for values in (a, b):
        lowest, bulk, top = np.quantile(values, [0, 0.05, 1])
        if top - lowest > 2 * (top - bulk) > 0:
            shown &= values >= bulk
    if shown.all() or not shown.any():
        return
    inside = np.full(len(a), True)
    for values, set_limits in ((a, axes.set_xlim), (b, axes.set_ylim)):
        low, high = values[shown].min(), values[shown].max()
        margin = 0.05 * (high - low)
        set_limits(low - margin, high + margin)
        inside &= (values >= low - margin) & (values <= high + margin)
    words = f"{np.count_nonzero(~inside):,} lower ones\nnot shown"
    axes.text(
        *(0.98, 0.03, words),
        transform=axes.transAxes,
        ha="right",
        fontsize=7,
        color="0.35",
        bbox={"color": "white", "alpha": 0.7, "pad": 1},
    )
