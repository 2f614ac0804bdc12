"""Regularised evolution, that of AmoebaNet: whoever is oldest dies, however good (Real et al. 2019,
arXiv 1802.01548, Algorithm 1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.monitor import Monitor
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round
from nasrun.search_algo.pool import GIVE_UP_AFTER, Found, Pool, PoolSearch
from nasrun.search_algo.variation import change_one
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


class RegularizedEvolution(PoolSearch):
    """A queue of the newest ``population`` members; each cycle the best of a few has a child.

    population: members; the first ones are random. tournament: members drawn at random, with
    replacement, the best of which is the parent. identity: probability that the child is its parent
    again, else one decision is changed. evaluations: architectures scored in all, those of the
    first population among them.

    Nothing is scored twice: a child that stands for a network that was scored already joins the
    population with the score that is known, and does not count as an evaluation. The search ends
    early where ``GIVE_UP_AFTER`` children in a row were all of that kind.
    Raises UserError where the tournament is larger than the population, or that than evaluations.
    """

    rounds = 1

    def __init__(
        self,
        *,
        population: Count,
        tournament: Count,
        identity: Annotated[float, Field(ge=0, lt=1)],
        evaluations: Count,
    ) -> None:
        if tournament > population:
            raise UserError(
                f"search_algo.tournament={tournament} is more than search_algo.population="
                f"{population}: lower it, or raise the population"
            )
        if population > evaluations:
            raise UserError(
                f"search_algo.population={population} is more than search_algo.evaluations="
                f"{evaluations}: nothing would be bred; lower it, or raise the evaluations"
            )
        self.population, self.tournament = population, tournament
        self.identity, self.evaluations = identity, evaluations
        self.batch = population  # the first members are asked for at once, children one by one

    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        self.pool = Pool(candidates)
        self.streams = streams
        self.members: deque[Architecture] = deque(maxlen=self.population)  # oldest first
        self.scored: Found = {}
        self.cycles = 0  # children so far, those that were known among them
        self.exhausted = False

    def next_round(self, monitor: Monitor) -> Round | None:
        if not self.pool.trials:
            found: Found = {}
            self.pool.sample(self.streams.numpy("random", 0), self.population, found)
            self._await(found)
        if not self.pool.pending and self._over():
            return None
        left = self.evaluations - len(self.pool.trials)
        return Round(0, None, fresh_supernet=True, evaluations=len(self.pool.pending) + left)

    def ask(self) -> list[Architecture]:
        if not self.pool.pending and self.members and not self._over():
            self._breed()
        return super().ask()

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        for trial in trials:
            self.scored[self.pool.space.canonical(trial.architecture)] = trial.architecture
            self.members.append(trial.architecture)

    def _over(self) -> bool:
        return self.exhausted or len(self.pool.trials) >= self.evaluations

    def _await(self, found: Found) -> None:
        self.pool.add(found)
        self.pool.pending = list(found.values())

    def _breed(self) -> None:
        """Cycle after cycle until a child waits for its score."""
        for _ in range(GIVE_UP_AFTER):
            child = self._child()
            form = self.pool.space.canonical(child)
            if form not in self.scored:
                self._await({form: child})
                return
            self.members.append(child)
        self.exhausted = True

    def _child(self) -> Architecture:
        rng = self.streams.numpy("cycle", self.cycles)
        self.cycles += 1
        drawn = rng.integers(len(self.members), size=self.tournament).tolist()
        parent = max((self.members[index] for index in drawn), key=self._score)  # the first drawn
        if rng.random() < self.identity:
            return parent
        space, candidates = self.pool.space, self.pool.candidates
        return change_one(parent, space.decisions, candidates.allows, rng, space.repair)

    def _score(self, member: Architecture) -> float:
        trial = self.pool.trials[self.scored[self.pool.space.canonical(member)]]
        assert trial is not None  # noqa: S101
        return trial.score

    def state_dict(self) -> dict[str, Any]:
        return {
            "pool": self.pool.state_dict(),
            "members": [member.to_json() for member in self.members],
            "cycles": self.cycles,
            "exhausted": self.exhausted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError or ValueError where the state is none of this search."""
        self.pool.load_state_dict(state["pool"])
        read, canonical = self.pool.space.read, self.pool.space.canonical
        members = [read(member) for member in state["members"]]
        scored = [one for one, trial in self.pool.trials.items() if trial is not None]
        self.scored = {canonical(architecture): architecture for architecture in scored}
        if len(members) > self.population:
            raise ValueError(f"{len(members)} members of a population of {self.population}")
        if not all(canonical(member) in self.scored for member in members):
            raise ValueError("a member of the population has no score")
        self.members = deque(members, maxlen=self.population)
        self.cycles = whole_number(state["cycles"], most=GIVE_UP_AFTER * self.evaluations)
        self.exhausted = bool(state["exhausted"])
