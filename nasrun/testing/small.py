"""A small search space and a few images, on which one's own options are checked in a second."""

from __future__ import annotations

import torch

from nasrun.dataset.base import Splits
from nasrun.dataset.synthetic import Synthetic
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.streams import Streams


def small_space() -> SearchSpace:
    """Return a space of cells of two nodes, with networks of a few thousand parameters."""
    scale = CellScale(layers=1, channels=4)
    return NaoCell(operations="small", nodes=2, stem="small", search=scale, final=scale)


def small_splits() -> Splits:
    """Return made-up grey images of 8×8 pixels in four classes: 32 to train on, 16, and 16."""
    images = Synthetic(
        channels=1,
        image_size=8,
        classes=4,
        train_images=32,
        test_images=16,
        validation=16,
        crop_padding=1,
        flip=False,
        mean=[0.5],
        std=[0.25],
    )
    return images.load(Streams(0), torch.device("cpu"))
