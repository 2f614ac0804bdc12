"""Layers of a network, one by one: costs, latencies and memory are sums over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from nasrun.values import Cost


@dataclass(frozen=True)
class Layer:
    """An operation of a network; equal names mean equal operations on inputs of equal shape.

    name: also the key in tables of latency, which users keep.
    shape: shape of its input, [channels, height, width].
    build: makes the module, randomly initialised.
    bit_product: bits of its weights × bits of its input; 0 in full precision.
    """

    name: str
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module] = field(compare=False)
    bit_product: int = 0


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Add costs up; ``bitops`` is None if no cost has any."""
    params = macs = 0
    bitops = None
    for cost in costs:
        params += cost.params
        macs += cost.macs
        if cost.bitops is not None:
            bitops = cost.bitops + (bitops or 0)
    return Cost(params, macs, bitops)


_COUNTED: dict[str, Cost] = {}
"""Costs by the name of the layer: thousands of architectures share a few hundred layers."""


def count_layers(layers: Sequence[Layer]) -> Cost:
    """Count parameters and multiply-adds of layers; each distinct layer is built once."""
    params = macs = 0
    bitops = None
    for name, times in Counter(map(attrgetter("name"), layers)).items():
        cost = _COUNTED.get(name)
        if cost is None:
            cost = count_layer(next(layer for layer in layers if layer.name == name))
        params += times * cost.params
        macs += times * cost.macs
        if cost.bitops is not None:
            bitops = times * cost.bitops + (bitops or 0)
    return Cost(params, macs, bitops)


def count_layer(layer: Layer) -> Cost:
    """Count a layer on the meta device, without memory and without random numbers."""
    with torch.device("meta"), torch.inference_mode():
        module = layer.build().eval()
        with _MultiplyAdds() as counted:
            module(torch.empty(1, *layer.shape))
    params = sum(parameter.numel() for parameter in module.parameters())
    bitops = counted.macs * layer.bit_product if layer.bit_product else None
    _COUNTED[layer.name] = Cost(params, counted.macs, bitops)
    return _COUNTED[layer.name]


class _MultiplyAdds(TorchFunctionMode):
    """Counts the multiply-adds of convolutions and linear layers while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # Skip functions that keep the shape, since they are slow on meta tensors.
        if func in (F.batch_norm, F.relu, F.relu6, F.hardswish, F.hardsigmoid):
            return args[0]
        out = func(*args, **(kwargs or {}))
        if func in (torch.conv2d, F.linear):
            positions = out[0, 0].numel() if func is torch.conv2d else out[..., 0].numel()
            self.macs += args[1].numel() * positions
        return out
