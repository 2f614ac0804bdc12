"""Measures of how well scores rank architectures by their true accuracy.

In all measures higher is better. ``scores`` and ``truth`` are vectors [n] of one length >= 2
(otherwise ValueError). An undefined value, e.g. if all scores are tied, is nan without a warning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy


def pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Convert both to arrays; raises ValueError unless they are vectors of one length >= 2."""
    x, y = np.asarray(a), np.asarray(b)
    n = x.size
    if x.shape != (n,) or y.shape != (n,) or n < 2:
        raise ValueError(f"pairs need two vectors of one length >= 2, not {x.shape} and {y.shape}")
    return x, y


def pairwise_accuracy(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Share of the pairs i < j that ``a`` and ``b`` ([n] each) order alike, in [0, 1].

    As Balanced NAO (Luo et al. 2020) defines it: a pair agrees where (a_i >= a_j and b_i >= b_j) or
    (a_i < a_j and b_i < b_j). So a tie counts as "the earlier one is at least as good", and the
    value depends on the order of the elements where there are ties; without any, Kendall's tau =
    2 * pairwise accuracy - 1.
    """
    x, y = pair(a, b)
    pairs = len(x) * (len(x) - 1) // 2
    return round((kendall(ranks_by_order(x), ranks_by_order(y)) + 1) / 2 * pairs) / pairs


def ranks(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ranks [n], equal for equal values, as short integers since these are sorted faster."""
    dense = scipy.stats.rankdata(values, method="dense")
    # The ranks go from 1 to n, and of n = 128 a type that holds -n does not hold n.
    return np.asarray(dense.astype(np.min_scalar_type(-len(values) - 1)))


def ranks_by_order(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ranks [n] in which the earlier of two equal values is the higher one.

    The pairwise accuracy breaks ties like this. It is (tau-b of these ranks + 1) / 2, which takes
    n log n steps instead of n^2.
    """
    n = len(values)
    found = np.empty(n, dtype=np.min_scalar_type(-n))
    found[np.lexsort((-np.arange(n), values))] = np.arange(n)
    return found


def kendall(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Kendall's tau-b: (concordant - discordant) / sqrt(pairs untied in a * pairs untied in b)."""
    return float(scipy.stats.kendalltau(*pair(a, b)).statistic)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rho: the correlation of the ranks, where tied elements share their mean rank."""
    x, y = pair(a, b)
    if (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    return float(scipy.stats.spearmanr(x, y).statistic)


def sparse_kendall(scores: npt.ArrayLike, truth: npt.ArrayLike, bin_width: float = 0.001) -> float:
    """Kendall's tau-b of the scores with the binned true accuracies (Yu et al. 2021).

    Architectures whose accuracies lie in one bin [j, j + 1) * ``bin_width`` are too alike to be
    told apart and share a rank; the scores are not binned. ``bin_width``: 0.1 % in the paper,
    1e-4 in its code. As tau-b leaves a tie out of the denominator of its own vector only, a score
    that orders what the truth ties stays below 1.
    """
    return kendall(scores, binned(np.asarray(truth), bin_width))


def binned(truth: npt.NDArray[Any], bin_width: float) -> npt.NDArray[Any]:
    """Number j [n] of the bin [j, j + 1) * ``bin_width`` of each accuracy."""
    # 0.933 / 0.001 is slightly more or less than 933; accuracies on the grid must stay on it.
    return np.asarray(np.floor(np.round(truth / bin_width, 6)))


def precision_at_top(scores: npt.ArrayLike, truth: npt.ArrayLike, share: float) -> float:
    """Share of the truly best ``share`` that is among those with the best scores, in [0, 1].

    The best are the first k = round(share * n), at least 1, of each vector. If the k-th value of a
    vector is tied, the value is the expectation over ties broken at random: k / n for scores that
    are all equal.
    """
    x, y = pair(scores, truth)
    if not 0 < share <= 1:
        raise ValueError(f"the share of the best is in (0, 1], not {share}")
    k = max(1, round(share * len(x)))
    return float(_membership(x, k) @ _membership(y, k)) / k


def best_rank_at(scores: npt.ArrayLike, truth: npt.ArrayLike, k: int) -> float:
    """Best true rank, from 1, among the ``k`` architectures with the highest scores.

    Equal accuracies share the best of their ranks. If the k-th score is tied, the value is the
    expectation over ties broken at random: (n + 1) / (k + 1) for scores that are all equal.
    """
    x, y = pair(scores, truth)
    return _expected_least(scipy.stats.rankdata(-y, method="min"), x, k)


def top_regret(scores: npt.ArrayLike, truth: npt.ArrayLike, k: int) -> float:
    """Best truth of all minus the best truth among the ``k`` highest scores, >= 0.

    A search that retrains the k best by score loses this much. Ties as in ``best_rank_at``.
    """
    x, y = pair(scores, truth)
    return _expected_least(y.max() - y, x, k)


def _edge(values: npt.NDArray[Any], k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Masks [n] of the values above the k-th highest and of those equal to it."""
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"the best k of {n} architectures need 1 <= k <= {n}, not {k}")
    edge = np.partition(values, n - k)[n - k]
    return values > edge, values == edge


def _membership(values: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
    """Chance [n] of each to be among the k highest, ties broken at random."""
    above, tied = _edge(values, k)
    return np.asarray(above + tied * ((k - above.sum()) / tied.sum()))


def _expected_least(values: npt.NDArray[Any], scores: npt.NDArray[Any], k: int) -> float:
    """Expected least of ``values`` among the k highest scores, ties broken at random."""
    above, tied = _edge(scores, k)
    least = values[above].min() if above.any() else np.inf
    places, sampled = k - above.sum(), np.sort(values[tied])
    # The j-th least of the t tied is the least sampled with chance C(t-1-j, m-1) / C(t, m).
    left = np.arange(len(sampled) - 1, 0, -1)
    factors = np.concatenate([[1.0], (left - places + 1) / left])
    chance = places / len(sampled) * np.cumprod(factors)
    return float(chance @ np.minimum(sampled, least))
