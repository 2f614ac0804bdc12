"""Second scores of the ranked supernet, and their agreement with first scores and truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import ScoreAxis, Scorer
from nasrun.metrics.bootstrap import bootstrap
from nasrun.metrics.ranking import kendall
from nasrun.report.ranking import Agreement, SecondScores
from nasrun.run.run import Run
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams

if TYPE_CHECKING:
    from nasrun.task.rank import RankTask


class SecondScorer:
    """Computes second scores of a ranking, and their agreement with first scores and truth."""

    def __init__(self, scorer: Scorer, axis: ScoreAxis) -> None:
        self.scorer, self.axis = scorer, axis
        self.scores: dict[int, list[float]] = {}

    @staticmethod
    def bind(wanted: RankTask, space: SearchSpace, splits: Splits, run: Run) -> SecondScorer | None:
        """Bind ``rank.also``, if there is one; raises UserError if it does not fit the space."""
        if wanted.also is None:
            return None
        try:
            scorer = wanted.also.bind(space, splits, run.compute, run.streams)
        except UserError as error:
            raise UserError(f"rank.also: {error}") from error
        return SecondScorer(scorer, wanted.also.axis("rank.also"))

    def compare(
        self,
        scores: Mapping[int, Sequence[float]],
        truth: npt.ArrayLike,
        wanted: RankTask,
        streams: Streams,
        strata: Sequence[int] | None,
    ) -> SecondScores:
        """Measure τ-b with intervals over architectures, after each epoch."""

        def agreement(also: Any, first: Any, true: Any) -> Any:
            return {"with_truth": kendall(also, true), "with_scores": kendall(also, first)}

        found: dict[int, Agreement] = {}
        for epoch in scores:
            found[epoch] = bootstrap(
                agreement,
                *(self.scores[epoch], scores[epoch], truth),
                resamples=wanted.resamples,
                confidence=wanted.confidence,
                rng=streams.numpy("bootstrap/also", epoch),
                strata=strata,
            )
        last = self.scores[list(scores)[-1]]
        return SecondScores(last, found, self.axis.label, self.axis.logarithm)
