"""The images on which a trained network is measured: those of its run, or the user's own."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasrun.dataset.base import Batch, Split
from nasrun.dataset.folders import Layout, content_of, named, split_of
from nasrun.dataset.image_folder import ImageFolder
from nasrun.dataset.listing import ImageFiles, list_folders
from nasrun.dataset.resident import ResidentSplit
from nasrun.dataset.streamed import StreamedSplit
from nasrun.errors import UserError
from nasrun.model.model import Model
from nasrun.run.files import printable
from nasrun.run.run import Run
from nasrun.task.of_network import Source
from nasrun.task.setup import Setup

OF_THE_MACHINE = ("download", "workers", "resident_limit_mb", "check_files", "skip_bad")
"""Settings of a data set that change none of its test images."""


@dataclass(frozen=True)
class ImagesToTest:
    """Images with labels, which are numbers of the network's classes.

    count: of the images. batches: yields them, of so many at a time.
    sources: the file or the number of each image. words: what they are.
    own: whether they are the test images of the network's run.
    notes: lines for the user. left_out: files that could not be read, added while they are.
    """

    count: int
    batches: Callable[[int], Iterator[Batch]]
    sources: Sequence[str]
    words: str
    own: bool
    notes: list[str]
    left_out: list[str]


def find_images(setup: Setup, run: Run, model: Model, source: Source) -> ImagesToTest:
    """Find the images: of a folder of the user's own, all of its test folder, or of all folders.

    Raises UserError if there are none, they do not fit the network, or no class has its name.
    """
    node = run.config["dataset"]
    same = source.dataset is not None and _of_data(source.dataset) == _of_data(node)
    if isinstance(setup.dataset, ImageFolder) and not same:
        folder, files, notes = list_own(setup.dataset.root, model)
        if folder != setup.dataset.root.resolve() or not _are_those_of(files, model, source):
            return own_folder(model, folder, files, notes)
        same = True
        run.say(
            f"{printable(str(folder))} holds as many images of each class as the folder that the "
            "network was trained on: it is measured on its test images alone"
        )
    splits = setup.load(run)
    problem, wanted = splits.problem, model.manifest.problem
    if (problem.channels, problem.size) != (wanted.channels, wanted.size):
        raise UserError(
            f"the network takes images of {wanted.channels} channels and "
            f"{wanted.size.words} pixels ({printable(model.manifest.origin.dataset)}), but the "
            f"data set {setup.dataset.name} has {problem.channels} and {problem.size.words}: "
            "choose another with dataset=NAME, or dataset=image_folder dataset.root=DIR"
        )
    notes = []
    if splits.preprocessing != model.manifest.preprocessing:
        notes.append(
            "these images are preprocessed in another way than those that the network was trained "
            "on: see dataset.mean, dataset.std and dataset.image_size"
        )
    split = splits.test()
    words = f"the test images of {setup.dataset.name}"
    if splits.class_names == model.classes:
        return _of_split(split, words, own=same, notes=notes)
    place = {_plain(name): k for k, name in enumerate(model.classes)}
    labels = [place.get(_plain(name), -1) for name in splits.class_names]
    notes += told_classes(splits.class_names, model, setup.dataset.name)
    return _renamed(_of_split(split, words, own=False, notes=notes), labels)


def _of_data(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in OF_THE_MACHINE}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _of_split(split: Split, words: str, *, own: bool, notes: list[str]) -> ImagesToTest:
    sources: Sequence[str] = ()
    if isinstance(split, ResidentSplit):
        sources = split.sources
    elif isinstance(split, StreamedSplit):
        sources = split.files.paths
    sources = sources or [str(index) for index in range(len(split))]
    return ImagesToTest(len(split), split.eval_batches, sources, words, own, notes, [])


def _renamed(images: ImagesToTest, labels: list[int]) -> ImagesToTest:
    """Give the images the network's numbers of their classes, and leave out unknown classes."""
    numbers = torch.tensor(labels)
    kept: list[int] = []
    start = 0
    for _, found in images.batches(1024):
        known = numbers[found.cpu()] >= 0
        kept += (start + known.nonzero()[:, 0]).tolist()
        start += len(found)

    def batches(size: int) -> Iterator[Batch]:
        for pixels, found in images.batches(size):
            new = numbers.to(found.device)[found]
            if (new >= 0).any():
                yield pixels[new >= 0], new[new >= 0]

    sources = [images.sources[index] for index in kept]
    return ImagesToTest(len(kept), batches, sources, images.words, False, images.notes, [])


def list_own(root: Path, model: Model) -> tuple[Path, ImageFiles, list[str]]:
    """List the images in the folder of the user's own, labelled by the network's classes.

    A folder of test images in it is taken, else one of validation images, else all.
    Returns the folder, the files and notes. Raises UserError if no class has its name.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root.absolute()}: set dataset.root to the images")
    root = root.resolve()
    splits = {split_of(name): root / name for name in content_of(root).folders}
    splits.pop(None, None)
    folder = next(
        (splits[name] for name in ("test", "validation", "train") if name in splits), root
    )
    listing = list_folders(Layout(folder, {"train": folder}, [], []), allow_copies=True)
    place = {_plain(name): k for k, name in enumerate(model.classes)}
    labels = np.array([place.get(_plain(name), -1) for name in listing.classes])
    notes = told_classes(listing.classes, model, str(folder))
    files = listing.splits["train"]
    files = ImageFiles(files.paths, labels[files.labels])
    return folder, files.take(np.flatnonzero(files.labels >= 0)), notes


def told_classes(names: Sequence[str], model: Model, where: str) -> list[str]:
    """Return lines about classes that only the network has, or only the images.

    Raises UserError if they have none in common.
    """
    own, theirs = set(map(_plain, model.classes)), set(map(_plain, names))
    where = printable(where)
    if not own & theirs:
        raise UserError(
            f"{where} has the classes {named(names)}, the network has {named(model.classes)}: "
            "none in common; name the folders like the network's classes"
        )
    notes = []
    if unknown := sorted(theirs - own):
        notes.append(
            f"left out: images of {named(unknown, 5)}, which the network does not know (it knows "
            f"{named(model.classes, 5)})"
        )
    if missing := sorted(own - theirs):
        notes.append(f"no images of {named(missing, 5)} in {where}")
    return notes


def _are_those_of(files: ImageFiles, model: Model, source: Source) -> bool:
    """Tell whether a folder holds as many images of each class as that of the network's run."""
    counts = source.images_of_class
    if counts is None:
        return False
    found = np.bincount(files.labels, minlength=len(model.classes)).tolist()
    return counts == dict(zip(model.classes, found, strict=True))


def own_folder(model: Model, folder: Path, files: ImageFiles, notes: list[str]) -> ImagesToTest:
    """Return all images of a folder; unreadable ones are left out, and told."""
    left_out: list[str] = []

    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, len(files), size):
            part = files.cut(slice(start, start + size))
            pixels, labels = [], []
            for path, label in zip(part.paths, part.labels.tolist(), strict=True):
                try:
                    pixels.append(model.preprocess(path))
                except UserError:
                    left_out.append(path)
                    continue
                labels.append(label)
            if pixels:
                device = pixels[0].device
                yield torch.cat(pixels), torch.tensor(labels, device=device)

    words = f"all images in {printable(str(folder))}"
    return ImagesToTest(len(files), batches, files.paths, words, False, notes, left_out)
