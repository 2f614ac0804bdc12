"""The largest sizes that a configuration may ask for, and amounts as people write them.

A configuration may come from a stranger, or have a zero too many. These bounds lie far above any
use. They refuse such sizes before anything is built.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

_POWERS = {"k": 3, "K": 3, "M": 6, "G": 9, "T": 12}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([kKMGT])")
_AT_MOST = re.compile(r"at most ([0-9]{1,18})")
_PER_CENT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?%")


def amount(value: Any) -> Any:
    """Return the number that a text like 600M or 0.33G stands for, and other values as they are.

    Raises PydanticCustomError over a text with another suffix.
    """
    if not isinstance(value, str):
        return value
    if found := _AMOUNT.fullmatch(value.strip()):
        return float(f"{found[1]}e{_POWERS[found[2]]}")
    try:
        return float(value)
    except ValueError:
        if _PER_CENT.fullmatch(value.strip()):
            raise PydanticCustomError(
                "amount",
                "must be a number like 330e6 or 330M, since no share is known here",
            ) from None
        raise PydanticCustomError(
            "amount",
            "must be a number like 330e6, 330M or 0.33G (K, M, G, T: 10^3, 10^6, 10^9, 10^12)",
        ) from None


Amount = Annotated[float, BeforeValidator(amount)]
"""A number that people write with K, M or G, e.g. multiply-adds."""


class OfLargest(float):
    """A bound that is a share of the cost of the largest network; 0.6 was typed as 60%."""


def _bound(value: Any, read: ValidatorFunctionWrapHandler) -> float:
    """Read an amount, or a share of the largest network in per cent, above 0 and up to 100."""
    found = _PER_CENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return float(read(value))
    share = float(found[1]) / 100
    if not 0 < share <= 1:
        raise PydanticCustomError("share", "must be above 0% and up to 100% (the largest network)")
    return OfLargest(share)


Bound = Annotated[Amount, Field(ge=0, allow_inf_nan=False), WrapValidator(_bound)]
"""The bound of a cost: a number as people write it, or a share of the largest network, as 60%."""

Count = Annotated[int, Field(gt=0, le=1_000_000)]
"""Number of architectures, rounds, epochs, or images of a batch; lists of this length fit."""

Images = Annotated[int, Field(gt=0, le=100_000_000)]
"""Images of a dataset."""


class AtMost(int):
    """A number of images that gives way to the number of those that there are."""

    @staticmethod
    def fitting(wanted: int, there: int) -> int:
        """Return the number of images to take of ``there``, which may be fewer than ``wanted``."""
        return min(wanted, there) if isinstance(wanted, AtMost) else wanted


def _some(value: Any, read: ValidatorFunctionWrapHandler) -> int:
    found = _AT_MOST.fullmatch(value.strip()) if isinstance(value, str) else None
    return AtMost(read(int(found[1]))) if found else int(read(value))


SomeImages = Annotated[Images, WrapValidator(_some)]
"""Images of a split: a number, or ``at most 5000``: all if there are fewer."""

Side = Annotated[int, Field(gt=0, le=4096)]
"""The side of a square image, in pixels."""

ImageSize = Side | tuple[Side, Side]
"""Size of images, in pixels: the side of squares, or [height, width]."""

Width = Annotated[int, Field(gt=0, le=100_000)]
"""Channels or units of one layer."""

Workers = Annotated[int, Field(ge=0, le=256)]
"""Processes or threads."""

Epochs = Annotated[float, Field(ge=0, le=1_000_000)]
"""A length of training in epochs, which may be a fraction."""

Strength = Annotated[float, Field(ge=0, le=1e6)]
"""A factor or limit in the arithmetic of training; it fits into single precision."""
