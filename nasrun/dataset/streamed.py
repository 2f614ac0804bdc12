"""Images that do not fit into memory: worker processes decode and augment the files."""

from __future__ import annotations

import itertools
import math
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import data

from nasrun.dataset.augment import Normalise, cut_out
from nasrun.dataset.balance import Balance, class_weights
from nasrun.dataset.base import Batch, Split
from nasrun.dataset.files import WHITE, Colour, open_image
from nasrun.dataset.jitter import jitter, sample
from nasrun.dataset.listing import ImageFiles
from nasrun.dataset.options import Fit, JitterOn
from nasrun.dataset.order import training_order
from nasrun.dataset.preprocessing import (
    MAX_SIDE,
    STREAMED_MARGIN,
    Preprocessing,
    evaluation,
    padded,
)
from nasrun.errors import UserError
from nasrun.run.ranks import Ranks
from nasrun.run.signals import SIGNALS
from nasrun.streams import Streams
from nasrun.values import MapSize

if TYPE_CHECKING:
    from PIL.Image import Image

Item = tuple[int, int] | None
"""(Seed of the image's augmentation, index of the image); None: an image that is not needed."""


@dataclass(frozen=True)
class Transforms:
    """Transforms of a decoded image of any shape to uint8 [C, H, W].

    crop_area: the smallest share of the area that a training crop may take.
    brightness, contrast, saturation, hue: strengths of the colour jitter. jitter_on: where it is
    done.
    background: colour behind transparent and beside padded images.
    """

    size: MapSize
    channels: int
    crop_area: float
    flip: bool
    brightness: float
    contrast: float
    saturation: float
    hue: float
    background: Colour = WHITE
    fit: Fit = "crop"
    jitter_on: JitterOn = "workers"

    @property
    def strengths(self) -> tuple[float, float, float, float]:
        """Strengths of the colour jitter: brightness, contrast, saturation, hue."""
        return self.brightness, self.contrast, self.saturation, self.hue

    @property
    def jitters(self) -> bool:
        """Tell whether colours are jittered."""
        return any(self.strengths)

    def training(self) -> Any:
        """Inception's random crop (Szegedy et al. 2015), flip, and the workers' colour jitter."""
        from torchvision.transforms import v2  # slow to import

        aspect = self.size.width / self.size.height
        shape = (self.size.height, self.size.width)
        ratio = (3 / 4 * aspect, 4 / 3 * aspect)
        steps = [v2.RandomResizedCrop(shape, scale=(self.crop_area, 1.0), ratio=ratio)]
        if self.fit == "pad":
            background, most = self.background, self.source_side
            filled = partial(padded, size=self.size, background=background, most=most)
            steps.insert(0, v2.Lambda(filled))
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.jitters and self.jitter_on == "workers":
            steps.append(v2.ColorJitter(*self.strengths))
        return v2.Compose([*steps, v2.PILToTensor()])

    def evaluation(self, margin: float = STREAMED_MARGIN) -> Any:
        """Scale images to cover the size × margin, then crop the centre."""
        return evaluation(self.size, self.fit, margin, self.background, self.source_side)

    def preprocessing(
        self, mean: list[float], std: list[float], margin: float = STREAMED_MARGIN
    ) -> Preprocessing:
        """Return the settings of opening, evaluation and normalisation as one value."""
        return Preprocessing(
            channels=self.channels,
            size=self.size.sides,
            mean=mean,
            std=std,
            resize="bilinear",
            fit=self.fit,
            margin=margin,
            background=self.background,
            source_side=self.source_side,
        )

    @property
    def source_side(self) -> int:
        """Pixels of a large image's short side that are enough for every crop."""
        side = self.size.long
        return min(max(math.ceil(side / math.sqrt(self.crop_area)), 2 * side), MAX_SIDE)

    def open(self, path: str) -> Image:
        """Open an image file; raises UserError, naming it, where it cannot be read."""
        return open_image(path, self.channels, background=self.background, side=self.source_side)


Part = tuple[Tensor, int, Tensor | None]
"""An image uint8 [C, H, W], its class, and how its device is to jitter it."""


class _Images(data.Dataset[Part | UserError]):
    """Images by item, decoded and transformed in a worker process.

    strengths: of the colour jitter that is left to the device, if any.
    A UserError is returned as a value: if a worker raised it, its message would be lost.
    """

    def __init__(
        self,
        files: ImageFiles,
        transforms: Transforms,
        transform: Any,
        strengths: Sequence[float] | None,
    ) -> None:
        self.files = files
        self.transforms = transforms
        self.transform = transform
        self.strengths = strengths

    def __getitem__(self, item: Item) -> Part | UserError:
        if item is None:
            size = self.transforms.size
            black = torch.zeros(size.shape(self.transforms.channels), dtype=torch.uint8)
            return black, 0, None if self.strengths is None else sample(self.strengths)
        key, index = item
        try:
            image = self.transforms.open(self.files.paths[index])
        except UserError as error:
            return error
        # torchvision samples from torch's global generator. It is seeded by the item, so the image
        # does not depend on the worker; without workers its state is restored.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key)
            pixels = self.transform(image)
            sampled = None if self.strengths is None else sample(self.strengths)
            return pixels, int(self.files.labels[index]), sampled


