"""ImageNet (ILSVRC 2012) in one folder for each class, streamed."""

from __future__ import annotations

from pathlib import Path

from nasrun.dataset.folders import Layout, SplitName
from nasrun.dataset.image_folder import ImageFolder
from nasrun.dataset.options import (
    Area,
    Deviations,
    HueJitter,
    Jitter,
    JitterOn,
    Means,
    Share,
    Validation,
)
from nasrun.limits import ImageSize, SomeImages, Workers
from nasrun.values import Problem

CLASSES = 1000
"""Number of the published classes."""


class ImageNet(ImageFolder):
    """ImageNet (Russakovsky et al. 2015) in ``root/train/CLASS`` and ``root/val/CLASS``.

    The published validation images are the test set here; our validation split is taken from the
    training images.
    """

    name = "imagenet"

    def __init__(
        self,
        *,
        root: str,
        image_size: ImageSize,
        workers: Workers,
        validation: Validation,
        train_images: SomeImages | None,
        check_files: bool,
        skip_bad: Share,
        crop_area: Area,
        flip: bool,
        brightness: Jitter,
        contrast: Jitter,
        saturation: Jitter,
        hue: HueJitter,
        jitter_on: JitterOn,
        mean: Means,
        std: Deviations,
    ) -> None:
        super().__init__(
            root=root,
            image_size=image_size,
            channels=3,
            fit="crop",
            background="white",
            test_fraction=0.0,  # has a test set of its own
            resident_limit_mb=0,  # always streamed
            workers=workers,
            validation=validation,
            train_images=train_images,
            first_images=None,
            check_files=check_files,
            skip_bad=skip_bad,
            duplicates="keep",
            balance="none",
            crop_padding=0,
            crop_area=crop_area,
            flip=flip,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            jitter_on=jitter_on,
            mean=mean,
            std=std,
        )

    def problem(self) -> Problem | None:
        """Return the published shape where the images are not there."""
        if not (self.root / "train").is_dir():
            return Problem(self.transforms.channels, self.transforms.size, CLASSES)
        return super().problem()

    def find_layout(self) -> Layout:
        root = self.root.resolve() if self.root.is_dir() else self.root.absolute()
        folders: dict[SplitName, Path] = {"train": root / "train"}
        if self.test_folder().is_dir():  # a search reads no test images, so it may run without them
            folders["test"] = root / "val"
        return Layout(root, folders, [], [])

    def test_folder(self) -> Path:
        return self.root.absolute() / "val"
