"""The picture of a sweep of rankings: τ-b by epoch, a line for each combination of overrides."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from nasrun.metrics.bootstrap import Estimate

Points = list[tuple[float, Estimate]]


def tau_by_epoch(combinations: Mapping[str, Iterable[Path]]) -> dict[str, Points]:
    """For each combination the mean τ-b at each epoch over its run directories.

    The interval is ± one sample standard deviation over runs; of a single run, its own interval
    over architectures. Runs without a ranking are passed over.
    """
    found: dict[str, Points] = {}
    for name, directories in combinations.items():
        by_epoch: defaultdict[float, list[Estimate]] = defaultdict(list)
        for directory in directories:
            for epoch, estimate in _read(directory / "ranking.json"):
                by_epoch[epoch].append(estimate)
        if by_epoch:
            found[name or "all"] = [(e, _together(by_epoch[e])) for e in sorted(by_epoch)]
    return found


def draw(combinations: Mapping[str, Sequence[Path]], directory: Path) -> list[Path]:
    """tau_by_epoch.png and .svg in ``directory``, where any ranking has several epochs."""
    points = tau_by_epoch(combinations)
    if not any(len(line) > 1 for line in points.values()):
        return []
    from nasrun import figures  # matplotlib: not before it is needed

    most = max(len(directories) for directories in combinations.values())
    band = "mean ± s.d. over seeds" if most > 1 else "interval over architectures"
    return figures.curves(points, directory / "tau_by_epoch", title=band)


def _read(path: Path) -> Points:
    try:
        epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
        return [
            (float(epoch), Estimate.from_json(report["agreement"]["kendall"]))
            for epoch, report in epochs.items()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []  # the job has failed, or is no ranking


def _together(estimates: Sequence[Estimate]) -> Estimate:
    if len(estimates) == 1:
        return estimates[0]
    middle = mean(estimate.value for estimate in estimates)
    spread = stdev(estimate.value for estimate in estimates) if math.isfinite(middle) else math.nan
    return Estimate(middle, middle - spread, middle + spread)
