"""The largest sizes that a configuration may ask for, and amounts as people write them.

A configuration may come from a stranger, or have a zero too many. These bounds lie far above any
use. They refuse such sizes before anything is built.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

_POWERS = {"k": 3, "K": 3, "M": 6, "G": 9}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([kKMG])")


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
        raise PydanticCustomError(
            "amount", "must be a number like 330e6, 330M or 0.33G (K, M, G: 10^3, 10^6, 10^9)"
        ) from None


Amount = Annotated[float, BeforeValidator(amount)]
"""A number that people write with K, M or G, e.g. multiply-adds."""

Count = Annotated[int, Field(gt=0, le=1_000_000)]
"""Number of architectures, rounds, epochs, or images of a batch; lists of this length fit."""

Images = Annotated[int, Field(gt=0, le=100_000_000)]
"""Images of a dataset."""

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
