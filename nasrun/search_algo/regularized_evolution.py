"""Regularised evolution (AmoebaNet): the oldest member is removed, however good it is.

Source: Real et al. 2019, arXiv 1802.01548, Algorithm 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.search_algo.counted import CountedAlgo, CycleSearch
from nasrun.search_algo.variation import change_one
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


@dataclass(frozen=True, kw_only=True)
class RegularizedEvolution(CountedAlgo):
    """Keeps the newest ``population`` members; in each cycle the best of a few has a child.

    population: members; the first ones are random.
    tournament: members sampled at random, with replacement, the best of which is the parent.
    identity: probability that the child equals its parent; otherwise one decision is changed.
    evaluations: architectures scored in all, including the first population.

    A child whose network has a score already joins the population with this score, and does not
    count as an evaluation.
    Raises UserError if tournament > population, or population > evaluations.
    """

    population: Count
    tournament: Count
    identity: Annotated[float, Field(ge=0, lt=1)]

    def __post_init__(self) -> None:
        if self.tournament > self.population:
            raise UserError(
                f"search_algo.tournament={self.tournament} is more than search_algo.population="
                f"{self.population}: lower it, or raise the population"
            )
        self.require_rest("population", "be bred")

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> AgingSearch:
        return AgingSearch(self, candidates, streams)


class AgingSearch(CycleSearch):
    """The search of ``RegularizedEvolution``. members: of the population, the oldest first."""

    algo: RegularizedEvolution

    def __init__(
        self, algo: RegularizedEvolution, candidates: Candidates, streams: Streams
    ) -> None:
        super().__init__(algo, algo.population, candidates, streams)
        self.members: deque[Architecture] = deque(maxlen=algo.population)

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        self.members += [trial.architecture for trial in trials]

    def parent(self, rng: np.random.Generator) -> Architecture:
        """Return the best of a few random members; of equal ones the first sampled."""
        rivals = rng.integers(len(self.members), size=self.algo.tournament).tolist()
        return max((self.members[index] for index in rivals), key=self._rank_key)

    def child(self, parent: Architecture, rng: np.random.Generator) -> Architecture:
        if rng.random() < self.algo.identity:
            return parent
        allows = self.candidates.allows
        return change_one(parent, self.space.decisions, allows, rng, self.space.repair)

    def again(self, child: Architecture) -> None:
        self.members.append(child)

    def _rank_key(self, member: Architecture) -> tuple[float, float]:
        return self.rank_key(self.known[self.space.canonical(member)])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "members": [member.to_json() for member in self.members]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        members = [self.space.read(member) for member in state["members"]]
        if len(members) > self.algo.population:
            raise ValueError(f"{len(members)} members of a population of {self.algo.population}")
        for member in members:
            known = self.known.get(self.space.canonical(member))
            if known is None or self.pool.trials[known] is None:
                raise ValueError("a member of the population has no score")
        self.members = deque(members, maxlen=self.algo.population)
