"""A survey of folders of images: classes, images by class and split, what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasrun.dataset.balance import Balance
from nasrun.dataset.listing import LeftOut, in_words
from nasrun.run.files import printable

UNEVEN = 1.5
"""Ratio of the images of two classes from which on accuracy alone misleads."""

STRONGLY_UNEVEN = 10.0
"""The ratio from which on the survey says so; in words: more than ten to one."""

_SHOWN_CLASSES = 12
_NAME_CHARACTERS = 24


@dataclass(frozen=True)
class FolderSurvey:
    """Tells what the folders of a dataset hold.

    root: the folder. classes: their names. sources: what each split is, in words.
    counts: images by split and class, int64 [K]. left_out: what is not used.
    notes: sentences about what the user should know.
    """

    root: str
    classes: list[str]
    sources: dict[str, str]
    counts: dict[str, NDArray[np.int64]]
    left_out: LeftOut
    notes: list[str]

    @property
    def uneven(self) -> bool:
        """Whether in some split a class has many more images than another."""
        return any(ratio_of(counts) > UNEVEN for counts in self.counts.values())

    def lines(self) -> list[str]:
        """Return lines for the screen: a table, what is left out, and the notes."""
        splits = list(self.counts)
        total = sum(int(counts.sum()) for counts in self.counts.values())
        lines = [f"images in {printable(self.root)}: {total:,} of {len(self.classes)} classes"]
        lines += [f"  {split:<12}{self.sources[split]}" for split in splits]
        names = [shortened(printable(name)) for name in self.classes[:_SHOWN_CLASSES]]
        width = max(len(name) for name in [*names, "all classes"])
        lines.append("  " + " " * width + "".join(f"{split:>12}" for split in splits))
        rows = [
            (name, [int(self.counts[split][k]) for split in splits]) for k, name in enumerate(names)
        ]
        if rest := len(self.classes) - len(rows):
            others = [int(self.counts[split][len(rows) :].sum()) for split in splits]
            rows.append((f"{rest:,} more", others))
        rows.append(("all classes", [int(self.counts[split].sum()) for split in splits]))
        for name, counts in rows:
            lines.append(f"  {name:<{width}}" + "".join(f"{count:>12,}" for count in counts))
        if left := left_out_in_words(self.left_out):
            lines.append(f"  left out: {left}")
        return lines + [f"  note: {note}" for note in self.notes]

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``data`` of run.json."""
        return {
            "root": self.root,
            "classes": self.classes,
            "splits": self.sources,
            "images": {split: counts.tolist() for split, counts in self.counts.items()},
            "left_out": {
                "suffixes": dict(self.left_out.suffixes),
                "folders": dict(self.left_out.folders),
                "links": self.left_out.links,
                "copies": self.left_out.copies,
                "odd": self.left_out.odd,
                "beside": self.left_out.beside,
            },
            "notes": self.notes,
        }


def ratio_of(counts: NDArray[np.int64]) -> float:
    """Return how many times the images of the rarest class the most frequent one has.

    Classes without images are left aside.
    """
    present = counts[counts > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


def note_of_unevenness(
    classes: list[str], counts: NDArray[np.int64], balance: Balance
) -> str | None:
    """Return a sentence about training images that are strongly uneven; None if they are not."""
    if ratio_of(counts) <= STRONGLY_UNEVEN:
        return None
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max()).argmin())
    advice = ", or set dataset.balance=weights or sampling" if balance == "none" else ""
    return (
        f"the classes are uneven: {counts[most]:,} images of {printable(classes[most])}, "
        f"{counts[least]:,} of {printable(classes[least])}; look at the balanced accuracy{advice}"
    )


def left_out_in_words(left_out: LeftOut) -> str:
    """Write what is left out in words; empty if there is nothing."""
    parts = []
    if left_out.suffixes:
        parts.append(f"files by suffix: {in_words(left_out.suffixes)}")
    if left_out.folders:
        names = sorted(left_out.folders)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        parts.append(f"folders: {', '.join(names[:5])}{more}")
    for count, words in (
        (left_out.beside, "files beside the folders of classes"),
        (left_out.links, "links to folders"),
        (left_out.copies, "links to files that are here already"),
        (left_out.odd, "that are no files (pipes, devices, broken links)"),
    ):
        if count:
            parts.append(f"{count:,} {words}")
    return "; ".join(parts)


def shortened(name: str) -> str:
    """Cut a long name in the middle."""
    if len(name) <= _NAME_CHARACTERS:
        return name
    half = _NAME_CHARACTERS // 2
    return f"{name[: half - 1]}…{name[-half:]}"
