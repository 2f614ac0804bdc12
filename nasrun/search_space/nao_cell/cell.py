"""What the stand-alone cell and the supernet's cell share: genes, calibration, stem, heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.base import Network
from nasrun.search_space.nao_cell.plan import CellPlan, FeatureMap, NetworkPlan
from nasrun.search_space.operation import FactorizedReduce, ReluConvNorm, reduced
from nasrun.values import Cost, ImageTask

AUXILIARY_CHANNELS = (128, 768)
"""Widths of the auxiliary head's two convolutions (NAO-V2's released code)."""


class Branch(NamedTuple):
    """One half of a node. input: 0 is cell k-2, 1 is cell k-1, i + 2 is node i."""

    input: int
    op: int


Node = tuple[Branch, Branch]

RunCell = Callable[[int, Tensor, Tensor, float], Tensor]
"""(index, output of cell k-2, output of cell k-1, depth in (0, 1]) -> output of the cell."""


def nodes_of(genes: Sequence[int]) -> list[Node]:
    """The nodes of one cell from its genes, four a node: x input, x op, y input, y op."""
    return [
        (Branch(genes[i], genes[i + 1]), Branch(genes[i + 2], genes[i + 3]))
        for i in range(0, len(genes), 4)
    ]


def unused_states(nodes: Sequence[Node]) -> list[int]:
    """The states that no branch reads, in order: they make the cell's output."""
    used = {branch.input for node in nodes for branch in node}
    return [state for state in range(len(nodes) + 2) if state not in used]


def calibrations(plan: CellPlan) -> list[nn.Module]:
    """Bring the outputs of cells k-2 and k-1 to this cell's channels and one resolution."""
    return [
        FactorizedReduce(source.channels, plan.channels)
        if source.size != plan.size_in
        else ReluConvNorm(source.channels, plan.channels)
        if source.channels != plan.channels
        else nn.Identity()
        for source in plan.inputs
    ]


def calibration_cost(plan: CellPlan) -> list[Cost]:
    """What ``calibrations`` costs."""
    return [
        FactorizedReduce.cost(source.channels, plan.channels, source.size)
        if source.size != plan.size_in
        else ReluConvNorm.cost(source.channels, plan.channels, source.size)
        if source.channels != plan.channels
        else Cost(0, 0)
        for source in plan.inputs
    ]


class SmallStem(nn.Module):
    """3×3 convolution to 3C channels and batch norm, for images of CIFAR's size."""

    def __init__(self, task: ImageTask, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(task.channels, 3 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(3 * channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(x)
        return x, x

    @staticmethod
    def cost(task: ImageTask, channels: int) -> Cost:
        weights = task.channels * 3 * channels * 9
        return Cost(weights + 6 * channels, weights * task.size**2)


class ImageNetStem(nn.Module):
    """Three strided 3×3 convolutions: outputs at 1/4 and at 1/8 of the image's side.

    Source: the ImageNet networks of NAO and DARTS, from general knowledge, not verified.
    """

    def __init__(self, task: ImageTask, channels: int) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
            ]

        half = channels // 2
        self.quarter = nn.Sequential(*conv(task.channels, half), nn.ReLU(), *conv(half, channels))
        self.eighth = nn.Sequential(nn.ReLU(), *conv(channels, channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.quarter(x)
        return x, self.eighth(x)

    @staticmethod
    def cost(task: ImageTask, channels: int) -> Cost:
        half, size, params, macs = channels // 2, task.size, 0, 0
        for inputs, outputs in ((task.channels, half), (half, channels), (channels, channels)):
            size = reduced(size)
            params += 9 * inputs * outputs + 2 * outputs
            macs += 9 * inputs * outputs * size**2
        return Cost(params, macs)


STEMS: dict[str, type[SmallStem] | type[ImageNetStem]] = {
    "small": SmallStem,
    "imagenet": ImageNetStem,
}


class AuxiliaryHead(nn.Module):
    """A second classifier on the last reduction cell, for training alone (NAO-V2's released code).

    ReLU, 5×5 average pool, 1×1 to 128, BN, ReLU, 2×2 to 768, BN, ReLU, linear. The pool's stride
    is 3 for maps of 8 pixels and more (CIFAR) and 2 for 7 pixels (ImageNet).
    """

    def __init__(self, source: FeatureMap, classes: int) -> None:
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
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def pooled(x: Tensor) -> Tensor:
    """Global average pooling: [B, C, H, W] -> [B, C]."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def initialise(network: nn.Module) -> None:
    """Kaiming-normal for every parameter of two or more dimensions (NAO-V2's released code)."""
    for parameter in network.parameters():
        if parameter.dim() >= 2:
            nn.init.kaiming_normal_(parameter)


class CellStack(Network):
    """Stem, cells, global pooling, dropout, linear: what both kinds of network have in common."""

    def __init__(
        self,
        plan: NetworkPlan,
        task: ImageTask,
        cells: Iterable[nn.Module],
        *,
        stem: str,
        auxiliary: bool,
    ) -> None:
        """cells: one module for each cell of the plan."""
        super().__init__()
        self.stem = STEMS[stem](task, plan.cells[0].channels)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(plan.output.channels, task.classes)
        self.auxiliary_index = plan.auxiliary_index
        self.auxiliary = AuxiliaryHead(plan.auxiliary, task.classes) if auxiliary else None
        initialise(self)

    def logits(self, x: Tensor, run_cell: RunCell) -> Tensor:
        """x [B, C, H, W] -> [B, K]; sets ``auxiliary_logits`` in training mode."""
        before, last = self.stem(x)
        self.auxiliary_logits = None
        for index in range(len(self.cells)):
            depth = (index + 1) / len(self.cells)
            before, last = last, run_cell(index, before, last, depth)
            if self.auxiliary is not None and self.training and index == self.auxiliary_index:
                self.auxiliary_logits = self.auxiliary(last)
        logits: Tensor = self.classifier(self.noise.dropout(pooled(last)))
        return logits
