"""Measures of the effect of size on a ranking, and of the agreement beyond it.

A supernet that merely prefers large networks ranks well wherever large ones are better. The tau-b
of size alone with the truth, ``kendall(size, truth)``, is the baseline; the measures here tell how
well a score ranks beyond it. Undefined values are nan, without a warning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from nasrun.metrics.ranking import kendall, spearman


def size_groups(size: npt.ArrayLike, groups: int = 3) -> npt.NDArray[np.int64]:
    """Group [n] of each architecture by size, 0: the smallest; groups are about equally large.

    Architectures of equal size are in one group, so that a group may be empty.
    """
    middle = scipy.stats.rankdata(size) - 0.5  # in (0, n), equal for equal sizes
    return np.asarray(np.floor(middle * groups / len(middle)), dtype=np.int64)


def kendall_in_groups(
    scores: npt.ArrayLike, truth: npt.ArrayLike, group: npt.ArrayLike, groups: int = 3
) -> tuple[float, ...]:
    """Kendall's tau-b with the truth within each group; nan for groups of less than two."""
    x, y, number = np.asarray(scores), np.asarray(truth), np.asarray(group)
    masks = [number == index for index in range(groups)]
    return tuple(kendall(x[mask], y[mask]) if mask.sum() > 1 else math.nan for mask in masks)


def mean_of_defined(values: tuple[float, ...]) -> float:
    """Mean of the values that are not nan; nan if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def kendall_within(
    scores: npt.ArrayLike, truth: npt.ArrayLike, size: npt.ArrayLike, groups: int = 3
) -> tuple[float, tuple[float, ...]]:
    """Kendall's tau-b among architectures of similar size: the mean over groups, and each.

    The terciles by default. A group in which all scores, or all truths, are tied is nan and left
    out of the mean. Sizes still differ within a group, so some of their effect remains.
    """
    each = kendall_in_groups(scores, truth, size_groups(size, groups), groups)
    return mean_of_defined(each), each


def partial_correlation(xy: float, xz: float, yz: float) -> float:
    """Correlation of x with y given z, from the three; nan where z determines x or y."""
    rest = (1 - xz * xz) * (1 - yz * yz)
    return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else math.nan


def partial_kendall(scores: npt.ArrayLike, truth: npt.ArrayLike, size: npt.ArrayLike) -> float:
    """Kendall's partial tau of the scores with the truth given size, from the three tau-b.

    It undercorrects: it is not 0 where scores and truth are independent given size, unless size
    tells nothing of one of them. If each is normal with correlation r to the size and nothing else
    in common, it is 0.06, 0.11 and 0.19 for r = 0.5, 0.7 and 0.9, where ``partial_spearman`` stays
    at 0.01: read them together. nan where all sizes, scores or truths are tied, and
    where size alone ranks like the scores or like the truth.
    """
    return _given(size, scores, truth, kendall)


def partial_spearman(scores: npt.ArrayLike, truth: npt.ArrayLike, size: npt.ArrayLike) -> float:
    """Spearman's partial correlation with the truth given size; nan as in ``partial_kendall``."""
    return _given(size, scores, truth, spearman)


def _given(size: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike, correlation: Any) -> float:
    return partial_correlation(correlation(x, y), correlation(x, size), correlation(y, size))
