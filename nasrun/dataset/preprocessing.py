"""The way from an image to a network's input at test time, the same for all who predict.

The images of a test split go through the functions of this module, and so does whatever a trained
network is asked about later: files, pictures, arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeGuard, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.dataset.augment import Normalise, reduce
from nasrun.dataset.files import WHITE, Colour, as_seen, open_image
from nasrun.dataset.options import Deviations, Fit, Means
from nasrun.errors import UserError
from nasrun.limits import ImageSize
from nasrun.run.files import at_home
from nasrun.values import MapSize

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ASPECT = 16
"""Ratio of an image's sides above which its ends are cut off before it is scaled."""

MAX_SIDE = 4096
"""Pixels of the short side to which a large image is decoded at most."""

STREAMED_MARGIN = 256 / 224
"""The short side of a streamed image against the side of the square that is cut from it."""

RESIDENT_MARGIN = 1.0
"""The same for images that are decoded once: nothing of the short side is cut off."""

Level = Annotated[int, Field(ge=0, le=255)]

AnyImage: TypeAlias = "str | os.PathLike[str] | Image | NDArray[Any] | Tensor"
"""A file by its path, a picture of Pillow's, an array uint8 [H, W] or [H, W, C], or a tensor.

A tensor is uint8 [C, H, W], or float32 [C, S, S] that has been preprocessed already.
"""


