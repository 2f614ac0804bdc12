"""Accuracy of a network over batches of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.run.compute import Compute


@torch.inference_mode()
def accuracy(
    predict: Callable[[Tensor], Tensor], batches: Iterable[Batch], compute: Compute
) -> float:
    """Share of images whose largest logit is their label, in [0, 1]; each image counts once.

    predict: images [B, C, H, W] -> logits [B, K].
    """
    correct = torch.zeros((), dtype=torch.int64, device=compute.device)
    count = 0
    for images, labels in batches:
        with compute.autocast():
            logits = predict(compute.images(images))
        correct += (logits.argmax(1) == labels).sum()
        count += len(labels)
    return correct.item() / count
