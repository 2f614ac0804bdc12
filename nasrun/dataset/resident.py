"""Images that live on the device as uint8 and are augmented there, a batch at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import ClassVar

import torch
from torch import Tensor

from nasrun.dataset.augment import Normalise, crop, cut_out, flip, reduce
from nasrun.dataset.balance import Balance, class_weights
from nasrun.dataset.base import Batch, Dataset, Split, Splits
from nasrun.dataset.options import Deviations, Means, Padding, ReducedSide, Validation
from nasrun.dataset.order import carve_validation, cut_splits, stratified_order, training_order
from nasrun.dataset.preprocessing import Preprocessing
from nasrun.errors import UserError
from nasrun.limits import SomeImages
from nasrun.streams import Streams
from nasrun.values import MapSize, Problem


@dataclass(frozen=True, eq=False)
class ResidentSplit(Split):
    """Images that live on the device of the batches.

    name: names the random streams, so that two splits of a run are augmented differently.
    images: uint8 [N, C, H, W]. labels: int64 [N].
    crop_padding: pixels of black on every side before a random crop back to H × W.
    flip: mirror half of the training images.
    balance: what is done about uneven classes.
    sources: the file of each image, or its number in the published set, [N]; empty: unknown.
    """

    name: str
    images: Tensor
    labels: Tensor
    normalise: Normalise
    crop_padding: int
    flip: bool
    balance: Balance = "none"
    sources: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        # The sum of the pixels is computed on the device; the labels identify the order.
        labels = blake2b(self.labels.cpu().numpy().tobytes(), digest_size=4).hexdigest()
        return f"{len(self)} images, {self.images.sum(dtype=torch.int64).item()}, {labels}"

    def class_weights(self) -> Tensor | None:
        if self.balance != "weights":
            return None
        return torch.from_numpy(class_weights(self.labels.cpu().numpy()))

    def cut(self, name: str, images: slice) -> ResidentSplit:
        """Make a split of some of the images, which are not copied."""
        return replace(
            self,
            name=name,
            images=self.images[images],
            labels=self.labels[images],
            sources=self.sources[images],
        )

    def train_batches(
        self, batch_size: int, *, streams: Streams, first_step: int = 0, cutout: int = 0
    ) -> Iterator[Batch]:
        padding, (height, width) = self.crop_padding, self.images.shape[2:]
        labels = self.labels.cpu().numpy() if self.balance == "sampling" else None
        orders = training_order(self, self.name, batch_size, streams, first_step, labels)
        for step, _, order in orders:
            generator = streams.torch(f"{self.name}/augment", step)
            shape = (2, len(order))
            # Sampled on the CPU, so that every device gets the same images. Augmentations that are
            # off are sampled too, so that the others stay the same. A single copy to the device.
            samples = torch.cat(
                [
                    torch.from_numpy(order)[None],
                    torch.randint(2 * padding + 1, shape, generator=generator),
                    torch.randint(2, (1, len(order)), generator=generator),
                    torch.randint(height, (1, len(order)), generator=generator),
                    torch.randint(width, (1, len(order)), generator=generator),
                ]
            ).to(self.images.device, non_blocking=True)
            index, top, left, flipped, row, column = samples.unbind()
            images = self.images.index_select(0, index)  # ten times as fast on the CPU as [index]
            if padding:
                images = crop(images, padding, top, left)
            if self.flip:
                images = flip(images, flipped)
            images = self.normalise(images)
            if cutout:
                images = cut_out(images, cutout, row, column)
            yield images, self.labels[index]

    def eval_batches(self, batch_size: int, count: int | None = None) -> Iterator[Batch]:
        images, labels = self.images[:count], self.labels[:count]
        for start in range(0, len(labels), batch_size):
            stop = start + batch_size
            yield self.normalise(images[start:stop]), labels[start:stop]


class ResidentDataset(Dataset):
    """A dataset that fits on the device; subclasses read the images.

    image_size: side to which the images are reduced once, by averaging areas, in pixels; None:
    the images as they are. crop_padding counts pixels of the reduced images.
    """

    classes: int
    class_names: tuple[str, ...] = ()
    """Names of the classes, in the order of the labels; empty: they have none but their numbers."""
    image_shape: ClassVar[tuple[int, int] | None] = None
    """Channels and side of all images of a published set; None: not known."""

    def __init__(
        self,
        *,
        validation: Validation,
        train_images: SomeImages | None,
        image_size: ReducedSide | None,
        crop_padding: Padding,
        flip: bool,
        mean: Means,
        std: Deviations,
    ) -> None:
        self.validation = validation
        self.train_images = train_images
        self.reduced_to = image_size
        self.crop_padding = crop_padding
        self.flip = flip
        self.mean = mean
        self.std = std

    @abstractmethod
    def read_train(self) -> tuple[Tensor, Tensor]:
        """Read the training images, uint8 [N, C, H, W], and labels, int64 [N], to the CPU."""

    @abstractmethod
    def read_test(self) -> tuple[Tensor, Tensor]:
        """Read the test images, in the same form."""

    def problem(self) -> Problem | None:
        if self.image_shape is None:
            return None
        channels, side = self.image_shape
        return Problem(channels, MapSize.square(self.reduced_to or side), self.classes)

    def load(self, streams: Streams, device: torch.device) -> Splits:
        images, labels = self.read_train()
        order, held_out = carve_validation(
            labels.numpy(),
            self.classes,
            validation=self.validation,
            train_images=self.train_images,
            streams=streams,
        )
        channels, full = images.shape[1], MapSize(*images.shape[2:])
        size = full if self.reduced_to is None else MapSize.square(self.reduced_to)
        if size.short > full.short:
            raise UserError(
                f"dataset.image_size={self.reduced_to} is more than the {full.short} pixels of the "
                "images' side: images are only reduced, never enlarged"
            )
        if self.crop_padding > size.short:
            raise UserError(
                f"dataset.crop_padding={self.crop_padding} is more than the {size.short} pixels of "
                "the images' side: some crops would show nothing of them"
            )
        normalise = Normalise.from_statistics(self.mean, self.std, channels, device)

        def split(name: str, images: Tensor, labels: Tensor) -> ResidentSplit:
            images, labels = reduce(images, size).to(device), labels.to(device)
            return ResidentSplit(name, images, labels, normalise, self.crop_padding, self.flip)

        def test() -> ResidentSplit:
            images, labels = self.read_test()
            order = stratified_order(labels.numpy(), streams.numpy("test"))
            found = split("test", images[order], labels[order])
            return replace(found, sources=[str(index) for index in order.tolist()])

        whole = split("train_and_validation", images[order], labels[order])
        return cut_splits(
            Problem(channels, size, self.classes),
            whole.cut,
            held_out,
            test,
            classes=self.class_names,
            preprocessing=Preprocessing(
                channels=channels,
                size=size.sides,
                mean=self.mean,
                std=self.std,
                resize="area",
                source_side=2 * size.long,
            ),
        )
