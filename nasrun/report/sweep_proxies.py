"""The proxies of a sweep of rankings: how truly each ranks, against the time that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console

from nasrun.metrics.bootstrap import Estimate
from nasrun.report.canvas import COLUMN_INCHES, house_style, new_figure, save_figure
from nasrun.report.figures import MARKERS
from nasrun.report.run_files import job_files
from nasrun.report.sweep import NO_WORDS
from nasrun.report.sweep_rankings import together
from nasrun.run.layout import SWEEP_PROXIES_PICTURE

SIZES = {"params_alone": "parameters alone", "macs_alone": "multiply-adds alone"}
"""Rankings by size, which a supernet must beat."""

MAX_PLOTTED = 70
"""Proxies in the picture, the best of more: seven markers and ten colours tell so many apart."""


@dataclass(frozen=True)
class Proxy:
    """One combination of overrides. seconds: of training and scoring, mean over seeds.

    tau: Kendall's tau-b; its interval as in ``sweep_rankings.together``.
    """

    name: str
    seconds: float
    tau: Estimate


@dataclass(frozen=True)
class Proxies:
    """The proxies of a sweep, in the order of their time.

    size: what the better ranking by size ranks by, and its tau-b; ceiling: tau-b of one training
    seed of the truth against another; None: unknown. Both are means over all runs.
    unit: of the seconds.
    """

    proxies: Sequence[Proxy]
    size: tuple[str, Estimate] | None
    ceiling: Estimate | None
    unit: str

    @property
    def front(self) -> list[Proxy]:
        """The proxies that rank more truly than all that take less time."""
        best: list[Proxy] = []
        for proxy in self.proxies:
            if not best or proxy.tau.value > best[-1].tau.value:
                best.append(proxy)
        return best


def compare(combinations: Mapping[str, Sequence[Path]]) -> Proxies | None:
    """Read the proxies of a sweep; None if fewer than two have a ranking with its time.

    combinations: run directories by overrides.
    """
    names = short(list(combinations))
    proxies, measured, devices = [], [], set()
    for name, directories in zip(names, combinations.values(), strict=True):
        taus, seconds = [], []
        for run in map(job_files, directories):
            measures, took = run.measures, run.result.get("ranking_seconds")
            tau = measures.get("kendall")
            if tau is None or not math.isfinite(tau.value) or not isinstance(took, int | float):
                continue
            if not 0 < took < math.inf:
                continue
            taus.append(tau)
            seconds.append(float(took))
            measured.append(measures)
            devices.add("core" if run.device.startswith("CPU") else "GPU")
        if taus:
            proxies.append(Proxy(name, fmean(seconds), together(taus)))
    if len(proxies) < 2:
        return None
    sizes = {words: mean_of(measured, key) for key, words in SIZES.items()}
    known = [(words, tau) for words, tau in sizes.items() if tau is not None]
    return Proxies(
        sorted(proxies, key=lambda proxy: (proxy.seconds, -proxy.tau.value)),
        max(known, key=lambda size: size[1].value, default=None),
        mean_of(measured, "ceiling_kendall"),
        f"{' or '.join(sorted(devices))} seconds",
    )


def mean_of(measured: Sequence[Mapping[str, Estimate]], name: str) -> Estimate | None:
    """Average a measure, and the ends of its interval, over the runs that have it."""
    found = [measures[name] for measures in measured if name in measures]
    found = [estimate for estimate in found if math.isfinite(estimate.value)]
    if not found:
        return None
    return Estimate(
        fmean(estimate.value for estimate in found),
        fmean(estimate.low for estimate in found),
        fmean(estimate.high for estimate in found),
    )


def short(labels: Sequence[str]) -> list[str]:
    """Leave of each setting its last word, if the labels still differ."""
    shortened = [
        " ".join(
            key.rpartition(".")[2] + equals + value
            for key, equals, value in (word.partition("=") for word in label.split())
        )
        for label in labels
    ]
    chosen = shortened if len(set(shortened)) == len(labels) else labels
    return [label or NO_WORDS for label in chosen]


def show(proxies: Proxies, console: Console) -> None:
    """Say which proxies rank best for their time, and what they must beat."""
    for proxy in proxies.front:
        line = f"best for its time: τ-b {proxy.tau.value:.3f} in {proxy.seconds:,.0f}"
        words = f"{line} {proxies.unit}, {proxy.name}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    if proxies.size is not None:
        words, tau = proxies.size
        line = f"to beat without training: τ-b {tau.value:.3f} of {words}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def plot(proxies: Proxies, directory: Path) -> list[Path]:
    """Plot proxies.png and .svg: tau-b against time, size alone, ceiling, and the front."""
    from matplotlib.ticker import LogLocator, NullFormatter

    best = sorted(proxies.proxies, key=lambda proxy: -proxy.tau.value)[:MAX_PLOTTED]
    shown = [proxy for proxy in proxies.proxies if proxy in best]
    with house_style():
        lines = 2 + (len(shown) + 1) // 2
        figure = new_figure(COLUMN_INCHES, 2.4 + 0.15 * lines)
        axes = figure.add_subplot()
        if proxies.size is not None:
            words, tau = proxies.size
            axes.axhspan(tau.low, tau.high, color="0.5", alpha=0.15, linewidth=0)
            axes.axhline(tau.value, color="0.4", linewidth=1, linestyle="--", label=words)
        if proxies.ceiling is not None:
            axes.axhline(
                proxies.ceiling.value, color="0.4", linewidth=1, linestyle=":", label="ceiling"
            )
        front = proxies.front
        axes.plot(
            [proxy.seconds for proxy in front],
            [proxy.tau.value for proxy in front],
            color="0.6",
            linewidth=0.8,
            drawstyle="steps-post",
            label="best for its time",
        )
        for proxy, marker, color in zip(shown, cycle(MARKERS), cycle(range(10)), strict=False):
            tau = proxy.tau
            if np.isfinite([tau.low, tau.high]).all():
                axes.vlines(proxy.seconds, tau.low, tau.high, color=f"C{color}", linewidth=1)
            axes.plot(
                *([proxy.seconds], [tau.value]),
                linestyle="",
                marker=marker,
                markersize=4,
                color=f"C{color}",
                label=proxy.name,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")  # the default is a formula
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{proxies.unit} of training and scoring")
        axes.set_ylabel("Kendall's τ-b")
        axes.set_title("which proxy ranks best per minute", loc="left")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=2)
        return save_figure(figure, directory / SWEEP_PROXIES_PICTURE)
