"""The supernet of ``nas_bench_macro``, its stand-alone networks, and their lists of layers.

All are a chain with more or fewer options in each layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.chain import ChoiceLayer, LayerPlan, LoneLayer, Piece
from nasrun.search_space.gates import Gates
from nasrun.search_space.layer import Layer
from nasrun.search_space.nas_bench_macro.layers import LAYER_OPTIONS, MacroPlan, build_option
from nasrun.search_space.operation import Pointwise, remove_affine
from nasrun.search_space.stages import pooled_classifier
from nasrun.values import Problem

OPTION_NAMES = tuple(LAYER_OPTIONS)

_OPTIONS = tuple(LAYER_OPTIONS.values())


def choice_layer(plan: LayerPlan, options: Iterable[int], *, affine: bool) -> ChoiceLayer:
    """Build some of the options of a layer; MBConvs that keep the shape add their input."""
    modules = {option: build_option(_OPTIONS[option], plan) for option in options}
    residual = [option for option in modules if plan.keeps_shape and _OPTIONS[option]]
    layer = ChoiceLayer(modules, residual)
    if not affine:
        remove_affine(layer)
    return layer


def stem(plan: MacroPlan, problem: Problem) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU: [B, C, H, W] -> [B, stem, H, W]."""
    convolution = nn.Conv2d(problem.channels, plan.stem, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(plan.stem), nn.ReLU(inplace=True))


def features(plan: MacroPlan) -> nn.Sequential:
    """1×1 convolution, batch norm, ReLU: [B, last outputs, H, W] -> [B, features, H, W]."""
    convolution = Pointwise(plan.layers[-1].outputs, plan.features)
    return nn.Sequential(convolution, nn.BatchNorm2d(plan.features), nn.ReLU(inplace=True))


class Chain(Network):
    """Stem, eight layers, 1×1 convolution, global pooling, dropout, linear.

    Weights are initialised by torch's defaults, as in the released code.
    """

    def __init__(
        self, plan: MacroPlan, problem: Problem, options: Sequence[Iterable[int]], *, affine: bool
    ) -> None:
        """Build the options that each layer has; affine: their batch norms scale and shift."""
        super().__init__()
        self.stem = stem(plan, problem)
        self.layers = nn.ModuleList(
            choice_layer(layer, present, affine=affine)
            for layer, present in zip(plan.layers, options, strict=True)
        )
        self.features = features(plan)
        self.classifier = nn.Linear(plan.features, problem.classes)

    def logits(self, x: Tensor, gates: Gates) -> Tensor:
        """x [B, C, H, W] -> [B, K]."""
        x = self.stem(x)
        for index, (layer, gate) in enumerate(zip(self.layers, gates, strict=True)):
            x = layer(x, gate, self.noise, (index + 1) / len(self.layers))
        return self.head(x)

    def head(self, x: Tensor) -> Tensor:
        """[B, last outputs, H, W] -> [B, K]."""
        pooled = self.features(x).mean((2, 3))
        logits: Tensor = self.classifier(self.noise.dropout(pooled))
        return logits


class MacroNetwork(Chain):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(self, plan: MacroPlan, problem: Problem, choices: Sequence[int]) -> None:
        super().__init__(plan, problem, [(choice,) for choice in choices], affine=True)
        self.choices = tuple(choices)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class MacroSupernet(Chain, Supernet):
    """All options in every layer: images and gates -> logits [B, K].

    The weights have the names that they have in a stand-alone network.
    """

    def __init__(self, plan: MacroPlan, problem: Problem, *, affine: bool) -> None:
        every = range(len(OPTION_NAMES))
        super().__init__(plan, problem, [every] * len(plan.layers), affine=affine)

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        for index, layer in enumerate(self.layers):
            for option, module in layer.options.items():  # type: ignore[union-attr,operator]
                yield module, [(index, int(option))]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)

    def pieces(self, gates: Gates) -> list[Piece]:
        """Return stem, open options and head (see ``ChainSupernet``)."""
        depth = len(self.layers)
        layers = [
            Piece(gate, partial(layer, gate=gate, noise=self.noise, depth=(index + 1) / depth))
            for index, (layer, gate) in enumerate(zip(self.layers, gates, strict=True))
        ]
        return [Piece("stem", self.stem), *layers, Piece("head", self.head)]


def list_layers(plan: MacroPlan, problem: Problem, choices: Sequence[int]) -> list[Layer]:
    """List stem, layers and head, in the order of the network."""
    inputs = plan.layers[-1].outputs

    def build_head() -> nn.Module:
        return pooled_classifier(plan.features, problem.classes, *features(plan))

    return [
        Layer(
            f"nas_bench_macro/stem {problem.channels}-{plan.stem} {problem.size}",
            problem.size.shape(problem.channels),
            partial(stem, plan, problem),
        ),
        *(_lone_layer(layer, option) for layer, option in zip(plan.layers, choices, strict=True)),
        Layer(
            f"nas_bench_macro/head {inputs}-{plan.features}-{problem.classes} {plan.size}",
            plan.size.shape(inputs),
            build_head,
        ),
    ]


def _lone_layer(plan: LayerPlan, option: int) -> Layer:
    channels = f"{plan.inputs}-{plan.outputs}"
    return Layer(
        f"nas_bench_macro/{OPTION_NAMES[option]} {channels} {plan.size} s{plan.stride}",
        plan.size.shape(plan.inputs),
        lambda: LoneLayer(choice_layer(plan, (option,), affine=True)),
    )
