"""Scores without labels: how near a path's predictions are to those of the whole supernet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nasrun.dataset.base import Splits
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Evaluator, GatesOf, choices_of
from nasrun.evaluator.batch_norm import batch_statistics
from nasrun.evaluator.batches import fixed_batches
from nasrun.limits import Count, Images
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.gates import has_mixtures
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """D(p ‖ q) + D(q ‖ p) of two log-probabilities [N, K], the mean over N, in nats."""
    return ((first.exp() - second.exp()) * (first - second)).sum(1).mean()


class KlEvaluator(Evaluator):
    """exp(-D), in (0, 1]: D is the symmetrised Kullback-Leibler divergence between the predictions
    of a path and of the whole supernet, on the first ``images`` training images, not augmented.

    Whole: everything on, or every decision the mean of its options. batch_size: images at once;
    batch norm goes by their own statistics. No label is looked at.
    Source: Bender et al., ICML 2018, on 64 images; the exponential is ours, so that more is better.
    """

    needs_supernet = True

    def __init__(self, *, images: Images, batch_size: Annotated[Count, Field(ge=2)]) -> None:
        self.images, self.batch_size = images, batch_size

    def start(self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams) -> None:
        if "mix" not in space.gate_kinds:
            raise MissingCapabilityError(
                f"evaluator=kl: {space.name} opens one option of a decision at a time, so there is "
                "no whole supernet to compare paths with; take evaluator=supernet, or",
                group="search_space",
                has=has_mixtures,
            )
        if self.images > len(splits.train):
            raise UserError(
                f"evaluator.images={self.images}: the training split has {len(splits.train)} "
                "images; lower it"
            )
        if self.images < 2:
            raise UserError(
                "evaluator.images=1: there are no batch norm statistics of one image; take two at "
                "least"
            )
        self.space, self.problem, self.compute = space, splits.problem, compute
        self.seed = streams.seed
        self.batches = fixed_batches(splits.train, self.problem, self.batch_size, self.images)

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        assert supernet is not None  # needs_supernet  # noqa: S101
        supernet.noise.stop()
        supernet.eval()
        with batch_statistics(supernet):
            whole = self._predictions(partial(supernet, gates=self.space.whole), monitor)
            for architecture in architectures:
                path = partial(supernet, gates=gates_of(architecture))
                found = divergence(self._predictions(path, monitor), whole).item()
                finite = math.isfinite(found)
                yield Trial(
                    architecture,
                    # Rounding may leave a divergence a little below 0.
                    math.exp(-max(found, 0.0)) if finite else math.nan,
                    self.space.cost(architecture, self.problem),
                    self.seed,
                    {
                        "evaluator": "kl",
                        "divergence": found if finite else None,
                        "batch_norm": "batch",
                        "images": self.images,
                        "batch_size": self.batch_size,
                    },
                )

    @torch.inference_mode()
    def _predictions(self, predict: Callable[[Tensor], Tensor], monitor: Monitor) -> Tensor:
        """The log-probabilities of all images, float64 [N, K]."""
        found = []
        for images, _ in self.batches:
            monitor.poll()
            with self.compute.autocast():
                logits = predict(self.compute.images(images))
            found.append(logits.double().log_softmax(1))
        return torch.cat(found)
