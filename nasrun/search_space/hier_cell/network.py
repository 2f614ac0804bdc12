"""The supernet of ``hier_cell`` and its stand-alone networks.

Shapes: C channels of a stage; the width of a value is its channels, a multiple of C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.depthwise import Depthwise, depthwise
from nasrun.search_space.gates import Gates, single_path
from nasrun.search_space.hier_cell.motifs import assemble, live_edges
from nasrun.search_space.operation import Pointwise, Pool
from nasrun.search_space.spos.sliced import SlicedBatchNorm
from nasrun.search_space.stages import StagePlan

PRIMITIVES = (
    "conv_1x1",
    "depthwise_conv_3x3",
    "sep_conv_3x3",
    "max_pool_3x3",
    "avg_pool_3x3",
    "identity",
)
"""The operations of the lowest level, as options of edges from 1 on."""

LEARNED = frozenset(PRIMITIVES[:3])
"""The primitives with weights."""

TO_C = frozenset({"conv_1x1", "sep_conv_3x3"})
"""The primitives whose output has C channels; the others keep the width of their input."""


@dataclass(frozen=True)
class Genotype:
    """The options of all edges.

    motifs: of each motif of primitives. cell: of the motif of motifs.
    motif_nodes, cell_nodes: nodes of each.
    """

    motifs: tuple[tuple[int, ...], ...]
    cell: tuple[int, ...]
    motif_nodes: int
    cell_nodes: int

    def passes(self, motif: int) -> bool:
        """Return whether a motif leads from its input to its output."""
        return bool(live_edges(self.motifs[motif], self.motif_nodes))

    def width(self, start: int, channels: int, visit: Callable[[int, int, str, int], None]) -> int:
        """Return the width of the cell's output; 0 if nothing leads there.

        start: width of its input. visit: is called with each primitive that is computed: edge of
        the cell, edge of the motif, name, width of its input.
        """

        def primitive(place: int, edge: int, operation: int, width: int) -> int:
            visit(place, edge, PRIMITIVES[operation], width)
            return channels if PRIMITIVES[operation] in TO_C else width

        def motif(place: int, index: int, width: int) -> int:
            found = assemble(
                self.motifs[index],
                self.motif_nodes,
                width,
                lambda edge, operation, value: primitive(place, edge, operation, value),
                sum,
            )
            return found or 0

        return assemble(self.cell, self.cell_nodes, start, motif, sum, self.passes) or 0

    def primitives(self, start: int, channels: int) -> list[tuple[int, int, str, int]]:
        """List the primitives of the cell as (edge of the cell, edge of the motif, name, width)."""
        found: list[tuple[int, int, str, int]] = []
        self.width(start, channels, lambda *primitive: found.append(primitive))
        return found


class Primitive(nn.Module):
    """A primitive with weights: [B, W, H, W'] with W at most ``width`` -> [B, C or W, H, W'].

    Convolutions without bias, batch norm, ReLU. Narrower inputs use the weights of the first
    channels; then the batch norm is a ``SlicedBatchNorm``.
    """

    def __init__(
        self, name: str, width: int, channels: int, norm: type[nn.BatchNorm2d] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.width = width
        self.depthwise = None if name == "conv_1x1" else Depthwise(width, 3)
        self.pointwise = Pointwise(width, channels) if name in TO_C else None
        self.norm = norm(channels if name in TO_C else width)

    def forward(self, x: Tensor) -> Tensor:
        own = x.shape[1]
        if self.depthwise is not None:
            x = (
                self.depthwise(x)
                if own == self.width
                else depthwise(x, self.depthwise.weight[:own])
            )
        if self.pointwise is not None:
            x = (
                self.pointwise(x)
                if own == self.width
                else F.conv2d(x, self.pointwise.weight[:, :own])
            )
        return F.relu(self.norm(x))


def parameter_free(name: str) -> nn.Module:
    """Build a primitive without weights."""
    if name == "identity":
        return nn.Identity()
    return Pool(name[:3], 3).module(0, 1)


class Transition(nn.Module):
    """Separable 3×3 convolution after a cell: [B, W, H, W'] -> [B, outputs, H / stride, ...]."""

    def __init__(self, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.width, self.stride = width, stride
        self.depthwise = Depthwise(width, 3, stride)
        self.pointwise = Pointwise(width, outputs)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        own = x.shape[1]
        if own == self.width:
            return F.relu(self.norm(self.pointwise(self.depthwise(x))))
        x = depthwise(x, self.depthwise.weight[:own], self.stride)
        return F.relu(self.norm(F.conv2d(x, self.pointwise.weight[:, :own])))


class Cell(nn.Module):
    """A cell: [B, C, H, W] -> [B, width, H, W]; zeros [B, C, H, W] if nothing leads through it.

    learned: the primitives with weights, by (edge of the cell, edge of the motif, name) and with
    the largest width of their input. norm: the class of their batch norms.
    """

    def __init__(
        self,
        learned: Mapping[tuple[int, int, str], int],
        channels: int,
        norm: type[nn.BatchNorm2d],
    ) -> None:
        super().__init__()
        self.learned = nn.ModuleDict(
            {
                f"{place}_{edge}_{name}": Primitive(name, width, channels, norm)
                for (place, edge, name), width in learned.items()
            }
        )
        self.free = nn.ModuleDict(
            {name: parameter_free(name) for name in PRIMITIVES if name not in LEARNED}
        )

    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        def primitive(place: int, edge: int, operation: int, value: Tensor) -> Tensor:
            name = PRIMITIVES[operation]
            module = self.learned[f"{place}_{edge}_{name}"] if name in LEARNED else self.free[name]
            out: Tensor = module(value)
            return out

        def motif(place: int, index: int, value: Tensor) -> Tensor:
            found = assemble(
                genotype.motifs[index],
                genotype.motif_nodes,
                value,
                lambda edge, operation, inner: primitive(place, edge, operation, inner),
                merge,
            )
            assert found is not None  # motifs that lead nowhere are left out  # noqa: S101
            return found

        out = assemble(genotype.cell, genotype.cell_nodes, x, motif, merge, genotype.passes)
        return torch.zeros_like(x) if out is None else out


def merge(values: list[Tensor]) -> Tensor:
    """Concatenate along the channels (Liu et al. 2018, section 2.1)."""
    return values[0] if len(values) == 1 else torch.cat(values, dim=1)


class HierNetwork(Network):
    """Stem, cells with a separable convolution between each two, global pooling, linear."""

    def __init__(
        self,
        plan: StagePlan,
        learned: Callable[[int], Mapping[tuple[int, int, str], int]],
        width: Callable[[int], int],
        norm: type[nn.BatchNorm2d] = nn.BatchNorm2d,
    ) -> None:
        """Build the network.

        learned: channels of a stage -> the primitives of its cells, as ``Cell`` takes them.
        width: channels of a stage -> width of the outputs of its cells.
        norm: the class of the batch norms in cells.
        """
        super().__init__()
        self.stem = stem(plan)
        blocks = list(plan.blocks())
        self.cells = nn.ModuleList(
            Cell(learned(stage.channels), stage.channels, norm) for stage, _ in blocks
        )
        self.between = nn.ModuleList(
            Transition(width(stage.channels), following.channels, 1 + begins)
            for (stage, _), (following, begins) in pairwise(blocks)
        )
        last = blocks[-1][0].channels
        self.classifier = nn.Linear(width(last), plan.problem.classes)

    def logits(self, x: Tensor, genotype: Genotype) -> Tensor:
        """x [B, C, H, W] -> [B, K]."""
        x = self.stem(x)
        for index, cell in enumerate(self.cells):
            x = cell(x if index == 0 else self.between[index - 1](x), genotype)
        pooled = self.noise.dropout(x.mean((2, 3)))
        if pooled.shape[1] == self.classifier.in_features:
            found: Tensor = self.classifier(pooled)
            return found
        weight = self.classifier.weight[:, : pooled.shape[1]]
        return F.linear(pooled, weight, self.classifier.bias)


def stem(plan: StagePlan) -> nn.Sequential:
    """Build 3×3 convolution, batch norm and ReLU: [B, channels, H, W] -> [B, C, H, W]."""
    ((inputs, outputs, stride),) = plan.stem
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class HierStandalone(HierNetwork):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(self, plan: StagePlan, genotype: Genotype) -> None:
        def learned(channels: int) -> dict[tuple[int, int, str], int]:
            found = genotype.primitives(channels, channels)
            return {tuple(place): width for *place, width in found if place[2] in LEARNED}  # type: ignore[misc]

        super().__init__(
            plan, learned, lambda c: genotype.width(c, c, lambda *primitive: None) or c
        )
        self.genotype = genotype

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.genotype)


class HierSupernet(HierNetwork, Supernet):
    """All architectures of ``hier_cell``: images and gates -> logits [B, K].

    A primitive at an edge of a motif at an edge of the cell has one set of weights for all motifs,
    with the largest width that its input may have; narrower inputs use the first channels.
    """

    def __init__(
        self, plan: StagePlan, widest: Genotype, read: Callable[[Sequence[int]], Genotype]
    ) -> None:
        """Build the supernet. widest: all edges are identities. read: choices -> genotype."""

        def learned(channels: int) -> dict[tuple[int, int, str], int]:
            return {
                (place, edge, name): width
                for place, edge, _, width in widest.primitives(channels, channels)
                for name in PRIMITIVES
                if name in LEARNED
            }

        def width(channels: int) -> int:
            return widest.width(channels, channels, lambda *primitive: None)

        super().__init__(plan, learned, width, SlicedBatchNorm)
        self.read = read

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield nothing: which motif is at an edge decides on the use of its primitives."""
        yield from ()

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, self.read(single_path(gates)))
