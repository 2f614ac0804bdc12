"""The interface of samplers, which set the gates of each training step of a supernet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import GateKind, Gates, GatesOfStep
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem


def takes_pool(sampler: type) -> bool:
    """Return whether a class of samplers can train only a pool of architectures."""
    return bool(getattr(sampler, "takes_pool", False))


def has_teacher(sampler: type) -> bool:
    """Return whether the first path of each step of a class of samplers can teach the others."""
    return bool(getattr(sampler, "has_teacher", False))


def takes_slices(sampler: type) -> bool:
    """Return whether a class of samplers can give each slice of a batch a path of its own."""
    return bool(getattr(sampler, "takes_slices", False))


class Sampler(ABC):
    """A rule that samples the gates of every step anew."""

    gate_kind: GateKind = "path"
    takes_pool: bool = True
    """Whether the sampler can train only a pool of architectures, not the whole space."""
    has_teacher: bool = False
    """Whether a step has several paths on the same images, the largest architecture first."""
    takes_slices: bool = False
    """Whether each slice of a batch may have a path of its own (``path_rules.slices``)."""

    def check(self, space: SearchSpace) -> None:  # noqa: B027 - most samplers take any space
        """Raise UserError if the rule has no meaning in ``space``."""

    def ghost_batch_of(self, batch_size: int) -> int | None:
        """Return how many images of a batch each of a step's gates trains; None: all of them.

        Raises UserError if a batch cannot be divided into such slices.
        """
        return None

    @abstractmethod
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
        """Return the gates of each step, as a function of its number.

        pool: the architectures that are trained; None: the whole space.
        steps: of the whole training.
        ghost_batches: number of slices of a batch with gates of their own (``ghost_batch_of``).
        """


class PathSampler(Sampler):
    """Samples one architecture a step, or one for each slice of its batch.

    Stateless: its stream is named by (seed, step).
    """

    takes_slices = True

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
        sample = self.distribution(space, problem, pool)

        def gates(step: int) -> list[Gates]:
            rng = streams.numpy("sampler", step)
            return [sample(rng).choices for _ in range(ghost_batches)]

        return gates

    @abstractmethod
    def distribution(
        self, space: SearchSpace, problem: Problem, pool: Sequence[Architecture] | None
    ) -> Callable[[np.random.Generator], Architecture]:
        """Return a function that samples one architecture."""
