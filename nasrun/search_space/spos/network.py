"""The supernets of the SPOS spaces, their stand-alone networks, and their lists of layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.chain import Piece
from nasrun.search_space.gates import Gate, Gates, mixed, single_path
from nasrun.search_space.layer import Layer
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import Pointwise, remove_affine
from nasrun.search_space.spos.layers import OPERATION_NAMES, OPERATIONS, Choice, ConvNorm
from nasrun.search_space.spos.plan import BlockPlan, SposPlan
from nasrun.search_space.spos.sliced import SlicedConvNorm


class Block(nn.Module):
    """One operation: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)].

    At stride 1 the even channels pass unchanged and the odd ones go through the main branch (this
    shuffles the channels of earlier blocks). At stride 2 all channels go through both branches.
    """

    def __init__(self, plan: BlockPlan, choice: Choice) -> None:
        super().__init__()
        operation = OPERATIONS[choice.op]
        self.splits = plan.stride == 1
        self.main = nn.Sequential(*map(ConvNorm, operation.main(plan, choice.mid)))
        self.projection = nn.Sequential(*map(ConvNorm, operation.projection(plan)))

    def forward(self, x: Tensor) -> Tensor:
        if self.splits:
            return torch.cat([x[:, ::2], self.main(x[:, 1::2])], dim=1)
        return torch.cat([self.projection(x), self.main(x)], dim=1)


class SlicedBlock(nn.Module):
    """``Block`` with weights for the largest ``mid``; a forward pass uses any smaller one."""

    def __init__(self, plan: BlockPlan, choice: Choice) -> None:
        super().__init__()
        self.plan, self.operation = plan, OPERATIONS[choice.op]
        self.splits = plan.stride == 1
        self.main = nn.ModuleList(map(SlicedConvNorm, self.operation.main(plan, choice.mid)))
        self.projection = nn.Sequential(*map(ConvNorm, self.operation.projection(plan)))

    def forward(self, x: Tensor, mid: int) -> Tensor:
        kept, out = (x[:, ::2], x[:, 1::2]) if self.splits else (self.projection(x), x)
        for module, layer in zip(self.main, self.operation.main(self.plan, mid), strict=True):
            out = module(out, layer.outputs)
        return torch.cat([kept, out], dim=1)


class Options(nn.Module):
    """Some of the operations of a block; forward takes what ``Block`` takes."""

    def __init__(self, plan: BlockPlan, choices: Iterable[Choice], *, sliced: bool) -> None:
        super().__init__()
        kind = SlicedBlock if sliced else Block
        self.options = nn.ModuleDict({str(choice.op): kind(plan, choice) for choice in choices})

    def forward(self, x: Tensor, gate: Gate, *mid: int) -> Tensor:
        return mixed(gate, lambda option: self.options[str(option)](x, *mid))


def stem(plan: SposPlan) -> nn.Sequential:
    """Build convolution, norm, activation: [B, C, H, W] -> [B, stem, H / stride, W / stride]."""
    convolution = nn.Conv2d(
        plan.problem.channels, plan.stem, 3, plan.stem_stride, padding=1, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(plan.stem), activation(plan))


def activation(plan: SposPlan) -> nn.Module:
    """Build the activation of stem and head; blocks always have ReLU."""
    return nn.ReLU6() if plan.kind == "cifar" else nn.ReLU()


class Head(nn.Module):
    """1×1 convolution, global pooling, dropout, linear without bias: [B, C, H, W] -> [B, K]."""

    def __init__(self, plan: SposPlan, noise: Noise) -> None:
        super().__init__()
        self.noise = noise
        self.features = nn.Sequential(
            Pointwise(plan.blocks[-1].outputs, plan.features),
            nn.BatchNorm2d(plan.features),
            activation(plan),
        )
        self.classifier = nn.Linear(plan.features, plan.problem.classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(x).mean((2, 3))
        logits: Tensor = self.classifier(self.noise.dropout(pooled))
        return logits


class Chain(Network):
    """Stem, twenty blocks, head.

    Weights are initialised as normal with standard deviation 0.01 in the stem and the linear layer,
    and 1 / (inputs of an output) in all other convolutions (SPOS's released code).
    """

    def __init__(
        self,
        plan: SposPlan,
        choices: Sequence[Iterable[Choice]],
        *,
        affine: bool,
        sliced: bool = False,
    ) -> None:
        """Build the choices that each block has; affine: batch norms scale and shift."""
        super().__init__()
        self.stem = stem(plan)
        self.blocks = nn.ModuleList(
            Options(block, present, sliced=sliced)
            for block, present in zip(plan.blocks, choices, strict=True)
        )
        self.head = Head(plan, self.noise)
        if not affine:
            remove_affine(self)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                small = name in ("stem.0.weight", "head.classifier.weight")
                nn.init.normal_(weight, std=0.01 if small else 1 / weight.shape[1])

    def logits(self, x: Tensor, gates: Gates, *mids: Sequence[int]) -> Tensor:
        """x [B, C, H, W] -> [B, K].

        gates: gates of the blocks. mids: channels inside the blocks, if these are sliced.
        """
        x = self.stem(x)
        for block, *arguments in zip(self.blocks, gates, *mids, strict=True):
            x = block(x, *arguments)
        logits: Tensor = self.head(x)
        return logits

    def chain(self, gates: Gates, *mids: Sequence[int]) -> list[Piece]:
        """Return stem, open operations and head, the pieces of ``logits``."""
        blocks = [
            Piece(tuple(chosen), partial(_run_block, block, chosen))
            for block, *chosen in zip(self.blocks, gates, *mids, strict=True)
        ]
        return [Piece("stem", self.stem), *blocks, Piece("head", self.head)]


def _run_block(block: nn.Module, chosen: Sequence[Any], x: Tensor) -> Tensor:
    """Run a block: chosen: its gate, and its channels inside if it is sliced."""
    out: Tensor = block(x, *chosen)
    return out


def _operations(
    blocks: Iterable[nn.Module], apart: int
) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
    """Yield the operations of all blocks. apart: decisions per block."""
    for index, block in enumerate(blocks):
        for option, module in block.options.items():  # type: ignore[union-attr,operator]
            yield module, [(apart * index, int(option))]


class SposNetwork(Chain):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(self, plan: SposPlan, choices: Sequence[Choice]) -> None:
        super().__init__(plan, [(choice,) for choice in choices], affine=True)
        self.choices = tuple(choice.op for choice in choices)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class BlocksSupernet(Chain, Supernet):
    """All operations in every block: images and gates -> logits [B, K].

    The weights have the names that they have in a stand-alone network.
    """

    def __init__(self, plan: SposPlan, *, affine: bool) -> None:
        choices = [
            [Choice(op, block.mid) for op in range(len(OPERATIONS))] for block in plan.blocks
        ]
        super().__init__(plan, choices, affine=affine)

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        yield from _operations(self.blocks, 1)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)

    def pieces(self, gates: Gates) -> list[Piece]:
        """Return stem, open operations and head (see ``ChainSupernet``)."""
        return self.chain(gates)


class SlicedSupernet(Chain, Supernet):
    """Blocks of the largest width; a path uses the first channels of their weights.

    forward: images and gates of single paths -> logits [B, K]. The weights have the same names as
    in a stand-alone network, which has only their first channels.
    """

    def __init__(
        self,
        plan: SposPlan,
        mids: Sequence[Sequence[int]],
        ops: Sequence[int] | None,
        *,
        affine: bool,
    ) -> None:
        """Build blocks for the largest of their widths.

        mids: channels inside each block, for its options.
        ops: the operations of the blocks; None: every block has all operations, and a gate for them
        before that of its width.
        """
        present = [range(len(OPERATIONS))] * len(mids) if ops is None else [(op,) for op in ops]
        choices = [
            [Choice(op, max(options)) for op in of_block]
            for of_block, options in zip(present, mids, strict=True)
        ]
        super().__init__(plan, choices, affine=affine, sliced=True)
        self.mids, self.ops = mids, ops

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield the operations; options of channels are slices of the same weight."""
        if self.ops is None:
            yield from _operations(self.blocks, 2)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, *self._chosen(gates))

    def pieces(self, gates: Gates) -> list[Piece]:
        """Return stem, open operations and head (see ``ChainSupernet``)."""
        return self.chain(*self._chosen(gates))

    def _chosen(self, gates: Gates) -> tuple[Sequence[int], Sequence[int]]:
        """Return the operation of each block and its channels inside."""
        path = single_path(gates)
        ops, ratios = (path[::2], path[1::2]) if self.ops is None else (self.ops, path)
        return ops, [options[ratio] for options, ratio in zip(self.mids, ratios, strict=True)]


