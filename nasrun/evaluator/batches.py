"""Fixed batches: every architecture is scored on the same images in the same batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from nasrun.dataset.base import Batch, Split
from nasrun.run.memory import available_bytes, free_memory
from nasrun.values import Problem

MAX_READY_BYTES = 2**30
"""Normalised images of at most this size are prepared once and kept on the device."""

KEPT_SHARE = 0.25
"""Share of the free memory that the pixels of one set of batches may take."""


def fixed_batches(split: Split, problem: Problem, batch_size: int, count: int) -> Iterable[Batch]:
    """Return the first ``count`` images in batches, the same in each pass over them.

    They are kept ready on the device if they fit, else as bytes; so files are decoded once.
    """
    pixels = count * problem.channels * problem.size.area  # a byte each, four when normalised
    if 4 * pixels <= MAX_READY_BYTES:
        return list(_joined(split.eval_batches(batch_size, count)))
    return _Passes(split, batch_size, count, pixels)


class _Passes:
    """Batches that are normalised anew in each pass; the first pass keeps the pixels of files.

    needed: bytes of all pixels. They are kept on the device if it has room, else in the memory of
    the machine; if that has none either, each pass decodes the files.
    """

    def __init__(self, split: Split, batch_size: int, count: int, needed: int) -> None:
        self.split, self.batch_size, self.count, self.needed = split, batch_size, count, needed
        self._kept: list[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from map(self.split.prepare, self._kept)
            return
        pixels = self.split.pixel_batches(self.batch_size, self.count)
        if pixels is None:
            yield from _joined(self.split.eval_batches(self.batch_size, self.count))
            return
        kept: list[Batch] = []
        place: torch.device | None = None
        for batch in _joined(pixels):
            images, labels = self.split.prepare(batch)
            if not kept:
                place = self._place(images.device)
            if place is not None:
                kept.append(_copied(batch, place))
            yield images, labels
        if place is not None:
            self._kept = kept

    def _place(self, device: torch.device) -> torch.device | None:
        """Return the device on which the pixels are kept; None: there is no room."""
        if self.needed <= KEPT_SHARE * free_memory(device):
            return device
        if self.needed <= KEPT_SHARE * available_bytes():
            return torch.device("cpu")
        return None


def _copied(batch: Batch, place: torch.device) -> Batch:
    """Return a batch on that device, also if it lies there already.

    A worker process hands its batches over in shared memory, of which many machines have little.
    """
    images, labels = (tensor.to(place, copy=True) for tensor in batch)
    return images, labels


def _joined(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join a last batch of a single image to the one before, since batch norm needs two images."""
    before: Batch | None = None
    for batch in batches:
        if before is not None and len(batch[1]) == 1:
            batch = torch.cat([before[0], batch[0]]), torch.cat([before[1], batch[1]])
        elif before is not None:
            yield before
        before = batch
    if before is not None:
        yield before
