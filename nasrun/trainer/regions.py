"""Compiled regions: blocks of a network that torch turns into fewer and larger kernels.

A path runs hundreds of small kernels, so on a GPU their launches bound the speed of small images.
A supernet cannot be compiled as a whole, since each step runs another path; its blocks can, once
for each shape. Graphs of CUDA launches are not used: torch records one for each order of regions,
and a supernet has as many orders as paths.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

MAX_VERSIONS = 1024
"""Compiled versions of blocks that torch keeps for one network; its own limit is 8."""


def regions(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the largest parts of a network that turn one tensor into one, without noise.

    Noise comes from a generator that changes in every step, which a compiled region cannot take.
    Single layers are left out, since there is nothing to join.
    """
    for part in network.children():
        if _is_region(part):
            yield part
        else:
            yield from regions(part)


def _is_region(part: nn.Module) -> bool:
    taken = list(inspect.signature(part.forward).parameters.values())
    takes_one = len(taken) == 1 and taken[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    noisy = any(hasattr(inner, "noise") for inner in part.modules())
    joins = any(True for _ in part.children()) and any(True for _ in part.parameters())
    return takes_one and joins and not noisy


class CompiledRegion:
    """A region as it is called: compiled, except where it estimates batch norm statistics.

    There the weight of each batch is another number, and each number would be compiled anew.
    """

    def __init__(self, region: nn.Module) -> None:
        self.eager: Callable[[Tensor], Tensor] = region._call_impl
        self.compiled: Callable[[Tensor], Tensor] = torch.compile(self.eager, dynamic=False)
        self.norms = [norm for norm in region.modules() if isinstance(norm, nn.BatchNorm2d)]

    def __call__(self, x: Tensor) -> Tensor:
        estimates = not torch.is_grad_enabled() and any(
            norm.training and norm.track_running_stats for norm in self.norms
        )
        return self.eager(x) if estimates else self.compiled(x)


def compile_regions(network: nn.Module) -> None:
    """Have the regions of a network compiled when they are first called.

    Names and values of the weights stay. Hooks that are added to parts of a region later are not
    called where it runs compiled.
    """
    import torch._dynamo.config as limits  # slow to import

    limits.recompile_limit = max(limits.recompile_limit, MAX_VERSIONS)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, MAX_VERSIONS)
    for region in regions(network):
        region._compiled_call_impl = CompiledRegion(region)
