"""Types of the options that several datasets share; they check the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nasrun.limits import Images

Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A share of images, above 0 and below 1."""

Validation = Annotated[Images, Field(strict=True)] | Fraction
"""Images held out for validation: their number, or their share of the training images."""

ReducedSide = Annotated[int, Field(ge=4, le=4096)]
"""The side to which images are reduced, in pixels; smaller ones show nothing."""

Padding = Annotated[int, Field(ge=0, le=4096)]
"""Pixels around a random crop."""

Means = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]
"""Mean of each channel, or one for all of them; pixels count from 0 to 1."""

Deviations = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
"""Standard deviation of each channel, or one for all of them; pixels count from 0 to 1."""

Jitter = Annotated[float, Field(ge=0, le=1)]
"""Strength: a factor is sampled uniformly from [1 - jitter, 1 + jitter]; 0: off."""

HueJitter = Annotated[float, Field(ge=0, le=0.5)]
"""Strength: a shift is sampled from [-jitter, jitter] of the colour circle; 0: off."""

JitterOn = Literal["workers", "device"]
"""workers: Pillow jitters colours in the processes that decode; device: floats do, a batch at a
time, on the device that trains."""

Area = Annotated[float, Field(gt=0, le=1)]
"""A share of an image's area."""


def _share(value: float | str) -> float:
    """Read a share of images, as a number or in per cent (``1%``)."""
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ValueError("must be a share of images from 0 to below 1, or per cent such as 1%")
    return share


Share = Annotated[float | str, AfterValidator(_share)]
"""A share of images, from 0 to below 1, or in per cent."""

Fit = Literal["crop", "pad"]
"""crop: of images that are no squares the centre is cut; pad: they are shown whole, between bars of
the background."""

Duplicates = Literal["refuse", "keep"]
"""refuse: equal files in two splits end the run, and none are carved into two; keep: leave them."""
