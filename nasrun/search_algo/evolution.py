"""Evolution on one supernet: mutation and crossover of the best seen so far, generation by
generation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.monitor import Monitor
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round
from nasrun.search_algo.pool import Found, Pool, PoolSearch
from nasrun.search_algo.variation import cross, mutate
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

Probability = Annotated[float, Field(gt=0, le=1)]


class Generations(PoolSearch):
    """A population of random architectures, then generations of children; nothing is scored twice.

    population: architectures of each generation; generations: how many, the first included.
    mutations, crossovers: children of each kind in a generation; what they do not fill, random
    architectures do. probability: that a decision of a mutated child is drawn anew. tries: draws
    for each child that is wanted, until it is new and within the budget. batch: architectures
    scored between two checkpoints.
    """

    rounds = 1

    def __init__(
        self,
        *,
        population: Count,
        generations: Count,
        mutations: NonNegativeInt,
        crossovers: NonNegativeInt,
        probability: Probability,
        tries: Count,
        batch: Count,
    ) -> None:
        if mutations + crossovers > population:
            raise UserError(
                f"search_algo: mutations={mutations} and crossovers={crossovers} are more than the "
                f"population={population}"
            )
        self.population, self.generations = population, generations
        self.mutations, self.crossovers = mutations, crossovers
        self.probability, self.tries, self.batch = probability, tries, batch

    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        self.pool = Pool(candidates)
        self.streams = streams
        self.generation = 0  # how many have been bred

    @abstractmethod
    def parents(self, rng: np.random.Generator) -> Sequence[Trial]:
        """Those that breed, out of all that were scored."""

    def choose(self, parents: Sequence[Trial], rng: np.random.Generator) -> Architecture:
        """One of the parents, for a child; all alike."""
        return parents[int(rng.integers(len(parents)))].architecture

    def next_round(self, monitor: Monitor) -> Round | None:
        if self.generation == 0:
            self._breed()
        if not self.pool.pending and self.generation == self.generations:
            return None
        left = (self.generations - self.generation) * self.population
        return Round(0, None, fresh_supernet=True, evaluations=len(self.pool.pending) + left)

    def ask(self) -> list[Architecture]:
        if not self.pool.pending and 0 < self.generation < self.generations:
            self._breed()
        return super().ask()

    def _breed(self) -> None:
        """The next generation waits for its scores; smaller where nothing new is left."""
        rng = self.streams.numpy("generation", self.generation)
        found: Found = {}
        if self.generation:
            parents = self.parents(rng)
            self._fill(
                found,
                self.mutations,
                rng,
                lambda: mutate(
                    self.choose(parents, rng), self.pool.space.decisions, self.probability, rng
                ),
            )
            self._fill(
                found,
                self.crossovers,
                rng,
                lambda: cross(self.choose(parents, rng), self.choose(parents, rng), rng),
            )
        self.pool.sample(rng, self.population, found)
        self.pool.add(found)
        self.pool.pending = list(found.values())
        # Where nothing new is left, no later generation would find any either.
        self.generation = self.generation + 1 if found else self.generations

    def _fill(
        self,
        found: Found,
        count: int,
        rng: np.random.Generator,
        child: Callable[[], Architecture],
    ) -> None:
        """Up to ``count`` new children, in ``tries`` times as many draws."""
        wanted = len(found) + count
        for _ in range(self.tries * count):
            if len(found) == wanted:
                return
            self.pool.collect([self.pool.space.repair(child(), rng)], wanted, found)

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict(), "generation": self.generation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
        self.generation = whole_number(state["generation"], most=self.generations)


class Evolution(Generations):
    """The evolution of SPOS (Guo et al. 2020, Algorithm 1).

    top: how many of all that were visited are the parents of the next generation.
    """

    def __init__(
        self,
        *,
        population: Count,
        generations: Count,
        top: Count,
        mutations: NonNegativeInt,
        crossovers: NonNegativeInt,
        probability: Probability,
        tries: Count,
        batch: Count,
    ) -> None:
        if top > population:
            raise UserError(
                f"search_algo.top={top} is more than search_algo.population={population}: the "
                "first generation cannot give so many parents"
            )
        super().__init__(
            population=population,
            generations=generations,
            mutations=mutations,
            crossovers=crossovers,
            probability=probability,
            tries=tries,
            batch=batch,
        )
        self.top = top

    def parents(self, rng: np.random.Generator) -> Sequence[Trial]:
        return self.pool.best(self.top)
