"""The order of images: stratified orders, splits cut from them, batches of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from nasrun.dataset.balance import balanced_order
from nasrun.dataset.base import Split, Splits, Survey
from nasrun.dataset.preprocessing import Preprocessing
from nasrun.errors import UserError
from nasrun.streams import Streams
from nasrun.values import Problem

Indices = NDArray[np.int64]

# A test set that we split off ourselves belongs to the data: it is the same in every run.
_SAME_FOR_ALL_RUNS = Streams(0)


def stratified_order(labels: Indices, generator: np.random.Generator) -> Indices:
    """Permute [N] images at random so that every prefix holds the classes in proportion.

    Image j of a class of n images is put at the relative place (j + 1/2) / n, ties in random order.
    So a cut at any place is a stratified split.
    """
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = (rank + 0.5) / np.repeat(counts, counts)
    return by_class[np.lexsort((generator.random(len(labels)), place))]


def carve_test(labels: Indices, count: int) -> tuple[Indices, Indices]:
    """Split off a test set from a dataset that has none, the same in every run.

    Returns the indices of the training and of the test images.
    """
    order = stratified_order(labels, _SAME_FOR_ALL_RUNS.numpy("test"))
    return order[count:], order[:count]


def carve_validation(
    labels: Indices,
    classes: int,
    *,
    validation: int | float,
    train_images: int | None,
    streams: Streams,
) -> tuple[Indices, int]:
    """Choose the images to use, in order; the first ones are for validation.

    Returns the indices of these images, and the number of validation images.
    validation: number or share of the images. train_images: number of the other images to train
    on; None: all. Raises UserError if there are not enough images.
    """
    total = len(labels)
    if classes < 2:
        raise UserError("the dataset has one class only; there is nothing to tell apart")
    if total < classes:
        raise UserError(f"{total} training images are fewer than the {classes} classes")
    held_out = validation if isinstance(validation, int) else round(validation * total)
    if held_out == 0:
        raise UserError(f"dataset.validation={validation} of {total} training images is none")
    if held_out >= total:
        raise UserError(
            f"dataset.validation={validation} leaves none of the {total} training images"
        )
    kept = total - held_out if train_images is None else train_images
    if held_out + kept > total:
        raise UserError(
            f"dataset.train_images={kept} and {held_out} images for validation are more than the "
            f"{total} training images"
        )
    generator = streams.numpy("split")
    front, rest = np.split(stratified_order(labels, generator), [held_out])
    rest = rest[stratified_order(labels[rest], generator)][:kept]  # a stratified subset
    present = len(np.unique(labels[rest]))
    if present < classes:
        raise UserError(
            f"with {held_out} of {total} images for validation, the {kept} training images show "
            f"only {present} of the {classes} classes"
        )
    return np.concatenate([front, rest]), held_out


def choose_training(
    labels: Indices, classes: int, *, train_images: int | None, streams: Streams
) -> Indices:
    """Choose the images to train on, in order, where others are the validation images.

    train_images: their number, stratified; None: all. Raises UserError if there are not enough.
    """
    if train_images is not None and train_images > len(labels):
        raise UserError(
            f"dataset.train_images={train_images} is more than the {len(labels)} training images"
        )
    order = stratified_order(labels, streams.numpy("split"))[:train_images]
    present = len(np.unique(labels[order]))
    if present < classes:
        raise UserError(
            f"dataset.train_images={train_images} shows only {present} of the {classes} classes"
        )
    return order


def cut_splits(
    problem: Problem,
    cut: Callable[[str, slice], Split],
    held_out: int,
    test: Callable[[], Split],
    survey: Survey | None = None,
    *,
    classes: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """Cut images that ``carve_validation`` has ordered into splits.

    cut: makes a split of this name from a slice of the images. held_out: images for validation.
    survey: what the folders hold, if there are any. classes, preprocessing: as of ``Splits``.
    """
    return Splits(
        problem,
        train=cut("train", slice(held_out, None)),
        validation=cut("validation", slice(0, held_out)),
        train_and_validation=lambda: cut("train_and_validation", slice(None)),
        test=test,
        survey=survey,
        classes=classes,
        preprocessing=preprocessing,
    )


def training_order(
    split: Split,
    name: str,
    batch_size: int,
    streams: Streams,
    first_step: int,
    balanced: Indices | None = None,
) -> Iterator[tuple[int, int, Indices]]:
    """Yield (step, epoch, indices of the batch) without end; each epoch is a new permutation.

    balanced: labels [N]; an epoch then samples the classes in equal shares. None: it does not.
    """
    steps = split.steps_per_epoch(batch_size)
    step = first_step
    while True:
        epoch, done = divmod(step, steps)
        generator = streams.numpy(f"{name}/order", epoch)
        if balanced is None:
            order = generator.permutation(len(split))
        else:
            order = balanced_order(balanced, generator)
        for start in range(done * batch_size, steps * batch_size, batch_size):
            yield step, epoch, order[start : start + batch_size]
            step += 1
