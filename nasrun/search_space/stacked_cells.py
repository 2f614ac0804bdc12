"""Stacks of cells, for several spaces: plans, stems, heads, and the stack itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.base import Network
from nasrun.search_space.layer import Layer
from nasrun.search_space.operation import Operation, ReluConvNorm, ReluReduce
from nasrun.search_space.stages import pooled_classifier, reduced, require_size
from nasrun.values import MapSize, Problem

AUXILIARY_CHANNELS = (128, 768)
"""Widths of the auxiliary head's two convolutions (NAO-V2's released code)."""

StemKind = Literal["small", "imagenet"]
"""``small``: one 3×3 convolution. ``imagenet``: three of stride 2, for large images."""

RunCell = Callable[[int, Tensor, Tensor, float], Tensor]
"""(index, output of cell k-2, output of cell k-1, depth in (0, 1]) -> output of the cell."""


@dataclass(frozen=True)
class FeatureMap:
    """A feature map of ``channels`` maps of this size."""

    channels: int
    size: MapSize


@dataclass(frozen=True)
class CellPlan:
    """One cell: its two inputs (cells k-2 and k-1), its inner channels and its output size.

    calibrate_always: whether inputs that have the right shape pass a 1×1 convolution, too; only
    ``nao_cell`` asks.
    """

    reduction: bool
    inputs: tuple[FeatureMap, FeatureMap]
    channels: int
    calibrate_always: bool = False

    @property
    def size_in(self) -> MapSize:
        """Size of the calibrated inputs, which is that of cell k-1."""
        return self.inputs[1].size

    @property
    def size_out(self) -> MapSize:
        return reduced(self.size_in) if self.reduction else self.size_in


@dataclass(frozen=True)
class NetworkPlan:
    """A stack of cells.

    kind: kind of the stem.
    stem: outputs of the stem, which count as cells -2 and -1.
    output: output of the last cell.
    auxiliary: the output of cell ``auxiliary_index``, which the auxiliary head reads.
    """

    problem: Problem
    kind: StemKind
    stem: tuple[FeatureMap, FeatureMap]
    cells: tuple[CellPlan, ...]
    output: FeatureMap
    auxiliary: FeatureMap
    auxiliary_index: int


def stack_cells(
    problem: Problem,
    kind: StemKind,
    channels: int,
    cells: int,
    reductions: Collection[int],
    states: tuple[int, int],
    *,
    margin: int = 1,
    calibrate_always: bool = False,
) -> NetworkPlan:
    """Plan ``cells`` cells, with channels doubled and sides halved at each reduction.

    channels: C of the first stage.
    reductions: indices of the reduction cells; the auxiliary head reads the last one.
    states: number of states of C channels in the output of a normal and of a reduction cell.
    margin: smallest side of the last feature map, in pixels. calibrate_always: see CellPlan.
    Raises UserError for images too small for that.
    """
    halvings = (3 if kind == "imagenet" else 0) + len(reductions)
    require_size(
        problem,
        "the reductions of this network",
        halvings,
        smallest=margin * 2**halvings,
        where=f" with search_space.stem={kind}",
    )
    if kind == "imagenet":
        quarter = reduced(reduced(problem.size))
        stem = (FeatureMap(channels, quarter), FeatureMap(channels, reduced(quarter)))
    else:
        stem = (FeatureMap(3 * channels, problem.size),) * 2
    plans: list[CellPlan] = []
    outputs = [*stem]
    for index in range(cells):
        reduction = index in reductions
        channels *= 2 if reduction else 1
        cell = CellPlan(reduction, (outputs[-2], outputs[-1]), channels, calibrate_always)
        plans.append(cell)
        outputs.append(FeatureMap(channels * states[reduction], cell.size_out))
    last = max(reductions)
    return NetworkPlan(
        problem, kind, stem, tuple(plans), outputs[-1], outputs[last + len(stem)], last
    )


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


STEMS: dict[StemKind, type[SmallStem] | type[ImageNetStem]] = {
    "small": SmallStem,
    "imagenet": ImageNetStem,
}


def stem_layer(space: str, plan: NetworkPlan) -> Layer:
    """Return the stem as a layer. space: the beginning of the layer's name."""
    problem = plan.problem
    return Layer(
        f"{space}/stem_{plan.kind} {problem.channels}-{plan.stem[1].channels} {problem.size}",
        problem.size.shape(problem.channels),
        partial(STEMS[plan.kind], problem, plan.cells[0].channels),
    )


def head_layer(space: str, plan: NetworkPlan) -> Layer:
    """Return pooling and classifier as a layer. space: the beginning of the layer's name."""
    channels, size, classes = plan.output.channels, plan.output.size, plan.problem.classes
    return Layer(
        f"{space}/head {channels}-{classes} {size}",
        size.shape(channels),
        partial(pooled_classifier, channels, classes),
    )


# A search asks for thousands of networks with a few hundred layers in all, so each is made once.


@lru_cache(maxsize=4096)
def calibration_layer(space: str, source: FeatureMap, cell: CellPlan) -> Layer:
    """Return what fits an input to its cell, as DARTS does. space: the beginning of the name."""
    halves = source.size != cell.size_in
    kind, build = ("reduce", ReluReduce) if halves else ("relu_conv_1x1", ReluConvNorm)
    return Layer(
        f"{space}/{kind} {source.channels}-{cell.channels} {source.size}",
        source.size.shape(source.channels),
        partial(build, source.channels, cell.channels),
    )


@lru_cache(maxsize=4096)
def operation_layer(
    space: str, name: str, operation: Operation, channels: int, size: MapSize, stride: int
) -> Layer:
    """Return an operation as a layer. space, name: make the name. size: of its input."""
    return Layer(
        f"{space}/{name} {channels} {size} s{stride}",
        size.shape(channels),
        partial(operation.module, channels, stride),
    )


class AuxiliaryHead(nn.Module):
    """A second classifier inside the network, only for training (NAO-V2's released code).

    ReLU, 5×5 average pool, 1×1 to 128, BN, ReLU, 2×2 to 768, BN, ReLU, linear. The pool's stride
    is 3 for maps of 8 pixels and more (CIFAR) and 2 for 7 pixels (ImageNet).
    """

    def __init__(self, source: FeatureMap, classes: int, *, last_norm: bool = True) -> None:
        """Build the head on a feature map; last_norm: whether it has the second batch norm."""
        super().__init__()
        if source.size.short < 7:
            raise UserError(
                f"the auxiliary head needs feature maps of at least 7×7, here they are "
                f"{source.size.words}: set auxiliary_weight=0 for this trainer"
            )
        narrow, wide = AUXILIARY_CHANNELS
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3 if source.size.short >= 8 else 2),
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
        cells: Iterable[nn.Module],
        *,
        auxiliary: bool,
        auxiliary_last_norm: bool = True,
    ) -> None:
        """Build the stack; cells: one module for each cell of the plan."""
        super().__init__()
        classes = plan.problem.classes
        self.stem = STEMS[plan.kind](plan.problem, plan.cells[0].channels)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(plan.output.channels, classes)
        self.reductions = [cell.reduction for cell in plan.cells]
        self.auxiliary_index = plan.auxiliary_index
        self.auxiliary = None
        if auxiliary:
            self.auxiliary = AuxiliaryHead(plan.auxiliary, classes, last_norm=auxiliary_last_norm)

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
