"""Real images for a check of a trained network, where its data are at hand."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from nasrun.dataset.image_folder import ImageFolder
from nasrun.errors import UserError
from nasrun.model.model import Model
from nasrun.run.run import Run
from nasrun.streams import Streams
from nasrun.task.images_to_test import list_own
from nasrun.task.setup import Setup


def real_images(setup: Setup, run: Run, model: Model, count: int) -> tuple[Tensor, str]:
    """Return at most ``count`` images float32 [n, C, H, W] on the CPU, and words for them.

    Random ones take their place where the data are absent or do not fit the network.
    """
    try:
        images, words = _found(setup, model, count)
    except UserError as error:
        run.say(f"no real images for the check, so random ones are taken: {error}", "yellow")
        generator = run.streams.torch("check/images")
        shape = (count, *model.manifest.shape)
        return torch.randn(shape, generator=generator), f"{count} random images"
    return images, f"{len(images)} {words}"


def _found(setup: Setup, model: Model, count: int) -> tuple[Tensor, str]:
    manifest = model.manifest
    if isinstance(setup.dataset, ImageFolder):
        _, files, _ = list_own(setup.dataset.root, model)
        places = np.unique(np.linspace(0, len(files) - 1, count).round().astype(int))
        images = model.preprocess([files.paths[index] for index in places])
        return images, f"images of {manifest.origin.dataset}"
    dataset = copy.copy(setup.dataset)
    if getattr(dataset, "download", False):
        dataset.download = False  # type: ignore[attr-defined]
    splits = dataset.load(Streams(setup.split_seed).sub("dataset"), torch.device("cpu"))
    if splits.problem != manifest.problem:
        raise UserError(f"the images of {dataset.name} do not fit the network")
    batches = [images for images, _ in splits.validation.eval_batches(count, count)]
    return torch.cat(batches), f"validation images of {dataset.name}"
