"""Scores by the shared weights of a supernet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from nasrun.dataset.base import Batch, Splits
from nasrun.errors import UserError
from nasrun.evaluator.accuracy import top_accuracies
from nasrun.evaluator.base import Evaluator, GatesOf, Scorer, choices_of
from nasrun.evaluator.batch_norm import Protocol, batch_norm_protocol
from nasrun.evaluator.batches import fixed_batches
from nasrun.limits import AtMost, Count, Images, SomeImages
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem, Trial

Ties = Literal["none", "top5"]
"""The order of architectures of equal scores: none, or by top-5 accuracy."""


class SupernetEvaluator(Evaluator):
    """Scores by accuracy on the same validation images for every architecture.

    images: number of validation images (None: all).
    batch_norm: see ``nasrun.evaluator.batch_norm``.
    recalibration_images: training images for ``batch_norm=recalibrated``.
    ties: what orders architectures of equal scores: nothing, or the top-5 accuracy (SPOS'
    released code), with fewer than six classes that of all but one.
    """

    needs_supernet = True
    network_scale = "search"

    def __init__(
        self,
        *,
        images: SomeImages | None,
        batch_size: Annotated[Count, Field(ge=2)],
        batch_norm: Protocol,
        recalibration_images: Images,
        ties: Ties = "none",
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.batch_norm = batch_norm
        self.recalibration_images = recalibration_images
        self.ties: Ties = ties

    def images_per_score(self, splits: Splits) -> int:
        """Return the images that are scored, and those that set the statistics first."""
        scored = min(self.images or len(splits.validation), len(splits.validation))
        first = self.recalibration_images if self.batch_norm == "recalibrated" else 0
        return scored + min(first, len(splits.train))

    def bind(
        self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams
    ) -> SupernetScorer:
        there = len(splits.validation)
        count = there if self.images is None else AtMost.fitting(self.images, there)
        if count > there:
            raise UserError(
                f"evaluator.images={count}: the validation split has {there} images; lower it "
                "or raise dataset.validation"
            )
        calibrating = min(self.recalibration_images, len(splits.train))
        measured = {"batch": count, "recalibrated": calibrating}.get(self.batch_norm, 2)
        if measured < 2:
            raise UserError(
                f"evaluator.batch_norm={self.batch_norm} needs at least two images: there are no "
                "statistics of one"
            )
        size, problem = self.batch_size, splits.problem
        return SupernetScorer(
            space=space,
            problem=problem,
            compute=compute,
            seed=streams.seed,
            batch_norm=self.batch_norm,
            count=count,
            batch_size=size,
            validation=fixed_batches(splits.validation, problem, size, count),
            calibration=fixed_batches(splits.train, problem, size, calibrating),
            places=min(5, max(problem.classes - 1, 1)) if self.ties == "top5" else None,
        )


@dataclass(frozen=True, kw_only=True)
class SupernetScorer(Scorer):
    """Scores the paths of a supernet on fixed batches.

    count, batch_size: number of validation images, in all and in a batch.
    calibration: batches of training images for the protocol ``recalibrated``.
    places: number of best logits among which a label breaks ties; None: ties stay.
    """

    space: SearchSpace
    problem: Problem
    compute: Compute
    seed: int
    batch_norm: Protocol
    count: int
    batch_size: int
    validation: Iterable[Batch]
    calibration: Iterable[Batch]
    places: int | None = None

    def with_protocol(self, batch_norm: Protocol) -> SupernetScorer:
        """Return a scorer of another batch norm protocol that shares the batches of this one."""
        return replace(self, batch_norm=batch_norm)

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        assert supernet is not None  # since needs_supernet  # noqa: S101
        supernet.noise.stop()
        with batch_norm_protocol(
            self.batch_norm, supernet, self.calibration, self.compute
        ) as prepare:
            for architecture in architectures:
                predict = partial(supernet, gates=gates_of(architecture))
                prepare(predict)
                score, *tie_break = top_accuracies(
                    predict,
                    self.validation,
                    self.compute,
                    monitor,
                    [] if self.places is None else [self.places],
                )
                yield Trial(
                    architecture,
                    score,
                    self.space.cost(architecture, self.problem),
                    self.seed,
                    {
                        "evaluator": "supernet",
                        "batch_norm": self.batch_norm,
                        "images": self.count,
                        "batch_size": self.batch_size,
                    },
                    *tie_break,
                )
