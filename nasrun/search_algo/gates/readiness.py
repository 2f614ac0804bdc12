"""Whether the supernet has learned enough for its gates to learn: random paths tell.

While a supernet is young, its paths lose less the more operations without parameters they have, as
these need no training. Gates that learn by such losses collapse onto skips and pools.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nasrun.dataset.base import Batch
from nasrun.evaluator.batch_norm import batch_norm_protocol
from nasrun.run.compute import Compute
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture


def varied_paths(space: SearchSpace, count: int, streams: Streams) -> list[Architecture]:
    """Sample architectures; none if they do not differ in their parameter-free operations.

    Source of the rule: on NAS-Bench-201 the correlation of the loss with the share of such
    operations was -0.29 after 240 steps and +0.30 after 3,000 (ours).
    """
    if "path" not in space.gate_kinds or space.binary:
        return []
    rng = streams.numpy("free_paths")
    found = [space.sample(rng) for _ in range(count)]
    return found if len({space.free_share(one) for one in found}) > 1 else []


def free_correlation(
    network: Supernet,
    space: SearchSpace,
    architectures: Sequence[Architecture],
    batch: Batch,
    compute: Compute,
) -> float | None:
    """Return the correlation of paths' losses with their shares of parameter-free operations.

    Below 0: paths without parameters are the better ones. Batch norms take the statistics of the
    batch; the network is not changed, but it is in evaluation mode afterwards.
    Returns None if all losses or shares are alike, or a loss is not finite.
    """
    images, labels = compute.images(batch[0]), batch[1]
    network.noise.stop()
    losses: list[Tensor] = []
    with torch.inference_mode(), batch_norm_protocol("batch", network, (), compute):
        for architecture in architectures:
            with compute.autocast():
                logits = network(images, architecture.choices)
            losses.append(F.cross_entropy(logits.float(), labels))
    shares = [space.free_share(architecture) for architecture in architectures]
    return correlation(torch.stack(losses).tolist(), shares) if losses else None


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Pearson's correlation; None if it does not exist."""
    pair = torch.tensor([first, second], dtype=torch.float64)
    centred = pair - pair.mean(1, keepdim=True)
    products = centred @ centred.T
    found = (products[0, 1] / (products[0, 0] * products[1, 1]).sqrt()).item()
    return found if math.isfinite(found) else None
