"""Fixed batches: every architecture is scored on the same images in the same batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from nasrun.dataset.base import Batch, Split
from nasrun.values import Problem

MAX_RESIDENT_BYTES = 2**30
"""Normalised images of at most this size are prepared once and kept on the device."""


def fixed_batches(split: Split, problem: Problem, batch_size: int, count: int) -> Iterable[Batch]:
    """Return the first ``count`` images in batches, kept ready on the device if they fit."""
    batches = _PreparedAnew(split, batch_size, count)
    needed = count * 4 * problem.channels * problem.size.area
    return list(batches) if needed <= MAX_RESIDENT_BYTES else batches


class _PreparedAnew:
    """Batches that are prepared anew each time they are iterated over.

    A last batch of a single image joins the one before it, since batch norm needs two images.
    """

    def __init__(self, split: Split, batch_size: int, count: int) -> None:
        self.split, self.batch_size, self.count = split, batch_size, count

    def __iter__(self) -> Iterator[Batch]:
        before: Batch | None = None
        for batch in self.split.eval_batches(self.batch_size, self.count):
            if before is not None and len(batch[1]) == 1:
                batch = torch.cat([before[0], batch[0]]), torch.cat([before[1], batch[1]])
            elif before is not None:
                yield before
            before = batch
        if before is not None:
            yield before
