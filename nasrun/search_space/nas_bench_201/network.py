"""The supernet of ``nas_bench_201``, its stand-alone networks, and the list of their layers.

All are a stack of cells with more or fewer operations on each edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.gates import Gates, gate_without, mixed
from nasrun.search_space.layer import Layer
from nasrun.search_space.nas_bench_201.cell import (
    EDGE_OPERATIONS,
    EDGES,
    NODE_COUNT,
    NONE,
    OPERATION_NAMES,
)
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import OPERATIONS, Pointwise, remove_affine
from nasrun.search_space.partial_channels import join_bypass
from nasrun.search_space.stages import Stage, StagePlan, pooled_classifier
from nasrun.values import Problem


class Cell(nn.Module):
    """Some of the operations on each edge: [B, C, H, W] -> [B, C, H, W].

    A node is the sum over its edges; ``none`` is not computed. A node without edges is zeros.
    """

    def __init__(
        self,
        channels: int,
        options: Sequence[Iterable[int]],
        *,
        affine: bool,
        partial_channels: int = 1,
    ) -> None:
        """Build the options that each edge has.

        affine: their batch norms scale and shift. partial_channels: K; one K-th of the channels
        goes through the operations.
        """
        super().__init__()
        self.divisor = partial_channels
        self.width = channels // partial_channels
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(choice): EDGE_OPERATIONS[OPERATION_NAMES[choice]].module(self.width, 1)
                    for choice in present
                }
            )
            for present in options
        )
        if not affine:
            remove_affine(self)

    def forward(self, x: Tensor, gates: Gates, noise: Noise, depth: float) -> Tensor:
        nodes = [x]
        for node in range(1, NODE_COUNT):
            total: Tensor | None = None
            for edge, (target, source) in enumerate(EDGES):
                gate = gate_without(gates[edge], NONE)
                if target != node or gate is None:
                    continue

                seen = nodes[source][:, : self.width] if self.divisor > 1 else nodes[source]

                def run(option: int, edge: int = edge, seen: Tensor = seen) -> Tensor:
                    operation = self.edges[edge][str(option)]  # type: ignore[index]
                    return noise.drop_path(operation(seen), depth)

                term = mixed(gate, run)
                if self.divisor > 1:
                    rest = nodes[source][:, self.width :]
                    term = join_bypass(term, rest, gates[edge], self.divisor)
                total = term if total is None else total + term
            nodes.append(torch.zeros_like(x) if total is None else total)
        return nodes[-1]


class Reduction(nn.Module):
    """A residual block that halves the resolution: [B, C, H, W] -> [B, 2C, H / 2, W / 2].

    Main branch: twice ReLU, 3×3 convolution and batch norm, the first of stride 2. Shortcut: 2×2
    average pooling and a 1×1 convolution. Sizes are rounded up.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

        def conv(inputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, 2 * channels, 3, stride, padding=1, bias=False)
            return [nn.ReLU(), convolution, nn.BatchNorm2d(2 * channels)]

        self.body = nn.Sequential(*conv(channels, 2), *conv(2 * channels, 1))
        self.shortcut = nn.Sequential(
            OPERATIONS["avg_pool_2x2"].module(channels, 2), Pointwise(channels, 2 * channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


def stem(problem: Problem, channels: int) -> nn.Sequential:
    """3×3 convolution and batch norm: [B, C, H, W] -> [B, channels, H, W]."""
    convolution = nn.Conv2d(problem.channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


def head(channels: int) -> nn.Sequential:
    """Batch norm and ReLU before the pooling: [B, channels, H, W] -> the same shape."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


class CellStack(Network):
    """Stem, three stages of cells with reductions between, BN, ReLU, pooling, dropout, linear.

    Weights are initialised by torch's defaults, as in the released code.
    """

    def __init__(
        self,
        plan: StagePlan,
        options: Sequence[Iterable[int]],
        *,
        affine: bool,
        partial_channels: int = 1,
    ) -> None:
        """Build the options that each edge has; the rest is as in ``Cell``."""
        super().__init__()
        stages, problem = plan.stages, plan.problem
        first, last = stages[0], stages[-1]
        self.stem = stem(problem, first.channels)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Cell(stage.channels, options, affine=affine, partial_channels=partial_channels)
                for _ in range(stage.depth)
            )
            for stage in stages
        )
        self.reductions = nn.ModuleList(Reduction(stage.channels) for stage in stages[:-1])
        self.head = head(last.channels)
        self.classifier = nn.Linear(last.channels, problem.classes)
        self.count = plan.depth

    def logits(self, x: Tensor, gates: Gates) -> Tensor:
        """x [B, C, H, W] -> [B, K]; every cell has the same gates."""
        x = self.stem(x)
        done = 0
        for index, cells in enumerate(self.stages):
            if index > 0:
                x = self.reductions[index - 1](x)
            for cell in cells:  # type: ignore[attr-defined]
                done += 1
                x = cell(x, gates, self.noise, done / self.count)
        pooled = self.head(x).mean((2, 3))
        logits: Tensor = self.classifier(self.noise.dropout(pooled))
        return logits


class Nb201Network(CellStack):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(self, plan: StagePlan, choices: Sequence[int]) -> None:
        super().__init__(plan, [(choice,) for choice in choices], affine=True)
        self.choices = tuple(choices)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class Nb201Supernet(CellStack, Supernet):
    """All operations on every edge: images and the gates of a cell -> logits [B, K].

    The weights have the names that they have in a stand-alone network, and their shapes if all
    channels go through the operations.
    """

    def __init__(self, plan: StagePlan, *, affine: bool, partial_channels: int) -> None:
        every = range(len(OPERATION_NAMES))
        super().__init__(
            plan, [every] * len(EDGES), affine=affine, partial_channels=partial_channels
        )

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        for cells in self.stages:
            for cell in cells:  # type: ignore[attr-defined]
                for edge, options in enumerate(cell.edges):
                    for option, module in options.items():
                        yield module, [(edge, int(option))]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)


def list_layers(plan: StagePlan, choices: Sequence[int]) -> list[Layer]:
    """List stem, the operations of all cells with the reductions in between, and head."""
    problem, stages = plan.problem, plan.stages
    channels, last = stages[0].channels, stages[-1]
    layers = [
        Layer(
            f"nas_bench_201/stem {problem.channels}-{channels} {problem.size}",
            problem.size.shape(problem.channels),
            partial(stem, problem, channels),
        )
    ]
    for index, stage in enumerate(stages):
        if index > 0:
            layers.append(_reduction(stages[index - 1]))
        # all cells of a stage are equal, so they share a list
        cell = [_operation(choice, stage) for choice in choices if choice != NONE]
        layers += cell * stage.depth

    def build_head() -> nn.Module:
        return pooled_classifier(last.channels, problem.classes, *head(last.channels))

    name = f"nas_bench_201/head {last.channels}-{problem.classes} {last.size}"
    return [*layers, Layer(name, last.size.shape(last.channels), build_head)]


def _operation(choice: int, stage: Stage) -> Layer:
    name = OPERATION_NAMES[choice]
    return Layer(
        f"nas_bench_201/{name} {stage.channels} {stage.size}",
        stage.size.shape(stage.channels),
        partial(EDGE_OPERATIONS[name].module, stage.channels, 1),
    )


def _reduction(stage: Stage) -> Layer:
    """Return the reduction that follows the stage."""
    return Layer(
        f"nas_bench_201/reduction {stage.channels}-{2 * stage.channels} {stage.size}",
        stage.size.shape(stage.channels),
        partial(Reduction, stage.channels),
    )
