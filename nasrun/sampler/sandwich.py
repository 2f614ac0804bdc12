"""The sandwich rule: the largest, the smallest and some random architectures in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from nasrun.sampler.base import Sampler
from nasrun.search_space.base import SearchSpace, SizeName
from nasrun.search_space.gates import Gates, GatesOfStep
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem


class Sandwich(Sampler):
    """Trains the largest, the smallest and ``random`` further paths in one update.

    The largest comes first, so that ``path_rules.distillation=true`` makes it the teacher of the
    others. size: what "largest" means.
    Source: slimmable networks (Yu and Huang, ICCV 2019), BigNAS (Yu et al., ECCV 2020).
    """

    has_teacher = True

    def __init__(self, *, random: Annotated[int, Field(ge=0, le=1000)], size: SizeName) -> None:
        self.random = random
        self.size = size

    def bind(
        self,
        space: SearchSpace,
        problem: Problem,
        pool: Sequence[Architecture] | None,
        streams: Streams,
        *,
        steps: int,
        ghost_batches: int = 1,
    ) -> GatesOfStep:
        if pool is None:
            smallest, largest = space.extremes(space.sizer(self.size, problem), streams)
        else:
            size = space.sizer(self.size, problem)
            smallest, largest = min(pool, key=size), max(pool, key=size)

        def gates(step: int) -> list[Gates]:
            rng = streams.numpy("sampler", step)
            further = [
                space.sample(rng) if pool is None else pool[int(rng.integers(len(pool)))]
                for _ in range(self.random)
            ]
            return [path.choices for path in (largest, smallest, *further)]

        return gates
