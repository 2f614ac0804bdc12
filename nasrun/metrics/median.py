"""The median of measured times, with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from nasrun.metrics.bootstrap import Estimate


def median_of(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return the median with an interval between two of the sorted values.

    It assumes nothing of the distribution: how many of n values lie below the true median is
    binomial with probability 1/2. Of few values it is their whole range.
    """
    ordered = sorted(values)
    below = int(stats.binom.ppf((1 - confidence) / 2, len(ordered), 0.5))
    low = max(below - 1, 0)
    return Estimate(float(np.median(ordered)), ordered[low], ordered[len(ordered) - 1 - low])
