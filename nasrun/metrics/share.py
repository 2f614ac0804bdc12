"""Shares that were counted: their intervals, and the one above which a search has collapsed."""

from __future__ import annotations

import math
from statistics import NormalDist

from nasrun.metrics.bootstrap import Estimate

COLLAPSE_SHARE = 0.75
"""A search counts as collapsed above this share of parameter-free operations; our choice. In random
architectures the share is 57 % in darts_cell, and 60 % in nas_bench_201 and in nao_cell's smallest
set. The best architectures of these spaces have fewer."""


def wilson(share: float, count: int, confidence: float = 0.95) -> Estimate:
    """Return a share of ``count`` independent cases with Wilson's score interval.

    It holds also for small counts and for shares near 0 and 1 (Wilson 1927; Brown, Cai and DasGupta
    2001). share: in [0, 1]. No cases: the interval is [0, 1].
    """
    if count == 0:
        return Estimate(share, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Estimate(share, max(middle - half, 0.0), min(middle + half, 1.0))
