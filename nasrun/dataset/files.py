"""Image files in one folder for each class: list them and open them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nasrun.dataset.order import Indices
from nasrun.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


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


def class_names(folder: Path) -> list[str]:
    """List the folders in ``folder``, sorted, without hidden ones.

    Raises UserError if there are fewer than two.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder.absolute()}: set dataset.root to the images")
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    names = sorted(name for name in names if not name.startswith("."))
    if not names:
        raise UserError(f"no images: {folder.absolute()} holds no folders, one for each class")
    if len(names) == 1:
        raise UserError(
            f"{folder.absolute()} holds one class only ({names[0]}): "
            "give every class a folder of its own"
        )
    return names


def list_images(folder: Path, classes: list[str]) -> ImageFiles:
    """List the images of every class, at any depth, sorted.

    Raises UserError if a class has no image.
    """
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            os.path.join(parent, file)  # noqa: PTH118 - a Path for each of a million files is slow
            for parent, _, files in os.walk(folder / name, followlinks=True)
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        )
        if not found:
            kinds = ", ".join(SUFFIXES)
            raise UserError(f"no images in {(folder / name).absolute()} (looked for {kinds})")
        paths += found
        labels += [label] * len(found)
    return ImageFiles(paths, np.array(labels, dtype=np.int64))


def open_image(path: str, channels: int) -> Image:
    """Decode an image to 1 (grey) or 3 (RGB) channels of 8 bits.

    Raises UserError, naming the file, where it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UserError(f"{path} has more than 8 bits per pixel; convert it to 8 bits")
            return image.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the image {path}: {error}") from error
