"""The interface of a dataset: three splits of images, in batches named by their step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nasrun.dataset.preprocessing import Preprocessing
from nasrun.run.monitor import Monitor
from nasrun.run.ranks import Ranks
from nasrun.streams import Streams
from nasrun.values import Problem

Batch = tuple[Tensor, Tensor]
"""Normalised float32 images [B, C, H, W] and int64 labels [B], on the run's device."""


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of steps in one pass over so many images (see ``Split``)."""
    full, rest = divmod(images, batch_size)
    return max(full + (rest > 1), 1)


class Split(ABC):
    """Images of a dataset, in a fixed order."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of steps in one pass; the last batch of an epoch may be smaller.

        A last batch of a single image is left out, since batch norm needs two images.
        """
        return steps_per_epoch(len(self), batch_size)

    @abstractmethod
    def fingerprint(self) -> str:
        """A short text that is equal for equal images in equal order, on any disk or device."""

    def class_weights(self) -> Tensor | None:
        """Return the weight of each class in the loss, float32 [K]; None: all count alike."""
        return None

    @abstractmethod
    def train_batches(
        self, batch_size: int, *, streams: Streams, first_step: int = 0, cutout: int = 0
    ) -> Iterator[Batch]:
        """Yield augmented batches without end, from step ``first_step`` on.

        Every epoch is a new permutation. The batch of a step depends on the seed of ``streams``
        and on the step alone. cutout: side of the square set to 0, in pixels; 0: none.
        """

    def of_rank(self, ranks: Ranks) -> Split:
        """Return a split whose training batches need to have one rank's images (``Ranks.rows``).

        The others are in their places, but may be anything: here they are as they were.
        """
        return self

    @abstractmethod
    def eval_batches(self, batch_size: int, count: int | None = None) -> Iterator[Batch]:
        """Yield the first ``count`` images (None: all), not augmented, in order."""

    def pixel_batches(self, batch_size: int, count: int | None = None) -> Iterator[Batch] | None:
        """Return ``eval_batches`` as they are before ``prepare``, on the CPU: uint8 [B, C, H, W].

        None: the split has all its images in memory, so that none is read twice.
        """
        return None

    def prepare(self, batch: Batch) -> Batch:
        """Bring a batch of pixels to the device of the run, and normalise it there."""
        raise NotImplementedError("a split with pixel_batches prepares them")


class Survey(Protocol):
    """Knows what the folders of a dataset hold, and tells the user."""

    @property
    def uneven(self) -> bool:
        """Whether some classes have many more images than others."""

    def lines(self) -> list[str]:
        """Return lines for the screen."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``data`` of run.json."""


@dataclass(frozen=True)
class Splits:
    """The three splits of a loaded dataset; validation may be carved from the training images.

    train_and_validation: joins both splits, to train on in a final retraining.
    test: reads the test images; only the final retraining calls it.
    survey: what the dataset's folders hold; None: it has none.
    classes: their names, in the order of the labels; empty: they have none but their numbers.
    preprocessing: how an image becomes one like those of the test split; None: it is not told, so a
    trained network takes no files and pictures.
    """

    problem: Problem
    train: Split
    validation: Split
    train_and_validation: Callable[[], Split]
    test: Callable[[], Split]
    survey: Survey | None = None
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, their numbers where they have no others."""
        return self.classes or tuple(map(str, range(self.problem.classes)))


class Dataset(ABC):
    """A dataset as configured; nothing is read before ``load``."""

    name: str

    def problem(self) -> Problem | None:
        """Return the shape of the problem without reading an image; None: not known before.

        Raises UserError if folders that tell it are absent.
        """
        return None

    @abstractmethod
    def load(self, streams: Streams, device: torch.device) -> Splits:
        """Read the training images and split off the validation images, stratified and seeded.

        Raises UserError if the data is absent, has one class only, or has fewer images than
        the validation split needs.
        """

    def load_with_survey(self, streams: Streams, device: torch.device, monitor: Monitor) -> Splits:
        """Load, and show the monitor what takes long; the default shows nothing."""
        return self.load(streams, device)
