"""Evolution on one supernet: mutation and crossover of the best, generation by generation."""

# Annotations are not postponed here: classes of other modules inherit these fields, and the types
# of a constructor are looked up in the module of its own class.

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.pool import ByForm, PoolSearch
from nasrun.search_algo.variation import cross, mutate
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

Child = tuple[Architecture, str, list[Architecture]]
"""A child, the step that made it, and its parents."""

Probability = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Generations(SearchAlgo):
    """A population of random architectures, then generations of children.

    Nothing is scored twice.

    population: architectures of each generation.
    generations: number of generations, the first one included.
    mutations, crossovers: children of each kind in a generation; the rest is random architectures.
    probability: probability that a decision of a mutated child is sampled anew.
    tries: samples at most for each child, until it is new and within the budget.
    batch: architectures scored between two checkpoints.
    """

    rounds = 1

    population: Count
    generations: Count
    mutations: NonNegativeInt
    crossovers: NonNegativeInt
    probability: Probability
    tries: Count
    batch: Count

    def __post_init__(self) -> None:
        if self.mutations + self.crossovers > self.population:
            raise UserError(
                f"search_algo: mutations={self.mutations} and crossovers={self.crossovers} are "
                f"more than the population={self.population}"
            )

    def scored_in(self, round_: int) -> int:
        return self.population * self.generations


class GenerationSearch(PoolSearch):
    """The search of ``Generations``; subclasses choose the parents."""

    def __init__(self, algo: Generations, candidates: Candidates, streams: Streams) -> None:
        super().__init__(candidates, streams, algo.batch)
        self.algo = algo
        self.generation = 0  # number of generations so far

    @abstractmethod
    def parents(self, rng: np.random.Generator) -> Sequence[Trial]:
        """Return the trials that become parents, out of all that were scored."""

    def choose_parent(self, parents: Sequence[Trial], rng: np.random.Generator) -> Architecture:
        """Sample a parent for a child, all with equal probability."""
        return parents[int(rng.integers(len(parents)))].architecture

    def begin_round(self) -> Round | None:
        if self.generation == 0:
            self._breed()
        return self.only_round((self.algo.generations - self.generation) * self.algo.population)

    def ask(self) -> list[Architecture]:
        if not self.pool.pending and 0 < self.generation < self.algo.generations:
            self._breed()
        return super().ask()

    def _breed(self) -> None:
        """Make the next generation; it is smaller if nothing new is left."""
        algo, rng = self.algo, self.streams.numpy("generation", self.generation)
        found: ByForm = {}
        if self.generation:
            parents = self.parents(rng)

            def parent() -> Architecture:
                return self.choose_parent(parents, rng)

            def mutant() -> Child:
                one = parent()
                child = mutate(one, self.space.decisions, algo.probability, rng)
                return child, "mutation", [one]

            def crossing() -> Child:
                one, two = parent(), parent()
                return cross(one, two, rng), "crossover", [one, two]

            self._fill(found, algo.mutations, rng, mutant)
            self._fill(found, algo.crossovers, rng, crossing)
        self.pool.sample(rng, algo.population, found)
        self.pool.add_pending(found)
        # If nothing new is left, later generations would find nothing either.
        self.generation = self.generation + 1 if found else algo.generations

    def _fill(
        self,
        found: ByForm,
        count: int,
        rng: np.random.Generator,
        child: Callable[[], Child],
    ) -> None:
        """Add up to ``count`` new children, in at most ``tries`` times as many samples."""
        wanted = len(found) + count
        for _ in range(self.algo.tries * count):
            if len(found) == wanted:
                return
            before = len(found)
            made, by, parents = child()
            made = self.space.repair(made, rng)
            self.pool.collect([made], wanted, found)
            if len(found) > before:
                self.pool.made(made, by, parents)

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict(), "generation": self.generation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
        self.generation = whole_number(state["generation"], most=self.algo.generations)


class EvolutionSearch(GenerationSearch):
    """The search of ``Evolution``."""

    algo: "Evolution"

    def parents(self, rng: np.random.Generator) -> Sequence[Trial]:
        return self.pool.best(self.algo.top)


@dataclass(frozen=True, kw_only=True)
class Evolution(Generations):
    """The evolution of SPOS (Guo et al. 2020, Algorithm 1).

    top: number of parents: the best architectures of all that were scored.
    """

    top: Count

    def __post_init__(self) -> None:
        if self.top > self.population:
            raise UserError(
                f"search_algo.top={self.top} is more than search_algo.population="
                f"{self.population}: the first generation cannot give so many parents"
            )
        super().__post_init__()

    def bind(
        self, candidates: Candidates, streams: Streams, device: torch.device
    ) -> EvolutionSearch:
        return EvolutionSearch(self, candidates, streams)
