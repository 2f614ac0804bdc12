"""Sampling in proportion to model size: the balanced training of Balanced NAO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.sampler.base import PathSampler
from nasrun.search_space.base import SearchSpace, SizeName
from nasrun.values import Architecture, Problem


class Proportional(PathSampler):
    """Samples with P(architecture) ∝ size^exponent.

    size: ``params``, ``macs`` or ``bitops`` of the stand-alone network at the search's scale.
    Source: Balanced NAO (arXiv 1909.10815), Eq. 3, with parameters and exponent 1.
    """

    def __init__(
        self,
        *,
        size: SizeName,
        exponent: Annotated[float, Field(ge=0, le=8)],
    ) -> None:
        self.size = size
        self.exponent = exponent

    def distribution(
        self, space: SearchSpace, problem: Problem, pool: Sequence[Architecture] | None
    ) -> Callable[[np.random.Generator], Architecture]:
        size = space.sizer(self.size, problem)

        def weight(architecture: Architecture) -> float:
            return math.pow(size(architecture), self.exponent)

        if pool is not None:
            architectures = tuple(pool)
            cumulative = np.cumsum([weight(architecture) for architecture in architectures])

            def sample(rng: np.random.Generator) -> Architecture:
                point = rng.random() * cumulative[-1]
                return architectures[int(np.searchsorted(cumulative, point, side="right"))]

            return sample

        bound = math.pow(getattr(space.cost_bound(problem), self.size), self.exponent)

        def sample_by_rejection(rng: np.random.Generator) -> Architecture:
            # Exact over a space too large to enumerate: a uniform sample is kept with probability
            # weight / bound, and no weight exceeds the bound.
            while True:
                architecture = space.sample(rng)
                if rng.random() * bound < weight(architecture):
                    return architecture

        return sample_by_rejection
