"""A comparison as one table on the screen and one picture."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from nasrun import figures
from nasrun.metrics import Estimate
from nasrun.run.run import Run
from nasrun.task.compare_report import Comparison

POINTS = 24
"""Of each curve in the picture."""


def draw(run: Run, comparison: Comparison) -> None:
    """compare.png and .svg: mean regret against evaluations, with intervals."""
    at = np.unique(np.geomspace(1, comparison.evaluations, POINTS).round().astype(int)).tolist()
    figures.curves(
        {
            name: [(place, in_points(one.curve[place - 1])) for place in at]
            for name, one in comparison.standings.items()
        },
        run.directory / "compare",
        x="evaluations",
        y="regret (percentage points)",
        logarithmic=True,
    )


def in_points(estimate: Estimate) -> Estimate:
    return Estimate(100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def say(run: Run, comparison: Comparison) -> None:
    """Who missed how much, and which differences are none of chance."""
    best = "the best there is" if comparison.of_all else "the best that any search found"
    seeds = len(comparison.standings[comparison.control].searches)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=(
            f"{comparison.evaluations:,} evaluations each, {seeds:,} seeds; regret: percentage "
            f"points below {best}, {100 * comparison.best:.2f} %"
        ),
        title_justify="left",
    )
    interval = f"regret ({100 * comparison.confidence:g} % interval)"
    for title in ("", interval, "median", "wins", "p"):
        table.add_column(title, no_wrap=True)
    for name, one in comparison.standings.items():
        end, count = in_points(one.curve[-1]), len(one.searches)
        table.add_row(
            escape(name) + (f", {count:,} seeds" if count < seeds else ""),
            f"{end.value:.3f} ({end.low:.3f} to {end.high:.3f})",
            f"{100 * np.median(one.final):.3f}",
            "" if one.wins is None else f"{100 * one.wins:.0f} %",
            "" if one.p is None else f"{one.p:.2g}",
        )
    run.say()
    run.screen.console.print(table)
    if len(comparison.standings) > 1:
        run.say(
            f"wins: seeds that end below {comparison.control}, ties half; p: permutation test of "
            "the mean difference, paired by seed, Holm's correction"
        )
    for name, one in comparison.standings.items():
        if one.fewest < comparison.evaluations:
            run.say(
                f"{name} ended after {one.fewest:,} evaluations in at least one search: nothing "
                "new was left to it, or its own settings want no more",
                "yellow",
            )
    run.say(f"everything is in     {run.directory} (compare.png, compare.csv, searches.csv)")
