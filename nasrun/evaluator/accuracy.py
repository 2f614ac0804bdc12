"""Accuracy of a network over batches of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor


@torch.inference_mode()
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
    correct = torch.zeros((), dtype=torch.int64, device=compute.device)
    finite = torch.ones((), dtype=torch.bool, device=compute.device)
    count = 0
    for images, labels in batches:
        monitor.poll()
        with compute.autocast():
            logits = predict(compute.images(images))
        correct += (logits.argmax(1) == labels).sum()
        finite &= logits.isfinite().all()
        count += len(labels)
    return correct.item() / count if finite.item() else math.nan
