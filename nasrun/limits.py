"""The largest sizes that a configuration may ask for.

A configuration may come from a stranger, or have a zero too many. These bounds lie far above any
use. They refuse such sizes before anything is built.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(gt=0, le=1_000_000)]
"""Number of architectures, rounds, epochs, or images of a batch; lists of this length fit."""

Images = Annotated[int, Field(gt=0, le=100_000_000)]
"""Images of a dataset."""

Side = Annotated[int, Field(gt=0, le=4096)]
"""The side of a square image, in pixels."""

Width = Annotated[int, Field(gt=0, le=100_000)]
"""Channels or units of one layer."""

Workers = Annotated[int, Field(ge=0, le=256)]
"""Processes or threads."""

Epochs = Annotated[float, Field(ge=0, le=1_000_000)]
"""A length of training in epochs, which may be a fraction."""

Strength = Annotated[float, Field(ge=0, le=1e6)]
"""A factor or limit in the arithmetic of training; it fits into single precision."""
