"""The power of paired comparisons: how many pairs of runs tell two methods apart."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

LEVEL = 0.05
"""Largest p at which two methods count as told apart."""

POWER = 0.8
"""Chance with which a true difference is to be found."""

MAX_PAIRS = 100_000
"""Upper bound of the pairs that are worth naming."""

GAPS = (0.15, 0.05)
"""Differences of τ-b that the note speaks of: Balanced NAO, Tables 2 and 6, has 0.04 to 0.14;
pools of 50 that sample in proportion to multiply-adds gained 0.14 to 0.18 (RESULTS.md)."""

USUAL_TAU = 0.4
"""τ-b around which the note is simulated; supernets of papers lie between 0.2 and 0.7."""

SUPERNETS = 0.08
"""Standard deviation of τ-b among supernets that differ by the seed alone, whatever is ranked: what
is left of the differences in pools of 50 (RESULTS.md) besides their sampling, 0.05 to 0.11."""

MAX_SIMULATED = 100
"""Architectures of the largest sample that is simulated; deviations of larger ones follow 1/√n."""

SAMPLES = 1000
"""Samples that are simulated: their deviation is then right within some 2 %."""


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


def note(architectures: int) -> str:
    """Tell, before a run, how much its τ-b will depend on chance and what a comparison takes."""
    sampled, apart = simulated_deviations(architectures, USUAL_TAU, GAPS)
    alone = math.hypot(sampled, SUPERNETS)
    takes = [
        f"{pairs_needed(gap, math.hypot(deviation, SUPERNETS, SUPERNETS))} pairs of runs for a "
        f"difference of {gap:g}"
        for gap, deviation in zip(GAPS, apart, strict=True)
    ]
    return (
        f"{architectures:,} architectures: by chance alone τ-b varies by ±{1.96 * alone:.2f} "
        f"(95 %); two methods are told apart by {' and '.join(takes)} ({POWER:.0%} power, τ-b near "
        f"{USUAL_TAU:g}; simulated, supernets of other seeds ±{1.96 * SUPERNETS:.2f})"
    )


@lru_cache(maxsize=64)
def simulated_deviations(
    architectures: int, tau: float, differences: tuple[float, ...]
) -> tuple[float, tuple[float, ...]]:
    """Return the standard deviations of one τ-b and of differences of two, by simulation.

    The only source of chance is which ``architectures`` were sampled and how two supernets err,
    each on its own: true accuracies are normal, and so are the errors of the scores. One supernet
    ranks with an expected τ-b of ``tau``, the other with ``tau`` and one of the ``differences``.
    """
    rng = np.random.default_rng(0)
    wanted = [tau, *(tau + difference for difference in differences)]
    taus = np.empty((SAMPLES, len(wanted)))
    simulated = min(architectures, MAX_SIMULATED)
    for sample in taus:
        truth = rng.standard_normal(simulated)
        orders = _orders(truth)
        sample[:] = [np.mean(orders * _orders(noisy(truth, each, rng))) for each in wanted]
    taus *= simulated / (simulated - 1)  # an architecture makes no pair with itself
    factor = math.sqrt(simulated / architectures)
    apart = (taus[:, 1:] - taus[:, :1]).std(0, ddof=1)
    return factor * float(taus[:, 0].std(ddof=1)), tuple((factor * apart).tolist())


def _orders(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sign of the difference of each pair, [n, n]."""
    return np.asarray(np.sign(values[:, None] - values))


def noisy(truth: npt.NDArray[Any], tau: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return scores whose expected Kendall's τ with the normal values ``truth`` [n] is ``tau``.

    For two normal variables τ = 2/π · asin(r) (Greiner's relation).
    """
    r = math.sin(math.pi * max(-1.0, min(1.0, tau)) / 2)
    return r * truth + math.sqrt(1 - r**2) * rng.standard_normal(len(truth))
