"""Scores by training each architecture from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nasrun.dataset.base import Splits
from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.base import Evaluator, GatesOf, choices_of
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.trainer.trainer import Trainer
from nasrun.values import Architecture, Trial


class StandaloneEvaluator(Evaluator):
    """Accuracy on all validation images after training alone, at the search's width and depth."""

    needs_supernet = False

    def __init__(self, *, trainer: Trainer) -> None:
        self.trainer = trainer

    def start(self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams) -> None:
        self.space, self.splits = space, splits
        self.compute, self.streams = compute, streams

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        for architecture in architectures:
            # the streams are named by the architecture: a score does not depend on the company
            name = f"standalone/{architecture.digest}"
            streams = self.streams.sub(name)
            with streams.default("init"):
                network = self.space.network(
                    architecture, self.splits.problem, "search", auxiliary=self.trainer.auxiliary
                )
            training = self.trainer.bind(network, self.splits.train, self.compute, streams)
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
            # Only now is the trial known to whoever asked; until then the training must be kept.
            monitor.drop("standalone")
