"""Uniform sampling: all architectures have the same probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nasrun.sampler.base import PathSampler
from nasrun.search_space.base import SearchSpace
from nasrun.values import Architecture, Problem


class Uniform(PathSampler):
    """Samples every architecture with the same probability.

    Source: NAO-WS, SPOS (Guo et al. 2020, §3.2).
    """

    def distribution(
        self, space: SearchSpace, problem: Problem, pool: Sequence[Architecture] | None
    ) -> Callable[[np.random.Generator], Architecture]:
        if pool is None:
            return space.sample
        architectures = tuple(pool)
        return lambda rng: architectures[rng.integers(len(architectures))]
