"""Made-up images that can be learned: a pattern for each class, and noise. For tests."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from nasrun.dataset.options import Deviations, Means, Validation
from nasrun.dataset.resident import ResidentDataset
from nasrun.streams import Streams

_DATA = Streams(0)  # the images are the same in every run, like those of a real dataset
_CONTRAST, _NOISE = 50, 40  # standard deviations of the pattern and of the noise, in grey levels


class Synthetic(ResidentDataset):
    """Classes are told apart by a smooth random pattern of 4×4 patches, in noise.

    train_images are made besides those for validation, so it means what it means elsewhere.
    """

    name = "synthetic"

    def __init__(
        self,
        *,
        channels: PositiveInt,
        image_size: PositiveInt,
        classes: PositiveInt,
        train_images: PositiveInt,
        test_images: PositiveInt,
        validation: Validation,
        crop_padding: NonNegativeInt,
        flip: bool,
        mean: Means,
        std: Deviations,
    ) -> None:
        super().__init__(
            validation=validation,
            train_images=train_images,
            crop_padding=crop_padding,
            flip=flip,
            mean=mean,
            std=std,
        )
        self.channels = channels
        self.image_size = image_size
        self.classes = classes
        self.made = (
            train_images + validation
            if isinstance(validation, int)
            else math.ceil(train_images / (1 - validation))
        )
        self.test_images = test_images

    def read_train(self) -> tuple[Tensor, Tensor]:
        return self._make("train", self.made)

    def read_test(self) -> tuple[Tensor, Tensor]:
        return self._make("test", self.test_images)

    def _make(self, part: str, count: int) -> tuple[Tensor, Tensor]:
        size = self.image_size
        coarse = torch.randn(
            self.classes, self.channels, 4, 4, generator=_DATA.torch("synthetic/patterns")
        )
        patterns = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
        labels = torch.arange(count) % self.classes
        noise = torch.randn(
            count, self.channels, size, size, generator=_DATA.torch(f"synthetic/{part}")
        )
        images = 127.5 + _CONTRAST * patterns[labels] + _NOISE * noise
        return images.round_().clamp_(0, 255).to(torch.uint8), labels
