"""Scores without training: a larger network has a better score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from nasrun.dataset.base import Splits
from nasrun.evaluator.base import Evaluator, GatesOf, Scorer, choices_of
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem, Trial


class SizeEvaluator(Evaluator):
    """Scores by the size of the network, as a share of the largest that the space may have.

    The size counts at the search's scale. Every supernet has to beat this baseline. With a single
    random architecture it is the control of a search: a random network, retrained.
    """

    needs_supernet = False

    def __init__(self, *, size: Literal["params", "macs"]) -> None:
        self.size = size

    def bind(
        self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams
    ) -> Scorer:
        largest: int = getattr(space.cost_bound(splits.problem), self.size)
        return SizeScorer(self.size, space, splits.problem, streams.seed, largest)


@dataclass(frozen=True)
class SizeScorer(Scorer):
    """Scores by size. largest: upper bound of all sizes in the space."""

    size: Literal["params", "macs"]
    space: SearchSpace
    problem: Problem
    seed: int
    largest: int

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        for architecture in architectures:
            cost = self.space.cost(architecture, self.problem)
            score = getattr(cost, self.size) / self.largest
            how = {"evaluator": "size", "size": self.size}
            yield Trial(architecture, score, cost, self.seed, how)
