"""Uniform sampling over bins of size, so that all sizes are trained equally often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.errors import UserError
from nasrun.limits import Amount, Count
from nasrun.sampler.base import PathSampler
from nasrun.search_space.base import SearchSpace, SizeName
from nasrun.values import Architecture, Problem

MAX_SAMPLES_FOR_BIN = 500
"""Random architectures tried for a bin before the nearest one is taken (SPOS' code)."""

SAMPLES_FOR_BOUNDS = 2000
"""Random architectures whose sizes give the bounds if the configuration gives none."""


class SizeBins(PathSampler):
    """Samples a bin uniformly, then an architecture of that bin.

    bins: number of bins, of equal width between ``low`` and ``high``. A bound of null means the
    smallest or largest size among random architectures (of the pool, if there is one).
    Source: the released code of SPOS (Guo et al., 2020): 7 bins of 10 M MACs from 290 M to 360 M.
    """

    def __init__(
        self,
        *,
        size: SizeName,
        bins: Count,
        low: Annotated[Amount, Field(ge=0)] | None,
        high: Annotated[Amount, Field(gt=0)] | None,
    ) -> None:
        if low is not None and high is not None and low >= high:
            raise UserError(f"sampler.low = {low:g} must be below sampler.high = {high:g}")
        self.size, self.bins, self.low, self.high = size, bins, low, high

    def distribution(
        self, space: SearchSpace, problem: Problem, pool: Sequence[Architecture] | None
    ) -> Callable[[np.random.Generator], Architecture]:
        size = space.sizer(self.size, problem)
        rng = np.random.default_rng(0)  # the bounds are a property of the space, not of the run
        known = pool if pool is not None else [space.sample(rng) for _ in range(SAMPLES_FOR_BOUNDS)]
        sizes = [size(architecture) for architecture in known]
        low = min(sizes) if self.low is None else self.low
        high = max(sizes) if self.high is None else self.high
        inside = [low <= value <= high for value in sizes]
        if not any(inside):
            raise UserError(
                f"sampler: no architecture of {space.name} has between {low:g} and {high:g} "
                f"{self.size}: the sizes seen go from {min(sizes):g} to {max(sizes):g}"
            )
        edges = np.linspace(low, high, self.bins + 1)

        def sample(rng: np.random.Generator) -> Architecture:
            chosen = int(rng.integers(self.bins))
            begin, end = edges[chosen], edges[chosen + 1]
            best: tuple[float, Architecture] | None = None
            for _ in range(MAX_SAMPLES_FOR_BIN):
                architecture = (
                    space.sample(rng) if pool is None else pool[int(rng.integers(len(pool)))]
                )
                value = size(architecture)
                distance = max(begin - value, value - end, 0.0)
                if distance == 0.0:
                    return architecture
                if best is None or distance < best[0]:
                    best = distance, architecture
            assert best is not None  # noqa: S101 - it is not 0
            return best[1]

        return sample
