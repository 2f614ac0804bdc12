"""The only reader of run directories: typed, and tolerant of jobs that have failed."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.metrics.bootstrap import Estimate

NOT_METRICS = ("seed", "job")
"""Numbers of a result that are not measured."""

Points = list[tuple[float, Estimate]]
"""τ-b after so many epochs."""

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


def tau_of(directory: Path) -> Points:
    """The τ-b of a ranking by epoch; empty where there is none to be read."""
    path = directory / "ranking.json"
    try:
        epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
        return [
            (float(epoch), Estimate.from_json(report["agreement"]["kendall"]))
            for epoch, report in epochs.items()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []  # the job has failed, or is no ranking


@dataclass(frozen=True)
class Job:
    """One job of a sweep. error is None where it has ended well."""

    number: int
    directory: Path
    overrides: tuple[str, ...]
    metrics: dict[str, float]
    error: str | None
    mended_by_user: bool = False


def _listed(directory: Path, pattern: str = "*") -> list[Path]:
    try:
        return list(directory.glob(pattern))
    except (OSError, ValueError):  # a name that no directory can have
        return []


def read_jobs(directory: Path) -> list[Job]:
    """The jobs of a sweep by what they have left in their directories, in order."""
    folders = [path for path in _listed(directory) if path.is_dir() and path.name.isdecimal()]
    return [_read_job(folder) for folder in sorted(folders, key=lambda path: int(path.name))]


def _read_job(folder: Path) -> Job:
    result, run = _object(folder / "result.json"), _object(folder / "run.json")
    overrides = result.get("overrides") or run.get("overrides") or []
    error = None
    if not result:
        error = "it has left no result.json"
    elif result.get("status") == "failed":
        error = str(result.get("error"))
    metrics = {
        key: float(value)
        for key, value in result.items()
        if type(value) in (int, float) and math.isfinite(value) and key not in NOT_METRICS
    }
    return Job(
        int(folder.name),
        folder,
        tuple(str(override) for override in overrides),
        {} if error else metrics,
        error,
        result.get("kind") == "user",
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
