"""The sandwich rule: the largest, the smallest and some random architectures in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt

from nasrun.sampler.base import Sampler
from nasrun.search_space.base import Gates, GatesOfStep, SearchSpace
from nasrun.streams import Streams
from nasrun.values import Architecture, ImageTask


class Sandwich(Sampler):
    """The gradients of the largest, the smallest and ``random`` further paths make one update.

    The largest comes first, so that ``trainer.distillation=true`` makes it the teacher of the
    others. size: what "largest" means.
    Source: slimmable networks (Yu and Huang, ICCV 2019), BigNAS (Yu et al., ECCV 2020).
    """

    def __init__(self, *, random: NonNegativeInt, size: Literal["params", "macs"]) -> None:
        self.random = random
        self.size = size

    def over(
        self,
        space: SearchSpace,
        task: ImageTask,
        pool: Sequence[Architecture] | None,
        streams: Streams,
    ) -> GatesOfStep:
        smallest, largest = extremes(space, task, pool, self.size, streams)

        def gates(step: int) -> list[Gates]:
            rng = streams.numpy("sampler", step)
            further = [
                space.sample(rng) if pool is None else pool[int(rng.integers(len(pool)))]
                for _ in range(self.random)
            ]
            return [path.choices for path in (largest, smallest, *further)]

        return gates


def extremes(
    space: SearchSpace,
    task: ImageTask,
    pool: Sequence[Architecture] | None,
    size: Literal["params", "macs"],
    streams: Streams,
) -> tuple[Architecture, Architecture]:
    """The smallest and the largest of the pool, or of the whole space.

    Over a whole space: by changing one decision at a time until nothing helps. Exact where sizes
    add up over decisions; elsewhere from several random starts, and the best of them.
    """

    def cost(architecture: Architecture) -> int:
        found: int = getattr(space.cost(architecture, task), size)
        return found

    if pool is not None:
        return min(pool, key=cost), max(pool, key=cost)

    def climb(start: Architecture, sign: int) -> Architecture:
        best, reached = start, sign * cost(start)
        while True:
            before = reached
            for index, decision in enumerate(space.decisions):
                for option in range(len(decision.options)):
                    choices = (*best.choices[:index], option, *best.choices[index + 1 :])
                    candidate = Architecture(space.name, choices)
                    if sign * cost(candidate) > reached:
                        best, reached = candidate, sign * cost(candidate)
            if reached == before:
                return best

    starts = [space.sample(streams.numpy("sampler/start", index)) for index in range(4)]
    return (
        min((climb(start, -1) for start in starts), key=cost),
        max((climb(start, 1) for start in starts), key=cost),
    )
