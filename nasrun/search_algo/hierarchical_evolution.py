"""Hierarchical evolution: tournaments without removal, and mutations level by level.

Source: Liu et al., ICLR 2018, arXiv 1711.00436, Algorithm 1 and section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.pool import MAX_FRUITLESS_SAMPLES, ByForm, PoolSearch
from nasrun.search_space.capabilities import Places, PlacesInLevels
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


@dataclass(frozen=True, kw_only=True)
class HierarchicalEvolution(SearchAlgo):
    """Nobody dies: the best of a share of all that were scored has the next child.

    population: members of the first population.
    initial_mutations: mutations that make each of them from the space's trivial architecture; in
    spaces without one from a random architecture.
    tournament: share of the population that is sampled, the best of which is the parent.
    evaluations: architectures scored in all, including the first population.

    Nothing is scored twice. The search ends early after ``MAX_FRUITLESS_SAMPLES`` children in a row
    that are known or outside the budget. Raises UserError if population > evaluations.
    """

    rounds = 1

    population: Count
    initial_mutations: Annotated[int, Field(ge=0, le=100_000)]
    tournament: Annotated[float, Field(gt=0, le=1)]
    evaluations: Count

    def __post_init__(self) -> None:
        if self.population > self.evaluations:
            raise UserError(
                f"search_algo.population={self.population} is more than search_algo.evaluations="
                f"{self.evaluations}: nothing would be bred; lower it, or raise the evaluations"
            )

    def scored_in(self, round_: int) -> int:
        return self.evaluations

    def bind(
        self, candidates: Candidates, streams: Streams, device: torch.device
    ) -> TournamentSearch:
        return TournamentSearch(self, candidates, streams)


def sample_place(places: Places, rng: np.random.Generator) -> int:
    """Go down from level to level, at each to any branch with equal probability, to a decision."""
    while not isinstance(places, int):
        places = places[int(rng.integers(len(places)))]
    return places


class TournamentSearch(PoolSearch):
    """The search of ``HierarchicalEvolution``. cycles: children so far, known ones included."""

    def __init__(
        self, algo: HierarchicalEvolution, candidates: Candidates, streams: Streams
    ) -> None:
        # The first members are asked for together, children one by one.
        super().__init__(candidates, streams, batch=algo.population)
        self.algo = algo
        self.cycles = 0
        self.exhausted = False
        levels = self.space if isinstance(self.space, PlacesInLevels) else None
        self.trivial = levels and levels.trivial
        self.places: Places = levels.places if levels else range(len(self.space.decisions))

    def begin_round(self) -> Round | None:
        if not self.pool.trials:
            self._populate()
        if not self.pool.pending and self._is_over():
            return None
        left = self.algo.evaluations - len(self.pool.trials)
        return Round(0, None, fresh_supernet=True, evaluations=len(self.pool.pending) + left)

    def ask(self) -> list[Architecture]:
        if self.pool.trials and not self.pool.pending and not self._is_over():
            self._breed()
        return super().ask()

    def _is_over(self) -> bool:
        return self.exhausted or len(self.pool.trials) >= self.algo.evaluations

    def _populate(self) -> None:
        """Make the first population; where the budget refuses mutants, random ones fill it."""
        rng = self.streams.numpy("random", 0)
        found: ByForm = {}
        for _ in range(self.algo.population):
            member = self.trivial or self.space.sample(rng)
            for _ in range(self.algo.initial_mutations):
                member = self.mutate(member, rng)
            self.pool.collect([member], self.algo.population, found)
        self.pool.sample(rng, self.algo.population, found)
        self.pool.add_pending(found)

    def mutate(self, parent: Architecture, rng: np.random.Generator) -> Architecture:
        """Give a place an option that is sampled uniformly, maybe the same again (section 3.1)."""
        place = sample_place(self.places, rng)
        option = int(rng.integers(len(self.space.decisions[place].options)))
        choices = (*parent.choices[:place], option, *parent.choices[place + 1 :])
        return self.space.repair(Architecture(parent.space, choices), rng)

    def _breed(self) -> None:
        """Run cycles until a new child waits for its score."""
        for _ in range(MAX_FRUITLESS_SAMPLES):
            rng = self.streams.numpy("cycle", self.cycles)
            self.cycles += 1
            parent = self._winner(rng)
            found: ByForm = {}
            self.pool.collect([self.mutate(parent, rng)], 1, found)
            if found:
                self.pool.add_pending(found)
                self.pool.made(self.pool.pending[0], "mutation", [parent])
                return
        self.exhausted = True

    def _winner(self, rng: np.random.Generator) -> Architecture:
        """Return the best of a random share of all members; of equal ones the first sampled."""
        trials = [trial for trial in self.pool.trials.values() if trial is not None]
        count = max(round(self.algo.tournament * len(trials)), 1)
        rivals = rng.choice(len(trials), count, replace=False).tolist()
        winner: Trial = max((trials[rival] for rival in rivals), key=lambda trial: trial.rank_key)
        return winner.architecture

    def state_dict(self) -> dict[str, Any]:
        return {
            "pool": self.pool.state_dict(),
            "cycles": self.cycles,
            "exhausted": self.exhausted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError or ValueError if it does not fit."""
        self.pool.load_state_dict(state["pool"])
        most = MAX_FRUITLESS_SAMPLES * self.algo.evaluations
        self.cycles = whole_number(state["cycles"], most=most)
        self.exhausted = bool(state["exhausted"])
