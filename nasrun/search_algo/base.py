"""What a search algorithm is: ask/tell over architectures, in rounds of supernet training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nasrun.budget.candidates import Candidates
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateLearner
from nasrun.values import Architecture, Problem, Trial


@dataclass(frozen=True)
class Round:
    """One round of supernet training.

    pool: the architectures that it trains; None: the whole search space.
    fresh_supernet: start from new weights, not from those of the round before.
    evaluations: how many architectures it will ask for, as far as is known.
    """

    index: int
    pool: tuple[Architecture, ...] | None
    fresh_supernet: bool
    evaluations: int


@dataclass(frozen=True)
class BlockHistory:
    """The multiply-adds of each block by name, ``macs[name][i]`` after ``epochs[i]`` epochs."""

    epochs: Sequence[float]
    macs: Mapping[str, Sequence[int]]


class SearchAlgo(ABC):
    """A search algorithm. It never trains a network of the space and never scores one.

    The task drives it::

        algo.start(candidates, streams, device)
        while round := algo.next_round(monitor):
            ...train the supernet on round.pool...
            while architectures := algo.ask():
                algo.tell(evaluator(architectures))
        algo.best(5)
    """

    rounds: int
    """How many rounds of supernet training the algorithm wants."""

    trains_pool: bool = False
    """Whether its rounds train a pool of architectures rather than the whole space."""

    learner: GateLearner | None = None
    """What sets the gates of supernet training, in the place of a sampler, and learns them."""

    def check(self, space: SearchSpace) -> None:  # noqa: B027 - most algorithms take any space
        """Raises UserError where the algorithm means nothing in ``space``."""

    @abstractmethod
    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        """Begin a search among ``candidates``: the architectures of a space, within a budget.

        device: for what the algorithm itself learns (a predictor).
        """

    @abstractmethod
    def next_round(self, monitor: Monitor) -> Round | None:
        """The next round, or None when the search is over."""

    @abstractmethod
    def ask(self) -> list[Architecture]:
        """Architectures to score now; empty when this round has seen enough."""

    @abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """The scores of what was asked for."""

    @abstractmethod
    def best(self, count: int) -> list[Trial]:
        """The best distinct architectures so far, best first; at most ``count``."""

    def supernet(self, space: SearchSpace, problem: Problem, *, auxiliary: bool) -> Supernet:
        """The supernet that a learner of gates wants, randomly initialised from torch's default
        generator; raises UserError as the space does."""
        return space.supernet(problem, auxiliary=auxiliary)

    def gates(self, architecture: Architecture) -> Gates:
        """The gates by which a supernet scores the architecture."""
        return architecture.choices

    def block_history(self) -> BlockHistory | None:
        """How the blocks of the network shrank, of an algorithm that takes parts of it away."""
        return None

    def front(self) -> list[Trial] | None:
        """The trials that no other beats in every goal, of an algorithm that has several goals."""
        return None

    def costs(self, trial: Trial) -> dict[str, float]:
        """The goals of a trial besides its score, which are to be low."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a resumed search needs: tensors and JSON values only."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; called after ``start``."""
