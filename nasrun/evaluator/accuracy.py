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

    places: numbers of the largest logits of an image, at most K.
    by_class: int64 [2, K], to which the correct images and all images of each class are added.
    """
    correct = torch.zeros(1 + len(places), dtype=torch.int64, device=compute.device)
    finite = torch.ones((), dtype=torch.bool, device=compute.device)
    count = 0
    for images, labels in batches:
        monitor.poll()
        with compute.autocast():
            logits = predict(compute.images(images))
        right = logits.argmax(1) == labels
        correct[0] += right.sum()
        if by_class is not None:
            by_class[0].index_add_(0, labels, right.long())
            by_class[1].index_add_(0, labels, torch.ones_like(labels))
        for index, number in enumerate(places, 1):
            best = logits.topk(number, dim=1).indices
            correct[index] += (best == labels[:, None]).sum()
        finite &= logits.isfinite().all()
        count += len(labels)
    all_finite, *numbers = torch.cat([finite.long()[None], correct]).tolist()  # waits only once
    return [number / count if all_finite else math.nan for number in numbers]


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
