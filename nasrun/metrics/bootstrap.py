"""Bootstrap intervals: how much a measure depends on the sample of architectures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.metrics.ranking import kendall

MIN_SAMPLE = 10
"""Architectures that a sample needs: resamples of fewer are too alike to show a spread."""


@dataclass(frozen=True)
class Estimate:
    """A measured value and its interval; nan: not defined."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Make a JSON object; undefined values are None, as JSON has no nan."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if math.isfinite(x) else None for name, x in values.items()}

    @staticmethod
    def from_json(values: Mapping[str, float | None]) -> Estimate:
        """Undo ``to_json``; null is nan again."""
        return Estimate(**{name: math.nan if x is None else x for name, x in values.items()})


def bootstrap(
    statistics: Callable[..., Mapping[str, float]],
    *arrays: npt.ArrayLike,
    resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator,
    strata: Sequence[int] | None = None,
) -> dict[str, Estimate]:
    """Compute ``statistics(*arrays)`` and percentile intervals over architectures.

    statistics: from arrays [n] to named values; every value of a resample, also of two methods
    against each other, comes from the same architectures. resamples: 0 leaves the intervals nan;
    resamples in which a value is nan do not count for it. strata: the stratum of each, [n], if the
    sample is stratified: every resample has as many of each stratum as the sample.

    An architecture that is sampled twice is a tie in every array; tau-b leaves such pairs out, and
    ``compare`` computes the pairwise accuracy from a tau-b, as in ``pairwise_accuracy`` itself they
    would count as agreement. A resample keeps the order of the arrays.

    Measured on bivariate normal data of correlation 0 to 0.95, the 95 % interval of tau-b covers
    the truth in 96 to 97 % of 2,000 samples of n = 50 (1,000 resamples) and in 93 to 96 % of 400
    samples of n = 500 (400 resamples); bias-corrected intervals (BCa) did no better. Of the other
    measures, with 200 resamples: 91.5 to 99 % at n = 50 (200 samples each of correlation 0.5, 0.8)
    and 92 to 97 % at n = 500 (100 samples of 0.5) for the pairwise accuracy as tau-b, Spearman,
    sparse tau-b, partial tau, tau within terciles, precision at the top 10 % and the difference of
    two methods. The best rank and the regret at k are extremes, for which no bootstrap is valid:
    88 and 87 % at n = 500; their intervals are a rough guide only.

    If the sample is the whole search space, the interval says how much the value depends on these
    particular architectures.
    """
    columns = [np.asarray(array) for array in arrays]
    n = len(columns[0])
    if any(column.shape != (n,) for column in columns):
        raise ValueError(f"arrays of one length, not {[column.shape for column in columns]}")
    groups = _groups(strata, n)
    resampled: dict[str, list[float]] = {}
    for _ in range(resamples):
        picked = [group[rng.integers(len(group), size=len(group))] for group in groups]
        chosen = np.sort(np.concatenate(picked))
        for name, value in statistics(*(column[chosen] for column in columns)).items():
            if not math.isnan(value):
                resampled.setdefault(name, []).append(value)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    return {
        name: Estimate(float(value), *_quantiles(resampled.get(name, []), tails))
        for name, value in statistics(*columns).items()
    }


def _groups(strata: Sequence[int] | None, n: int) -> list[npt.NDArray[np.int64]]:
    """Return the indices of each stratum; all of them as one if there are none."""
    if strata is None:
        return [np.arange(n)]
    numbers = np.asarray(strata)
    if numbers.shape != (n,):
        raise ValueError(f"{n} architectures but {len(numbers)} strata: one for each")
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def _quantiles(values: list[float], tails: list[float]) -> list[float]:
    return [float(x) for x in np.quantile(values, tails)] if values else [math.nan] * len(tails)


def difference(
    scores: npt.ArrayLike,
    others: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    measure: Callable[[Any, Any], float] = kendall,
    resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Difference ``measure(scores, truth) - measure(others, truth)``, with a paired interval.

    ``scores`` and ``others`` [n] are two methods' scores of the same architectures. The
    interval is paired, so effects of the sample on both methods cancel; whether two single
    intervals overlap proves nothing.
    """
    found = bootstrap(
        lambda x, y, t: {"difference": measure(x, t) - measure(y, t)},
        *(scores, others, truth),
        resamples=resamples,
        confidence=confidence,
        rng=rng,
    )
    return found["difference"]


def distinguishable(difference: Estimate) -> bool:
    """Tell whether the interval of a difference excludes 0."""
    return difference.low > 0 or difference.high < 0


def needed(
    n: int,
    interval: Estimate,
    gap: float,
    *,
    paired: bool = False,
    confidence: float = 0.95,
    power: float = 0.8,
) -> int:
    """Number of architectures that tell apart two methods whose tau-b differ by ``gap``.

    interval: of one method's tau-b, measured with ``n`` architectures at ``confidence``, or
    (``paired``) of the difference between two. From one method, the errors of the two are taken to
    be independent; if both score the same architectures, the result is larger than necessary. The
    standard error falls as 1 / sqrt(n); ``power`` is the chance that the interval of such a
    difference then excludes 0.
    """
    return max(
        MIN_SAMPLE, math.ceil(n * (_gap_seen(n, interval, paired, confidence, power) / gap) ** 2)
    )


def _gap_seen(n: int, interval: Estimate, paired: bool, confidence: float, power: float) -> float:
    """Least difference of two tau-b that ``n`` architectures show with this power."""
    normal = NormalDist()
    z = normal.inv_cdf((1 + confidence) / 2)
    error = (interval.high - interval.low) / (2 * z)
    if n < MIN_SAMPLE or math.isnan(
        error
    ):  # the error of independent rankings, the largest possible
        error, paired = 2 / (3 * math.sqrt(n)), False
    return (z + normal.inv_cdf(power)) * error * (1 if paired else math.sqrt(2))


def warn_if_too_small(
    n: int,
    interval: Estimate,
    gap: float = 0.05,
    *,
    paired: bool = False,
    confidence: float = 0.95,
    power: float = 0.8,
) -> str | None:
    """A warning in words if ``n`` architectures cannot show a difference of ``gap``, else None.

    gap: in tau-b; sampling in proportion to size is said to gain 0.04 to 0.14 (2 to 7 points of
    pairwise accuracy: Balanced NAO, Tables 2 and 6). The rest as in ``needed``.
    """
    enough = needed(n, interval, gap, paired=paired, confidence=confidence, power=power)
    if n >= enough:
        return None
    seen = _gap_seen(n, interval, paired, confidence, power)
    return (
        f"{n:,} architectures are too few to tell two methods apart whose τ-b differ by {gap:g}: "
        f"they show differences from about {seen:.2f} on (with a chance of {power:.0%}); "
        f"about {_rounded_up(enough):,} would do"
    )


def _rounded_up(count: int) -> int:
    """Round up to two digits: 1234 to 1300."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // unit) * unit
