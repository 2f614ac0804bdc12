"""Pictures of a classifier's answers: which classes are confused, and its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nasrun.metrics.classification import Calibration, Ints
from nasrun.report.canvas import COLUMN_INCHES, house_style, new_figure, save_figure
from nasrun.run.files import printable

MAX_NUMBERED = 20
"""Classes up to which each field of the picture shows its number."""

MAX_NAMED = 60
"""Classes up to which the axes name them."""

NAME_CHARACTERS = 18
"""Length of a class's name at an axis."""


def plot_confusion(confusion: Ints, classes: Sequence[str], path: Path) -> list[Path]:
    """Plot the share of each class's images by predicted class; a row adds up to 100 %.

    confusion: images by class (row) and predicted class, [K, K]. path: without suffix.
    Returns the files written.
    """
    count = len(classes)
    totals = confusion.sum(1, keepdims=True)
    shares = 100 * confusion / np.maximum(totals, 1)
    side = COLUMN_INCHES * min(max(0.9, 0.55 + count / 22), 2.6)
    with house_style():
        figure = new_figure(side + 0.5, side)
        axes = figure.add_subplot()
        axes.grid(visible=False)
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        if count <= MAX_NAMED:
            names = [_short(name) for name in classes]
            small = 7 if count <= MAX_NUMBERED else 4.5
            axes.set_xticks(range(count), names, rotation=90, fontsize=small)
            axes.set_yticks(range(count), names, fontsize=small)
        if count <= MAX_NUMBERED:
            for row, column in zip(*np.nonzero(confusion), strict=True):
                colour = "white" if shares[row, column] > 55 else "0.15"
                shown = f"{shares[row, column]:.0f}"
                style = {"ha": "center", "va": "center", "color": colour, "fontsize": 6}
                axes.text(column, row, shown, **style)  # type: ignore[arg-type]
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        bar = figure.colorbar(picture, ax=axes, pad=0.02, aspect=30, shrink=0.9)
        bar.set_label("share of the true class (%)")
        bar.outline.set_visible(False)
        return save_figure(figure, path)


def plot_calibration(calibration: Calibration, path: Path) -> list[Path]:
    """Plot accuracy against confidence by bin, over the images of each bin.

    path: without suffix; returns the files written.
    """
    bins = len(calibration.counts)
    edges = np.linspace(0, 100, bins + 1)
    some = calibration.counts > 0
    with house_style():
        figure = new_figure(COLUMN_INCHES, 3.3)
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        upper.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, linestyle="--")
        upper.plot(
            100 * calibration.confidence[some],
            100 * calibration.accuracy[some],
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            color="C0",
        )
        upper.set_ylabel("accuracy (%)")
        upper.set_ylim(0, 102)
        upper.set_xlim(0, 100)
        upper.set_title(
            f"expected calibration error {100 * calibration.error:.2f} % ({bins} bins)", loc="left"
        )
        shares = 100 * calibration.counts / calibration.counts.sum()
        lower.bar(edges[:-1], shares, width=100 / bins, align="edge", color="C0", alpha=0.6)
        lower.set_ylabel("images (%)")
        lower.set_xlabel("confidence: probability of the predicted class (%)")
        return save_figure(figure, path)


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= NAME_CHARACTERS else f"{shown[: NAME_CHARACTERS - 1]}…"
