"""Interfaces of search algorithms (settings) and of searches (settings bound to data)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Split, Splits
from nasrun.run.monitor import Monitor, NullMonitor
from nasrun.run.stages import PlannedStage
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateContext, GateLearner
from nasrun.values import Architecture, Problem, Trial


@dataclass(frozen=True)
class Round:
    """One round of supernet training.

    index: 0 for the first round.
    pool: the architectures to train; None: the whole search space.
    fresh_supernet: whether it starts from new weights, not from those of the round before.
    evaluations: number of architectures that it will ask for, as far as is known.
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
    """The settings of a search algorithm, which never change; ``bind`` makes the search itself.

    rounds: rounds of supernet training.
    trains_pool: whether the rounds train a pool of architectures, not the whole space.
    learns_gates: whether the search itself sets and learns the gates of supernet training, instead
    of a sampler.
    """

    rounds: int
    trains_pool: bool = False
    learns_gates: bool = False

    def check(self, space: SearchSpace) -> None:  # noqa: B027 - most algorithms take any space
        """Raise UserError if the algorithm has no meaning in ``space``."""

    def scored_in(self, round_: int) -> int:
        """Return how many architectures a round asks for, as far as the settings tell."""
        return 1

    def stages_before(self, round_: int) -> list[PlannedStage]:
        """Plan the algorithm's own work before a round, e.g. the training of a predictor."""
        return []

    def training_images(self, splits: Splits) -> Split:
        """Return the images that the weights of the supernet learn from in this search."""
        return splits.train

    def supernet(self, space: SearchSpace, problem: Problem, *, auxiliary: bool) -> Supernet:
        """Make the supernet for the search, initialised from torch's default generator.

        Raises UserError as ``SearchSpace.supernet`` does.
        """
        return space.supernet(problem, auxiliary=auxiliary)

    @abstractmethod
    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> Search:
        """Make a search among ``candidates``: the architectures of a space, within a budget.

        device: the device of a predictor or other model that the algorithm itself trains.
        Raises UserError if the settings do not suit the candidates.
        """


class Search(ABC):
    """A search in progress. It never trains a network of the space and never scores one.

    The task drives it::

        search = algo.bind(candidates, streams, device)
        while round := search.next_round(monitor):
            ...train the supernet on round.pool...
            while architectures := search.ask():
                search.tell(evaluator(architectures))
        search.best(5)

    monitor: shows the progress and the messages of the current round.
    """

    def __init__(self, candidates: Candidates, streams: Streams) -> None:
        self.candidates, self.space, self.streams = candidates, candidates.space, streams
        self.monitor: Monitor = NullMonitor()

    def next_round(self, monitor: Monitor) -> Round | None:
        """Return the next round, or None when the search is over.

        monitor: shows progress and messages until the following round.
        """
        self.monitor = monitor
        return self.begin_round()

    @abstractmethod
    def begin_round(self) -> Round | None:
        """Begin the next round, or continue one that has architectures without a score."""

    @abstractmethod
    def ask(self) -> list[Architecture]:
        """Return architectures to score now; empty when the round needs no more scores."""

    @abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the scores of architectures that were asked for."""

    @abstractmethod
    def best(self, count: int) -> list[Trial]:
        """Return the best distinct architectures so far, best first; at most ``count``."""

    def bind_learner(self, context: GateContext) -> GateLearner | None:
        """Make the learner of the gates and keep it; None: a sampler sets the gates.

        Raises UserError if the settings do not suit the length of the training.
        """
        return None

    def gates(self, architecture: Architecture) -> Gates:
        """Return the gates by which a supernet scores the architecture."""
        return architecture.choices

    def origin(self, architecture: Architecture) -> dict[str, Any]:
        """Return how an architecture that waits for its score was made, for trials.jsonl.

        ``by``: the step that made it; ``parents``: digests of those that it was made from. Empty
        if it was sampled, or not made from others.
        """
        return {}

    def block_history(self) -> BlockHistory | None:
        """Return the block sizes over the epochs if the search removes edges, else None."""
        return None

    def front(self) -> list[Trial] | None:
        """Return the trials that no other beats in all goals; None: the search has one goal."""
        return None

    def report(self) -> dict[str, Any]:
        """Return what the search itself adds to result.json, as JSON values."""
        return {}

    def costs(self, trial: Trial) -> dict[str, float]:
        """Return the costs of a trial that are goals of the search besides its score."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed search needs, as tensors and JSON values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; the learner of gates must have been bound before."""