def list_layers(plan: SposPlan, choices: Sequence[Choice]) -> list[Layer]:
    """List stem, blocks and head, in the order of the network."""
    return [_stem_layer(plan), *map(block_layer, plan.blocks, choices), _head_layer(plan)]


def _stem_layer(plan: SposPlan) -> Layer:
    problem = plan.problem
    name = (
        f"spos/stem_{plan.kind} {problem.channels}-{plan.stem} {problem.size} s{plan.stem_stride}"
    )
    return Layer(name, problem.size.shape(problem.channels), partial(stem, plan))


@lru_cache(maxsize=4096)  # a search uses the same few hundred blocks many times
def block_layer(block: BlockPlan, choice: Choice) -> Layer:
    """Return a block as a layer."""
    channels = f"{block.branch_inputs}-{choice.mid}-{block.branch_outputs}"
    name = f"spos/{OPERATION_NAMES[choice.op]} {channels} {block.size} s{block.stride}"
    return Layer(name, block.size.shape(block.inputs), partial(Block, block, choice))


def _head_layer(plan: SposPlan) -> Layer:
    inputs = plan.blocks[-1].outputs

    def build() -> nn.Module:
        return Head(plan, Noise())

    channels = f"{inputs}-{plan.features}-{plan.problem.classes}"
    name = f"spos/head_{plan.kind} {channels} {plan.size}"
    return Layer(name, plan.size.shape(inputs), build)
