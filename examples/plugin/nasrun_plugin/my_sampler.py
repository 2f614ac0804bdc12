"""``my_sampler``: large architectures are trained more often, by small tournaments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.sampler.base import PathSampler
from nasrun.search_space.base import SearchSpace, SizeName
from nasrun.values import Architecture, Problem


class MySampler(PathSampler):
    """Each step trains the largest of some random architectures.

    candidates: so many are compared; 1: uniform sampling. size: what "largest" means.
    """

    def __init__(self, *, candidates: Annotated[int, Field(ge=1, le=100)], size: SizeName) -> None:
        self.candidates, self.size = candidates, size

    def distribution(
        self, space: SearchSpace, problem: Problem, pool: Sequence[Architecture] | None
    ) -> Callable[[np.random.Generator], Architecture]:
        size = space.sizer(self.size, problem)

        def sample(rng: np.random.Generator) -> Architecture:
            return space.sample(rng) if pool is None else pool[rng.integers(len(pool))]

        return lambda rng: max((sample(rng) for _ in range(self.candidates)), key=size)
