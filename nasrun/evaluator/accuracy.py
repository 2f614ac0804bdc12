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
) -> list[float]:
    """Return ``accuracy``, and for each of ``places`` the share of labels among so many best.

    places: numbers of the largest logits of an image, at most K.
    """
    correct = torch.zeros(1 + len(places), dtype=torch.int64, device=compute.device)
    finite = torch.ones((), dtype=torch.bool, device=compute.device)
    count = 0
    for images, labels in batches:
        monitor.poll()
        with compute.autocast():
            logits = predict(compute.images(images))
        correct[0] += (logits.argmax(1) == labels).sum()
        for index, number in enumerate(places, 1):
            best = logits.topk(number, dim=1).indices
            correct[index] += (best == labels[:, None]).sum()
        finite &= logits.isfinite().all()
        count += len(labels)
    if not finite.item():
        return [math.nan] * len(correct)
    return [number / count for number in correct.tolist()]
