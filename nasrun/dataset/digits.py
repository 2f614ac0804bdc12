"""1,797 handwritten digits of 8×8 pixels, which come with nasrun (see data/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nasrun.dataset.order import carve_test
from nasrun.dataset.resident import ResidentDataset

DIGITS = Path(__file__).parent / "data" / "digits.npz"

TEST_IMAGES = (
    360  # a fifth; our own choice, since these images are the test part of UCI's set alone
)


class Digits(ResidentDataset):
    """Grey 8×8 images of ten digits (Alpaydin & Kaynak 1998, the test part of UCI's set)."""

    name = "digits"
    classes = 10
    class_names = tuple("0123456789")
    image_shape = (1, 8)

    def read_train(self) -> tuple[Tensor, Tensor]:
        return self._read(test=False)

    def read_test(self) -> tuple[Tensor, Tensor]:
        return self._read(test=True)

    @staticmethod
    def _read(*, test: bool) -> tuple[Tensor, Tensor]:
        with np.load(DIGITS, allow_pickle=False) as file:
            pixels = file["images"].astype(np.float64)  # 0 to 16
            labels = file["labels"].astype(np.int64)
        chosen = carve_test(labels, TEST_IMAGES)[int(test)]
        images = np.rint(pixels[chosen] * (255 / 16)).astype(np.uint8)
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels[chosen])
