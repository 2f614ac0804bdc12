"""The supernet of ``dso_block`` and its stand-alone networks.

Both are a stack of blocks, with all or some of the edges of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.depthwise import Depthwise
from nasrun.search_space.dso_block.plan import KERNELS
from nasrun.search_space.dso_block.wiring import (
    CONVOLUTION_COUNT,
    INPUT,
    OPERATION_NAMES,
    REDUCTIONS,
    Edges,
    Wiring,
    sources_of,
    wire,
)
from nasrun.search_space.gates import Gates, Weights, weight_of_on, weighted
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import Pointwise
from nasrun.search_space.stacked_cells import AuxiliaryHead, FeatureMap
from nasrun.search_space.stages import StagePlan


def conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Build [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
    convolution = (
        Pointwise(inputs, outputs, stride)
        if kernel == 1
        else nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def operation(index: int, channels: int) -> nn.Sequential:
    """Build depthwise and pointwise convolution or pool, BN, ReLU: [B, C, H, W] -> same shape."""
    kind = index % len(OPERATION_NAMES)
    layers: list[nn.Module]
    if kind < CONVOLUTION_COUNT:
        kernel = KERNELS[OPERATION_NAMES[kind]]
        layers = [
            Depthwise(channels, kernel),
            Pointwise(channels, channels),
        ]
    elif OPERATION_NAMES[kind].startswith("max"):
        layers = [nn.MaxPool2d(3, 1, 1)]
    else:
        layers = [nn.AvgPool2d(3, 1, 1, count_include_pad=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())


def stem(plan: StagePlan) -> nn.Sequential:
    """Build the stem: [B, C, H, W] -> [B, channels of the first stage, H', W']."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in plan.stem:
        layers += conv_norm_relu(inputs, outputs, 3, stride)
    return nn.Sequential(*layers)


