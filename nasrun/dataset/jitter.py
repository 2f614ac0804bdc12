"""Colour jitter of a batch on its device, each image by factors and in an order of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WHITE = 255.0
"""The largest value of a pixel, as floats have it here too."""

GREY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in grey, as torchvision has them (ITU-R 601)."""


def sample(strengths: Sequence[float]) -> Tensor:
    """Sample how one image is jittered: float32 [2, 4], four factors and their order.

    It samples from torch's global generator.
    strengths: of brightness, contrast, saturation and hue.
    """
    around = torch.tensor([1.0, 1.0, 1.0, 0.0])
    factors = around + torch.tensor(strengths) * (2 * torch.rand(4) - 1)
    return torch.stack([factors, torch.randperm(4).float()])


def jitter(images: Tensor, sampled: Tensor, strengths: Sequence[float]) -> Tensor:
    """Jitter images uint8 [B, C, H, W] to float32, from 0 to 255 and not rounded.

    The four changes are those of torchvision's ColorJitter on floats.

    sampled: [B, 2, 4], by ``sample``, on the CPU, so that nothing waits for the device.
    strengths: as there; what has none is left out.
    """
    changed = images.float()
    factors, order = sampled.unbind(1)
    used = [number for number, strength in enumerate(strengths) if strength]
    if images.shape[1] == 1:
        used = [number for number in used if CHANGES[number] not in (saturate, turn)]
    for place in range(4):
        for number in used:
            chosen = (order[:, place] == number).nonzero().flatten()
            if len(chosen):
                factor = factors[chosen, number].to(images.device).view(-1, 1, 1, 1)
                index = chosen.to(images.device)
                changed[index] = CHANGES[number](changed[index], factor)
    return changed


def brighten(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply pixels by a factor [B, 1, 1, 1]."""
    return (images * factor).clamp_(0, WHITE)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels away from the mean grey of their image."""
    return _blended(images, grey(images).mean((2, 3), keepdim=True), factor)


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels away from their own grey."""
    return _blended(images, grey(images), factor)


def turn(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of pixels by a share [B, 1, 1, 1] of the colour circle."""
    red, green, blue = images.chunk(3, dim=1)
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = high - low
    safe = torch.where(chroma == 0, 1.0, chroma)
    # The hue in sixths of the circle: red is 0, green 2, blue 4.
    hue = torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    hue = torch.where(high == red, (green - blue) / safe, hue) + 6 * shift
    place = (hue + torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)) % 6
    return high - chroma * torch.minimum(place, 4 - place).clamp_(0, 1)


def grey(images: Tensor) -> Tensor:
    """Return the grey of pixels, [B, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.chunk(3, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _blended(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, WHITE)


CHANGES = (brighten, contrast, saturate, turn)
"""The changes in the order of their strengths."""
