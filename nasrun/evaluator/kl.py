"""Scores without labels: the divergence of a path's predictions from the whole supernet's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nasrun.dataset.base import Batch, Splits
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Evaluator, GatesOf, ScoreAxis, Scorer, choices_of
from nasrun.evaluator.batch_norm import batch_statistics
from nasrun.evaluator.batches import fixed_batches
from nasrun.limits import AtMost, Count, SomeImages
from nasrun.run.compute import Compute, float64
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.gates import has_mixtures
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem, Trial


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return D(p ‖ q) + D(q ‖ p) of two log-probabilities [N, K], the mean over N, in nats."""
    return ((first.exp() - second.exp()) * (first - second)).sum(1).mean()


class KlEvaluator(Evaluator):
    """Scores a path by exp(-D), in (0, 1], D its divergence from the whole supernet.

    D is the symmetrised Kullback-Leibler divergence between the predictions of a path and of the
    whole supernet, on the first ``images`` training images, not augmented. In the whole supernet
    everything is on, or every decision is the mean of its options. batch_size: images of a forward
    pass, by whose statistics batch norm normalises. No label is read.
    Source: Bender et al., ICML 2018, on 64 images; ours: the exponential, so that higher is better.
    """

    needs_supernet = True
    network_scale = "search"

    def __init__(self, *, images: SomeImages, batch_size: Annotated[Count, Field(ge=2)]) -> None:
        self.images, self.batch_size = images, batch_size

    def images_per_score(self, splits: Splits) -> int:
        """Return the images that are scored."""
        return min(self.images, len(splits.train))

    def bind(
        self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams
    ) -> Scorer:
        if "mix" not in space.gate_kinds:
            raise MissingCapabilityError(
                f"evaluator=kl: {space.name} opens one option of a decision at a time, so there is "
                "no whole supernet to compare paths with; take evaluator=supernet, or",
                group="search_space",
                has=has_mixtures,
            )
        count = AtMost.fitting(self.images, len(splits.train))
        if count > len(splits.train):
            raise UserError(
                f"evaluator.images={count}: the training split has {len(splits.train)} "
                "images; lower it"
            )
        if count < 2:
            raise UserError(
                "evaluator.images=1: there are no batch norm statistics of one image; take two at "
                "least"
            )
        batches = fixed_batches(splits.train, splits.problem, self.batch_size, count)
        return KlScorer(self, space, splits.problem, compute, streams.seed, batches, count)

    def axis(self, role: str) -> ScoreAxis:
        """Return an axis of D itself, which is easier to read than exp(-D)."""
        label = "\N{MINUS SIGN} KL divergence from the whole supernet (nats)"
        return ScoreAxis(label, logarithm=True)


@dataclass(frozen=True)
class KlScorer(Scorer):
    """Scores by divergence on fixed batches of training images."""

    settings: KlEvaluator
    space: SearchSpace
    problem: Problem
    compute: Compute
    seed: int
    batches: Iterable[Batch]
    count: int

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        assert supernet is not None  # since needs_supernet  # noqa: S101
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
                    # Rounding errors may make a divergence slightly negative.
                    math.exp(-max(found, 0.0)) if finite else math.nan,
                    self.space.cost(architecture, self.problem),
                    self.seed,
                    {
                        "evaluator": "kl",
                        "divergence": found if finite else None,
                        "batch_norm": "batch",
                        "images": self.count,
                        "batch_size": self.settings.batch_size,
                    },
                )

    @torch.inference_mode()
    def _predictions(self, predict: Callable[[Tensor], Tensor], monitor: Monitor) -> Tensor:
        """Return the log-probabilities of all images, float64 [N, K]."""
        found = []
        for images, _ in self.batches:
            monitor.poll()
            with self.compute.autocast():
                logits = predict(self.compute.images(images))
            found.append(float64(logits).log_softmax(1))
        return torch.cat(found)
