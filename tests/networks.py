"""Helpers of the tests of several search spaces: a counter, and laws of layers."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nasrun.search_space.base import SearchSpace
from nasrun.values import Architecture, Problem

CIFAR = Problem(3, 32, 10)

ONE_NETWORK = ("timm", "torchvision")
"""Search spaces of one network, in which nothing can be searched."""


def search_spaces() -> list[str]:
    """All search spaces whose libraries are installed."""
    from nasrun.config.groups import groups

    there = find_spec("timm") is not None
    return [name for name in groups()["search_space"] if there or name != "timm"]


def random_architectures(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


def counted(network: torch.nn.Module, problem: Problem) -> tuple[int, int]:
    """Parameters and multiply-adds of a built network, counted by torch."""
    network.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *problem.size.shape(problem.channels)))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def assert_layers_make_up_networks(space: SearchSpace, tasks: list[Problem]) -> None:
    """Layers have all weights of the whole network, and its cost.

    Layers of one name are alike, over all tasks and both scales; no module is built before it is
    asked for.
    """
    built: dict[str, tuple[tuple[int, ...], tuple[int, int], Counter[torch.Size]]] = {}

    def no_module(*_: object, **__: object) -> None:
        pytest.fail("a list of layers has built a module")

    for problem in tasks:
        for scale in ("search", "final"):
            for architecture in random_architectures(space, 3):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(torch.nn.Module, "__init__", no_module)
                    layers = space.layers(architecture, problem, scale)
                weights: Counter[torch.Size] = Counter()
                params = macs = 0
                for layer in layers:
                    if layer.name not in built:
                        module = layer.build()
                        module(torch.randn(2, *layer.shape))
                        cost = counted(module, Problem(*layer.shape[:2], 0))
                        shapes = Counter(p.shape for p in module.state_dict().values())
                        built[layer.name] = layer.shape, cost, shapes
                    shape, (own_params, own_macs), shapes = built[layer.name]
                    assert layer.shape == shape
                    params, macs = params + own_params, macs + own_macs
                    weights += shapes
                cost = space.cost(architecture, problem, scale)
                assert (params, macs) == (cost.params, cost.macs)
                network = space.network(architecture, problem, scale)
                assert weights == Counter(p.shape for p in network.state_dict().values())


def assert_latencies_add_up(space: SearchSpace) -> None:
    """The latencies of architectures differ by a term for the choices of each group.

    The times of the layers are random.
    """
    rng, table = np.random.default_rng(0), {}

    def latency(choices: list[int]) -> float:
        layers = space.layers(Architecture(space.name, tuple(choices)), CIFAR, "final")
        return sum(table.setdefault(layer.name, rng.random()) for layer in layers)

    one, *others = (list(a.choices) for a in random_architectures(space, 6))
    for other in others:
        expected = latency(one)
        for group in space.additive:
            changed = [other[i] if i in group else choice for i, choice in enumerate(one)]
            expected += latency(changed) - latency(one)
        assert latency(other) == pytest.approx(expected)
