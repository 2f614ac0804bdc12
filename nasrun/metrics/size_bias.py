"""Measures of a bias to size: whether scores rank small architectures too high or too low.

Ranks count from the worst up, so that a rank error above 0 is an architecture that is overrated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from nasrun.metrics.bootstrap import Estimate, bootstrap
from nasrun.metrics.ranking import kendall
from nasrun.metrics.size import partial_spearman, size_groups

CONTROLS = 100
"""Simulated scorers without a bias."""


@dataclass(frozen=True)
class SizeBias:
    """How the errors of a ranking go with size.

    kendall: tau-b of rank error and size; below 0 small architectures are overrated. unbiased: its
    mean over simulated scorers that are as noisy but know nothing of size; it is not 0 where truth
    goes with size, as noise moves the ranks of the best down and of the worst up. given_truth:
    Spearman's partial correlation of score and size given the truth. slope: rank error, in per cent
    of all ranks, for each doubling of the size. thirds: mean rank error of each tercile by size, in
    per cent; nan for an empty one.
    """

    kendall: Estimate
    unbiased: float
    given_truth: Estimate
    slope: Estimate
    thirds: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """{NAME: {"value", "low", "high"}}, "unbiased", and "thirds" from small to large."""
        return {
            **{name: getattr(self, name).to_json() for name in ("kendall", "given_truth", "slope")},
            "unbiased": None if math.isnan(self.unbiased) else self.unbiased,
            "thirds": [None if math.isnan(value) else value for value in self.thirds],
        }


def rank_errors(scores: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Rank by score minus true rank [n], in per cent of all ranks; equal values share a rank."""
    ranked, true = scipy.stats.rankdata(scores), scipy.stats.rankdata(truth)
    return np.asarray(100 * (ranked - true) / len(ranked))


def slope_per_doubling(errors: npt.NDArray[np.float64], size: npt.NDArray[np.float64]) -> float:
    """Least-squares slope of the errors [n] for each doubling of the size; nan if all are equal."""
    x = np.log2(size)
    x = x - x.mean()
    spread = float(x @ x)
    return float(x @ errors) / spread if spread > 1e-12 else math.nan


def unbiased_kendall(
    scores: npt.ArrayLike, truth: npt.ArrayLike, size: npt.ArrayLike, rng: np.random.Generator
) -> float:
    """Mean tau-b of rank error and size over scorers that are the truth and noise alone.

    The noise is normal, on the normal scores of the true ranks, and as strong as the tau-b of
    ``scores`` with the truth says (r = sin(pi tau / 2)).
    """
    true = scipy.stats.rankdata(truth)
    z = scipy.stats.norm.ppf((true - 0.5) / len(true))
    r = min(max(math.sin(math.pi / 2 * kendall(scores, truth)), 0.0), 1.0)
    noise = math.sqrt(1 - r * r)
    found = [
        kendall(rank_errors(r * z + noise * rng.standard_normal(len(z)), true), size)
        for _ in range(CONTROLS)
    ]
    defined = [value for value in found if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def size_bias(
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    size: npt.ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator,
    strata: list[int] | None = None,
) -> SizeBias:
    """Measure how the rank errors of ``scores`` against ``truth`` ([n] each) go with ``size``.

    size: [n], above 0. The rest as in ``bootstrap``.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (scores, truth, size)]

    def measure(x: Any, y: Any, z: Any) -> dict[str, float]:
        errors = rank_errors(x, y)
        return {
            "kendall": kendall(errors, z),
            "given_truth": partial_spearman(x, z, y),
            "slope": slope_per_doubling(errors, z),
        }

    found = bootstrap(
        measure,
        *columns,
        resamples=resamples,
        confidence=confidence,
        rng=rng,
        strata=strata,
    )
    errors, third = rank_errors(*columns[:2]), size_groups(columns[2])
    thirds = [errors[third == index] for index in range(3)]
    means = tuple(float(values.mean()) if len(values) else math.nan for values in thirds)
    unbiased = unbiased_kendall(columns[0], columns[1], columns[2], rng)
    return SizeBias(unbiased=unbiased, thirds=means, **found)
