"""The pictures of a sweep of rankings: scores against truth, their spread, τ-b by epoch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from nasrun.metrics.bootstrap import Estimate
from nasrun.report.figures import Panel, plot_curves, plot_panels, plot_spread
from nasrun.report.run_files import Points, job_files
from nasrun.report.run_ranking import Ranking, Values
from nasrun.run.layout import (
    SWEEP_RANKINGS_PICTURE,
    SWEEP_SECOND_PICTURES,
    SWEEP_SPREAD_PICTURE,
    TAU_PICTURE,
)

MAX_PANELS = 9
"""Upper bound of the panels in a picture; more would be too small to read."""


def chosen(
    combinations: Mapping[str, Sequence[Path]], most: int = MAX_PANELS
) -> tuple[dict[str, Ranking], int]:
    """Choose at most ``most`` rankings, by name, in order; also returns the number of all.

    combinations: run directories by overrides. Each combination gives its first run before any
    gives its second.
    """
    found = [
        (label, turn, ranking)
        for label, directories in combinations.items()
        for turn, ranking in enumerate(
            filter(None, (job_files(directory).ranking for directory in directories))
        )
    ]
    kept = sorted(range(len(found)), key=lambda index: (found[index][1], index))[:most]
    several = {label for label, turn, _ in found if turn}
    named: dict[str, Ranking] = {}
    for index in sorted(kept):
        label, turn, ranking = found[index]
        which = f"seed={ranking.seed if ranking.seed is not None else turn}"
        words = [label] if label else []
        name = " ".join([*words, which] if label in several else words) or "all"
        named[name if name not in named else f"{name} ({index})"] = ranking
    return named, len(found)


def plot(combinations: Mapping[str, Sequence[Path]], directory: Path) -> list[Path]:
    """Plot the rankings of a sweep if it has at least two; returns the files written.

    Pictures: rankings, spread, and if there are second scores also_scores and also_truth, each as
    .png and .svg in ``directory``.
    """
    found, count = chosen(combinations)
    if len(found) < 2:
        return []
    confidence = next(iter(found.values())).confidence
    title = f"τ-b with {100 * confidence:g} % intervals over architectures"
    if len(found) < count:
        title += f"; {len(found)} of {count} jobs"
    panels = [
        Panel(name, ranking.scores, ranking.truth, ranking.params, ranking.tau)
        for name, ranking in found.items()
    ]
    files = plot_panels(panels, directory / SWEEP_RANKINGS_PICTURE, y="true accuracy", title=title)
    truths = distinct(found)
    groups = {name: ranking.scores for name, ranking in found.items()} | truths
    files += plot_spread(
        groups, directory / SWEEP_SPREAD_PICTURE, x="supernet and true accuracy", apart=len(truths)
    )
    seconds = [
        (name, ranking, ranking.second)
        for name, ranking in found.items()
        if ranking.second is not None
    ]
    if seconds:
        axes = {also.axis for _, _, also in seconds}
        x = axes.pop() if len(axes) == 1 else "score by rank.also"
        by_score = [
            Panel(name, also.values, ranking.scores, ranking.params, also.with_scores)
            for name, ranking, also in seconds
        ]
        by_truth = [
            Panel(name, also.values, ranking.truth, ranking.params, also.with_truth)
            for name, ranking, also in seconds
        ]
        both = ((by_score, "supernet accuracy"), (by_truth, "true accuracy"))
        for name, (panels, y) in zip(SWEEP_SECOND_PICTURES, both, strict=True):
            files += plot_panels(panels, directory / name, x=x, y=y, title=title)
    return files


def distinct(found: Mapping[str, Ranking]) -> dict[str, Values]:
    """Find the distinct truths, by name; jobs often share a truth."""
    truths: dict[bytes, tuple[str, Values]] = {}
    for name, ranking in found.items():
        truths.setdefault(np.sort(ranking.truth).tobytes(), (name, ranking.truth))
    alone = len(truths) == 1
    return {"truth" if alone else f"truth, {name}": truth for name, truth in truths.values()}


def without_length(name: str) -> str:
    """Leave ``trainer.epochs=N`` out of the overrides of a combination."""
    return " ".join(word for word in name.split() if not word.startswith("trainer.epochs="))


def tau_by_epoch(combinations: Mapping[str, Iterable[Path]]) -> dict[str, Points]:
    """Average τ-b at each epoch over the run directories of each combination.

    Combinations that differ in ``trainer.epochs`` alone are one line, of which each point is the
    end of a training of its own; looks into these trainings are left out. The interval is ± one
    sample standard deviation over runs; for a single run its own interval
    over architectures. Runs without a ranking are skipped.
    """
    found: dict[str, Points] = {}
    by_name: dict[str, defaultdict[float, list[Estimate]]] = {}
    for name, directories in combinations.items():
        line = without_length(name)
        by_epoch = by_name.setdefault(line, defaultdict(list))
        for directory in directories:
            points = job_files(directory).agreement("kendall")
            for epoch, estimate in points if line == name else points[-1:]:
                by_epoch[epoch].append(estimate)
    for name, by_epoch in by_name.items():
        if by_epoch:
            found[name or "all"] = [(e, together(by_epoch[e])) for e in sorted(by_epoch)]
    return found


def plot_tau(combinations: Mapping[str, Sequence[Path]], directory: Path) -> list[Path]:
    """Plot tau_by_epoch.png and .svg in ``directory``, if any line has several epochs."""
    points = tau_by_epoch(combinations)
    if not any(len(line) > 1 for line in points.values()):
        return []
    most = max(len(directories) for directories in combinations.values())
    band = "mean ± s.d. over seeds" if most > 1 else "interval over architectures"
    return plot_curves(points, directory / TAU_PICTURE, title=band)


def together(estimates: Sequence[Estimate]) -> Estimate:
    """Average over runs, ± one sample standard deviation; a single run keeps its interval."""
    if len(estimates) == 1:
        return estimates[0]
    middle = mean(estimate.value for estimate in estimates)
    spread = stdev(estimate.value for estimate in estimates) if math.isfinite(middle) else math.nan
    return Estimate(middle, middle - spread, middle + spread)
