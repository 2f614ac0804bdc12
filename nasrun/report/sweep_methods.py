"""Tests of a sweep's methods against a control, in pairs of the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean

import numpy as np
import scipy
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasrun.metrics.paired import holm, sign_flip_p
from nasrun.metrics.power import LEVEL, POWER, pairs_needed
from nasrun.report.figures import plot_spread
from nasrun.report.run_files import Job, job_files
from nasrun.report.sweep import NO_WORDS
from nasrun.run.layout import SWEEP_METHODS_PICTURE


@dataclass(frozen=True)
class Measure:
    """A metric of results. name: on the screen. factor: from the metric to the unit shown."""

    name: str
    unit: str
    factor: float
    digits: int


ACCURACIES = {
    "true_accuracy": Measure("true accuracy", "points", 100, 2),
    "test_accuracy": Measure("test accuracy", "points", 100, 2),
}
"""Methods that find a network are compared by the first of these that all jobs have."""

RANKINGS = {
    "kendall": Measure("τ-b", "difference", 1, 3),
    "partial_macs": Measure("τ given multiply-adds", "difference", 1, 3),
    "partial_params": Measure("τ given parameters", "difference", 1, 3),
    "within_macs": Measure("τ-b within thirds by multiply-adds", "difference", 1, 3),
    "size_bias_macs": Measure("bias: τ-b of rank error and multiply-adds", "difference", 1, 3),
}
"""Supernets that rank are compared by each of these that all jobs have."""

MEASURES = ACCURACIES | RANKINGS

CONTROLS = ("search_algo=random", "sampler=uniform")
"""Overrides of the control, against which others are tested; otherwise the first method."""

COST_TOLERANCE = 0.05
"""Share by which the costs of methods may differ without a word."""

MIN_SEEDS = 3
"""Seeds that a method must have in common with the control to be tested."""


MAX_SHOWN = 60
"""Methods in a picture, and differences on the screen; more are in the report."""


@dataclass(frozen=True)
class Difference:
    """A method minus the control, in the unit of the measure.

    n: pairs. mean: over the pairs. low, high: its 95 % interval by Student's t.
    p: of a permutation test, Holm-corrected over all methods.
    pairs_needed: pairs that would show such a difference with a chance of 80 %, if its mean and
    deviation are as seen; None: no difference, or too many.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float
    pairs_needed: int | None


@dataclass(frozen=True)
class Methods:
    """The methods of a sweep.

    values: by method and seed. differences: of each method with enough pairs, without the control.
    unequal: a line for each kind of cost in which the methods differ.
    """

    measure: str
    control: str
    values: dict[str, dict[int, float]]
    differences: dict[str, Difference]
    unequal: tuple[str, ...] = ()


def compare_all(combinations: Mapping[str, Sequence[Job]]) -> list[Methods]:
    """Compare methods by each measure that suits; empty if no two have enough seeds in common."""
    jobs = [job for members in combinations.values() for job in members]
    shared = [m for m in MEASURES if jobs and all(m in job.metrics for job in jobs)]
    accuracies = [measure for measure in shared if measure in ACCURACIES]
    chosen = accuracies[:1] or [measure for measure in shared if measure in RANKINGS]
    return [
        methods for measure in chosen if (methods := compare(combinations, measure)) is not None
    ]


def compare(combinations: Mapping[str, Sequence[Job]], measure: str) -> Methods | None:
    """Compare methods by one measure; None if no two have enough seeds in common."""
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
    return Methods(measure, control, values, differences, unequal_costs(combinations))


def unequal_costs(combinations: Mapping[str, Sequence[Job]]) -> tuple[str, ...]:
    """Say in which costs methods differ by more than ``COST_TOLERANCE``, the least to the most.

    A cost that is unknown of any job is left out. The training of the winner stands apart: it is
    long, and would hide that one search costs twice as much as another.
    """
    lines = []
    for words, cost in COSTS.items():
        costs = {
            label or NO_WORDS: [cost(job.metrics) for job in members]
            for label, members in combinations.items()
            if members
        }
        if any(value is None for found in costs.values() for value in found):
            continue
        means = {
            label: sum(value for value in found if value is not None) / len(found)
            for label, found in costs.items()
        }
        least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        low, high = means[least], means[most]
        if high > low * (1 + COST_TOLERANCE):
            times = f", {high / low:,.3g} times as many" if low else ""
            lines.append(f"{words}: {low:,.0f} ({least}) to {high:,.0f} ({most}){times}")
    return tuple(lines)


