"""Channels, sides and strides of a ResNet's convolutions, and the options of their bits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from nasrun.errors import UserError
from nasrun.search_space.stages import reduced, require_size
from nasrun.values import MapSize, Problem

StemKind = Literal["imagenet", "cifar"]
"""``imagenet``: 7×7 of stride 2 and max pooling; ``cifar``: 3×3 of stride 1."""

BLOCKS_OF_DEPTH: Mapping[int, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks of each stage, for each depth (He et al. 2016, arXiv 1512.03385, Table 1)."""

T = TypeVar("T")

STAGE_CHANNELS = (64, 128, 256, 512)
"""Channels of each stage at width 1."""


@dataclass(frozen=True)
class Bits:
    """Bits of a convolution's weights and of its input."""

    weights: int
    activations: int

    def __str__(self) -> str:
        return f"w{self.weights}a{self.activations}"


def parse_bits(names: Iterable[str]) -> tuple[Bits, ...]:
    """Read names like ``w2a4``: two bits for weights, four for activations.

    Raises UserError for other words.
    """
    found: list[Bits] = []
    for name in names:
        match = re.fullmatch("w([1-8])a([1-8])", name)
        if match is None:
            raise UserError(
                f"bits: {name!r:.60} is no option: write w2a4 for 2 bits of weights and 4 of "
                "activations, each from 1 to 8"
            )
        bits = Bits(int(match[1]), int(match[2]))
        if bits in found:
            raise UserError(f"bits: {name} stands there twice")
        found.append(bits)
    if not found:
        raise UserError("bits: there are none: name at least one option, such as w4a4")
    return tuple(found)


@dataclass(frozen=True)
class ConvPlan:
    """A square convolution without bias, padded; size: side of its input, in pixels."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: MapSize

    @property
    def size_out(self) -> MapSize:
        return reduced(self.size, self.stride)


@dataclass(frozen=True)
class BlockPlan:
    """A basic block. shortcut: its 1×1 convolution if the shape changes, else None."""

    first: ConvPlan
    second: ConvPlan
    shortcut: ConvPlan | None


@dataclass(frozen=True)
class ResNetPlan:
    """A ResNet. pool: whether max pooling follows the stem."""

    stem: ConvPlan
    pool: bool
    blocks: tuple[BlockPlan, ...]

    @property
    def features(self) -> int:
        return self.blocks[-1].second.outputs


def plan_network(problem: Problem, depth: int, stem: StemKind, width: float) -> ResNetPlan:
    """Multiply all channels by ``width``. Raises UserError for images too small for the strides."""
    pool = stem == "imagenet"
    halvings = len(STAGE_CHANNELS) - 1 + (2 if pool else 0)
    require_size(problem, f"spos_quantized with stem={stem}", halvings)
    channels = [max(1, round(width * count)) for count in STAGE_CHANNELS]
    kernel, stride = (7, 2) if pool else (3, 1)
    first = ConvPlan(problem.channels, channels[0], kernel, stride, problem.size)
    blocks: list[BlockPlan] = []
    inputs, size = channels[0], reduced(first.size_out) if pool else first.size_out
    for stage, (count, outputs) in enumerate(zip(BLOCKS_OF_DEPTH[depth], channels, strict=True)):
        for index in range(count):
            block = _plan_block(inputs, outputs, 2 if stage and not index else 1, size)
            blocks.append(block)
            inputs, size = outputs, block.second.size_out
    return ResNetPlan(first, pool, tuple(blocks))


def _plan_block(inputs: int, outputs: int, stride: int, size: MapSize) -> BlockPlan:
    first = ConvPlan(inputs, outputs, 3, stride, size)
    second = ConvPlan(outputs, outputs, 3, 1, first.size_out)
    changes = stride > 1 or inputs != outputs
    return BlockPlan(first, second, ConvPlan(inputs, outputs, 1, stride, size) if changes else None)


def pairs(bits: Sequence[T]) -> Iterator[tuple[T, T]]:
    """Yield what belongs to the two convolutions of each block, e.g. their bits."""
    return zip(bits[::2], bits[1::2], strict=True)
