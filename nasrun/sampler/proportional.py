"""Sampling in proportion to model size: the balanced training of Balanced NAO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.errors import UserError
from nasrun.sampler.base import PathSampler
from nasrun.search_space.base import Measure, SearchSpace, SizeName
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem

MIN_KEPT_SHARE = 1e-3
"""Share of uniform samples that rejection must keep where small architectures are favoured."""

SAMPLES_FOR_SHARE = 300
"""Random architectures from which that share is estimated."""


class Proportional(PathSampler):
    """Samples with P(architecture) ∝ size^exponent; below 0, small architectures are favoured.

    size: ``params``, ``macs`` or ``bitops`` of the stand-alone network at the search's scale.
    Source: Balanced NAO (arXiv 1909.10815), Eq. 3, with parameters and exponent 1.
    """

    def __init__(
        self,
        *,
        size: SizeName,
        exponent: Annotated[float, Field(ge=-8, le=8)],
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

        if self.exponent < 0:
            bound = self._bound_of_small(space, size, weight)
        else:
            bound = math.pow(getattr(space.cost_bound(problem), self.size), self.exponent)

        def sample_by_rejection(rng: np.random.Generator) -> Architecture:
            # Exact over a space too large to enumerate: a uniform sample is kept with probability
            # weight / bound, and no weight exceeds the bound.
            while True:
                architecture = space.sample(rng)
                if rng.random() * bound < weight(architecture):
                    return architecture

        return sample_by_rejection

    def _bound_of_small(self, space: SearchSpace, size: Measure, weight: Measure) -> float:
        """Return the weight of the smallest architecture, which no other exceeds.

        Raises UserError if it is not known exactly, or if nearly all samples would be rejected.
        """
        if space.additive is None:
            raise UserError(
                f"sampler.exponent={self.exponent:g}: the smallest {self.size} of {space.name} are "
                "not known, so that its whole space cannot be sampled with a negative exponent: "
                "train a pool (rank.train_on=pool), or take an exponent from 0 on"
            )
        smallest, _ = space.extremes(size, Streams(0))
        bound, rng = weight(smallest), np.random.default_rng(0)
        kept = [weight(space.sample(rng)) / bound for _ in range(SAMPLES_FOR_SHARE)]
        if np.mean(kept) < MIN_KEPT_SHARE:
            raise UserError(
                f"sampler.exponent={self.exponent:g}: architectures as small as are favoured are "
                f"too rare in {space.name} to be found by sampling: train a pool "
                "(rank.train_on=pool), or take an exponent nearer to 0"
            )
        return bound
