"""Images of the user: a folder for each class, with or without folders of splits."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from nasrun.dataset.augment import Normalise
from nasrun.dataset.balance import Balance
from nasrun.dataset.base import Dataset, Split, Splits
from nasrun.dataset.checking import in_threads
from nasrun.dataset.files import colour
from nasrun.dataset.folder_splits import FolderSplits, Rules, find_splits
from nasrun.dataset.folders import Layout, class_names, find_layout
from nasrun.dataset.listing import ImageFiles
from nasrun.dataset.options import (
    Area,
    Deviations,
    Duplicates,
    Fit,
    Fraction,
    HueJitter,
    Jitter,
    JitterOn,
    Means,
    Padding,
    Share,
    Validation,
)
from nasrun.dataset.order import (
    carve_validation,
    choose_training,
    cut_splits,
    stratified_order,
)
from nasrun.dataset.preprocessing import RESIDENT_MARGIN, STREAMED_MARGIN
from nasrun.dataset.resident import ResidentSplit
from nasrun.dataset.streamed import StreamedSplit, Transforms
from nasrun.dataset.survey import FolderSurvey, note_of_unevenness
from nasrun.errors import UserError
from nasrun.limits import Images, ImageSize, SomeImages, Workers
from nasrun.run.memory import check_fits
from nasrun.run.monitor import Monitor, NullMonitor
from nasrun.streams import Streams
from nasrun.values import MapSize, Problem


class ImageFolder(Dataset):
    """Images in folders of classes, below folders of splits or without these.

    ``root/train/CLASS``, ``root/val/CLASS``, ``root/test/CLASS`` in all usual spellings: three
    splits are used as three; with two, the one that is not for training is the test set, and the
    validation images are carved from the training images. Without a test folder, a fixed
    stratified share of the images is the test set: the same in every run. If the training images
    at ``image_size`` fit into ``resident_limit_mb``, they are decoded once and stay on the device;
    otherwise they are streamed.
    """

    name = "image_folder"

    def __init__(
        self,
        *,
        root: str,
        image_size: ImageSize,
        channels: Literal[1, 3],
        fit: Fit,
        background: str,
        test_fraction: Fraction,
        resident_limit_mb: Annotated[int, Field(ge=0, le=10**9)],
        workers: Workers,
        validation: Validation,
        train_images: SomeImages | None,
        first_images: Images | None,
        check_files: bool,
        skip_bad: Share,
        duplicates: Duplicates,
        balance: Balance,
        crop_padding: Padding,
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
        self.root = Path(root).expanduser()
        self.resident_limit_mb = resident_limit_mb
        self.workers = workers
        self.validation = validation
        self.train_images = train_images
        self.balance = balance
        self.crop_padding = crop_padding
        self.mean = mean
        self.std = std
        self.rules = Rules(
            test_fraction=test_fraction,
            first_images=first_images,
            check_files=check_files,
            skip_bad=float(skip_bad),
            allow_copies=duplicates == "keep",
            workers=workers,
        )
        try:
            behind = colour(background)
        except UserError as error:
            raise UserError(f"background: {error}") from error
        self.transforms = Transforms(
            *(
                MapSize.of(image_size),
                channels,
                crop_area,
                flip,
                brightness,
                contrast,
                saturation,
                hue,
            ),
            background=behind,
            fit=fit,
            jitter_on=jitter_on,
        )

    def problem(self) -> Problem | None:
        layout = self.find_layout()
        names, _ = class_names(layout.folders["train"], layout.root)
        return Problem(self.transforms.channels, self.transforms.size, len(names))

    def load(self, streams: Streams, device: torch.device) -> Splits:
        return self.load_with_survey(streams, device, NullMonitor())

    def load_with_survey(self, streams: Streams, device: torch.device, monitor: Monitor) -> Splits:
        found = find_splits(self.find_layout(), self.rules, monitor)
        files, held_out, notes = self._ordered(found, streams)
        survey = self._survey(found, files, held_out, notes)
        problem = Problem(self.transforms.channels, self.transforms.size, len(found.classes))
        normalise = Normalise.from_statistics(self.mean, self.std, problem.channels, device)
        resident = (
            len(files) * problem.channels * problem.size.area <= self.resident_limit_mb * 10**6
        )
        if resident and self.transforms.jitters:
            raise UserError(
                "colour jitter is for streamed images: set dataset.resident_limit_mb=0, or "
                "dataset.brightness, contrast, saturation and hue to 0"
            )

        def split(name: str, files: ImageFiles) -> ResidentSplit | StreamedSplit:
            if resident:
                return self._decode(name, files, normalise)
            return StreamedSplit(
                name, files, self.transforms, normalise, self.workers, self.balance
            )

        def test() -> Split:
            files = found.test
            if files is None:
                raise UserError(f"no folder {self.test_folder()}: it holds the test images")
            return split("test", files.take(stratified_order(files.labels, streams.numpy("test"))))

        whole = split("train_and_validation", files)
        return cut_splits(
            *(problem, whole.cut, held_out, test, survey),
            classes=tuple(found.classes),
            preprocessing=self.transforms.preprocessing(
                self.mean, self.std, RESIDENT_MARGIN if resident else STREAMED_MARGIN
            ),
        )

    def find_layout(self) -> Layout:
        """Find the folders of the splits; raises UserError if there are none."""
        return find_layout(self.root)

    def test_folder(self) -> Path:
        """Return the folder of the test images, for messages."""
        return self.root.absolute() / "test"

    def _ordered(self, found: FolderSplits, streams: Streams) -> tuple[ImageFiles, int, list[str]]:
        """Order the images, those for validation first; returns their number, and notes."""
        files, classes = found.train, len(found.classes)
        if (own := found.validation) is not None:
            first = own.take(stratified_order(own.labels, streams.numpy("validation")))
            chosen = choose_training(
                files.labels, classes, train_images=self.train_images, streams=streams
            )
            return ImageFiles.joined(first, files.take(chosen)), len(first), []
        order, held_out = carve_validation(
            files.labels,
            classes,
            validation=self.validation,
            train_images=self.train_images,
            streams=streams,
        )
        order, notes = found.without_copies(order, held_out, "validation")
        return files.take(order), held_out, notes

    def _survey(
        self, found: FolderSplits, files: ImageFiles, held_out: int, notes: list[str]
    ) -> FolderSurvey:
        """Say what is used of the folders."""
        classes = len(found.classes)
        counts = {
            "training": np.bincount(files.labels[held_out:], minlength=classes),
            "validation": np.bincount(files.labels[:held_out], minlength=classes),
        }
        if found.test is not None:
            counts["test"] = np.bincount(found.test.labels, minlength=classes)
        notes = [*found.notes, *notes]
        for split in ("validation", "test"):
            absent = np.flatnonzero(counts.get(split, np.ones(classes)) == 0)
            if len(absent):
                notes.append(f"no {split} images of {found.in_words(absent)}")
        if uneven := note_of_unevenness(found.classes, counts["training"], self.balance):
            notes.append(uneven)
        sources = {
            "validation": f"{held_out:,} of the training images (dataset.validation)",
            **found.sources,
        }
        return FolderSurvey(
            *(str(found.root), found.classes, sources, counts, found.left_out, notes)
        )

    def _decode(self, name: str, files: ImageFiles, normalise: Normalise) -> ResidentSplit:
        """Decode all images."""
        channels, size = self.transforms.channels, self.transforms.size
        check_fits(
            len(files) * channels * size.area,
            f"the {name} split of {self.root}",
            "dataset.resident_limit_mb, which makes images stay on the disk, or dataset.image_size",
        )
        transform = self.transforms.evaluation(RESIDENT_MARGIN)
        images = torch.empty(len(files), *size.shape(channels), dtype=torch.uint8)

        def decode(index: int) -> None:
            images[index] = transform(self.transforms.open(files.paths[index]))

        with closing(in_threads(decode, range(len(files)), self.workers)) as done:
            for _ in done:
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
            self.balance,
            files.paths,
        )
