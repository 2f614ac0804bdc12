"""Stages of a network: sides, channels and stem, planned once for all spaces with stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from nasrun.errors import UserError
from nasrun.values import MapSize, Problem


def reduced(size: MapSize, stride: int = 2) -> MapSize:
    """Return the size of a feature map after a padded layer with this stride."""
    return MapSize(reduced_side(size.height, stride), reduced_side(size.width, stride))


def reduced_side(side: int, stride: int = 2) -> int:
    """Return a side of a feature map after a padded layer with this stride."""
    return -(-side // stride)


def require_size(
    problem: Problem, network: str, halvings: int, *, smallest: int | None = None, where: str = ""
) -> None:
    """Raise UserError for images whose short side is less than 2^halvings pixels.

    network: subject of the message. smallest: another lower bound of the side. where: words that
    say when it holds.
    """
    smallest = 2**halvings if smallest is None else smallest
    if problem.size.short < smallest:
        raise UserError(
            f"images of {problem.size.words} pixels are too small for {network}, which "
            f"halves them {halvings} times (at least {smallest}×{smallest}{where})"
        )


@dataclass(frozen=True)
class Stage:
    """``depth`` cells or blocks of ``channels`` on feature maps of this size."""

    channels: int
    size: MapSize
    depth: int


@dataclass(frozen=True)
class StagePlan:
    """A stem, and stages with reductions in between.

    strides: strides of the stem's 3×3 convolutions.
    """

    problem: Problem
    strides: tuple[int, ...]
    stages: tuple[Stage, ...]

    @property
    def stem(self) -> list[tuple[int, int, int]]:
        """The (inputs, outputs, stride) of each convolution of the stem."""
        channels = self.stages[0].channels
        outputs = [channels] * len(self.strides)
        if len(self.strides) > 1:
            outputs[0] = max(channels // 2, 1)
        return list(zip([self.problem.channels, *outputs], outputs, self.strides, strict=False))

    @property
    def depth(self) -> int:
        """The number of cells or blocks of all stages."""
        return sum(stage.depth for stage in self.stages)

    def blocks(self) -> Iterator[tuple[Stage, bool]]:
        """The stage of each block in order, and whether it is the first of its stage."""
        for stage in self.stages:
            for index in range(stage.depth):
                yield stage, index == 0


def plan_stages(
    problem: Problem,
    network: str,
    channels: int,
    depths: Sequence[int],
    strides: tuple[int, ...] = (1,),
) -> StagePlan:
    """Plan stages; channels double and sides halve from each stage to the next.

    network: subject of the error message. channels: channels of the first stage. depths: depth of
    each stage. strides: strides of the stem.
    Raises UserError for images too small for the strides and reductions.
    """
    require_size(problem, network, strides.count(2) + len(depths) - 1)
    size = problem.size
    for stride in strides:
        size = reduced(size, stride)
    stages = []
    for depth in depths:
        stages.append(Stage(channels, size, depth))
        channels, size = 2 * channels, reduced(size)
    return StagePlan(problem, strides, tuple(stages))


def pooled_classifier(channels: int, classes: int, *before: nn.Module) -> nn.Sequential:
    """[B, channels, H, W] -> [B, classes]: ``before``, global average pooling, linear."""
    return nn.Sequential(
        *before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )
