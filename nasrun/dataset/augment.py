"""Augmentation and normalisation of whole batches, on their device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nasrun.errors import UserError
from nasrun.values import MapSize

_IMAGES_AT_A_TIME = 4096
"""Images that are reduced at a time."""


@dataclass(frozen=True, eq=False)
class Normalise:
    """Normalisation of uint8 images [B, C, H, W] to float32: (pixel / 255 - mean) / std.

    scale, shift: float32 [1, C, 1, 1], the same as one multiplication and one addition.
    """

    scale: Tensor
    shift: Tensor

    @staticmethod
    def from_statistics(
        mean: Sequence[float], std: Sequence[float], channels: int, device: torch.device
    ) -> Normalise:
        """Make a normalisation from the mean and standard deviation of the pixels.

        mean, std: a value for each channel or one for all, on the scale from 0 to 1.
        Raises UserError if the number of values is neither.
        """
        for key, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise UserError(
                    f"dataset.{key} has {len(values)} values; give one for each of the {channels} "
                    "channels, or one for all"
                )
        mean_ = torch.tensor(mean, dtype=torch.float64).expand(channels).view(1, channels, 1, 1)
        std_ = torch.tensor(std, dtype=torch.float64).expand(channels).view(1, channels, 1, 1)
        return Normalise((1 / (255 * std_)).float().to(device), (-mean_ / std_).float().to(device))

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(self.scale).add_(self.shift)


def reduce(images: Tensor, size: MapSize) -> Tensor:
    """Reduce uint8 images [N, C, H, W] to uint8 [N, C, H, W] of this size, by averaging areas.

    Each pixel is the mean of those that its area touches (torch's adaptive average pooling),
    rounded, halves to even. Images of this size are returned as they are.
    """
    shape = (size.height, size.width)
    if images.shape[2:] == shape:
        return images
    # In parts, since floats take four times the memory of the bytes.
    reduced = images.new_empty(*images.shape[:2], *shape)
    for start in range(0, len(images), _IMAGES_AT_A_TIME):
        part = slice(start, start + _IMAGES_AT_A_TIME)
        reduced[part] = F.interpolate(images[part].float(), size=shape, mode="area").round_()
    return reduced


def crop(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Crop the images, padded with zeros (black): uint8 [B, C, H, W] to the same.

    top, left: int64 [B], corner of the window in the padded image, in [0, 2 * padding].
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (padding,) * 4)
    # Every row of every window is a stretch of one long line of pixels. Selecting stretches
    # copies whole rows, three times as fast on the CPU as indexing windows [y:y+H, x:x+W].
    line = padded.flatten()
    first = torch.arange(0, len(line), padded[0, 0].numel(), device=line.device)
    corner = first.view(len(images), -1, 1) + (top * padded.shape[3] + left).view(-1, 1, 1)
    row = corner + torch.arange(height, device=line.device) * padded.shape[3]
    return line.unfold(0, width, 1).index_select(0, row.flatten()).view(images.shape)


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror uint8 images [B, C, H, W] left and right where flipped [B] is 1, not 0."""
    # a ^ ((a ^ b) & mask) is torch.where(mask, b, a), which is five times as slow on the CPU.
    mask = (flipped * 255).to(torch.uint8).view(-1, 1, 1, 1)
    return images ^ ((images ^ images.flip(-1)) & mask)


def cut_out(images: Tensor, side: int, row: Tensor, column: Tensor) -> Tensor:
    """Set a square to 0, in place: float32 [B, C, H, W], centres row and column int64 [B].

    The square is clipped at the image's border, so it may be smaller (DeVries & Taylor 2017, 3.2).
    On normalised images 0 is the mean.
    """
    height, width = images.shape[2:]
    rows = _within(height, side, row)[:, None, :, None]
    columns = _within(width, side, column)[:, None, None, :]
    return images.mul_(1 - rows * columns)


def _within(length: int, side: int, centre: Tensor) -> Tensor:
    """Mask float32 [B, length]: 1 in the stretch of ``side`` around the centre [B], else 0."""
    offset = torch.arange(length, device=centre.device) - (centre - side // 2)[:, None]
    return ((offset >= 0) & (offset < side)).float()
