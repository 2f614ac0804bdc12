"""Sums of the latencies of operations, calibrated against whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SCALE, OFFSET = "(calibration: scale)", "(calibration: offset)"
"""Rows of a table of latencies: a network takes offset + scale × the sum of its operations."""


@dataclass(frozen=True)
class Calibration:
    """How sums of latencies become latencies of whole networks, and how well.

    scale: of the sum, above 0. offset: in ms, at least 0. r: Pearson's correlation of sums and
    whole networks; tau: Kendall's tau-b. residual: the largest error of a calibrated sum, as a
    share of the whole network's latency. networks: their number.
    """

    scale: float
    offset: float
    r: float
    tau: float
    residual: float
    networks: int

    def is_good(self, min_r: float, max_residual: float) -> bool:
        """Whether sums tell networks apart, or predict each closely where all take as long."""
        return self.r >= min_r or self.residual <= max_residual

    def in_words(self) -> str:
        """Return a clause for the screen."""
        return (
            f"Pearson's r {self.r:.3f}, Kendall's τ-b {self.tau:.3f}; calibrated, a network takes "
            f"{self.offset:.3g} ms + {self.scale:.3g} × its sum, off by {100 * self.residual:.0f} "
            "% at most"
        )


def calibrate(sums: Sequence[float], wholes: Sequence[float]) -> Calibration:
    """Fit wholes = offset + scale × sums, in ms, by least squares of relative errors.

    A network takes no less than nothing beside its operations, and more for more of them: where
    the fit has a negative offset or slope, it goes through the origin.
    """
    from scipy import stats  # the import takes half a second

    x, y = np.asarray(sums, dtype=float), np.asarray(wholes, dtype=float)
    design = np.stack([x / y, 1 / y], axis=1)
    (scale, offset), *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    if not (scale > 0 and offset >= 0):
        ratio = x / y
        scale, offset = ratio.sum() / (ratio**2).sum(), 0.0
    errors = np.abs(offset + scale * x - y) / y
    differ = np.ptp(x) > 0 and np.ptp(y) > 0
    return Calibration(
        scale=float(scale),
        offset=float(offset),
        r=float(stats.pearsonr(x, y).statistic) if differ else 0.0,
        tau=float(stats.kendalltau(x, y).statistic) if differ else 0.0,
        residual=float(errors.max()),
        networks=len(y),
    )
