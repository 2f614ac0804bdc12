"""Scores by the shared weights of a supernet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.base import Evaluator, GatesOf, choices_of
from nasrun.evaluator.batch_norm import Protocol, batch_norm_protocol
from nasrun.evaluator.batches import fixed_batches
from nasrun.limits import Count, Images
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


class SupernetEvaluator(Evaluator):
    """Accuracy on the same fixed validation images for every architecture.

    images: how many of them (None: all); batch_norm: see ``nasrun.evaluator.batch_norm``;
    recalibration_images: training images for ``batch_norm=recalibrated``.
    """

    needs_supernet = True

    def __init__(
        self,
        *,
        images: Images | None,
        batch_size: Annotated[Count, Field(ge=2)],
        batch_norm: Protocol,
        recalibration_images: Images,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.batch_norm = batch_norm
        self.recalibration_images = recalibration_images

    def start(self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams) -> None:
        if self.images is not None and self.images > len(splits.validation):
            raise UserError(
                f"evaluator.images={self.images}: the validation split has "
                f"{len(splits.validation)} images; lower it or raise dataset.validation"
            )
        self.space, self.problem, self.compute = space, splits.problem, compute
        self.seed = streams.seed
        self.count = self.images or len(splits.validation)
        calibrating = min(self.recalibration_images, len(splits.train))
        measured = {"batch": self.count, "recalibrated": calibrating}.get(self.batch_norm, 2)
        if measured < 2:
            raise UserError(
                f"evaluator.batch_norm={self.batch_norm} needs at least two images: there are no "
                "statistics of one"
            )
        self.validation = fixed_batches(
            splits.validation, self.problem, self.batch_size, self.count
        )
        self.calibration = fixed_batches(splits.train, self.problem, self.batch_size, calibrating)

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        assert supernet is not None  # needs_supernet  # noqa: S101
        supernet.noise.stop()
        with batch_norm_protocol(
            self.batch_norm, supernet, self.calibration, self.compute
        ) as prepare:
            for architecture in architectures:
                predict = partial(supernet, gates=gates_of(architecture))
                prepare(predict)
                yield Trial(
                    architecture,
                    accuracy(predict, self.validation, self.compute, monitor),
                    self.space.cost(architecture, self.problem),
                    self.seed,
                    {
                        "evaluator": "supernet",
                        "batch_norm": self.batch_norm,
                        "images": self.count,
                        "batch_size": self.batch_size,
                    },
                )
