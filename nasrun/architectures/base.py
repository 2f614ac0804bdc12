"""What a choice of architectures is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from nasrun.errors import UserError
from nasrun.search_space.base import SearchSpace
from nasrun.values import Architecture, Problem

GIVE_UP_AFTER = 10_000
"""Random draws in a row without a new architecture after which a space counts as exhausted."""


class Architectures(ABC):
    """A rule that chooses architectures of a space; no two of them stand for the same network."""

    @abstractmethod
    def choose(
        self, space: SearchSpace, problem: Problem, rng: np.random.Generator
    ) -> list[Architecture]:
        """Raises UserError where the space cannot give them."""


def sample_distinct(space: SearchSpace, rng: np.random.Generator, count: int) -> list[Architecture]:
    """``count`` distinct random architectures; UserError where the space has too few."""
    found: dict[Architecture, Architecture] = {}
    fruitless = 0
    while len(found) < count:
        before = len(found)
        architecture = space.sample(rng)
        found.setdefault(space.canonical(architecture), architecture)
        fruitless = 0 if len(found) > before else fruitless + 1
        if fruitless == GIVE_UP_AFTER:
            raise UserError(
                f"{space.name} has not {count} different architectures; {len(found)} were found: "
                "lower the count, or choose all of them"
            )
    return list(found.values())
