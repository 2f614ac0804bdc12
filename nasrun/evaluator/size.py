"""Scores without training: the larger the network, the better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from nasrun.dataset.base import Splits
from nasrun.evaluator.base import Evaluator, GatesOf, choices_of
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


class SizeEvaluator(Evaluator):
    """The size of the network of the search, as a share of the largest that the space may have.

    The baseline that every supernet has to beat; and, with a single random architecture, the
    control of a search: a random network, retrained.
    """

    needs_supernet = False

    def __init__(self, *, size: Literal["params", "macs"]) -> None:
        self.size = size

    def start(self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams) -> None:
        self.space, self.problem, self.seed = space, splits.problem, streams.seed
        self.largest: int = getattr(space.cost_bound(splits.problem), self.size)

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
