"""Channels, sides and strides of the chain that all SPOS spaces share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from nasrun.search_space.chain import LayerPlan
from nasrun.search_space.stages import reduced, require_size
from nasrun.values import MapSize, Problem

STEM_CHANNELS = 16
"""Channels of the stem at width 1."""

STAGE_WIDTHS = ((4, 64), (4, 160), (8, 320), (4, 640))
"""Blocks and channels of each stage at width 1."""

FEATURE_CHANNELS = 1024
"""Channels before the classifier at width 1."""

BLOCK_COUNT = sum(count for count, _ in STAGE_WIDTHS)

StemKind = Literal["imagenet", "cifar"]
"""``imagenet``: the published stem. ``cifar``: for images of about 32 pixels (``REDUCTIONS``)."""

REDUCTIONS: Mapping[StemKind, tuple[int, frozenset[int]]] = {
    "imagenet": (2, frozenset({0, 4, 8, 16})),
    "cifar": (1, frozenset({4, 8})),
}
"""The stride of the stem, and the blocks of stride 2.

cifar: as in a reimplementation for CIFAR-10 (github.com/ShunLu91/Single-Path-One-Shot-NAS), which
also has ReLU6 in the stem and before the pooling.
"""


@dataclass(frozen=True)
class BlockPlan(LayerPlan):
    """Channels and stride of a block; size: of its input."""

    @property
    def branch_inputs(self) -> int:
        """Channels that each branch reads: half of them at stride 1, all at stride 2."""
        return self.inputs // 2 if self.stride == 1 else self.inputs

    @property
    def branch_outputs(self) -> int:
        """Channels of the main branch's output; the other branch keeps its number of channels."""
        return self.outputs - self.branch_inputs

    @property
    def mid(self) -> int:
        """Channels inside the main branch at ratio 1."""
        return self.outputs // 2


@dataclass(frozen=True)
class SposPlan:
    """The channels and sizes of the whole chain.

    kind: kind of the stem.
    stem: channels of the stem.
    stem_size: size after the stem.
    features: channels before the classifier.
    size: before the classifier.
    """

    kind: StemKind
    problem: Problem
    stem: int
    stem_size: MapSize
    blocks: tuple[BlockPlan, ...]
    features: int
    size: MapSize

    @property
    def stem_stride(self) -> int:
        return REDUCTIONS[self.kind][0]


@lru_cache(maxsize=64)
def plan_network(problem: Problem, kind: StemKind, width: float) -> SposPlan:
    """Multiply all channels by ``width``; makes them even where blocks split them.

    Raises UserError for images too small for the reductions.
    """
    stride, reductions = REDUCTIONS[kind]
    require_size(problem, f"stem={kind}", (stride == 2) + len(reductions))
    stem = inputs = max(2, 2 * round(width * STEM_CHANNELS / 2))
    stem_size = size = reduced(problem.size, stride)
    blocks: list[BlockPlan] = []
    for count, channels in STAGE_WIDTHS:
        # At tiny widths rounding must not make stages equally wide: the main branch of a block of
        # stride 2 computes the channels that are added to those of the previous stage.
        outputs = max(inputs + 2, 2 * round(width * channels / 2))
        for _ in range(count):
            block = BlockPlan(inputs, outputs, size, 2 if len(blocks) in reductions else 1)
            blocks.append(block)
            inputs, size = outputs, block.size_out
    features = max(1, round(width * FEATURE_CHANNELS))
    return SposPlan(kind, problem, stem, stem_size, tuple(blocks), features, size)
