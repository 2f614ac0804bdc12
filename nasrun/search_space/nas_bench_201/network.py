"""The supernet of ``nas_bench_201`` and its stand-alone networks: one stack of cells, more or
fewer operations on each edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.gates import Gate, Gates, mixed
from nasrun.search_space.nas_bench_201.cell import EDGES, NAMES, NODES, NONE, OPTIONS
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import OPERATIONS, Pointwise, reduced, remove_affine
from nasrun.values import Cost, Problem

STAGES = 3


@dataclass(frozen=True)
class Stage:
    """``cells`` equal cells of ``channels`` on feature maps of ``size``×``size`` pixels."""

    channels: int
    size: int
    cells: int


def plan_stages(problem: Problem, channels: int, cells: int) -> list[Stage]:
    """Channels doubled and sizes halved twice. Raises UserError for images too small for that."""
    smallest = 2 ** (STAGES - 1)
    if problem.size < smallest:
        raise UserError(
            f"images of {problem.size}×{problem.size} pixels are "
            "too small for nas_bench_201, which "
            f"halves them {STAGES - 1} times (at least {smallest}×{smallest})"
        )
    stages = [Stage(channels, problem.size, cells)]
    while len(stages) < STAGES:
        stages.append(Stage(2 * stages[-1].channels, reduced(stages[-1].size), cells))
    return stages


class Cell(nn.Module):
    """Some of the operations on each edge: [B, C, H, W] -> [B, C, H, W].

    A node is the sum over its edges; ``none`` is not computed. A node without any edge is zeros.
    """

    def __init__(self, channels: int, options: Sequence[Iterable[int]], *, affine: bool) -> None:
        """options: those that each edge has; affine: whether their batch norms scale and shift."""
        super().__init__()
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {str(choice): OPTIONS[NAMES[choice]].module(channels, 1) for choice in present}
            )
            for present in options
        )
        if not affine:
            remove_affine(self)

    def forward(self, x: Tensor, gates: Gates, noise: Noise, depth: float) -> Tensor:
        nodes = [x]
        for node in range(1, NODES):
            total: Tensor | None = None
            for edge, (target, source) in enumerate(EDGES):
                gate = _without_none(gates[edge])
                if target != node or gate is None:
                    continue

                def run(option: int, edge: int = edge, source: int = source) -> Tensor:
                    operation = self.edges[edge][str(option)]  # type: ignore[index]
                    return noise.drop_path(operation(nodes[source]), depth)

                term = mixed(gate, run)
                total = term if total is None else total + term
            nodes.append(torch.zeros_like(x) if total is None else total)
        return nodes[-1]


def _without_none(gate: Gate) -> Gate | None:
    """The gate of an edge without ``none``, whose zeros add nothing; None: nothing flows."""
    if isinstance(gate, int):
        return None if gate == NONE else gate
    return {option: weight for option, weight in gate.items() if option != NONE} or None


class Reduction(nn.Module):
    """A residual block that halves the resolution: [B, C, H, W] -> [B, 2C, H / 2, W / 2].

    Twice ReLU, 3×3 convolution and batch norm, the first of stride 2; beside it 2×2 average
    pooling and a 1×1 convolution. Sizes are rounded up.
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

    @staticmethod
    def cost(channels: int, size: int) -> Cost:
        """size: side of the input."""
        wide = 2 * channels
        weights = 9 * channels * wide + 9 * wide**2 + channels * wide
        return Cost(weights + 4 * wide, weights * reduced(size) ** 2)


def stem(problem: Problem, channels: int) -> nn.Sequential:
    """[B, C, H, W] -> [B, channels, H, W]."""
    convolution = nn.Conv2d(problem.channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


def head(channels: int) -> nn.Sequential:
    """What comes before the pooling: [B, channels, H, W] -> [B, channels, H, W]."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


class CellStack(Network):
    """Stem, three stages of cells with reductions in between, BN, ReLU, pooling, dropout, linear.

    Weights start as torch's own modules do, as in the released code.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        problem: Problem,
        options: Sequence[Iterable[int]],
        *,
        affine: bool,
    ) -> None:
        """options: those that each edge has; affine: whether their batch norms scale and shift."""
        super().__init__()
        first, last = stages[0], stages[-1]
        self.stem = stem(problem, first.channels)
        self.stages = nn.ModuleList(
            nn.ModuleList(Cell(stage.channels, options, affine=affine) for _ in range(stage.cells))
            for stage in stages
        )
        self.reductions = nn.ModuleList(Reduction(stage.channels) for stage in stages[:-1])
        self.head = head(last.channels)
        self.classifier = nn.Linear(last.channels, problem.classes)
        self.count = sum(stage.cells for stage in stages)

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

    def __init__(self, stages: Sequence[Stage], problem: Problem, choices: Sequence[int]) -> None:
        super().__init__(stages, problem, [(choice,) for choice in choices], affine=True)
        self.choices = tuple(choices)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class Nb201Supernet(CellStack, Supernet):
    """All operations on every edge: images and the gates of a cell -> logits [B, K].

    The weights have the names that they have in a stand-alone network.
    """

    def __init__(self, stages: Sequence[Stage], problem: Problem, *, affine: bool) -> None:
        every = range(len(OPTIONS))
        super().__init__(stages, problem, [every] * len(EDGES), affine=affine)

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        for cells in self.stages:
            for cell in cells:  # type: ignore[attr-defined]
                for edge, options in enumerate(cell.edges):
                    for option, module in options.items():
                        yield module, [(edge, int(option))]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)
