"""The last ranking of a run, as its files hold it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.metrics.bootstrap import Estimate
from nasrun.run.files import MAX_JSON_BYTES, read_bytes

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SecondScore:
    """Scores by ``rank.also``, [n] as plotted, and their tau-b with first scores and truth."""

    values: Values
    axis: str
    with_scores: Estimate
    with_truth: Estimate


@dataclass(frozen=True)
class Ranking:
    """The last ranking of a run, [n] each; params: in millions."""

    scores: Values
    truth: Values
    params: Values
    tau: Estimate
    confidence: float
    seed: int | None
    second: SecondScore | None


@dataclass(frozen=True)
class FoundBias:
    """The bias of the last ranking to a size, as ``ranking.json`` holds it; see ``SizeBias``.

    thirds: mean rank error of each tercile by size, in per cent. steps, losses: the share of the
    trained paths that a tercile got, and its training loss; None, or empty: not known.
    """

    kendall: Estimate
    unbiased: float | None
    thirds: tuple[float | None, ...]
    steps: tuple[float | None, ...]
    losses: tuple[float | None, ...]


def read_biases(found: Mapping[str, Any]) -> dict[str, FoundBias]:
    """Read the biases by the name of the size; found: content of ranking.json.

    Raises LookupError, TypeError, ValueError or AttributeError over damage.
    """
    return {
        name: FoundBias(
            Estimate.from_json(bias["kendall"]),
            _number(bias["unbiased"]),
            *(tuple(map(_number, bias.get(part) or ())) for part in ("thirds", "steps", "losses")),
        )
        for name, bias in found.get("size_bias", {}).items()
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def read_ranking(table: Path, found: Mapping[str, Any], seed: int | None) -> Ranking:
    """Read a ranking; table: ranking.csv. found: content of ranking.json. seed: of the run.

    Raises OSError, UserError, ValueError, LookupError, TypeError or AttributeError over damage.
    """
    text = read_bytes(table, MAX_JSON_BYTES).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    epoch = max(found["epochs"], key=float)
    report = found["epochs"][epoch]
    return Ranking(
        _column(rows, f"score_{epoch}"),
        _column(rows, "truth"),
        _column(rows, "params") / 1e6,
        Estimate.from_json(report["agreement"]["kendall"]),
        float(report["confidence"]),
        seed,
        _second_score(rows, found.get("also"), epoch),
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Values:
    """Read a column; raises ValueError if it is empty or a value is no finite number."""
    values = np.array([float(row[name]) for row in rows])
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(name)
    return values


def _second_score(
    rows: Sequence[Mapping[str, Any]], also: Mapping[str, Any] | None, epoch: str
) -> SecondScore | None:
    if also is None:
        return None
    values = _column(rows, f"also_{epoch}")
    if also["logarithm"]:
        values = np.log(np.maximum(values, np.finfo(float).tiny))
    agreement = also["epochs"][epoch]
    return SecondScore(
        values,
        str(also["axis"]),
        Estimate.from_json(agreement["with_scores"]),
        Estimate.from_json(agreement["with_truth"]),
    )