def head(channels: int) -> nn.Sequential:
    """Build batch norm and ReLU before the pooling: [B, C, H, W] -> the same shape."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


class Block(nn.Module):
    """A block: [B, C, H, W] -> the same shape.

    The output is a 1×1 convolution of the concatenated operations, which is the sum of a 1×1
    convolution of each, then batch norm, ReLU, and the shortcut, which has a convolution of its own
    in the first block of a stage. If no edge is left, the block is its shortcut.
    """

    def __init__(self, channels: int, wiring: Wiring, edges: Edges, *, first: bool) -> None:
        super().__init__()
        self.edges = edges
        self.operations = nn.ModuleDict(
            {str(node.index): operation(node.index, channels) for node in wiring.nodes}
        )
        self.outputs = nn.ModuleDict(
            {str(node.index): Pointwise(channels, channels) for node in wiring.nodes if node.output}
        )
        self.norm = nn.BatchNorm2d(channels) if wiring.nodes else nn.Identity()
        self.shortcut = conv_norm_relu(channels, channels, 1) if first else nn.Identity()

    def forward(
        self, x: Tensor, wiring: Wiring, weights: Weights, noise: Noise, depth: float
    ) -> Tensor:
        """Compute the block; weights: by decision. Drop-path acts on the summands."""
        values = {INPUT: x}
        out: Tensor | None = None
        for node in wiring.nodes:
            values[node.index] = self.operations[str(node.index)](
                self._input(node.index, node.inputs, values, weights, noise, depth)
            )
            if node.output:
                term = self.outputs[str(node.index)](values[node.index])
                term = weighted(weights[self.edges.output(node.index)], term)
                term = noise.drop_path(term, depth)
                out = term if out is None else out + term
        shortcut: Tensor = self.shortcut(x)
        return shortcut if out is None else F.relu(self.norm(out)) + shortcut

    def _input(
        self,
        index: int,
        sources: Sequence[int],
        values: Mapping[int, Tensor],
        weights: Weights,
        noise: Noise,
        depth: float,
    ) -> Tensor:
        """Sum the weighted sources of an operation; operations of level 1 read the input itself."""
        decisions = dict(zip(sources_of(index), self.edges.inputs(index), strict=False))
        if not decisions:
            return values[INPUT]
        terms = [weighted(weights[decisions[source]], values[source]) for source in sources]
        if len(terms) > 1:
            terms = [noise.drop_path(term, depth) for term in terms]
        summed = terms[0]
        for term in terms[1:]:
            summed = summed + term
        return summed


class Reduction(nn.Module):
    """A sum of convolutions of stride 2: [B, C, H, W] -> [B, 2C, ceil(H / 2), ceil(W / 2)].

    If none is left, the output is every second pixel, and zeros for the new channels.
    """

    def __init__(self, channels: int, opened: Sequence[bool]) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(
            {
                name: conv_norm_relu(channels, 2 * channels, KERNELS[name], 2)
                for name, on in zip(REDUCTIONS, opened, strict=True)
                if on
            }
        )

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        out: Tensor | None = None
        for name, weight in zip(REDUCTIONS, weights, strict=True):
            if weight is not None:
                term = weighted(weight, self.operations[name](x))
                out = term if out is None else out + term
        if out is None:
            out = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))
        return out


class BlockStack(Network):
    """Stem, stages of blocks with reductions in between, BN, ReLU, pooling, dropout, linear.

    The auxiliary head reads the second reduction, or the last one if there are fewer. Weights are
    initialised as normal with variance 2 / fan-out, in the classifiers with s.d. 0.01 (released
    code).
    """

    def __init__(
        self,
        plan: StagePlan,
        edges: Edges,
        places: Sequence[slice],
        wirings: Sequence[Wiring],
        reductions: Sequence[Sequence[bool]],
        *,
        auxiliary: bool,
    ) -> None:
        """Build the stack.

        places: places of the decisions of each block, then of each reduction.
        """
        super().__init__()
        self.plan, self.edges, self.places = plan, edges, places
        self.stem = stem(plan)
        self.blocks = nn.ModuleList(
            Block(stage.channels, wiring, edges, first=first)
            for (stage, first), wiring in zip(plan.blocks(), wirings, strict=True)
        )
        self.reductions = nn.ModuleList(
            Reduction(before.channels, opened)
            for before, opened in zip(plan.stages, reductions, strict=False)
        )
        last = plan.stages[-1]
        self.head = head(last.channels)
        self.classifier = nn.Linear(last.channels, plan.problem.classes)
        self.auxiliary_after = min(2, len(plan.stages) - 1) if auxiliary else 0
        if auxiliary:
            source = plan.stages[self.auxiliary_after]
            self.auxiliary = AuxiliaryHead(
                FeatureMap(source.channels, source.size), plan.problem.classes
            )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def logits(self, images: Tensor, gates: Gates) -> Tensor:
        """images [B, C, H, W] -> [B, K]."""
        weights = [weight_of_on(gate) for gate in gates]
        count = len(self.blocks)
        wirings: dict[int, Wiring] = {}  # by place: blocks that share decisions are equal
        self.auxiliary_logits = None
        x: Tensor = self.stem(images)
        stage = -1
        for index, (block, (_, first)) in enumerate(
            zip(self.blocks, self.plan.blocks(), strict=True)
        ):
            if first:
                stage += 1
                if stage > 0:
                    x = self._reduce(stage, x, weights)
            own = weights[self.places[index]]
            start = self.places[index].start
            if start not in wirings:
                wirings[start] = wire([weight is not None for weight in own], self.edges)
            x = block(x, wirings[start], own, self.noise, (index + 1) / count)
        pooled = self.head(x).mean((2, 3))
        logits: Tensor = self.classifier(self.noise.dropout(pooled))
        return logits

    def _reduce(self, stage: int, x: Tensor, weights: Weights) -> Tensor:
        place = self.places[len(self.blocks) + stage - 1]
        x = self.reductions[stage - 1](x, weights[place])
        if stage == self.auxiliary_after and self.training:
            self.auxiliary_logits = self.auxiliary(x)
        return x


class BlockNetwork(BlockStack):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    choices: Sequence[int]

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class BlockSupernet(BlockStack, Supernet):
    """The complete network: images and a gate for each edge -> logits [B, K].

    The weights have the names that they have in a stand-alone network. The scales of all
    batch norms stay 1, so that only the gate scales an edge (paper; the released code learns those
    of a block's output, of the stem and of the head).
    """

    def _initialise(self) -> None:
        super()._initialise()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.requires_grad_(False)

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield modules of edges to outputs and of reductions; several edges feed an operation."""
        count = len(self.blocks)
        for place, block in zip(self.places, self.blocks, strict=False):
            for index, module in block.outputs.items():  # type: ignore[union-attr,operator]
                yield module, [(place.start + self.edges.output(int(index)), 1)]
        for place, reduction in zip(self.places[count:], self.reductions, strict=True):
            for name, module in reduction.operations.items():  # type: ignore[union-attr,operator]
                yield module, [(place.start + REDUCTIONS.index(name), 1)]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)
