"""Uneven classes: equal shares by sampling, or by weights in the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nasrun.dataset.order import Indices

Balance = Literal["none", "weights", "sampling"]
"""none: each image counts once. weights: each class counts alike in the loss. sampling: each class
has an equal share of the images of an epoch."""


def balanced_order(labels: Indices, generator: np.random.Generator) -> Indices:
    """Sample N of N images so that the classes have equal shares, give or take one image.

    Images of rare classes come several times, each as often as the others of its class, give or
    take once; of frequent classes only a part comes.
    """
    classes = np.unique(labels)
    share, rest = divmod(len(labels), len(classes))
    counts = np.full(len(classes), share)
    counts[generator.permutation(len(classes))[:rest]] += 1
    chosen = []
    for label, count in zip(classes, counts.tolist(), strict=True):
        members = np.flatnonzero(labels == label)
        passes = [generator.permutation(members) for _ in range(-(-count // len(members)))]
        chosen.append(np.concatenate([*passes, members[:0]])[:count])
    return generator.permutation(np.concatenate(chosen))


def class_weights(labels: Indices) -> NDArray[np.float32]:
    """Return the weight of each class in the loss, [K], in inverse proportion to its images.

    The mean over the images is 1, so the learning rate keeps its meaning.
    """
    counts = np.bincount(labels)
    present = counts > 0
    weights = np.ones(len(counts), dtype=np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights
