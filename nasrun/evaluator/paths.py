"""Accuracies of the paths of a supernet: one by one, walked together, or in a race."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.evaluator.accuracy import Tally, top_accuracies
from nasrun.evaluator.batch_norm import Preparation, Protocol, batch_norm_protocol
from nasrun.evaluator.prefix import Walk
from nasrun.evaluator.race import Race
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import Supernet
from nasrun.search_space.capabilities import ChainSupernet
from nasrun.search_space.chain import Piece
from nasrun.search_space.gates import Gates

Shares = Sequence[float]
"""The accuracy of a path, and the shares of labels among its best logits that break ties."""


def pieces_of(supernet: Supernet, gates: Gates) -> Sequence[Piece]:
    """Return the pieces of a path, or the whole of it as one where the supernet is no chain."""
    if isinstance(supernet, ChainSupernet):
        return supernet.pieces(gates)
    return [Piece(tuple(gates), partial(supernet, gates=gates))]


@dataclass(frozen=True)
class PartOutputs:
    """The outputs of a part of a path: for calibration images, and for those that are scored."""

    calibrating: Sequence[Tensor]
    scored: Sequence[Tensor]


@dataclass(frozen=True, kw_only=True)
class PathScores:
    """Measures the accuracy of paths on fixed batches.

    count, batch_size: number of validation images, in all and in a batch.
    calibration: batches of training images for the protocol ``recalibrated``. calibrating: number
    of these images.
    places: numbers of best logits among which a label breaks ties; empty: ties stay.
    """

    compute: Compute
    batch_norm: Protocol
    count: int
    batch_size: int
    validation: Iterable[Batch]
    calibration: Iterable[Batch]
    calibrating: int
    places: Sequence[int] = ()

    @contextmanager
    def at_rest(self, supernet: Supernet) -> Iterator[Preparation]:
        """Rest the supernet in the batch norm protocol, and yield what prepares its paths."""
        supernet.noise.stop()
        protocol = batch_norm_protocol(self.batch_norm, supernet, self.calibration, self.compute)
        with protocol as prepare:
            yield prepare

    def alone(
        self, paths: Sequence[Gates], supernet: Supernet, monitor: Monitor
    ) -> Iterator[Shares]:
        """Yield the accuracy of each path, one by one."""
        with self.at_rest(supernet) as prepare:
            for gates in paths:
                predict = partial(supernet, gates=gates)
                prepare(predict)
                yield top_accuracies(predict, self.validation, self.compute, monitor, self.places)

    def walked(
        self, walk: Walk, paths: Sequence[Gates], supernet: Supernet, monitor: Monitor
    ) -> Iterator[Shares]:
        """Yield the accuracy of each path, in the order of the walk."""
        compute, pieces = self.compute, [pieces_of(supernet, gates) for gates in paths]
        labels = [each for _, each in self.validation]
        with self.at_rest(supernet) as prepare:

            def images() -> PartOutputs:
                scored = [compute.images(each) for each, _ in self.validation]
                return PartOutputs(list(prepare.images()), scored)

            def through(piece: Piece, before: PartOutputs) -> PartOutputs:
                prepared = prepare.part(piece.run, before.calibrating)
                scored = []
                for each in before.scored:
                    monitor.poll()
                    with torch.inference_mode(), compute.autocast():
                        scored.append(piece.run(each))
                return PartOutputs(prepared, scored)

            for outputs in walk.run(pieces, images, through):
                tally = Tally(compute, self.places)
                for logits, right in zip(outputs.scored, labels, strict=True):
                    tally.add(logits, right)
                yield tally.shares()

    def raced(
        self, race: Race, paths: Sequence[Gates], supernet: Supernet, monitor: Monitor
    ) -> Iterator[tuple[Shares, int]]:
        """Yield the accuracy of each path, and the number of images that it was scored on.

        A path that is stopped has the estimate of its accuracy on all images, and breaks no ties.
        """
        looks = -(-self.count // self.batch_size) - 1
        with self.at_rest(supernet) as prepare:
            for gates in paths:
                predict = partial(supernet, gates=gates)
                prepare(predict)
                tally = Tally(self.compute, self.places)
                seen = torch.empty(0, dtype=torch.bool)
                stopped = False
                for images, labels in self.validation:
                    monitor.poll()
                    with torch.inference_mode(), self.compute.autocast():
                        logits = predict(self.compute.images(images))
                    tally.add(logits, labels)
                    seen = torch.cat([seen, (logits.argmax(1) == labels).cpu()])
                    if tally.count < self.count and race.lost(seen, looks):
                        stopped = True
                        break
                shares = tally.shares()
                if stopped and math.isfinite(shares[0]):
                    shares = [race.estimate(seen)]
                elif math.isfinite(shares[0]):
                    race.enter(seen)
                yield shares, tally.count
