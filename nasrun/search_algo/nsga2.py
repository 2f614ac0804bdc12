"""NSGA-II: several goals at once, and a front of architectures that no other beats in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.search_algo.evolution import Generations, GenerationSearch
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

Goal = Literal["params", "macs", "bitops", "latency_ms"]


@dataclass(frozen=True, kw_only=True)
class Nsga2(Generations):
    """NSGA-II (Deb et al. 2002, IEEE TEVC 6), on the scores of a supernet against costs.

    goals: costs of the final network to be lowered, besides the score, which is raised.

    The parents are the best ``population`` trials of all, by front and then by crowding distance.
    Each parent of a child is the better one of two random parents.
    """

    goals: Annotated[list[Goal], Field(min_length=1)]

    def __post_init__(self) -> None:
        if len(set(self.goals)) < len(self.goals):
            raise UserError(f"search_algo.goals={self.goals}: each goal once")
        super().__post_init__()

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> Nsga2Search:
        return Nsga2Search(self, candidates, streams)


class Nsga2Search(GenerationSearch):
    """The search of ``Nsga2``."""

    def __init__(self, algo: Nsga2, candidates: Candidates, streams: Streams) -> None:
        super().__init__(algo, candidates, streams)
        self.measures = {goal: candidates.measure(goal) for goal in algo.goals}

    def parents(self, rng: np.random.Generator) -> Sequence[Trial]:
        trials = self.pool.best(len(self.pool.trials))
        values = self._values(trials)
        ranks = pareto_ranks(values)
        order: list[int] = []
        for rank in range(int(ranks.max()) + 1):
            members = np.flatnonzero(ranks == rank)
            distances = crowding(values[members])
            order += members[np.argsort(-distances, kind="stable")].tolist()
            if len(order) >= self.algo.population:
                break
        return [trials[index] for index in order[: self.algo.population]]

    def choose_parent(self, parents: Sequence[Trial], rng: np.random.Generator) -> Architecture:
        """Return the better one of two random parents; ``parents`` are sorted, best first."""
        return parents[int(rng.integers(len(parents), size=2).min())].architecture

    def front(self) -> list[Trial]:
        """Return the first front, best score first."""
        trials = self.pool.best(len(self.pool.trials))
        ranks = pareto_ranks(self._values(trials))
        return [trial for trial, rank in zip(trials, ranks, strict=True) if rank == 0]

    def costs(self, trial: Trial) -> dict[str, float]:
        return {goal: measure(trial.architecture) for goal, measure in self.measures.items()}

    def _values(self, trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
        """Return minus the score, and the costs, of each trial: [n, goals], lower is better."""
        return np.array(
            [[-trial.score, *self.costs(trial).values()] for trial in trials], dtype=np.float64
        )


def pareto_ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rank points [n, goals]: 0 if no point dominates them, 1 if only points of rank 0 do, etc.

    A point dominates another one that is nowhere lower and somewhere higher.
    """
    count = len(values)
    nowhere_higher = np.ones((count, count), dtype=bool)
    lower = np.zeros((count, count), dtype=bool)
    for column in values.T:
        nowhere_higher &= column[:, None] <= column[None]
        lower |= column[:, None] < column[None]
    dominates = nowhere_higher & lower
    rivals = dominates.sum(axis=0)
    ranks = np.zeros(count, dtype=np.int64)
    members, rank = np.flatnonzero(rivals == 0), 0
    while len(members):
        ranks[members], rivals[members] = rank, -1
        rivals -= dominates[members].sum(axis=0)
        members, rank = np.flatnonzero(rivals == 0), rank + 1
    return ranks


def crowding(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The crowding distance [n] of each point [n, goals] of one front.

    The distance is the sum of the sides of the box between the neighbours of a point. Each goal is
    scaled to its range; the best and worst point of a goal have infinite distance (Deb et al., III
    B).
    """
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        distances[order[[0, -1]]] = np.inf
        if span > 0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distances
