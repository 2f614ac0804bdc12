"""The progress of truth: how well a supernet ranks a small sample while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import PASSES_PER_TRAINED_IMAGE
from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.metrics.ranking import kendall
from nasrun.run.layout import RANK_PROGRESS
from nasrun.run.monitor import NullMonitor
from nasrun.run.run import Run
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.trainer.training import Training
from nasrun.values import Architecture

if TYPE_CHECKING:
    from nasrun.task.ground_truth import GroundTruth
    from nasrun.task.rank import RankTask

MAX_SHARE = 0.05
"""Share of the training's time that all measurements may take."""

MIN_IMAGES = 16
"""Images that are scored at least, so that short trainings may spend more than the share."""


def images_within_share(sample: int, every: int, most: int, splits: Splits) -> int:
    """Return how many images, up to ``most``, may be scored by each of ``sample`` paths.

    every: epochs between two measurements. One path a step is assumed; of more, training takes
    longer, and the share is smaller still.
    """
    fitting = int(MAX_SHARE * _passes(every, splits) / sample)
    return min(max(fitting, MIN_IMAGES), most, len(splits.validation))


def _passes(every: int, splits: Splits) -> float:
    """Return the passes of images through a path that training takes between two measurements."""
    return PASSES_PER_TRAINED_IMAGE * every * len(splits.train)


class RankProgress:
    """Kendall's tau-b of a small fixed sample with the truth, every few epochs.

    The paths are scored on a few validation images with the statistics of these (``batch``), so
    that neither weights, running statistics nor random streams change.
    """

    def __init__(
        self,
        space: SearchSpace,
        splits: Splits,
        run: Run,
        architectures: Sequence[Architecture],
        truth: npt.NDArray[np.float64],
        *,
        every: int,
        images: int,
    ) -> None:
        """Bind the scorer; truth: [n], of ``architectures``. every: epochs between two."""
        self.architectures, self.truth, self.run, self.every = architectures, truth, run, every
        self.images = images_within_share(len(architectures), every, images, splits)
        self.share = len(architectures) * self.images / _passes(every, splits)
        evaluator = SupernetEvaluator(
            images=self.images,
            batch_size=max(self.images, 2),
            batch_norm="batch",
            recalibration_images=2,
        )
        self.scorer = evaluator.bind(space, splits, run.compute, run.streams)
        self.measured: list[int] = []

    @staticmethod
    def bind(
        wanted: RankTask,
        truth: GroundTruth,
        architectures: Sequence[Architecture],
        space: SearchSpace,
        splits: Splits,
        run: Run,
    ) -> RankProgress:
        """Sample some of the ranked architectures; raises UserError if their truth is not known."""
        rng = run.streams.numpy("progress")
        count = min(wanted.progress_sample, len(architectures))
        chosen = rng.choice(len(architectures), size=count, replace=False)
        sample = [architectures[index] for index in sorted(chosen.tolist())]
        known = truth.known(sample)
        if known is None:
            raise UserError(
                f"rank.every={wanted.every}: the truth is not known while the supernet trains, as "
                "rank.truth_store lacks some of its networks: set rank.every=0 in a first run, or "
                "take evaluator@rank.truth=table"
            )
        return RankProgress(
            *(space, splits, run, sample, known.mean(0)),
            every=wanted.every,
            images=wanted.progress_images,
        )

    def epochs(self, epochs: int) -> list[int]:
        """Return the epochs of a training of ``epochs`` after which it is measured."""
        return [*range(self.every, epochs, self.every), epochs]

    def measure(self, training: Training[Supernet], epoch: int) -> None:
        """Score the sample and log tau-b, once for each epoch; does not change the training."""
        last = training.settings.epochs
        now = (1, 0) if epoch == last else (0, epoch * training.steps_per_epoch)
        if epoch not in self.epochs(last) or epoch in self.measured or training.mark != now:
            return
        # NullMonitor: no checkpoint may be written while the statistics are changed.
        trials = self.scorer.score(self.architectures, training.network, NullMonitor())
        tau = kendall([trial.score for trial in trials], self.truth)
        self.measured.append(epoch)
        if np.isfinite(tau):  # all scores are tied if the supernet has learned nothing yet
            metrics = {"kendall": tau, "epoch": float(epoch)}
            self.run.logs.metrics(RANK_PROGRESS, training.global_step, metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"measured": list(self.measured)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.measured = list(map(int, state["measured"]))
