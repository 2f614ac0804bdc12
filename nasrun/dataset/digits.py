"""Scikit-learn's 1,797 handwritten digits of 8×8 pixels: embedded, read in a second."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nasrun.dataset.order import carve_test
from nasrun.dataset.resident import ResidentDataset

TEST_IMAGES = 360  # a fifth; our own choice, since scikit-learn's copy has no test set


class Digits(ResidentDataset):
    """Grey 8×8 images of ten digits (Alpaydin & Kaynak 1998, the test part of UCI's set)."""

    name = "digits"
    classes = 10
    class_names = tuple("0123456789")

    def read_train(self) -> tuple[Tensor, Tensor]:
        return self._read(test=False)

    def read_test(self) -> tuple[Tensor, Tensor]:
        return self._read(test=True)

    @staticmethod
    def _read(*, test: bool) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits  # slow to import

        pixels, labels = load_digits(return_X_y=True)
        labels = labels.astype(np.int64)
        chosen = carve_test(labels, TEST_IMAGES)[int(test)]
        images = np.rint(pixels[chosen] * (255 / 16)).astype(np.uint8)  # pixels are 0 to 16
        return torch.from_numpy(images).view(-1, 1, 8, 8), torch.from_numpy(labels[chosen])
