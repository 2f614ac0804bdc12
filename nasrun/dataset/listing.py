"""Image files in one folder for each class: list each once, and count the others."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nasrun.dataset.files import suffixes
from nasrun.dataset.folders import Layout, SplitName, class_names, content_of, named, split_of
from nasrun.dataset.order import Indices
from nasrun.errors import UserError
from nasrun.run.files import printable


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """N image files and their labels, int64 [N]."""

    paths: list[str]
    labels: Indices

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, order: Indices) -> ImageFiles:
        return ImageFiles([self.paths[index] for index in order], self.labels[order])

    def cut(self, images: slice) -> ImageFiles:
        return ImageFiles(self.paths[images], self.labels[images])

    def first_of_each_class(self, count: int) -> ImageFiles:
        """Keep the first ``count`` images of each class."""
        order = np.argsort(self.labels, kind="stable")
        labels = self.labels[order]
        rank = np.arange(len(order)) - np.searchsorted(labels, labels)
        return self.take(np.sort(order[rank < count]))

    @staticmethod
    def joined(*parts: ImageFiles) -> ImageFiles:
        """Put files one after the other."""
        paths = [path for part in parts for path in part.paths]
        return ImageFiles(paths, np.concatenate([part.labels for part in parts]))


@dataclass
class LeftOut:
    """Counts of what stands in the folders and is not used.

    suffixes: files by the end of their name. folders: hidden ones, those of systems, and folders
    beside the splits. links: links to folders that are not followed. copies: further names of a
    file that is used already. odd: pipes, devices, broken links. beside: files beside the class
    folders.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    links: int = 0
    copies: int = 0
    odd: int = 0
    beside: int = 0


@dataclass(frozen=True)
class Listing:
    """The images that the folders hold: of each split, and what is left out."""

    layout: Layout
    classes: list[str]
    splits: dict[SplitName, ImageFiles]
    left_out: LeftOut
    notes: list[str]


def list_folders(layout: Layout, *, allow_copies: bool) -> Listing:
    """List the images of all splits.

    allow_copies: whether links may give one file to two classes or splits.
    Raises UserError if a class has no image to train on, if another split has other classes, or
    if links give one file two meanings.
    """
    left_out = LeftOut()
    left_out.folders.update(printable(name) for name in layout.unused)
    classes: list[str] = []
    splits: dict[SplitName, ImageFiles] = {}
    linked = False
    for split in ("train", "validation", "test"):
        if split not in layout.folders:
            continue
        folder = layout.folders[split]
        names, inside = class_names(folder, layout.root)
        left_out.links += len(inside)
        content = content_of(folder)
        left_out.beside += len(content.files)
        left_out.folders.update(printable(name) for name in content.passed_over)
        linked |= folder.is_symlink() or bool(content.linked)
        if split == "train":
            classes = names
        else:
            names = in_order_of(classes, names, folder)
        files, links = _list_split(folder, names, left_out, required=split == "train")
        linked |= links
        if not len(files):
            raise UserError(f"no images in {printable(str(folder))}")
        splits[split] = files
    if linked and not allow_copies:
        splits = _each_file_once(splits, left_out)
    return Listing(layout, classes, splits, left_out, layout.notes)


def in_order_of(classes: list[str], found: list[str], folder: Path) -> list[str]:
    """Return the folders of ``found`` in the order of the classes; "" where there is none.

    Raises UserError if there are others.
    """
    by_name = {unicodedata.normalize("NFC", name): name for name in found}
    wanted = [unicodedata.normalize("NFC", name) for name in classes]
    extra = sorted(by_name.keys() - set(wanted))
    if extra:
        absent = named(sorted(set(wanted) - by_name.keys())) or "none"
        raise UserError(
            f"{folder.absolute()} has {len(found)} class folders, the training images have "
            f"{len(classes)}; absent from it: {absent}; only there: {named(extra)}"
        )
    return [by_name.get(name, "") for name in wanted]


