"""Methods against a control over the same seeds: share of wins, and tests of chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy


def win_share(losses: npt.ArrayLike, control: npt.ArrayLike) -> float:
    """Share of the pairs [n] in which the loss is below the control's; ties count half."""
    a, b = np.asarray(losses, dtype=np.float64), np.asarray(control, dtype=np.float64)
    return float(np.mean((a < b) + 0.5 * (a == b)))


def sign_flip_p(
    losses: npt.ArrayLike,
    control: npt.ArrayLike,
    *,
    resamples: int = 9999,
    rng: np.random.Generator,
) -> float:
    """Two-sided p of the mean difference of pairs [n], by swapping the two of a pair at random.

    Fisher's paired permutation test: all 2^n swaps if there are at most ``resamples``, otherwise
    ``resamples`` random ones, so p is at least 1 / (resamples + 1). Ties are allowed.
    """
    difference = np.asarray(losses, dtype=np.float64) - np.asarray(control, dtype=np.float64)
    if not difference.any():
        return 1.0
    found = scipy.stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        rng=rng,
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p of several tests for their number (Holm 1979)."""
    count = len(p_values)
    adjusted, least = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted
