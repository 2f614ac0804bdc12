"""Dropout and drop-path with an explicit generator, which is named by the training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The images of a batch of ``count`` that are at hand, from ``first`` to before ``last``."""

    first: int
    last: int
    count: int


class Noise:
    """The regularising noise of a training step; there is none before ``begin_step``.

    The trainer calls ``begin_step`` before each step of the weights and ``begin_gates_step`` before
    each step of learned gates; networks call the methods that add noise.
    """

    skip_dropout: float
    """Probability that an element of a skip connection is dropped; set by learners of gates."""

    def __init__(self) -> None:
        self.skip_dropout = 0.0
        self.stop()

    def begin_step(
        self,
        generator: torch.Generator,
        *,
        progress: float,
        drop_path_keep: float,
        dropout_keep: float,
        rows: Rows | None = None,
    ) -> None:
        """Make the noise of a step.

        progress: (step + 1) / steps in (0, 1]; drop-path grows linearly with it from 0.
        rows: the images that are at hand, if others compute the rest of the batch; they get the
        noise that they have in the whole batch.
        """
        self._generator: torch.Generator | None = generator
        self._rows: Rows | None = rows
        self._drop_path = progress * (1.0 - drop_path_keep)
        self._dropout_keep = dropout_keep

    def begin_gates_step(self, generator: torch.Generator, rows: Rows | None = None) -> None:
        """Make the noise of a step of learned gates: skip dropout alone (P-DARTS' code)."""
        self.stop()
        self._generator, self._rows = generator, rows

    def stop(self) -> None:
        """Switch all noise off, as in evaluation."""
        self._generator = self._rows = None
        self._drop_path = 0.0
        self._dropout_keep = 1.0

    def drop_path(self, x: Tensor, depth: float) -> Tensor:
        """Set whole samples of x [B, C, H, W] to 0, and rescale the others.

        The probability is progress·depth·(1 - keep); depth: (cell + 1) / cells in (0, 1].

        Source: scheduled drop-path as in NAO-V2 (FractalNet's drop-path, linear in cell and step).
        """
        keep = 1.0 - self._drop_path * depth
        if self._generator is None or keep >= 1.0:
            return x
        return self._masked(x, keep, (x.shape[0], 1, 1, 1))

    def dropout(self, x: Tensor) -> Tensor:
        """Set elements of x [B, F] to 0 with probability 1 - keep, and rescale the others."""
        return self.thinned(x, self._dropout_keep)

    def skip(self, x: Tensor) -> Tensor:
        """Set elements of x [B, C, H, W] to 0 with probability ``skip_dropout`` (P-DARTS, §3.3)."""
        return self.thinned(x, 1.0 - self.skip_dropout)

    def white(self, like: Tensor) -> Tensor:
        """Sample standard normal noise of the shape of ``like``; at rest it is always the same."""
        generator = self._generator or torch.Generator(like.device).manual_seed(0)
        return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)

    def thinned(self, x: Tensor, keep: float, shape: Sequence[int] | None = None) -> Tensor:
        """Set elements of x to 0 with probability 1 - keep, and rescale the others.

        shape: of the mask, with 1 along the axes that share it; None: that of x.
        """
        if self._generator is None or keep >= 1.0:
            return x
        return self._masked(x, keep, x.shape if shape is None else shape)

    def _masked(self, x: Tensor, keep: float, shape: Sequence[int]) -> Tensor:
        mask = self._uniform(shape, x.device) < keep
        return x * (mask.to(x.dtype) / keep)

    def _uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Sample numbers in [0, 1) for the images at hand; shape: [B, ...]."""
        if self._rows is None:
            return torch.rand(tuple(shape), generator=self._generator, device=device)
        whole = (self._rows.count, *shape[1:])
        sample = torch.rand(whole, generator=self._generator, device=device)
        return sample[self._rows.first : self._rows.last]