class Preprocessing(BaseModel):
    """The settings by which an image becomes the tensor [C, H, W] that a network takes.

    channels: 1 is grey, 3 is RGB. size: the side S of squares, or [H, W], in pixels.
    mean, std: of each channel, or one for all; pixels count from 0 to 1.
    resize: ``bilinear``: pictures of any size are scaled as Pillow does it; ``area``: each pixel is
    the mean of its area, as in data sets of small images of one size.
    fit: see ``Fit``. margin: images are scaled to cover size × margin, then the centre is cut.
    background: colour behind transparent and beside padded images.
    source_side: pixels of the short side to which a large image is decoded; EXIF turns it upright.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    channels: Annotated[int, Field(gt=0, le=1000)]
    size: ImageSize
    mean: Means
    std: Deviations
    resize: Literal["bilinear", "area"]
    fit: Fit = "crop"
    margin: Annotated[float, Field(ge=1, le=4)] = 1.0
    background: tuple[Level, Level, Level] = WHITE
    source_side: Annotated[int, Field(gt=0, le=2 * MAX_SIDE)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image as the network takes it, [C, H, W]."""
        return MapSize.of(self.size).shape(self.channels)

    def check(self, channels: int, size: MapSize) -> None:
        """Raise UserError if the tensors are not of this shape, or the statistics do not fit."""
        if self.shape != size.shape(channels):
            raise UserError(
                f"preprocessing makes images {list(self.shape)}, the network takes "
                f"{list(size.shape(channels))}"
            )
        Normalise.from_statistics(self.mean, self.std, channels, torch.device("cpu"))

    def __call__(
        self, images: AnyImage | Iterable[AnyImage], device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return images as a network takes them: float32 [N, C, H, W], on ``device``.

        images: one or several, also as one array uint8 [N, H, W, C] or tensor [N, C, H, W].
        Raises UserError, naming the file, where one cannot be read or is no image.
        """
        found = [self._ready(image) for image in separate(images)]
        if not found:
            return torch.empty(0, *self.shape, device=device)
        normalise = Normalise.from_statistics(
            self.mean, self.std, self.channels, torch.device(device)
        )
        raw = [image for image in found if image.dtype == torch.uint8]
        if len(raw) == len(found):
            return normalise(torch.stack(raw).to(device))
        return torch.cat(
            [
                normalise(image[None].to(device))
                if image.dtype == torch.uint8
                else image[None].to(device)
                for image in found
            ]
        )

    def _ready(self, image: AnyImage) -> Tensor:
        """Return the pixels of an image, or the image itself if it is preprocessed."""
        if isinstance(image, Tensor) and image.is_floating_point():
            if tuple(image.shape) != self.shape:
                raise UserError(
                    f"a tensor of floats counts as preprocessed, so it must be {list(self.shape)}, "
                    f"not {list(image.shape)}; give pixels as uint8"
                )
            return image.float()
        return self.pixels(image)

    def pixels(self, image: AnyImage) -> Tensor:
        """Return the pixels of an image as the network sees them: uint8 [C, H, W]."""
        if isinstance(image, str | os.PathLike):
            return self._framed(self.open(os.fspath(image)))
        if isinstance(image, Tensor):
            image = _as_array(image)
        if not isinstance(image, np.ndarray):
            self.refuse_pictures()
            return self._framed(as_seen(image, self.channels, self.background))
        array = _with_channels(image)
        if self.resize == "area" and array.shape[2] == self.channels:
            return self._by_area(torch.from_numpy(np.array(array.transpose(2, 0, 1))))
        self.refuse_pictures()
        return self._framed(as_seen(_picture(array), self.channels, self.background))

    def open(self, path: str) -> Image:
        """Open an image file; raises UserError, naming it, where it cannot be read."""
        self.refuse_pictures()
        return open_image(
            str(at_home(path)), self.channels, background=self.background, side=self.source_side
        )

    def _framed(self, picture: Image) -> Tensor:
        """Cut and scale a picture of the right channels to uint8 [C, H, W]."""
        if self.resize == "bilinear":
            found: Tensor = self._scaled(picture)
            return found
        return self._by_area(torch.from_numpy(_with_channels(np.array(picture)).transpose(2, 0, 1)))

    @cached_property
    def _scaled(self) -> Any:
        return evaluation(
            MapSize.of(self.size), self.fit, self.margin, self.background, self.source_side
        )

    def _by_area(self, pixels: Tensor) -> Tensor:
        """Cut the centre of pixels uint8 [C, H, W] and reduce it; smaller ones are enlarged."""
        wanted = MapSize.of(self.size)
        given = MapSize(*pixels.shape[1:])
        cut = largest_within(given, wanted)
        top, left = (given.height - cut.height) // 2, (given.width - cut.width) // 2
        # Contiguous like the images of a test split: other layouts have kernels of their own.
        centre = pixels[None, :, top : top + cut.height, left : left + cut.width].contiguous()
        if cut.height < wanted.height:
            size = (wanted.height, wanted.width)
            large = F.interpolate(centre.float(), size=size, mode="bilinear")
            return large.round_().to(torch.uint8)[0]
        return reduce(centre, wanted)[0]

    def refuse_pictures(self) -> None:
        """Raise UserError if no picture has as many channels as the network takes."""
        if self.channels not in (1, 3):
            raise UserError(
                f"the network takes images of {self.channels} channels, which no image file has: "
                "give arrays"
            )


def largest_within(given: MapSize, form: MapSize) -> MapSize:
    """Return the largest size with the aspect ratio of ``form`` that fits into ``given``."""
    scale = min(given.height / form.height, given.width / form.width)
    return MapSize(max(1, round(scale * form.height)), max(1, round(scale * form.width)))


def evaluation(size: MapSize, fit: Fit, margin: float, background: Colour, source_side: int) -> Any:
    """Return the transform of a picture to uint8 [C, H, W] that changes nothing at random.

    It scales an image to cover size × margin pixels and cuts the centre, or pads it to the form.
    """
    from torchvision.transforms import v2  # slow to import

    shape = (size.height, size.width)
    if fit == "pad":
        filled = partial(padded, size=size, background=background, most=source_side)
        steps = [v2.Lambda(filled), v2.Resize(shape)]
    else:
        scaled = partial(covering, size=size, margin=margin)
        steps = [v2.Lambda(without_ends), v2.Lambda(scaled), v2.CenterCrop(shape)]
    return v2.Compose([*steps, v2.PILToTensor()])


def covering(image: Image, size: MapSize, margin: float) -> Image:
    """Scale an image, its aspect ratio kept, to cover ``size`` × margin pixels."""
    from torchvision.transforms.v2.functional import resize

    height, width = round(size.height * margin), round(size.width * margin)
    by_height = image.height * width < image.width * height
    # The side that just covers is exact, the other one as torchvision rounds it.
    if by_height:
        shape = [height, max(int(height * image.width / image.height), width)]
    else:
        shape = [max(int(width * image.height / image.width), height), width]
    found: Image = resize(image, shape)
    return found


def padded(image: Image, size: MapSize, background: Colour, most: int) -> Image:
    """Put an image into the middle of a frame of the form of ``size``, without enlarging it.

    most: bound of the frame's longer side, in pixels.
    """
    from PIL import Image, ImageColor, ImageOps

    scale = max(image.height / size.height, image.width / size.width)
    scale = min(scale, most / size.long)
    frame = (max(1, round(scale * size.width)), max(1, round(scale * size.height)))
    red, green, blue = background
    colour = f"rgb({red},{green},{blue})"
    return ImageOps.pad(
        image, frame, Image.Resampling.BILINEAR, ImageColor.getcolor(colour, image.mode)
    )


def without_ends(image: Image) -> Image:
    """Cut the ends off a very long image: scaled by its short side, it would not fit in memory."""
    width, height = image.size
    most = MAX_ASPECT * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return image.crop((left, top, width - left, height - top))


def separate(images: AnyImage | Iterable[AnyImage]) -> Sequence[AnyImage]:
    """Return a list of images, also of a single one, or of an array of four dimensions.

    Raises UserError over what is no image.
    """
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | os.PathLike) or _is_picture(images):
        return [images]
    try:
        found = list(cast("Iterable[AnyImage]", images))
    except TypeError:
        raise UserError(f"a {type(images).__name__} is no image") from None
    for image in found:
        known = isinstance(image, str | os.PathLike | np.ndarray | Tensor) or _is_picture(image)
        if not known:
            raise UserError(f"a {type(image).__name__} is no image")
    return found


def name_of(image: AnyImage) -> str | None:
    """Return the path of an image, as it was given; None: it is no file."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else None


def _is_picture(image: object) -> TypeGuard[Image]:
    from PIL.Image import Image

    return isinstance(image, Image)


def _as_array(pixels: Tensor) -> NDArray[Any]:
    """Return a tensor [C, H, W] as an array [H, W, C]."""
    if pixels.ndim != 3:
        raise UserError(f"an image as a tensor is uint8 [C, H, W], not {list(pixels.shape)}")
    return pixels.cpu().permute(1, 2, 0).numpy()


def _with_channels(array: NDArray[Any]) -> NDArray[Any]:
    """Return pixels as [H, W, C]; raises UserError if they are no image of 8 bits."""
    found = array[:, :, None] if array.ndim == 2 else array
    if found.dtype != np.uint8 or found.ndim != 3 or 0 in found.shape:
        raise UserError(
            f"an image as an array is uint8 [H, W] or [H, W, C], not {array.dtype} "
            f"{list(array.shape)}"
        )
    return found


def _picture(array: NDArray[Any]) -> Image:
    """Return pixels uint8 [H, W, C] of 1, 3 or 4 channels as a picture."""
    from PIL import Image

    if array.shape[2] not in (1, 3, 4):
        raise UserError(
            f"an array {list(array.shape)} is no picture: [H, W, C] has 1, 3 or 4 channels"
        )
    plain = array[:, :, 0] if array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(plain))
