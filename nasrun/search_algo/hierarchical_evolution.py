"""Hierarchical evolution: tournaments without removal, and mutations level by level.

Source: Liu et al., ICLR 2018, arXiv 1711.00436, Algorithm 1 and section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.limits import Count
from nasrun.search_algo.counted import CountedAlgo, CycleSearch
from nasrun.search_algo.pool import ByForm
from nasrun.search_space.capabilities import Places, PlacesInLevels
from nasrun.streams import Streams
from nasrun.values import Architecture


@dataclass(frozen=True, kw_only=True)
class HierarchicalEvolution(CountedAlgo):
    """Nobody dies: the best of a share of all that were scored has the next child.

    population: members of the first population.
    initial_mutations: mutations that make each of them from the space's trivial architecture; in
    spaces without one from a random architecture.
    tournament: share of the population that is sampled, the best of which is the parent.
    evaluations: architectures scored in all, including the first population.

    Raises UserError if population > evaluations.
    """

    population: Count
    initial_mutations: Annotated[int, Field(ge=0, le=100_000)]
    tournament: Annotated[float, Field(gt=0, le=1)]

    def __post_init__(self) -> None:
        self.require_rest("population", "be bred")

    def bind(
        self, candidates: Candidates, streams: Streams, device: torch.device
    ) -> TournamentSearch:
        return TournamentSearch(self, candidates, streams)


def sample_place(places: Places, rng: np.random.Generator) -> int:
    """Go down from level to level, at each to any branch with equal probability, to a decision."""
    while not isinstance(places, int):
        places = places[int(rng.integers(len(places)))]
    return places


class TournamentSearch(CycleSearch):
    """The search of ``HierarchicalEvolution``."""

    algo: HierarchicalEvolution

    def __init__(
        self, algo: HierarchicalEvolution, candidates: Candidates, streams: Streams
    ) -> None:
        super().__init__(algo, algo.population, candidates, streams)
        levels = self.space if isinstance(self.space, PlacesInLevels) else None
        self.trivial = levels and levels.trivial
        self.places: Places = levels.places if levels else range(len(self.space.decisions))

    def begin(self) -> None:
        """Make the first population; where the budget refuses mutants, random ones fill it."""
        rng = self.streams.numpy("random", 0)
        found: ByForm = {}
        for _ in range(self.algo.population):
            member = self.trivial or self.space.sample(rng)
            for _ in range(self.algo.initial_mutations):
                member = self.child(member, rng)
            self.pool.collect([member], self.algo.population, found)
        self.pool.sample(rng, self.algo.population, found)
        self.add(found)

    def child(self, parent: Architecture, rng: np.random.Generator) -> Architecture:
        """Give a place an option that is sampled uniformly, maybe the same again (section 3.1)."""
        place = sample_place(self.places, rng)
        option = int(rng.integers(len(self.space.decisions[place].options)))
        choices = (*parent.choices[:place], option, *parent.choices[place + 1 :])
        return self.space.repair(Architecture(parent.space, choices), rng)

    def parent(self, rng: np.random.Generator) -> Architecture:
        """Return the best of a random share of all members; of equal ones the first sampled."""
        members = list(self.pool.trials)
        count = max(round(self.algo.tournament * len(members)), 1)
        rivals = rng.choice(len(members), count, replace=False).tolist()
        winner: Architecture = max((members[rival] for rival in rivals), key=self.rank_key)
        return winner
