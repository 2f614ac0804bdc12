"""The pictures of a sweep of rankings: scores against truth, job by job, and the spread of both."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.metrics.bootstrap import Estimate

MOST = 9
"""Panels of a picture, so that they can still be read."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Second:
    """The scores by ``rank.also`` ([n], as they are drawn) and their tau-b with both others."""

    values: Values
    axis: str
    with_scores: Estimate
    with_truth: Estimate


@dataclass(frozen=True)
class Ranking:
    """What a job has measured at its end, [n] each. params: in millions."""

    scores: Values
    truth: Values
    params: Values
    tau: Estimate
    confidence: float
    seed: int | None
    second: Second | None

    @staticmethod
    def read(directory: Path) -> Ranking | None:
        """None where ``directory`` holds no ranking, or none that can be read."""
        try:
            with (directory / "ranking.csv").open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            found = json.loads((directory / "ranking.json").read_text(encoding="utf-8"))
            epoch = max(found["epochs"], key=float)
            report = found["epochs"][epoch]
            return Ranking(
                column(rows, f"score_{epoch}"),
                column(rows, "truth"),
                column(rows, "params") / 1e6,
                Estimate.from_json(report["agreement"]["kendall"]),
                float(report["confidence"]),
                seed_of(directory),
                second(rows, found.get("also"), epoch),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None  # the job has failed, or is no ranking


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Values:
    """Raises ValueError where it is empty or holds what is no finite number."""
    values = np.array([float(row[name]) for row in rows])
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(name)
    return values


def second(
    rows: Sequence[Mapping[str, Any]], also: Mapping[str, Any] | None, epoch: str
) -> Second | None:
    if also is None:
        return None
    values = column(rows, f"also_{epoch}")
    if also["logarithm"]:
        values = np.log(np.maximum(values, np.finfo(float).tiny))
    agreement = also["epochs"][epoch]
    return Second(
        values,
        str(also["axis"]),
        Estimate.from_json(agreement["with_scores"]),
        Estimate.from_json(agreement["with_truth"]),
    )


def seed_of(directory: Path) -> int | None:
    seed = json.loads((directory / "run.json").read_text(encoding="utf-8")).get("seed")
    return seed if isinstance(seed, int) else None


def chosen(
    combinations: Mapping[str, Sequence[Path]], most: int = MOST
) -> tuple[dict[str, Ranking], int]:
    """At most ``most`` rankings by name, in order, and how many there are in all.

    combinations: run directories by overrides. Each combination gives its first run before any
    gives its second.
    """
    found = [
        (label, turn, ranking)
        for label, directories in combinations.items()
        for turn, ranking in enumerate(filter(None, map(Ranking.read, directories)))
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


def draw(combinations: Mapping[str, Sequence[Path]], directory: Path) -> list[Path]:
    """rankings, spread, and where there are second scores also_scores and also_truth: .png and
    .svg in ``directory``, if at least two jobs are rankings; the files written."""
    found, count = chosen(combinations)
    if len(found) < 2:
        return []
    from nasrun import figures  # matplotlib: not before it is needed

    confidence = next(iter(found.values())).confidence
    title = f"τ-b with {100 * confidence:g} % intervals over architectures"
    if len(found) < count:
        title += f"; {len(found)} of {count} jobs"
    panels = [
        figures.Panel(name, one.scores, one.truth, one.params, one.tau)
        for name, one in found.items()
    ]
    files = figures.panels(panels, directory / "rankings", y="true accuracy", title=title)
    truths = distinct(found)
    groups = {name: one.scores for name, one in found.items()} | truths
    files += figures.spread(
        groups, directory / "spread", x="supernet and true accuracy", apart=len(truths)
    )
    seconds = [(name, one, one.second) for name, one in found.items() if one.second is not None]
    if seconds:
        axes = {also.axis for _, _, also in seconds}
        x = axes.pop() if len(axes) == 1 else "score by rank.also"
        by_score = [
            figures.Panel(name, also.values, one.scores, one.params, also.with_scores)
            for name, one, also in seconds
        ]
        by_truth = [
            figures.Panel(name, also.values, one.truth, one.params, also.with_truth)
            for name, one, also in seconds
        ]
        for panels, name, y in (
            (by_score, "also_scores", "supernet accuracy"),
            (by_truth, "also_truth", "true accuracy"),
        ):
            files += figures.panels(panels, directory / name, x=x, y=y, title=title)
    return files


def distinct(found: Mapping[str, Ranking]) -> dict[str, Values]:
    """The truths that differ, by name; jobs often share one."""
    truths: dict[bytes, tuple[str, Values]] = {}
    for name, one in found.items():
        truths.setdefault(np.sort(one.truth).tobytes(), (name, one.truth))
    alone = len(truths) == 1
    return {"truth" if alone else f"truth, {name}": truth for name, truth in truths.values()}
