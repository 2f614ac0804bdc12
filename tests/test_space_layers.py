"""Lists of layers: they make up the networks, are counted once, and give costs and latencies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import space_of
from networks import CIFAR, assert_layers_make_up_networks, random_architectures
from torch import Tensor, nn

from nasrun.budget.latency import Latency, read_table
from nasrun.cli.main import main
from nasrun.config.groups import groups
from nasrun.errors import UserError
from nasrun.search_space import layer as layer_module
from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.layer import Layer, count_layer, count_layers
from nasrun.search_space.stages import Stage, plan_stages, require_size
from nasrun.values import Architecture, Cost, MapSize, Problem

SYNTHETIC = Problem(3, 8, 4)
BINARY_SPACES = ("dso_block", "one_shot_blocks")


@pytest.mark.few(2)
@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("name", BINARY_SPACES)
def test_layers_make_up_the_network(name: str, stem: str) -> None:
    space = space_of(name, f"search_space.stem={stem}", "search_space.density=0.2")
    assert_layers_make_up_networks(space, [Problem(3, 32, 10), Problem(1, 37, 3)])


def test_layers_of_a_network_without_blocks() -> None:
    space = space_of("one_shot_blocks")
    nothing = Architecture(space.name, (0,) * len(space.decisions))
    assert len(space.layers(nothing, CIFAR)) == 2
    assert count_layers(space.layers(nothing, CIFAR)) == space.cost(nothing, CIFAR)


def test_a_fitted_width_is_that_of_the_layers() -> None:
    space = space_of("dso_block", "search_space.final.params=20000")
    for architecture in random_architectures(space, 5):
        cost = space.cost(architecture, CIFAR, "final")
        assert count_layers(space.layers(architecture, CIFAR, "final")) == cost
        assert cost.params <= 20000


@pytest.mark.few(4)
@pytest.mark.parametrize("name", groups()["search_space"])
def test_costs_are_the_sum_over_the_layers(name: str) -> None:
    space = space_of(name)
    for problem in (CIFAR, Problem(1, 64, 3)):
        for scale in ("search", "final"):
            bound = space.cost_bound(problem, scale)
            for architecture in random_architectures(space, 3, seed=1):
                cost = count_layers(space.layers(architecture, problem, scale))
                assert space.cost(architecture, problem, scale) == cost
                assert cost.params <= bound.params and cost.macs <= bound.macs
                assert (cost.bitops or 0) <= (bound.bitops or 0)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", groups()["search_space"])
def test_additive_spaces_ask_for_few_lists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(name)
    if not isinstance(space, AdditiveSpace):
        return
    architectures = random_architectures(space, 20)
    costs = [space.cost(architecture, CIFAR) for architecture in architectures]
    monkeypatch.setattr(type(space), "layers", SearchSpace.layers)  # which raises an error
    assert [space.cost(architecture, CIFAR) for architecture in architectures] == costs


class Functional(nn.Module):
    """A convolution of 2 groups and a linear layer without modules of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 2, 3, 3))
        self.linear = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.weight, stride=2, padding=1, groups=2))
        return F.linear(x.mean((2, 3)), self.linear)


def test_multiply_adds_are_counted_wherever_they_come_from() -> None:
    found = count_layer(Layer("test/functional", (4, 9, 9), Functional, bit_product=6))
    macs = 6 * 2 * 9 * 25 + 30
    assert found == Cost(6 * 2 * 9 + 30, macs, 6 * macs)


def test_a_layer_is_built_once_and_without_random_numbers() -> None:
    built: list[str] = []

    def build(name: str) -> nn.Module:
        built.append(name)
        return nn.Conv2d(3, 8, 3)

    layers = [Layer(f"test/once {n}", (3, 8, 8), partial(build, n)) for n in "abab"]
    state = torch.get_rng_state()
    assert count_layers(layers) == Cost(4 * 224, 4 * 216 * 36)
    assert count_layers(layers * 2) == Cost(8 * 224, 8 * 216 * 36)
    assert built == ["a", "b"] and torch.equal(torch.get_rng_state(), state)
    for name in ("test/once a", "test/once b"):
        del layer_module._COUNTED[name]


def test_stages_double_channels_and_halve_sides() -> None:
    plan = plan_stages(Problem(3, 33, 10), "this", 5, [2, 1, 3], (2, 2))
    assert plan.stages == tuple(
        Stage(channels, MapSize.square(side), depth)
        for channels, side, depth in ((5, 9, 2), (10, 5, 1), (20, 3, 3))
    )
    assert plan.stem == [(3, 2, 2), (2, 5, 2)] and plan.depth == 6
    assert [first for _, first in plan.blocks()] == [True, False, True, True, False, False]
    assert plan_stages(Problem(1, 8, 2), "this", 1, [1]).stem == [(1, 1, 1)]


def test_images_too_small_for_the_stages() -> None:
    with pytest.raises(UserError, match=r"15×15 .* small for this, .* 4 times \(at least 16×16\)"):
        plan_stages(Problem(3, 15, 10), "this", 5, [1, 1, 1], (2, 2))
    with pytest.raises(UserError, match=r"3 times \(at least 20×20 here\)"):
        require_size(Problem(3, 19, 10), "this", 3, smallest=20, where=" here")
    require_size(Problem(3, 8, 10), "this", 3)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", BINARY_SPACES)
def test_a_budget_of_latency_is_measured_and_met(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    measured: list[str] = []

    def times(self: Latency, layers: Sequence[Layer], *_: Any, **__: Any) -> list[list[float]]:
        measured.extend(layer.name for layer in layers)
        return [[1.0]] * len(layers)

    monkeypatch.setattr(Latency, "times", times)
    space = space_of(name)
    typical = space.sample(np.random.default_rng(0))
    most = len(space.layers(typical, SYNTHETIC, "final"))
    words = ["search", f"search_space={name}", "sampler=uniform", "search_algo=random"]
    words += ["dataset=synthetic", "effort=smoke", "threads=1", "hydra.run.dir=run"]
    assert main([*words, f"budget.latency_ms.max={most}", "budget.latency.networks=0"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    found = space.read(result["architecture"])
    assert len(space.layers(found, SYNTHETIC, "final")) <= most
    for line in Path("run/trials.jsonl").read_text().splitlines():
        architecture = space.read(json.loads(line)["architecture"])
        assert len(space.layers(architecture, SYNTHETIC, "final")) <= most
    assert measured.pop() == "network"  # the winner, as a whole
    assert sorted(read_table(Path("run/latency.csv"))) == sorted(measured)
    assert len(measured) == len(set(measured))
