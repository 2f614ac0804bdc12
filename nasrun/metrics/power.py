"""The power of paired comparisons: how many pairs of runs tell two methods apart."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from nasrun.metrics.ranking import kendall

LEVEL = 0.05
"""Largest p at which two methods count as told apart."""

POWER = 0.8
"""Chance with which a true difference is to be found."""

MAX_PAIRS = 100_000
"""Upper bound of the pairs that are worth naming."""


def power_of(difference: float, deviation: float, pairs: int, level: float = LEVEL) -> float:
    """Return the chance that the paired t-test, two-sided, finds a true mean difference.

    difference, deviation: mean and standard deviation of a pair's difference, normal.
    The t statistic then has a noncentral t distribution, so the value is exact.
    """
    if pairs < 2:
        return 0.0
    if deviation == 0:
        return float(difference != 0)
    edge = scipy.stats.t.ppf(1 - level / 2, pairs - 1)
    shift = abs(difference) / deviation * math.sqrt(pairs)
    found = scipy.stats.nct(pairs - 1, shift)
    return float(found.sf(edge) + found.cdf(-edge))


def pairs_needed(
    difference: float, deviation: float, power: float = POWER, level: float = LEVEL
) -> int | None:
    """Return the fewest pairs whose ``power_of`` reaches ``power``; None: above MAX_PAIRS."""
    if difference == 0:
        return None
    high = 2
    while power_of(difference, deviation, high, level) < power:
        high *= 2
        if high > MAX_PAIRS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        enough = power_of(difference, deviation, middle, level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


@lru_cache(maxsize=64)
def simulated_deviations(
    architectures: int, tau: float, difference: float, samples: int = 200
) -> tuple[float, float]:
    """Return the standard deviations of one τ-b and of the difference of two, by simulation.

    The only source of chance is which ``architectures`` were sampled and how two supernets err,
    each on its own: true accuracies are normal, and so are the errors of the scores. One supernet
    ranks with an expected τ-b of ``tau``, the other with ``tau + difference``.
    """
    rng = np.random.default_rng(0)
    taus = np.empty((samples, 2))
    for sample in taus:
        truth = rng.standard_normal(architectures)
        sample[:] = [
            kendall(noisy(truth, wanted, rng), truth) for wanted in (tau, tau + difference)
        ]
    return float(taus[:, 0].std(ddof=1)), float((taus[:, 1] - taus[:, 0]).std(ddof=1))


def noisy(truth: npt.NDArray[Any], tau: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return scores whose expected Kendall's τ with the normal values ``truth`` [n] is ``tau``.

    For two normal variables τ = 2/π · asin(r) (Greiner's relation).
    """
    r = math.sin(math.pi * max(-1.0, min(1.0, tau)) / 2)
    return r * truth + math.sqrt(1 - r**2) * rng.standard_normal(len(truth))
