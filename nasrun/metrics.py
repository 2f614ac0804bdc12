"""Measures of how well one score ranks architectures by another; pure numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pairwise_accuracy(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Share of the pairs i < j that ``a`` and ``b`` ([n] each) order alike (NAO), in [0, 1].

    A pair agrees where (a_i >= a_j and b_i >= b_j) or (a_i < a_j and b_i < b_j), so a tie counts as
    "the earlier one is at least as good" and the value depends on the order of the elements where
    there are ties; without any, Kendall's tau = 2 * pairwise accuracy - 1.
    Raises ValueError for fewer than two elements or different shapes.
    """
    x, y = np.asarray(a), np.asarray(b)
    n = len(x)
    if x.shape != (n,) or y.shape != (n,) or n < 2:
        raise ValueError(f"pairs need two vectors of one length >= 2, not {x.shape} and {y.shape}")
    # Row by row: n x n comparisons at once would not fit in memory for whole benchmark tables.
    agree = sum(
        int(np.count_nonzero((x[i] >= x[i + 1 :]) == (y[i] >= y[i + 1 :]))) for i in range(n - 1)
    )
    return agree / (n * (n - 1) / 2)