def _images_of_search(metrics: Mapping[str, float]) -> float | None:
    images, last = metrics.get("spent_images"), metrics.get("spent_retraining_images")
    return None if images is None or last is None else images - last


COSTS: dict[str, Callable[[Mapping[str, float]], float | None]] = {
    "architectures scored": lambda metrics: metrics.get("spent_evaluations"),
    "images trained on before the winner's training": _images_of_search,
    "images of the winner's training": lambda metrics: metrics.get("spent_retraining_images"),
}
"""Costs in which methods that are compared should be equal."""


def _difference(pairs: Sequence[tuple[float, float]], p: float) -> Difference:
    apart = np.array([own - control for own, control in pairs])
    mean = float(apart.mean())
    half = float(scipy.stats.t.ppf(0.975, len(apart) - 1) * scipy.stats.sem(apart))
    needed = pairs_needed(mean, float(apart.std(ddof=1)))
    return Difference(len(apart), mean, mean - half, mean + half, p, needed)


def show(methods: Methods, console: Console) -> None:
    """Show a table; it says how many seeds it takes to show such differences."""
    measure = MEASURES[methods.measure]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    control = escape(methods.control or NO_WORDS)
    for title in (f"against {control}", "n", measure.unit, "95 %", "p", "n needed"):
        table.add_column(title, no_wrap=True)

    def shown(value: float) -> str:
        return f"{measure.factor * value:+.{measure.digits}f}"

    for label, difference in islice(methods.differences.items(), MAX_SHOWN):
        needed = difference.pairs_needed
        table.add_row(
            escape(label),
            str(difference.n),
            shown(difference.mean),
            f"{shown(difference.low)} to {shown(difference.high)}",
            f"{difference.p:.2g}",
            "-" if needed is None else str(needed),
        )
    console.print(table)
    if (left := len(methods.differences) - MAX_SHOWN) > 0:
        console.print(f"{left:,} more are in the report", highlight=False)
    few = min(difference.n for difference in methods.differences.values())
    what = f"{measure.unit} of {measure.name}" if measure.factor == 100 else measure.name
    words = f"{what}, paired by seed; p: permutation test, by Holm for all together"
    if 2 / 2**few > LEVEL:
        words += f" (over {few} seeds it cannot be below {2 / 2**few:.2g})"
    words += (
        f"; n needed: seeds that show a difference of this mean and deviation in {POWER:.0%} of "
        "such sweeps"
    )
    console.print(words, highlight=False, soft_wrap=True)
    if methods.unequal:
        console.print(
            f"UNEQUAL COST (over {COST_TOLERANCE:.0%} apart): the differences above are not at "
            "equal effort",
            style="bold red",
            soft_wrap=True,
        )
    for line in methods.unequal:
        console.print(f"  {line}", style="bold red", markup=False, soft_wrap=True)


def plot(methods: Methods, directory: Path) -> list[Path]:
    """Plot methods.png and .svg: the values of every method; of many those of the best means.

    The control is always among them.
    """
    measure = MEASURES[methods.measure]
    names, key = short(list(methods.values))
    best = sorted(
        (label for label, values in methods.values.items() if values),
        key=lambda label: (label != methods.control, -fmean(methods.values[label].values())),
    )[:MAX_SHOWN]
    groups = {
        name: [measure.factor * value for value in values.values()]
        for name, (label, values) in zip(names, methods.values.items(), strict=True)
        if label in best
    }
    x = f"{measure.name} (%)" if measure.factor == 100 else measure.name
    return plot_spread(groups, directory / SWEEP_METHODS_PICTURE, x=x, y=key)


def short(labels: Sequence[str]) -> tuple[list[str], str]:
    """Shorten labels that all begin with the same ``word=``; returns them and the word."""
    keys = {label.partition("=")[0] for label in labels}
    if len(keys) == 1 and all(label.count("=") == 1 for label in labels):
        return [label.partition("=")[2] for label in labels], keys.pop()
    return [label or NO_WORDS for label in labels], ""
