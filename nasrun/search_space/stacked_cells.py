"""What spaces of stacked cells share: plans, stems, heads, and the stack itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.base import Network, Piece
from nasrun.search_space.operation import reduced, total
from nasrun.values import Cost, Problem

AUXILIARY_CHANNELS = (128, 768)
"""Widths of the auxiliary head's two convolutions (NAO-V2's released code)."""

StemKind = Literal["small", "imagenet"]
"""``small``: one 3×3 convolution. ``imagenet``: three of stride 2, for images of 64 and more."""

RunCell = Callable[[int, Tensor, Tensor, float], Tensor]
"""(index, output of cell k-2, output of cell k-1, depth in (0, 1]) -> output of the cell."""


@dataclass(frozen=True)
class FeatureMap:
    """channels: C; size: H = W, in pixels."""

    channels: int
    size: int


@dataclass(frozen=True)
class CellPlan:
    """One cell: its two inputs (cells k-2 and k-1), its inner channels and its output size."""

    reduction: bool
    inputs: tuple[FeatureMap, FeatureMap]
    channels: int

    @property
    def size_in(self) -> int:
        """Side of the calibrated inputs: that of cell k-1."""
        return self.inputs[1].size

    @property
    def size_out(self) -> int:
        return reduced(self.size_in) if self.reduction else self.size_in


@dataclass(frozen=True)
class NetworkPlan:
    """stem: outputs of the stem, as cells -2 and -1; auxiliary: index of the cell it reads."""

    cells: tuple[CellPlan, ...]
    stem: tuple[FeatureMap, FeatureMap]
    output: FeatureMap
    auxiliary: FeatureMap
    auxiliary_index: int


class SmallStem(nn.Module):
    """3×3 convolution to 3C channels and batch norm, for images of CIFAR's size."""

    def __init__(self, problem: Problem, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(problem.channels, 3 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(3 * channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(x)
        return x, x

    @staticmethod
    def cost(problem: Problem, channels: int) -> Cost:
        weights = problem.channels * 3 * channels * 9
        return Cost(weights + 6 * channels, weights * problem.size**2)


class ImageNetStem(nn.Module):
    """Three strided 3×3 convolutions: outputs at 1/4 and at 1/8 of the image's side.

    Source: the ImageNet networks of NAO and DARTS, from general knowledge, not verified.
    """

    def __init__(self, problem: Problem, channels: int) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
            ]

        half = channels // 2
        self.quarter = nn.Sequential(
            *conv(problem.channels, half), nn.ReLU(), *conv(half, channels)
        )
        self.eighth = nn.Sequential(nn.ReLU(), *conv(channels, channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.quarter(x)
        return x, self.eighth(x)

    @staticmethod
    def cost(problem: Problem, channels: int) -> Cost:
        half, size, params, macs = channels // 2, problem.size, 0, 0
        for inputs, outputs in ((problem.channels, half), (half, channels), (channels, channels)):
            size = reduced(size)
            params += 9 * inputs * outputs + 2 * outputs
            macs += 9 * inputs * outputs * size**2
        return Cost(params, macs)


STEMS: dict[StemKind, type[SmallStem] | type[ImageNetStem]] = {
    "small": SmallStem,
    "imagenet": ImageNetStem,
}


def ends_cost(plan: NetworkPlan, problem: Problem, stem: StemKind) -> Cost:
    """Of the stem and of the classifier."""
    features = plan.output.channels
    head = Cost((features + 1) * problem.classes, features * problem.classes)
    return total([STEMS[stem].cost(problem, plan.cells[0].channels), head])


def stem_piece(space: str, plan: NetworkPlan, problem: Problem, stem: StemKind) -> Piece:
    """The stem by itself; space: the name its own name begins with."""
    return Piece(
        f"{space}/stem_{stem} {problem.channels}-{plan.stem[1].channels} {problem.size}",
        (problem.channels, problem.size, problem.size),
        partial(STEMS[stem], problem, plan.cells[0].channels),
    )


def head_piece(space: str, source: FeatureMap, problem: Problem) -> Piece:
    """Pooling and classifier by themselves; space: the name their own name begins with."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(source.channels, problem.classes)
        )

    name = f"{space}/head {source.channels}-{problem.classes} {source.size}"
    return Piece(name, (source.channels, source.size, source.size), build)


class AuxiliaryHead(nn.Module):
    """A second classifier inside of the network, for training alone (NAO-V2's released code).

    ReLU, 5×5 average pool, 1×1 to 128, BN, ReLU, 2×2 to 768, BN, ReLU, linear. The pool's stride
    is 3 for maps of 8 pixels and more (CIFAR) and 2 for 7 pixels (ImageNet).
    """

    def __init__(self, source: FeatureMap, classes: int, *, last_norm: bool = True) -> None:
        """last_norm: whether there is the second batch norm."""
        super().__init__()
        if source.size < 7:
            raise UserError(
                f"the auxiliary head needs feature maps of at least 7×7, here they are "
                f"{source.size}×{source.size}: set auxiliary_weight=0 for this trainer"
            )
        narrow, wide = AUXILIARY_CHANNELS
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3 if source.size >= 8 else 2),
            nn.Conv2d(source.channels, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 2, bias=False),
            *((nn.BatchNorm2d(wide),) if last_norm else ()),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class CellStack(Network):
    """Stem, cells, global pooling, dropout, linear; the auxiliary head reads a reduction cell."""

    def __init__(
        self,
        plan: NetworkPlan,
        problem: Problem,
        cells: Iterable[nn.Module],
        *,
        stem: StemKind,
        auxiliary: bool,
        auxiliary_last_norm: bool = True,
    ) -> None:
        """cells: one module for each cell of the plan."""
        super().__init__()
        self.stem = STEMS[stem](problem, plan.cells[0].channels)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(plan.output.channels, problem.classes)
        self.reductions = [cell.reduction for cell in plan.cells]
        self.auxiliary_index = plan.auxiliary_index
        self.auxiliary = None
        if auxiliary:
            self.auxiliary = AuxiliaryHead(
                plan.auxiliary, problem.classes, last_norm=auxiliary_last_norm
            )

    def logits(self, x: Tensor, run_cell: RunCell) -> Tensor:
        """x [B, C, H, W] -> [B, K]; sets ``auxiliary_logits`` in training mode."""
        before, last = self.stem(x)
        self.auxiliary_logits = None
        for index in range(len(self.cells)):
            depth = (index + 1) / len(self.cells)
            before, last = last, run_cell(index, before, last, depth)
            if self.auxiliary is not None and self.training and index == self.auxiliary_index:
                self.auxiliary_logits = self.auxiliary(last)
        pooled = F.adaptive_avg_pool2d(last, 1).flatten(1)
        logits: Tensor = self.classifier(self.noise.dropout(pooled))
        return logits
