"""The supernet of ``spos_quantized``, its stand-alone networks, and their lists of layers.

All are a ResNet whose weights are stored in full precision and quantised with the chosen bits of
each layer. Quantised layers compute in fp32 under bf16 autocast too; stem and head do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.gates import Gate, Gates, Weight, mixed
from nasrun.search_space.layer import Layer
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import remove_affine
from nasrun.search_space.spos_quantized.layers import (
    Bits,
    BlockPlan,
    ConvPlan,
    ResNetPlan,
    StemKind,
    pairs,
)
from nasrun.search_space.spos_quantized.quantise import (
    full_precision,
    quantise_activation,
    quantise_weight,
)
from nasrun.search_space.stages import pooled_classifier
from nasrun.values import Problem

Norms = Literal["shared", "per_option"]
"""Whether the options of a layer share a batch norm or have one each."""

SHARED = "shared"

BitsGate = Bits | Mapping[Bits, Weight]
"""The bits of a layer, or several options, each with the weight of its output (DNAS)."""


@dataclass(frozen=True)
class BlockSettings:
    """Settings of the blocks' layers.

    alpha: clipping values at the start.
    norms: whether the options of a layer share a batch norm or have one each.
    affine: whether batch norms scale and shift.
    """

    alpha: float
    norms: Norms
    affine: bool


class Pact(nn.Module):
    """Clips and quantises the input of a layer, [B, C, H, W].

    Each number of bits has a clipping value, since fewer bits need a narrower range.
    """

    def __init__(self, bits: Iterable[int], alpha: float) -> None:
        super().__init__()
        # Four dimensions, like weights, so that the trainer decays them: PACT's loss penalises the
        # square of its clipping values.
        self.alphas = nn.ParameterDict(
            {
                str(count): nn.Parameter(torch.full((1, 1, 1, 1), alpha))
                for count in sorted(set(bits))
            }
        )

    def forward(self, x: Tensor, bits: int) -> Tensor:
        with full_precision(x) as exact:
            return quantise_activation(exact, self.alphas[str(bits)], bits)


class QuantisedConv(nn.Module):
    """Convolution with quantised weights and batch norm; its input is quantised by a ``Pact``.

    [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(self, plan: ConvPlan, options: Iterable[Bits], norms: Norms) -> None:
        super().__init__()
        self.stride, self.kernel, self.per_option = plan.stride, plan.kernel, norms == "per_option"
        self.weight = nn.Parameter(torch.empty(plan.outputs, plan.inputs, plan.kernel, plan.kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        names = {str(bits) if self.per_option else SHARED: None for bits in options}
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(plan.outputs) for name in names})

    def forward(self, x: Tensor, bits: Bits) -> Tensor:
        with full_precision(x) as x:
            weight = quantise_weight(self.weight, bits.weights)
            if self.kernel == 1:  # the stride by slicing, see operation.Pointwise
                x = F.conv2d(x[:, :, :: self.stride, :: self.stride], weight)
            else:
                x = F.conv2d(x, weight, stride=self.stride, padding=self.kernel // 2)
            out: Tensor = self.norms[str(bits) if self.per_option else SHARED](x)
        return out


class Block(nn.Module):
    """A ResNet's basic block: [B, inputs, H, W] -> [B, outputs, H', W'], both at least 0.

    Each 3×3 convolution has a Pact for its input; between the two it replaces the ReLU. A
    convolution in the shortcut shares the quantised input and the bits of the first one; a shortcut
    without a convolution passes the block's input in full precision.
    """

    def __init__(
        self,
        plan: BlockPlan,
        first: Sequence[Bits],
        second: Sequence[Bits],
        settings: BlockSettings,
    ) -> None:
        """Build the options that the first and the second convolution have."""
        super().__init__()
        self.first_input = Pact((bits.activations for bits in first), settings.alpha)
        self.first = QuantisedConv(plan.first, first, settings.norms)
        self.second_input = Pact((bits.activations for bits in second), settings.alpha)
        self.second = QuantisedConv(plan.second, second, settings.norms)
        self.shortcut = (
            QuantisedConv(plan.shortcut, first, settings.norms) if plan.shortcut else None
        )
        if not settings.affine:
            remove_affine(self)

    def forward(
        self, x: Tensor, first: BitsGate, second: BitsGate, noise: Noise, depth: float
    ) -> Tensor:
        quantised = Quantised(self.first_input, x)
        inner = Quantised(self.second_input, quantised.through(self.first, first))
        out = noise.drop_path(inner.through(self.second, second), depth)
        shortcut = x if self.shortcut is None else quantised.through(self.shortcut, first)
        return F.relu(shortcut + out)


class Quantised:
    """An input of layers, [B, C, H, W], quantised once for each number of bits they ask for."""

    def __init__(self, pact: Pact, x: Tensor) -> None:
        self.pact, self.x = pact, x
        self.known: dict[int, Tensor] = {}

    def through(self, layer: QuantisedConv, gate: BitsGate) -> Tensor:
        """Return the output of a layer: of its bits, or the weighted sum of several options."""
        if isinstance(gate, Bits):
            return self._of(layer, gate)
        options = list(gate)
        weights = dict(enumerate(gate.values()))
        return mixed(weights, lambda index: self._of(layer, options[index]))

    def _of(self, layer: QuantisedConv, bits: Bits) -> Tensor:
        count = bits.activations
        if count not in self.known:
            self.known[count] = self.pact(self.x, count)
        out: Tensor = layer(self.known[count], bits)
        return out


def stem(plan: ResNetPlan) -> nn.Sequential:
    """Build the stem in full precision: [B, C, H, W] -> the input of the first block."""
    first = plan.stem
    convolution = nn.Conv2d(
        first.inputs, first.outputs, first.kernel, first.stride, first.kernel // 2, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    found = nn.Sequential(convolution, nn.BatchNorm2d(first.outputs), nn.ReLU())
    return found.append(nn.MaxPool2d(3, 2, 1)) if plan.pool else found


class ResNet(Network):
    """Stem, blocks, global pooling, dropout, linear; stem and linear in full precision.

    Weights are initialised as by He et al. (arXiv 1502.01852), fan-out mode.
    """

    def __init__(
        self,
        plan: ResNetPlan,
        problem: Problem,
        options: Sequence[Sequence[Bits]],
        settings: BlockSettings,
    ) -> None:
        """Build the options that each layer has, two layers a block."""
        super().__init__()
        self.stem = stem(plan)
        self.blocks = nn.ModuleList(
            Block(block, first, second, settings)
            for block, first, second in zip(plan.blocks, options[::2], options[1::2], strict=True)
        )
        self.classifier = nn.Linear(plan.features, problem.classes)

    def logits(self, x: Tensor, bits: Sequence[BitsGate]) -> Tensor:
        """x [B, C, H, W] -> [B, K]. bits: of each layer, or a mixture of options."""
        x = self.stem(x)
        for index, (block, (first, second)) in enumerate(
            zip(self.blocks, pairs(bits), strict=True)
        ):
            x = block(x, first, second, self.noise, (index + 1) / len(self.blocks))
        logits: Tensor = self.classifier(self.noise.dropout(x.mean((2, 3))))
        return logits


class QuantizedNetwork(ResNet):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(
        self, plan: ResNetPlan, problem: Problem, bits: Sequence[Bits], settings: BlockSettings
    ) -> None:
        super().__init__(plan, problem, [(of_layer,) for of_layer in bits], settings)
        self.bits = tuple(bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.bits)


class QuantizedSupernet(ResNet, Supernet):
    """All options in every layer, on the same weights: images and gates -> logits [B, K].

    The weights have the names that they have in a stand-alone network.
    """

    def __init__(
        self, plan: ResNetPlan, problem: Problem, options: Sequence[Bits], settings: BlockSettings
    ) -> None:
        super().__init__(plan, problem, [options] * (2 * len(plan.blocks)), settings)
        self.options = tuple(options)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, [self._bits_of(gate) for gate in gates])

    def _bits_of(self, gate: Gate) -> BitsGate:
        if isinstance(gate, int):
            return self.options[gate]
        return {self.options[option]: weight for option, weight in gate.items()}


Role = Literal["first", "second", "shortcut"]
"""The place of a convolution in its block."""


class LoneConv(nn.Module):
    """One convolution of a block: [B, inputs, H, W] -> [B, outputs, H', W'].

    ``first`` and ``second`` quantise their input; ``shortcut`` shares that of ``first``. ``second``
    includes the addition and ReLU at the end of the block; its own input, which has that shape,
    takes the place of the shortcut. So each convolution depends on the bits of one decision.
    """

    def __init__(self, plan: ConvPlan, bits: Bits, role: Role, alpha: float) -> None:
        super().__init__()
        self.bits, self.ends = bits, role == "second"
        self.input = None if role == "shortcut" else Pact((bits.activations,), alpha)
        self.convolution = QuantisedConv(plan, (bits,), "shared")

    def forward(self, x: Tensor) -> Tensor:
        quantised = x if self.input is None else self.input(x, self.bits.activations)
        out: Tensor = self.convolution(quantised, self.bits)
        return F.relu(x + out) if self.ends else out


def list_layers(
    plan: ResNetPlan, problem: Problem, bits: Sequence[Bits], *, kind: StemKind, alpha: float
) -> list[Layer]:
    """List stem, the convolutions of the blocks, and head. kind: kind of the stem."""
    features, size = plan.features, plan.blocks[-1].second.size_out
    layers = [
        Layer(
            f"spos_quantized/stem_{kind} {problem.channels}-{plan.stem.outputs} {problem.size}",
            problem.size.shape(problem.channels),
            partial(stem, plan),
        )
    ]
    for block, (first, second) in zip(plan.blocks, pairs(bits), strict=True):
        layers.append(convolution_layer(block.first, first, "first", alpha))
        layers.append(convolution_layer(block.second, second, "second", alpha))
        if block.shortcut:
            layers.append(convolution_layer(block.shortcut, first, "shortcut", alpha))
    head = Layer(
        f"spos_quantized/head {features}-{problem.classes} {size}",
        size.shape(features),
        partial(pooled_classifier, features, problem.classes),
    )
    return [*layers, head]


def convolution_layer(plan: ConvPlan, bits: Bits, role: Role, alpha: float) -> Layer:
    """Return a convolution of a block as a layer. alpha: initial clipping value of its input."""
    channels = f"{plan.inputs}-{plan.outputs}"
    return Layer(
        f"spos_quantized/{role} {channels} {plan.size} s{plan.stride} {bits}",
        plan.size.shape(plan.inputs),
        partial(LoneConv, plan, bits, role, alpha),
        bits.weights * bits.activations,
    )
