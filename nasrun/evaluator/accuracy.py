"""Accuracy of a network over batches of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor


def accuracy(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    compute: Compute,
    monitor: Monitor,
) -> float:
    """Return the share of images whose largest logit is their label; each image counts once.

    The result is in [0, 1], or NaN if any logit is NaN or infinite.
    predict: images [B, C, H, W] -> logits [B, K].
    """
    return top_accuracies(predict, batches, compute, monitor, [])[0]


class Tally:
    """Counts of images whose label is among the best logits, on the run's device.

    places: numbers of the largest logits of an image, at most K.
    by_class: int64 [2, K], to which the correct images and all images of each class are added.
    """

    def __init__(
        self, compute: Compute, places: Sequence[int] = (), by_class: Tensor | None = None
    ) -> None:
        self.places, self.by_class, self.count = places, by_class, 0
        self._correct = torch.zeros(1 + len(places), dtype=torch.int64, device=compute.device)
        self._finite = torch.ones((), dtype=torch.bool, device=compute.device)

    @torch.inference_mode()
    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch of logits [B, K] and int64 labels [B]."""
        right = logits.argmax(1) == labels
        self._correct[0] += right.sum()
        if self.by_class is not None:
            self.by_class[0].index_add_(0, labels, right.long())
            self.by_class[1].index_add_(0, labels, torch.ones_like(labels))
        for index, number in enumerate(self.places, 1):
            best = logits.topk(number, dim=1).indices
            self._correct[index] += (best == labels[:, None]).sum()
        self._finite &= logits.isfinite().all()
        self.count += len(labels)

    def shares(self) -> list[float]:
        """Return the share of the best logit, and those of ``places``; NaN, see ``accuracy``."""
        finite, *correct = torch.cat([self._finite.long()[None], self._correct]).tolist()  # waits
        return [number / self.count if finite else math.nan for number in correct]


@torch.inference_mode()
def top_accuracies(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    compute: Compute,
    monitor: Monitor,
    places: Sequence[int],
    by_class: Tensor | None = None,
) -> list[float]:
    """Return ``accuracy``, and for each of ``places`` the share of labels among so many best.

    places, by_class: see ``Tally``.
    """
    tally = Tally(compute, places, by_class)
    for images, labels in batches:
        monitor.poll()
        with compute.autocast():
            logits = predict(compute.images(images))
        tally.add(logits, labels)
    return tally.shares()  # the device is waited for only once


def accuracy_by_class(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    compute: Compute,
    monitor: Monitor,
    classes: int,
) -> tuple[float, float]:
    """Return ``accuracy``, and the mean of the accuracies on the images of each class.

    The second is the balanced accuracy: of the ``classes``, those without images are left aside.
    Both are NaN if any logit is NaN or infinite.
    """
    by_class = torch.zeros(2, classes, dtype=torch.int64, device=compute.device)
    (plain,) = top_accuracies(predict, batches, compute, monitor, [], by_class)
    if math.isnan(plain):
        return plain, plain
    correct, count = by_class[:, by_class[1] > 0].double()
    return plain, (correct / count).mean().item()
