"""Tests of a sweep's methods against a control, in pairs of the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasrun.metrics.paired import holm, sign_flip_p
from nasrun.report.figures import plot_spread
from nasrun.report.run_files import Job, job_files
from nasrun.run.layout import SWEEP_METHODS_PICTURE

MEASURES = {"true_accuracy": "true accuracy", "test_accuracy": "test accuracy"}
"""Metrics and their names; methods are compared by the first one that all jobs have."""

CONTROLS = ("search_algo=random", "sampler=uniform")
"""Overrides of the control, against which others are tested; otherwise the first method."""

MIN_SEEDS = 3
"""Seeds that a method must have in common with the control to be tested."""


@dataclass(frozen=True)
class Difference:
    """A method minus the control, in the unit of the measure.

    n: pairs. mean: over the pairs. low, high: its 95 % interval by Student's t.
    p: of a permutation test, Holm-corrected over all methods.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Methods:
    """The methods of a sweep.

    values: by method and seed. differences: of each method with enough pairs, without the control.
    """

    measure: str
    control: str
    values: dict[str, dict[int, float]]
    differences: dict[str, Difference]


def compare(combinations: Mapping[str, Sequence[Job]]) -> Methods | None:
    """Compare methods; None if no two have enough seeds in common."""
    jobs = [job for members in combinations.values() for job in members]
    measure = next((m for m in MEASURES if jobs and all(m in job.metrics for job in jobs)), None)
    if measure is None:
        return None
    values: dict[str, dict[int, float]] = {}
    for label, members in combinations.items():
        seeds = [(job_files(job.directory).seed, job.metrics[measure]) for job in members]
        values[label] = {seed: value for seed, value in seeds if seed is not None}
    control = next((label for word in CONTROLS for label in values if word in label.split()), None)
    control = next(iter(values)) if control is None else control
    pairs = {
        label: [(own[seed], values[control][seed]) for seed in own if seed in values[control]]
        for label, own in values.items()
        if label != control
    }
    found = {label: two for label, two in pairs.items() if len(two) >= MIN_SEEDS}
    if not found:
        return None
    # All methods and sweeps sample the same permutations, so equal files give equal numbers.
    p = [
        sign_flip_p(*zip(*two, strict=True), rng=np.random.default_rng(0)) for two in found.values()
    ]
    differences = {
        label: _difference(two, adjusted)
        for (label, two), adjusted in zip(found.items(), holm(p), strict=True)
    }
    return Methods(measure, control, values, differences)


def _difference(pairs: Sequence[tuple[float, float]], p: float) -> Difference:
    apart = np.array([own - control for own, control in pairs])
    mean = float(apart.mean())
    half = float(scipy.stats.t.ppf(0.975, len(apart) - 1) * scipy.stats.sem(apart))
    return Difference(len(apart), mean, mean - half, mean + half, p)


def show(methods: Methods, console: Console) -> None:
    """Show a table; it warns if there are too few seeds to show any difference."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in (f"against {escape(methods.control or '(all)')}", "n", "points", "95 %", "p"):
        table.add_column(title, no_wrap=True)
    for label, difference in methods.differences.items():
        interval = f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
        table.add_row(
            escape(label),
            str(difference.n),
            f"{100 * difference.mean:+.2f}",
            interval,
            f"{difference.p:.2g}",
        )
    console.print(table)
    few = min(difference.n for difference in methods.differences.values())
    words = (
        f"points of {MEASURES[methods.measure]}, paired by seed; p: permutation test, by Holm for "
        "all together"
    )
    if 2 / 2**few > 0.05:
        words += f" (over {few} seeds it cannot be below {2 / 2**few:.2g})"
    console.print(words, highlight=False, soft_wrap=True)


def plot(methods: Methods, directory: Path) -> list[Path]:
    """Plot methods.png and .svg: the values of every method."""
    names, key = short(list(methods.values))
    groups = {
        name: [100 * value for value in values.values()]
        for name, values in zip(names, methods.values.values(), strict=True)
        if values
    }
    x = f"{MEASURES[methods.measure]} (%)"
    return plot_spread(groups, directory / SWEEP_METHODS_PICTURE, x=x, y=key)


def short(labels: Sequence[str]) -> tuple[list[str], str]:
    """Shorten labels that all begin with the same ``word=``; returns them and the word."""
    keys = {label.partition("=")[0] for label in labels}
    if len(keys) == 1 and all(label.count("=") == 1 for label in labels):
        return [label.partition("=")[2] for label in labels], keys.pop()
    return [label or "(all)" for label in labels], ""
