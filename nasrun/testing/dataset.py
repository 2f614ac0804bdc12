"""The laws of datasets: splits, orders, batches, and what they depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch

from nasrun.dataset.base import Batch, Dataset, Split, Splits
from nasrun.errors import UserError
from nasrun.streams import Streams
from nasrun.testing.law import require

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DatasetCase:
    """A dataset, loaded twice with one seed and once with another.

    batch_size: images of a batch; cutout: side of a cutout in pixels.
    duplicates: images that the data itself holds in two splits.
    """

    dataset: Dataset
    seed: int
    batch_size: int
    duplicates: int
    cutout: int = 2

    @cached_property
    def loaded(self) -> tuple[Splits, Splits, Splits]:
        """Splits of the seed, of the seed again, and of another one."""
        seeds = (self.seed, self.seed, self.seed + 1)
        first, again, other = (self.dataset.load(Streams(seed), CPU) for seed in seeds)
        return first, again, other

    @cached_property
    def splits(self) -> dict[str, Split]:
        """All splits of the seed, by name."""
        first = self.loaded[0]
        return {
            "train": first.train,
            "validation": first.validation,
            "train_and_validation": first.train_and_validation(),
            "test": first.test(),
        }

    def batches(self, split: Split, count: int, first_step: int = 0, seed: int = 0) -> list[Batch]:
        """Training batches of the steps from ``first_step`` on."""
        batches = split.train_batches(
            self.batch_size, streams=Streams(seed), first_step=first_step, cutout=0
        )
        return list(islice(batches, count))


def _images(split: Split, batch_size: int = 100) -> Counter[bytes]:
    """How often each image is in a split, as it is evaluated."""
    return Counter(
        image.numpy().tobytes() for images, _ in split.eval_batches(batch_size) for image in images
    )


def _same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True)
    )


def splits_are_disjoint(case: DatasetCase) -> None:
    """No image is in two splits, and train_and_validation holds just the images of both."""
    found = {name: _images(split) for name, split in case.splits.items()}
    for name, split in case.splits.items():
        require(len(split) == sum(found[name].values()) > 0, f"{name} has not {len(split)} images")
    both = found["train"] + found["validation"]
    require(found["train_and_validation"] == both, "train_and_validation is another set of images")
    for one, other in (("train", "validation"), ("train_and_validation", "test")):
        shared = len(found[one].keys() & found[other].keys())
        require(shared <= case.duplicates, f"{one} and {other} share {shared} images")


def splits_follow_the_seed(case: DatasetCase) -> None:
    """A seed gives the same splits again, another seed another validation split, one test set."""
    first, again, other = case.loaded
    for name in ("train", "validation"):
        one, same, differing = (getattr(splits, name) for splits in case.loaded)
        pairs = [list(split.eval_batches(case.batch_size)) for split in (one, same, differing)]
        require(_same(pairs[0], pairs[1]), f"one seed gives two splits {name}")
        require(not _same(pairs[0], pairs[2]), f"two seeds give one split {name}")
        prints = [split.fingerprint() for split in (one, same, differing)]
        require(prints[0] == prints[1], f"one split {name}, two fingerprints")
        require(prints[0] != prints[2], f"two splits {name}, one fingerprint")
        require(len(prints[0]) <= 200, "a fingerprint is too long to be shown")
    require(_images(first.test()) == _images(other.test()), "the seed changes the test images")
    require(first.problem == again.problem == other.problem, "the problem changes")


def batches_have_the_shape_of_the_problem(case: DatasetCase) -> None:
    """Images are finite float32 [B, C, H, W], labels int64 [B] below the number of classes."""
    problem = case.loaded[0].problem
    for name, split in case.splits.items():
        batches = [*case.batches(split, 1), next(iter(split.eval_batches(case.batch_size)))]
        for images, labels in batches:
            count = min(case.batch_size, len(split))
            shape = (count, *problem.size.shape(problem.channels))
            require(images.shape == shape, f"{name}: images {tuple(images.shape)}, not {shape}")
            require(labels.shape == (count,), f"{name}: labels {tuple(labels.shape)}")
            dtypes = (images.dtype, labels.dtype)
            require(dtypes == (torch.float32, torch.int64), f"{name}: {dtypes}")
            require(images.isfinite().all(), f"{name}: pixels that are not finite")
            require((labels >= 0).all() and (labels < problem.classes).all(), f"{name}: {labels}")
    labels = torch.cat([y for _, y in case.splits["train"].eval_batches(100)])
    absent = set(range(problem.classes)) - set(labels.tolist())
    require(not absent, f"the training images show nothing of classes {absent}")


def an_epoch_trains_every_image_once(case: DatasetCase) -> None:
    """The steps of an epoch hold each image once, a last batch of a single image left out."""
    split = case.splits["train"]
    steps = split.steps_per_epoch(case.batch_size)
    epochs = case.batches(split, 2 * steps)
    everything = Counter(torch.cat([y for _, y in split.eval_batches(100)]).tolist())
    left_out = len(split) % case.batch_size == 1
    orders = []
    for epoch in (epochs[:steps], epochs[steps:]):
        labels = torch.cat([y for _, y in epoch]).tolist()
        missing = sum((everything - Counter(labels)).values())
        require(missing == left_out and len(labels) == len(split) - missing, "not each image once")
        orders.append(epoch)
    require(not _same(*orders), "two epochs are alike")


def batches_depend_on_seed_and_step(case: DatasetCase) -> None:
    """The batch of a step is the same wherever one starts, and another one under another seed."""
    split = case.splits["train"]
    steps = split.steps_per_epoch(case.batch_size) + 2
    batches = case.batches(split, steps)
    for first in (0, 1, steps - 2):
        found = case.batches(split, steps - first, first)
        require(_same(found, batches[first:]), f"begun at step {first}, batches are others")
    require(not _same(case.batches(split, steps, seed=1), batches), "the seed changes nothing")


def cutout_sets_pixels_to_zero(case: DatasetCase) -> None:
    """Cutout sets pixels to 0 and changes nothing else."""
    split = case.splits["train"]
    ((plain, labels),) = case.batches(split, 1)
    cut, same = next(split.train_batches(case.batch_size, streams=Streams(0), cutout=case.cutout))
    require(torch.equal(labels, same), "cutout changes the order of the images")
    changed = cut != plain
    require(changed.any() and not cut[changed].any(), "cutout changes pixels to something else")


def evaluation_is_all_images_in_order(case: DatasetCase) -> None:
    """Evaluation gives each image once, unaltered, in one order, whatever the size of batches."""
    for name, split in case.splits.items():
        images, labels = (torch.cat(all_of) for all_of in zip(*split.eval_batches(3), strict=True))
        require(len(labels) == len(split), f"{name}: {len(labels)} of {len(split)} images")
        for size, count in ((case.batch_size, None), (4, 6), (4, len(split) + 10)):
            batches = list(split.eval_batches(size, count))
            found = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
            expected = images[:count], labels[:count]
            same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
            require(same, f"{name}: others in batches of {size}, count={count}")
            full = all(len(y) == size for _, y in batches[:-1])
            require(full, f"{name}: a batch before the last is not of {size}")


def names_and_preprocessing_fit_the_problem(case: DatasetCase) -> None:
    """Each class has a name of its own, and preprocessing makes images of the problem's shape."""
    splits = case.loaded[0]
    names, problem = splits.class_names, splits.problem
    require(len(names) == problem.classes, f"{len(names)} names of {problem.classes} classes")
    require(len(set(names)) == len(names), "two classes have one name")
    if splits.preprocessing is not None:
        try:
            splits.preprocessing.check(problem.channels, problem.size)
        except UserError as error:
            require(False, str(error))


DATASET_LAWS = (
    splits_are_disjoint,
    splits_follow_the_seed,
    batches_have_the_shape_of_the_problem,
    an_epoch_trains_every_image_once,
    batches_depend_on_seed_and_step,
    cutout_sets_pixels_to_zero,
    evaluation_is_all_images_in_order,
    names_and_preprocessing_fit_the_problem,
)
"""The laws of a dataset, in the order in which they are checked."""
