"""Scores by training each architecture from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nasrun.dataset.base import Splits
from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.base import (
    PASSES_PER_TRAINED_IMAGE,
    Evaluator,
    GatesOf,
    Scorer,
    choices_of,
)
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.trainer.trainer import Trainer
from nasrun.values import Architecture, Trial


class StandaloneEvaluator(Evaluator):
    """Scores by accuracy on all validation images after training alone.

    The networks have the width and depth of the search's scale.
    """

    needs_supernet = False
    trains = True
    network_scale = "search"

    def __init__(self, *, trainer: Trainer) -> None:
        self.trainer = trainer

    def images_per_score(self, splits: Splits) -> int:
        """Return the images of the training, each three times, and those of the measurement."""
        trained = self.trainer.epochs * len(splits.train)
        return PASSES_PER_TRAINED_IMAGE * trained + len(splits.validation)

    def bind(
        self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams
    ) -> Scorer:
        return StandaloneScorer(self.trainer, space, splits, compute, streams)


@dataclass(frozen=True)
class StandaloneScorer(Scorer):
    """Trains each architecture and measures it; the monitor keeps the network in training."""

    trainer: Trainer
    space: SearchSpace
    splits: Splits
    compute: Compute
    streams: Streams

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        for architecture in architectures:
            # The streams are named by the architecture: a score does not depend on the others.
            name = f"standalone/{architecture.digest}"
            streams = self.streams.sub(name)
            with streams.default("init"):
                network = self.space.network(
                    architecture, self.splits.problem, "search", auxiliary=self.trainer.auxiliary
                )
            training = self.trainer.bind(network, self.splits.train, self.compute.alone, streams)
            monitor.keep("standalone", training, label=name)
            if not training.done:
                training.train_round(monitor, name)
            batches = self.splits.validation.eval_batches(self.trainer.batch_size)
            yield Trial(
                architecture,
                accuracy(training.network, batches, self.compute, monitor),
                self.space.cost(architecture, self.splits.problem),
                self.streams.seed,
                {"evaluator": "standalone", "epochs": self.trainer.epochs},
            )
            # The training is kept until the caller has the trial, in case the run stops before.
            monitor.drop("standalone")
