"""Images of the user: a folder for each class, with or without a test set."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from nasrun.dataset.augment import Normalise
from nasrun.dataset.base import Dataset, Split, Splits
from nasrun.dataset.files import ImageFiles, class_names, list_images, open_image
from nasrun.dataset.options import (
    Area,
    Deviations,
    Fraction,
    HueJitter,
    Jitter,
    Means,
    Padding,
    Validation,
)
from nasrun.dataset.order import carve_test, carve_validation, cut_splits, stratified_order
from nasrun.dataset.resident import ResidentSplit
from nasrun.dataset.streamed import StreamedSplit, Transforms
from nasrun.errors import UserError
from nasrun.limits import Images, Side, Workers
from nasrun.run.memory import check_fits
from nasrun.streams import Streams
from nasrun.values import Problem


class ImageFolder(Dataset):
    """Images in ``root/train/CLASS`` and ``root/test/CLASS`` (or ``val``), or ``root/CLASS``.

    Without a test folder, a fixed stratified share of the images is the test set: the same in
    every run. If the training images at ``image_size`` fit into ``resident_limit_mb``, they are
    decoded once and stay on the device; otherwise they are streamed.
    """

    name = "image_folder"

    def __init__(
        self,
        *,
        root: str,
        image_size: Side,
        channels: Literal[1, 3],
        test_fraction: Fraction,
        resident_limit_mb: Annotated[int, Field(ge=0, le=10**9)],
        workers: Workers,
        validation: Validation,
        train_images: Images | None,
        crop_padding: Padding,
        crop_area: Area,
        flip: bool,
        brightness: Jitter,
        contrast: Jitter,
        saturation: Jitter,
        hue: HueJitter,
        mean: Means,
        std: Deviations,
    ) -> None:
        self.root = Path(root).expanduser()
        self.test_fraction = test_fraction
        self.resident_limit_mb = resident_limit_mb
        self.workers = workers
        self.validation = validation
        self.train_images = train_images
        self.crop_padding = crop_padding
        self.mean = mean
        self.std = std
        self.transforms = Transforms(
            image_size, channels, crop_area, flip, brightness, contrast, saturation, hue
        )

    def load(self, streams: Streams, device: torch.device) -> Splits:
        classes, files, test_files = self.find_files()
        order, held_out = carve_validation(
            files.labels,
            len(classes),
            validation=self.validation,
            train_images=self.train_images,
            streams=streams,
        )
        files = files.take(order)
        problem = Problem(self.transforms.channels, self.transforms.size, len(classes))
        normalise = Normalise.from_statistics(self.mean, self.std, problem.channels, device)
        resident = len(files) * problem.channels * problem.size**2 <= self.resident_limit_mb * 10**6
        if resident and self.transforms.jitters:
            raise UserError(
                "colour jitter is for streamed images: set dataset.resident_limit_mb=0, or "
                "dataset.brightness, contrast, saturation and hue to 0"
            )

        def split(name: str, files: ImageFiles) -> ResidentSplit | StreamedSplit:
            if resident:
                return self._decode(name, files, normalise)
            return StreamedSplit(name, files, self.transforms, normalise, self.workers)

        def test() -> Split:
            files = test_files()
            return split("test", files.take(stratified_order(files.labels, streams.numpy("test"))))

        whole = split("train_and_validation", files)
        return cut_splits(problem, whole.cut, held_out, test)

    def find_files(self) -> tuple[list[str], ImageFiles, Callable[[], ImageFiles]]:
        """Find (class names, training images, a function that finds the test images)."""
        train = self.root / "train"
        if not train.is_dir():
            train = self.root
        classes = class_names(train)
        for name in ("test", "val"):
            test = self.root / name
            if train != self.root and test.is_dir():
                check_classes(test, classes)
                return classes, list_images(train, classes), partial(list_images, test, classes)
        files = list_images(train, classes)
        count = round(self.test_fraction * len(files))
        if count == 0:
            raise UserError(
                f"dataset.test_fraction={self.test_fraction} of the {len(files)} images in "
                f"{train.absolute()} is none"
            )
        training, held_out = carve_test(files.labels, count)
        return classes, files.take(training), partial(files.take, held_out)

    def _decode(self, name: str, files: ImageFiles, normalise: Normalise) -> ResidentSplit:
        """Decode all images; threads suffice, as the decoders release Python's lock."""
        channels, size = self.transforms.channels, self.transforms.size
        check_fits(
            len(files) * channels * size**2,
            f"the {name} split of {self.root}",
            "dataset.resident_limit_mb, which makes images stay on the disk, or dataset.image_size",
        )
        transform = self.transforms.evaluation(margin=1)
        images = torch.empty(len(files), channels, size, size, dtype=torch.uint8)

        def decode(index: int) -> None:
            images[index] = transform(open_image(files.paths[index], channels))

        with ThreadPoolExecutor(max(self.workers, 1)) as threads:
            for _ in threads.map(decode, range(len(files))):
                pass
        device = normalise.scale.device
        labels = torch.from_numpy(files.labels)
        return ResidentSplit(
            name,
            images.to(device),
            labels.to(device),
            normalise,
            self.crop_padding,
            self.transforms.flip,
        )


def check_classes(test: Path, classes: list[str]) -> None:
    """Raise UserError if the test images have other class folders than the training images."""
    found = class_names(test)
    if found != classes:
        absent = ", ".join(sorted(set(classes) - set(found))[:3]) or "none"
        extra = ", ".join(sorted(set(found) - set(classes))[:3]) or "none"
        raise UserError(
            f"{test.absolute()} has {len(found)} class folders, the training images have "
            f"{len(classes)}; absent from the test images: {absent}; only there: {extra}"
        )
