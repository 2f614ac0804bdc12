"""The splits that folders of images hold: listed, checked, and a test set carved if need be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nasrun.dataset.checking import (
    Digests,
    check_files,
    copies_within,
    refuse_copies,
    skip_unreadable,
    without_copies,
)
from nasrun.dataset.folders import Layout, SplitName, named
from nasrun.dataset.listing import ImageFiles, LeftOut, Listing, list_folders
from nasrun.dataset.order import Indices, carve_test
from nasrun.errors import UserError
from nasrun.run.files import printable
from nasrun.run.monitor import Monitor

MIN_FIRST_IMAGES = 4
"""Images of each class that are taken at least where only first ones are."""


@dataclass(frozen=True)
class Rules:
    """Settings of what is taken from the folders; see conf/dataset/image_folder.yaml."""

    test_fraction: float
    first_images: int | None
    check_files: bool
    skip_bad: float
    allow_copies: bool
    workers: int


@dataclass(frozen=True)
class FolderSplits:
    """The images of each split, and what is to be said of them.

    validation: None: to be carved from ``train``. test: None: there is none.
    digests: of the training images; None: unknown. sources: what a split is, in words.
    """

    root: Path
    classes: list[str]
    train: ImageFiles
    validation: ImageFiles | None
    test: ImageFiles | None
    digests: Digests | None
    sources: dict[str, str]
    left_out: LeftOut
    notes: list[str]

    def without_copies(
        self, order: Indices, held_out: int, split: str
    ) -> tuple[Indices, list[str]]:
        """Leave out of ``order`` what is a copy of its first ``held_out`` images, and say so.

        Raises UserError if a class has no other images.
        """
        if self.digests is None:
            return order, []
        kept = without_copies(self.digests, order, held_out)
        if len(kept) == len(order):
            return order, []
        labels = self.train.labels
        lost = np.setdiff1d(labels[order[held_out:]], labels[kept[held_out:]])
        if len(lost):
            raise UserError(
                f"all training images of {self.in_words(lost)} are copies of {split} images: give "
                "other images, or take them with dataset.duplicates=keep"
            )
        return kept, [
            f"{len(order) - len(kept):,} training images are left out, as copies of {split} images"
        ]

    def in_words(self, classes: Iterable[int]) -> str:
        """Write the names of some classes."""
        return named(self.classes[k] for k in classes)


def find_splits(layout: Layout, rules: Rules, monitor: Monitor) -> FolderSplits:
    """List and check the images; a test set is carved where no folder holds one.

    Raises UserError if more files are unreadable than may be, or splits hold equal files.
    """
    listing = list_folders(layout, allow_copies=rules.allow_copies)
    if rules.first_images is not None:
        count = max(MIN_FIRST_IMAGES, -(-rules.first_images // len(listing.classes)))
        first = {split: files.first_of_each_class(count) for split, files in listing.splits.items()}
        note = f"the first {count} images of each class and folder (dataset.first_images)"
        listing = replace(listing, splits=first, notes=[*listing.notes, note])
    digests: dict[SplitName, Digests] | None = None
    if rules.check_files:
        listing, digests = check(listing, rules, monitor)
    return arrange(listing, digests, rules)


def check(
    listing: Listing, rules: Rules, monitor: Monitor
) -> tuple[Listing, dict[SplitName, Digests]]:
    """Read every file; returns the listing without unreadable ones, and their digests."""
    paths = [path for files in listing.splits.values() for path in files.paths]
    checked = check_files(paths, listing.layout.root, rules.workers, monitor)
    notes = list(listing.notes)
    if note := skip_unreadable(checked, paths, rules.skip_bad):
        notes.append(note)
    splits: dict[SplitName, ImageFiles] = {}
    digests: dict[SplitName, Digests] = {}
    start = 0
    for split, files in listing.splits.items():
        found = checked.digests[start : start + len(files)]
        start += len(files)
        readable = np.flatnonzero(found)
        splits[split], digests[split] = files.take(readable), found[readable]
        lost = np.setdiff1d(files.labels, splits[split].labels)
        if len(lost) and (split == "train" or not len(readable)):
            raise UserError(
                f"no image of {named(listing.classes[k] for k in lost)} in "
                f"{listing.layout.folders[split]} can be read"
            )
    listing = replace(listing, splits=splits, notes=notes)
    if not rules.allow_copies:
        refuse_copies_between(listing, digests)
        notes += notes_of_copies(listing, digests)
    return listing, digests


def refuse_copies_between(listing: Listing, digests: dict[SplitName, Digests]) -> None:
    """Raise UserError if two splits hold a file of equal content."""
    named_splits = [
        (listing.layout.name(split), files, digests[split])
        for split, files in listing.splits.items()
    ]
    for index, one in enumerate(named_splits):
        for other in named_splits[index + 1 :]:
            refuse_copies(one, other)


def notes_of_copies(listing: Listing, digests: dict[SplitName, Digests]) -> list[str]:
    """Return sentences about equal files within a split, in one class and in two."""
    notes = []
    for split, files in listing.splits.items():
        pairs = copies_within(digests[split])
        torn = [pair for pair in pairs if files.labels[pair[0]] != files.labels[pair[1]]]
        where = "" if listing.layout.flat else f" of {listing.layout.name(split)}"
        for found, words in (
            (pairs, "are copies of others"),
            (torn, "are also in another class, so one of the labels is wrong"),
        ):
            if found:
                one, other = (printable(files.paths[index]) for index in found[0])
                notes.append(f"{len(found):,} images{where} {words}: {other} = {one}")
    return notes


def arrange(
    listing: Listing, digests: dict[SplitName, Digests] | None, rules: Rules
) -> FolderSplits:
    """Tell which images are for what; raises UserError if none would be for testing."""
    layout, splits = listing.layout, listing.splits
    train, validation, test = (splits.get(name) for name in ("train", "validation", "test"))
    assert train is not None  # a layout always has training images  # noqa: S101
    of_train = digests["train"] if digests is not None and not rules.allow_copies else None
    notes = list(listing.notes)
    training = "the folders of classes" if layout.flat else layout.name("train")
    sources = {"training": training}
    if validation is not None and test is not None:
        sources |= {"validation": layout.name("validation"), "test": layout.name("test")}
        notes.append(f"dataset.validation is not used: {layout.name('validation')} is there")
    elif validation is not None:  # as ImageNet's, whose test images have no labels
        sources["test"] = f"{layout.name('validation')}, as there is no folder test/"
        validation, test = None, validation
    elif test is not None:
        sources["test"] = layout.name("test")
    found = FolderSplits(
        layout.root,
        listing.classes,
        train,
        validation,
        test,
        of_train,
        sources,
        listing.left_out,
        notes,
    )
    return found if test is not None else with_test(found, rules.test_fraction)


def with_test(found: FolderSplits, fraction: float) -> FolderSplits:
    """Carve a test set from the training images, the same in every run."""
    files = found.train
    if not fraction:  # the test images may come later
        return found
    count = round(fraction * len(files))
    if count == 0:
        raise UserError(
            f"dataset.test_fraction={fraction} of the {len(files)} images in {found.root} is none"
        )
    training, held_out = carve_test(files.labels, count)
    order = np.concatenate([held_out, training])
    order, notes = found.without_copies(order, count, "test")
    training = order[count:]
    return replace(
        found,
        train=files.take(training),
        test=files.take(held_out),
        digests=None if found.digests is None else found.digests[training],
        sources={
            **found.sources,
            "test": f"{count:,} of the images, always the same (dataset.test_fraction)",
        },
        notes=[*found.notes, *notes],
    )