def _collate(items: list[Part | UserError]) -> tuple[Tensor, Tensor, Tensor | None] | UserError:
    images, labels, sampled = [], [], []
    for item in items:
        if isinstance(item, UserError):
            return item
        images.append(item[0])
        labels.append(item[1])
        if item[2] is not None:
            sampled.append(item[2])
    return torch.stack(images), torch.tensor(labels), torch.stack(sampled) if sampled else None


def _leave_signals_to_the_run(worker: int) -> None:
    """Ignore Ctrl-C, which reaches all processes: the run needs its workers to finish a step."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the loader ends its workers with it


@dataclass(frozen=True, eq=False)
class StreamedSplit(Split):
    """Image files that are read as they are needed.

    name: names the random streams, so that two splits of a run are augmented differently.
    workers: decoding processes; 0: decode in this process. The batches do not depend on it.
    balance: what is done about uneven classes.
    ranks: the rank whose images of a training batch are decoded; the others are black.
    """

    name: str
    files: ImageFiles
    transforms: Transforms
    normalise: Normalise
    workers: int
    balance: Balance = "none"
    ranks: Ranks = field(default_factory=Ranks)

    def of_rank(self, ranks: Ranks) -> StreamedSplit:
        return replace(self, ranks=ranks)

    def __len__(self) -> int:
        return len(self.files)

    def fingerprint(self) -> str:
        """Digest of the files' names and classes: reading a million images would take hours."""
        state = blake2b(digest_size=4)
        for path, label in zip(self.files.paths, self.files.labels.tolist(), strict=True):
            name = path.rpartition(os.sep)[2]
            state.update(f"{name} {label}\n".encode(errors="surrogateescape"))
        return f"{len(self)} files, {state.hexdigest()}"

    def class_weights(self) -> Tensor | None:
        if self.balance != "weights":
            return None
        return torch.from_numpy(class_weights(self.files.labels))

    def cut(self, name: str, images: slice) -> StreamedSplit:
        """Make a split of some of the images."""
        return replace(self, name=name, files=self.files.cut(images))

    def train_batches(
        self, batch_size: int, *, streams: Streams, first_step: int = 0, cutout: int = 0
    ) -> Iterator[Batch]:
        balanced = self.files.labels if self.balance == "sampling" else None
        orders = training_order(self, self.name, batch_size, streams, first_step, balanced)
        items: Iterable[list[Item]] = (
            [
                (self._key(streams, step, epoch, at, index), index) if at in own else None
                for at, index in enumerate(order)
            ]
            for step, epoch, order, own in (
                (s, e, order.tolist(), self.ranks.rows(len(order))) for s, e, order in orders
            )
        )
        left = self.transforms.jitters and self.transforms.jitter_on == "device"
        strengths = self.transforms.strengths if left else None
        read = self._batches(items, self.transforms.training(), strengths)
        batches = (
            self._placed(images, labels, sampled, strengths) for images, labels, sampled in read
        )
        for step, (images, labels) in zip(itertools.count(first_step), batches, strict=False):
            if cutout:
                generator = streams.torch(f"{self.name}/cutout", step)
                size, count = self.transforms.size, (len(labels),)
                row, column = (
                    torch.randint(side, count, generator=generator).to(images.device)
                    for side in (size.height, size.width)
                )
                cut_out(images, cutout, row, column)
            yield images, labels

    def _key(self, streams: Streams, step: int, epoch: int, place: int, index: int) -> int:
        """Return the seed of an image's augmentation; it may come twice an epoch if balanced."""
        which = (epoch, index, step, place) if self.balance == "sampling" else (epoch, index)
        return streams.key(f"{self.name}/augment", *which)

    def eval_batches(self, batch_size: int, count: int | None = None) -> Iterator[Batch]:
        return map(self.prepare, self.pixel_batches(batch_size, count))

    def pixel_batches(self, batch_size: int, count: int | None = None) -> Iterator[Batch]:
        indices = range(len(self))[:count]
        items: Iterable[list[Item]] = (
            [(0, index) for index in indices[start : start + batch_size]]
            for start in range(0, len(indices), batch_size)
        )
        read = self._batches(items, self.transforms.evaluation())
        return ((images, labels) for images, labels, _ in read)

    def _batches(
        self,
        items: Iterable[list[Item]],
        transform: Any,
        strengths: Sequence[float] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield pixels, labels, and how the device is to jitter the images, if it is.

        strengths: of the colour jitter on the device, if there is one.
        """
        device = self.normalise.scale.device
        loader = data.DataLoader(
            _Images(self.files, self.transforms, transform, strengths),
            batch_sampler=items,
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # otherwise the loader samples from the global generator
            worker_init_fn=_leave_signals_to_the_run,
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

    def prepare(self, batch: Batch) -> Batch:
        return self._placed(*batch)

    def _placed(
        self,
        images: Tensor,
        labels: Tensor,
        sampled: Tensor | None = None,
        strengths: Sequence[float] | None = None,
    ) -> Batch:
        """Move a batch to the device, jitter it there where that is asked for, and normalise it."""
        device = self.normalise.scale.device
        images, labels = (tensor.to(device, non_blocking=True) for tensor in (images, labels))
        if strengths is not None and sampled is not None:
            images = jitter(images, sampled, strengths)
        return self.normalise(images), labels
