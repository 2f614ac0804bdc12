"""A sheet of images as a network sees them, for a look at augmentation and normalisation."""

from __future__ import annotations

import io
from math import ceil

from torch import Tensor

COLUMNS = 8
"""Images side by side."""

MIN_SIDE = 64
"""Pixels of the side of an image on the sheet at least."""


def image_sheet(images: Tensor) -> bytes:
    """Return normalised images [N, C, H, W] as a PNG file; each is spread from black to white.

    Of images with neither one nor three channels the first channel is shown.
    """
    import numpy as np
    from PIL import Image

    pixels = images.detach().float().cpu().numpy()
    if pixels.shape[1] != 3:
        pixels = pixels[:, :1].repeat(3, axis=1)
    low, high = (limit(pixels, axis=(1, 2, 3), keepdims=True) for limit in (np.min, np.max))
    grey = (255 * (pixels - low) / np.maximum(high - low, 1e-12)).round().astype(np.uint8)
    count, _, height, width = grey.shape
    scale = max(1, ceil(MIN_SIDE / max(height, 1)))
    rows, columns = ceil(count / COLUMNS), min(count, COLUMNS)
    side = (height * scale + 1, width * scale + 1)  # a line of one pixel between images
    sheet = np.zeros((rows * side[0], columns * side[1], 3), np.uint8)
    for index, image in enumerate(grey.transpose(0, 2, 3, 1)):
        top, left = index // COLUMNS * side[0], index % COLUMNS * side[1]
        large = image.repeat(scale, axis=0).repeat(scale, axis=1)
        sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return file.getvalue()
