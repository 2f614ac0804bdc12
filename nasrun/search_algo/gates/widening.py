"""Widening: the weights of a network go on in one whose operations have more channels."""

from __future__ import annotations

import torch
from torch import Tensor

from nasrun.search_space.base import Supernet


@torch.no_grad()
def widen(narrow: Supernet, wide: Supernet, generator: torch.Generator) -> None:
    """Copy all weights of ``narrow`` into ``wide``, a supernet of the same options.

    The further channels of an operation repeat channels that it has, sampled uniformly; inputs and
    outputs of as many channels repeat the same ones. What has the same shape in both is copied.
    Source: DrNAS (Chen et al., ICLR 2021, arXiv 2006.10355), §3.3, after Net2Net (Chen et al., ICLR
    2016, arXiv 1511.05641); as in DrNAS' released code weights are repeated as they are.

    generator: on the CPU.
    """
    values = narrow.state_dict()
    same = {
        name: values[name]
        for name, value in wide.state_dict().items()
        if values[name].shape == value.shape
    }
    wide.load_state_dict(same, strict=False)
    modules = zip(narrow.option_modules(), wide.option_modules(), strict=True)
    for (small, _), (large, _) in modules:
        places: dict[tuple[int, int], Tensor] = {}
        found = large.state_dict()  # its tensors are those of the network
        for name, value in small.state_dict().items():
            for dim, widths in enumerate(zip(value.shape, found[name].shape, strict=True)):
                if widths[0] != widths[1]:
                    if widths not in places:
                        places[widths] = _repeated(*widths, generator)
                    value = value.index_select(dim, places[widths].to(value.device))
            found[name].copy_(value)


def _repeated(channels: int, wider: int, generator: torch.Generator) -> Tensor:
    """Return which of so many channels each of more channels has: first all, then sampled ones."""
    more = torch.randint(channels, (wider - channels,), generator=generator)
    return torch.cat([torch.arange(channels), more])
