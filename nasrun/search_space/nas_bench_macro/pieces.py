"""What a stand-alone network of ``nas_bench_macro`` computes, each operation by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from nasrun.search_space.base import Piece
from nasrun.search_space.nas_bench_macro.layers import OPTIONS, LayerPlan, MacroPlan
from nasrun.search_space.nas_bench_macro.network import Layer, features, stem
from nasrun.search_space.noise import Noise
from nasrun.values import Problem

_NAMES = tuple(OPTIONS)


class LoneLayer(Layer):
    """A layer with one option, its residual included: [B, inputs, H, W] -> [B, outputs, H', W']."""

    def __init__(self, plan: LayerPlan, option: int) -> None:
        super().__init__(plan, (option,), affine=True)
        self.option, self.noise = option, Noise()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, self.option, self.noise, 1.0)


def list_pieces(plan: MacroPlan, problem: Problem, choices: Sequence[int]) -> list[Piece]:
    """Stem, layers and head, in the order of the network."""
    return [
        Piece(
            f"nas_bench_macro/stem {problem.channels}-{plan.stem} {problem.size}",
            (problem.channels, problem.size, problem.size),
            partial(stem, plan, problem),
        ),
        *(_layer(layer, option) for layer, option in zip(plan.layers, choices, strict=True)),
        _head(plan, problem),
    ]


def _layer(plan: LayerPlan, option: int) -> Piece:
    channels = f"{plan.inputs}-{plan.outputs}"
    return Piece(
        f"nas_bench_macro/{_NAMES[option]} {channels} {plan.size} s{plan.stride}",
        (plan.inputs, plan.size, plan.size),
        partial(LoneLayer, plan, option),
    )


def _head(plan: MacroPlan, problem: Problem) -> Piece:
    inputs = plan.layers[-1].outputs

    def build() -> nn.Module:
        return nn.Sequential(
            *features(plan),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(plan.features, problem.classes),
        )

    name = f"nas_bench_macro/head {inputs}-{plan.features}-{problem.classes} {plan.size}"
    return Piece(name, (inputs, plan.size, plan.size), build)
