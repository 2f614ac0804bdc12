"""What a sampler is: it says which gates one training step of the supernet opens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import GateKind, Gates, GatesOfStep
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem


class Sampler(ABC):
    """A rule for setting gates; drawn anew in every step."""

    gate_kind: GateKind = "path"
    takes_pool: bool = True
    """Whether it can keep to a pool of architectures; else it trains the whole space."""

    def check(self, space: SearchSpace) -> None:  # noqa: B027 - most samplers take any space
        """Raises UserError where the rule means nothing in ``space``."""

    def fit(self, batch_size: int, steps: int) -> int | None:
        """How many images of a batch each of a step's gates trains; None: each trains them all.

        Called before ``over``, with the images of a batch and the steps of the whole training.
        Raises UserError where the batch cannot be divided so.
        """
        return None

    @abstractmethod
    def over(
        self,
        space: SearchSpace,
        problem: Problem,
        pool: Sequence[Architecture] | None,
        streams: Streams,
    ) -> GatesOfStep:
        """The rule over ``pool``, or over the whole space where there is none."""


class PathSampler(Sampler):
    """One architecture a step, named by (seed, step): no state, so nothing to save."""

    def over(
        self,
        space: SearchSpace,
        problem: Problem,
        pool: Sequence[Architecture] | None,
        streams: Streams,
    ) -> GatesOfStep:
        draw = self.distribution(space, problem, pool)

        def gates(step: int) -> list[Gates]:
            return [draw(streams.numpy("sampler", step)).choices]

        return gates

    @abstractmethod
    def distribution(
        self, space: SearchSpace, problem: Problem, pool: Sequence[Architecture] | None
    ) -> Callable[[np.random.Generator], Architecture]:
        """A function that draws one architecture."""
