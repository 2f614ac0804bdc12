"""What ``nasrun rank`` is told besides the parts of every run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from nasrun.architectures.samples import Architectures
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Evaluator, scores_a_supernet


class Rank:
    """architectures: which are ranked; truth: the evaluator whose scores are the ground truth.

    also: a second evaluator whose scores of the same supernet are put beside the first's.
    truth_seeds: runs of a truth that is trained, one after the other; truth_store: folder where
    their results are kept, so that no network is ever trained twice.
    epochs: of supernet training after which the ranking is measured; the end is always among them.
    resamples, confidence: of the bootstrap intervals. top: share of the best, and k: how many are
    retrained, in the measures of the top.
    """

    def __init__(
        self,
        *,
        architectures: Architectures,
        truth: Evaluator,
        truth_seeds: PositiveInt,
        truth_store: str,
        epochs: list[PositiveInt],
        resamples: Annotated[int, Field(ge=0, le=1_000_000)],
        confidence: Annotated[float, Field(gt=0, lt=1)],
        top: Annotated[float, Field(gt=0, le=1)],
        k: PositiveInt,
        also: Evaluator | None = None,
    ) -> None:
        if sorted(set(epochs)) != epochs:
            raise UserError(f"rank.epochs={epochs}: must rise from each to the next")
        if also is not None and not also.needs_supernet:
            raise MissingCapabilityError(
                "rank.also is a second way to score the supernet",
                group="evaluator@rank.also",
                has=scores_a_supernet,
            )
        self.architectures = architectures
        self.truth, self.also = truth, also
        self.truth_seeds = truth_seeds
        self.truth_store = truth_store
        self.epochs = epochs
        self.resamples = resamples
        self.confidence = confidence
        self.top = top
        self.k = k
