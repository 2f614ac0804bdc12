"""Choices of architectures: all, uniform, stratified by size, of similar size, or a list."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, PositiveInt

from nasrun.errors import UserError
from nasrun.run.files import at_home, decoded, read_named
from nasrun.search_space.base import SearchSpace, SizeName
from nasrun.values import Architecture, Problem

Count = Annotated[int, Field(ge=3, le=1_000_000)]

MAX_LISTED_ARCHITECTURES = 1_000_000
"""Upper bound of the size of a space that ``All`` lists."""

MAX_LIST_BYTES = 2**28
"""Size of a file of architectures that is still read."""

MAX_FRUITLESS_SAMPLES = 10_000
"""A space counts as exhausted after this number of random architectures without a new one."""


class Chosen(NamedTuple):
    """Architectures to be measured, [n], and how they were sampled.

    strata: the number of the stratum of each, [n]; None: the sample is not stratified.
    """

    architectures: list[Architecture]
    strata: list[int] | None = None


class Architectures(ABC):
    """A rule that chooses architectures of a space; no two of them stand for the same network."""

    @abstractmethod
    def choose(self, space: SearchSpace, problem: Problem, rng: np.random.Generator) -> Chosen:
        """Return the chosen architectures; raises UserError if the space has too few."""


def sample_distinct(space: SearchSpace, rng: np.random.Generator, count: int) -> list[Architecture]:
    """Return ``count`` distinct random architectures; raises UserError if there are too few."""
    found: dict[Architecture, Architecture] = {}
    fruitless = 0
    while len(found) < count:
        before = len(found)
        architecture = space.sample(rng)
        found.setdefault(space.canonical(architecture), architecture)
        fruitless = 0 if len(found) > before else fruitless + 1
        if fruitless == MAX_FRUITLESS_SAMPLES:
            raise UserError(
                f"{space.name} has not {count} different architectures; {len(found)} were found: "
                "lower the count, or choose all of them"
            )
    return list(found.values())


class All(Architectures):
    """Chooses every network of the space once, by the first architecture that stands for it."""

    def choose(self, space: SearchSpace, problem: Problem, rng: np.random.Generator) -> Chosen:
        if space.size > MAX_LISTED_ARCHITECTURES:
            raise UserError(
                f"{space.name} has {space.size:.3g} architectures: choose a sample "
                "(architectures=uniform)"
            )
        found: dict[Architecture, Architecture] = {}
        for architecture in space.every():
            found.setdefault(space.canonical(architecture), architecture)
        return Chosen(list(found.values()))


class Uniform(Architectures):
    """Chooses ``count`` distinct architectures, each decision sampled uniformly."""

    def __init__(self, *, count: Count) -> None:
        self.count = count

    def choose(self, space: SearchSpace, problem: Problem, rng: np.random.Generator) -> Chosen:
        return Chosen(sample_distinct(space, rng, self.count))


class BySize(Architectures):
    """Chooses equally many architectures from each stratum of size, so that no size is rare.

    Strata are of equal width in log(size), between the smallest and the largest of ``drawn``
    random architectures. A stratum with too few of them gives all of its own, and the others give
    more.
    """

    def __init__(
        self, *, count: Count, size: SizeName, strata: PositiveInt, drawn: PositiveInt
    ) -> None:
        if drawn < count:
            raise UserError(f"architectures.drawn = {drawn} is less than the count of {count}")
        self.count, self.size, self.strata, self.drawn = count, size, strata, drawn

    def choose(self, space: SearchSpace, problem: Problem, rng: np.random.Generator) -> Chosen:
        found = sample_distinct(space, rng, self.drawn)
        sizes = np.log(list(map(space.sizer(self.size, problem), found)))
        edges = np.linspace(sizes.min(), sizes.max(), self.strata + 1)[1:-1]
        stratum = np.digitize(sizes, edges)
        waiting = [[found[i] for i in np.flatnonzero(stratum == s)] for s in range(self.strata)]
        chosen: list[Architecture] = []
        strata: list[int] = []
        while len(chosen) < self.count:
            for number, members in enumerate(waiting):
                if members and len(chosen) < self.count:
                    chosen.append(members.pop(0))
                    strata.append(number)
        return Chosen(chosen, strata)


class SimilarSize(Architectures):
    """Chooses, out of ``drawn`` random architectures, the ``count`` around a quantile of size.

    Source: Balanced NAO, Table 3 (architectures of similar sizes are ranked better).
    """

    def __init__(
        self,
        *,
        count: Count,
        size: SizeName,
        quantile: Annotated[float, Field(ge=0, le=1)],
        drawn: PositiveInt,
    ) -> None:
        if drawn < count:
            raise UserError(f"architectures.drawn = {drawn} is less than the count of {count}")
        self.count, self.size, self.quantile, self.drawn = count, size, quantile, drawn

    def choose(self, space: SearchSpace, problem: Problem, rng: np.random.Generator) -> Chosen:
        found = sample_distinct(space, rng, self.drawn)
        found.sort(key=space.sizer(self.size, problem))
        begin = round(self.quantile * (self.drawn - self.count))
        return Chosen(found[begin : begin + self.count])


class Listed(Architectures):
    """Takes architectures from a text file, one a line as the space writes them.

    ``#`` begins a comment.
    """

    def __init__(self, *, path: str | None) -> None:
        self.path = path

    def choose(self, space: SearchSpace, problem: Problem, rng: np.random.Generator) -> Chosen:
        if self.path is None:
            raise UserError("architectures=listed needs rank.architectures.path=FILE")
        path = at_home(self.path)
        trouble = f"cannot read the architectures in {path}"
        try:
            lines = decoded(read_named(path, MAX_LIST_BYTES, trouble)).splitlines()
        except ValueError as error:
            raise UserError(f"{trouble}: {error}") from error
        found: dict[Architecture, int] = {}
        chosen: list[Architecture] = []
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            try:
                architecture = space.parse(text)
            except UserError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
            form = space.canonical(architecture)
            if form in found:
                raise UserError(f"{path}, line {number}: the same network as line {found[form]}")
            found[form] = number
            chosen.append(architecture)
        return Chosen(chosen)
