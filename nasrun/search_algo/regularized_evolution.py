"""Regularised evolution (AmoebaNet): the oldest member is removed, however good it is.

Source: Real et al. 2019, arXiv 1802.01548, Algorithm 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.pool import MAX_FRUITLESS_SAMPLES, ByForm, PoolSearch
from nasrun.search_algo.variation import change_one
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


@dataclass(frozen=True, kw_only=True)
class RegularizedEvolution(SearchAlgo):
    """Keeps the newest ``population`` members; in each cycle the best of a few has a child.

    population: members; the first ones are random.
    tournament: members sampled at random, with replacement, the best of which is the parent.
    identity: probability that the child equals its parent; otherwise one decision is changed.
    evaluations: architectures scored in all, including the first population.

    Nothing is scored twice: a child whose network has a score already joins the population with
    this score, and does not count as an evaluation. The search ends early after
    ``MAX_FRUITLESS_SAMPLES`` such children in a row.
    Raises UserError if tournament > population, or population > evaluations.
    """

    rounds = 1

    population: Count
    tournament: Count
    identity: Annotated[float, Field(ge=0, lt=1)]
    evaluations: Count

    def __post_init__(self) -> None:
        if self.tournament > self.population:
            raise UserError(
                f"search_algo.tournament={self.tournament} is more than search_algo.population="
                f"{self.population}: lower it, or raise the population"
            )
        if self.population > self.evaluations:
            raise UserError(
                f"search_algo.population={self.population} is more than search_algo.evaluations="
                f"{self.evaluations}: nothing would be bred; lower it, or raise the evaluations"
            )

    def scored_in(self, round_: int) -> int:
        return self.evaluations

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> AgingSearch:
        return AgingSearch(self, candidates, streams)


class AgingSearch(PoolSearch):
    """The search of ``RegularizedEvolution``."""

    def __init__(
        self, algo: RegularizedEvolution, candidates: Candidates, streams: Streams
    ) -> None:
        # The first members are asked for together, children one by one.
        super().__init__(candidates, streams, batch=algo.population)
        self.algo = algo
        self.members: deque[Architecture] = deque(maxlen=algo.population)  # oldest first
        self.scored: ByForm = {}
        self.cycles = 0  # children so far, including those with known scores
        self.exhausted = False
        self.parents: list[Architecture] = []  # of the newest child, as it was scored

    def begin_round(self) -> Round | None:
        if not self.pool.trials:
            found: ByForm = {}
            self.pool.sample(self.streams.numpy("random", 0), self.algo.population, found)
            self.pool.add_pending(found)
        if not self.pool.pending and self._is_over():
            return None
        left = self.algo.evaluations - len(self.pool.trials)
        return Round(0, None, fresh_supernet=True, evaluations=len(self.pool.pending) + left)

    def ask(self) -> list[Architecture]:
        if not self.pool.pending and self.members and not self._is_over():
            self._breed()
        return super().ask()

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        for trial in trials:
            self.scored[self.space.canonical(trial.architecture)] = trial.architecture
            self.members.append(trial.architecture)

    def _is_over(self) -> bool:
        return self.exhausted or len(self.pool.trials) >= self.algo.evaluations

    def _breed(self) -> None:
        """Run cycles until a child waits for its score."""
        for _ in range(MAX_FRUITLESS_SAMPLES):
            child = self._child()
            form = self.space.canonical(child)
            if form not in self.scored:
                self.pool.add_pending({form: child})
                self.pool.made(child, "mutation", self.parents)
                return
            self.members.append(child)
        self.exhausted = True

    def _child(self) -> Architecture:
        rng = self.streams.numpy("cycle", self.cycles)
        self.cycles += 1
        rivals = rng.integers(len(self.members), size=self.algo.tournament).tolist()
        # Of equal scores the first that was sampled.
        parent = max((self.members[index] for index in rivals), key=self._rank_key)
        self.parents = [self.scored[self.space.canonical(parent)]]
        if rng.random() < self.algo.identity:
            return parent
        allows = self.candidates.allows
        return change_one(parent, self.space.decisions, allows, rng, self.space.repair)

    def _rank_key(self, member: Architecture) -> tuple[float, float]:
        trial = self.pool.trials[self.scored[self.space.canonical(member)]]
        assert trial is not None  # noqa: S101
        return trial.rank_key

    def state_dict(self) -> dict[str, Any]:
        return {
            "pool": self.pool.state_dict(),
            "members": [member.to_json() for member in self.members],
            "cycles": self.cycles,
            "exhausted": self.exhausted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError or ValueError if it does not fit."""
        self.pool.load_state_dict(state["pool"])
        read, canonical = self.space.read, self.space.canonical
        members = [read(member) for member in state["members"]]
        trials = [trial for trial in self.pool.trials.values() if trial is not None]
        self.scored = {canonical(trial.architecture): trial.architecture for trial in trials}
        if len(members) > self.algo.population:
            raise ValueError(f"{len(members)} members of a population of {self.algo.population}")
        if not all(canonical(member) in self.scored for member in members):
            raise ValueError("a member of the population has no score")
        self.members = deque(members, maxlen=self.algo.population)
        most = MAX_FRUITLESS_SAMPLES * self.algo.evaluations
        self.cycles = whole_number(state["cycles"], most=most)
        self.exhausted = bool(state["exhausted"])
