"""Synthetic images for tests, which can be learned: a pattern for each class, and noise."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from nasrun.dataset.options import Deviations, Means, Padding, Validation
from nasrun.dataset.resident import ResidentDataset
from nasrun.limits import Count, Images, ImageSize
from nasrun.run.memory import check_fits
from nasrun.streams import Streams
from nasrun.values import MapSize, Problem

_DATA = Streams(0)  # the images are the same in every run, like those of a real dataset
_CONTRAST, _NOISE = 50, 40  # standard deviations of the pattern and of the noise, in grey levels


class Synthetic(ResidentDataset):
    """Images whose class is a smooth random pattern of 4×4 patches, with noise.

    train_images: number without the validation images, as in other datasets.
    """

    name = "synthetic"

    def __init__(
        self,
        *,
        channels: Annotated[int, Field(gt=0, le=1000)],
        image_size: ImageSize,
        classes: Count,
        train_images: Images,
        test_images: Images,
        validation: Validation,
        crop_padding: Padding,
        flip: bool,
        mean: Means,
        std: Deviations,
    ) -> None:
        super().__init__(
            validation=validation,
            train_images=train_images,
            image_size=None,  # they are made at the size that is asked for
            crop_padding=crop_padding,
            flip=flip,
            mean=mean,
            std=std,
        )
        self.channels = channels
        self.size = MapSize.of(image_size)
        self.classes = classes
        self.made = (
            train_images + validation
            if isinstance(validation, int)
            else math.ceil(train_images / (1 - validation))
        )
        self.test_images = test_images

    def problem(self) -> Problem:
        return Problem(self.channels, self.size, self.classes)

    def read_train(self) -> tuple[Tensor, Tensor]:
        pixels = self.channels * self.size.area
        # For each pixel: a pattern or two in floats, and the finished image.
        needed = pixels * (4 * self.classes + 9 * max(self.made, self.test_images))
        settings = "dataset.train_images, dataset.test_images, dataset.validation, dataset.classes"
        check_fits(needed, "the synthetic dataset", f"{settings} or dataset.image_size")
        return self._make("train", self.made)

    def read_test(self) -> tuple[Tensor, Tensor]:
        return self._make("test", self.test_images)

    def _make(self, split: str, count: int) -> tuple[Tensor, Tensor]:
        coarse = torch.randn(
            self.classes, self.channels, 4, 4, generator=_DATA.torch("synthetic/patterns")
        )
        patterns = F.interpolate(
            coarse, size=self.size.shape(1)[1:], mode="bilinear", align_corners=True
        )
        labels = torch.arange(count) % self.classes
        noise = torch.randn(
            count, *self.size.shape(self.channels), generator=_DATA.torch(f"synthetic/{split}")
        )
        images = patterns[labels].mul_(_CONTRAST).add_(127.5).add_(noise.mul_(_NOISE))
        return images.round_().clamp_(0, 255).to(torch.uint8), labels
