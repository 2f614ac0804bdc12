"""The largest sizes that a configuration may ask for.

A configuration may come from a stranger, or have a zero too many. These bounds lie far above any
use; they keep what is refused from being built first.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(gt=0, le=1_000_000)]
"""Architectures, rounds, epochs, images of a batch: things of which a list may be made."""

Images = Annotated[int, Field(gt=0, le=100_000_000)]
"""Images of a dataset."""

Side = Annotated[int, Field(gt=0, le=4096)]
"""The side of a square image, in pixels."""

Width = Annotated[int, Field(gt=0, le=100_000)]
"""Channels or units of one layer."""

Workers = Annotated[int, Field(ge=0, le=256)]
"""Processes or threads."""

Epochs = Annotated[float, Field(ge=0, le=1_000_000)]
"""A stretch of training that need not be whole epochs."""

Strength = Annotated[float, Field(ge=0, le=1e6)]
"""A factor or a limit in the arithmetic of training, which is in single precision."""