def _list_split(
    folder: Path, names: list[str], left_out: LeftOut, *, required: bool
) -> tuple[ImageFiles, bool]:
    """List the images of a split, and tell whether some are links.

    names: the folder of each class; "": none. required: whether each class needs an image.
    """
    paths: list[str] = []
    labels: list[int] = []
    linked = False
    for label, name in enumerate(names):
        if not name:
            continue
        found, others, links = _list_class(folder / name, left_out)
        if required and not found:
            kinds = f"; left out there: {in_words(others)}" if others else ""
            raise UserError(
                f"no images in {printable(str(folder / name))} (looked for "
                f"{', '.join(suffixes())}{kinds})"
            )
        left_out.suffixes.update(others)
        linked |= links
        paths += found
        labels += [label] * len(found)
    return ImageFiles(paths, np.array(labels, dtype=np.int64)), linked


def _list_class(folder: Path, left_out: LeftOut) -> tuple[list[str], Counter[str], bool]:
    """List the images of a class at any depth, sorted; other files by suffix; whether links."""
    found: list[str] = []
    others: Counter[str] = Counter()
    linked = False
    ends = suffixes()
    left = [str(folder)]
    while left:
        parent = left.pop()
        content = content_of(parent)
        for name in content.folders:
            inner = os.path.join(parent, name)  # noqa: PTH118 - a Path for each is slow
            if parent == str(folder) and split_of(name):
                raise UserError(
                    f"{printable(inner)} is named like a split, but stands in the folder of a "
                    "class: a split stands above its classes, as in train/CLASS, test/CLASS"
                )
            if name in content.linked:
                left_out.links += 1
            else:
                left.append(inner)
        images = [name for name in content.files if name.lower().endswith(ends)]
        found += [os.path.join(parent, name) for name in images]  # noqa: PTH118
        linked |= any(name in content.linked for name in images)
        if len(images) < len(content.files):
            others.update(
                os.path.splitext(name)[1].lower() or "no suffix"  # noqa: PTH122
                for name in set(content.files) - set(images)
            )
        left_out.odd += len(content.odd)
        left_out.folders.update(printable(name) for name in content.passed_over)
    return sorted(found), others, linked


def images_below(folder: str) -> list[str]:
    """List the image files in a folder at any depth, sorted; classes and splits mean nothing.

    Like in the folders of a data set, hidden files and links to folders are passed over.
    Raises UserError if a folder cannot be read.
    """
    found: list[str] = []
    left, ends = [folder], suffixes()
    while left:
        parent = left.pop()
        content = content_of(parent)
        inner = [name for name in content.folders if name not in content.linked]
        left += [os.path.join(parent, name) for name in inner]  # noqa: PTH118
        images = [name for name in content.files if name.lower().endswith(ends)]
        found += [os.path.join(parent, name) for name in images]  # noqa: PTH118
    return sorted(found)


def in_words(suffixes: Counter[str]) -> str:
    """Write counts by suffix in words, the most frequent first."""
    common = suffixes.most_common()
    words = [f"{count:,} {printable(suffix)}" for suffix, count in common[:5]]
    return ", ".join(words) + (f" and {len(common) - 5} kinds more" if len(common) > 5 else "")


def _each_file_once(
    splits: dict[SplitName, ImageFiles], left_out: LeftOut
) -> dict[SplitName, ImageFiles]:
    """Leave out further names of a file, which are links to it.

    Raises UserError if its names stand in two classes or splits.
    """
    first: dict[str, tuple[SplitName, int, str]] = {}
    kept: dict[SplitName, list[int]] = {split: [] for split in splits}
    entries = [
        (path != (real := os.path.realpath(path)), split, index, path, real)
        for split, files in splits.items()
        for index, path in enumerate(files.paths)
    ]
    for _, split, index, path, real in sorted(entries, key=lambda entry: entry[0]):
        label = int(splits[split].labels[index])
        other = first.setdefault(real, (split, label, path))
        if other[:2] != (split, label):
            raise UserError(
                f"{printable(path)} and {printable(other[2])} are one file, through links, in two "
                "classes or splits: remove one, or take it twice with dataset.duplicates=keep"
            )
        if other[2] == path:
            kept[split].append(index)
        else:
            left_out.copies += 1
    return {
        split: files.take(np.sort(np.array(kept[split], dtype=np.int64)))
        for split, files in splits.items()
    }
