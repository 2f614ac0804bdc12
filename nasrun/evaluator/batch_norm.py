"""The three batch norm protocols by which a supernet's paths are scored.

batch: statistics of the scored batch itself (NAO's released code, Bender et al. 2018);
recalibrated: statistics estimated anew for each path on fixed training images (SPOS, §3.3);
inherited: the running statistics of all paths together, from the training.
No protocol changes the supernet, so the order of evaluation does not matter.

``estimate_statistics`` is no protocol: it gives a retrained network statistics for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from nasrun.dataset.base import Batch
from nasrun.run.compute import Compute
from nasrun.run.monitor import Stage
from nasrun.search_space.base import Network

Protocol = Literal["batch", "recalibrated", "inherited"]

Predict = Callable[[Tensor], Tensor]
"""One path: images [B, C, H, W] -> logits [B, K]."""


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Let every batch norm normalise by the batch at hand and keep its running statistics."""
    norms = _norms(network)
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracking) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracking


class CumulativeStatistics:
    """Lets batch norms in training mode take the mean of the statistics of all their batches.

    All batches have equal weight, which is torch's ``momentum=None``; but there the host asks the
    device for the number of batches in each layer and batch. Here it counts them itself.
    """

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self._momenta = {norm: norm.momentum for norm in norms}
        self._batches = dict.fromkeys(norms, 0)
        self._hooks = [norm.register_forward_pre_hook(self._before) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()

    def _before(self, norm: nn.Module, _: object) -> None:
        if norm.training and isinstance(norm, nn.BatchNorm2d):
            self._batches[norm] += 1
            norm.momentum = 1.0 / self._batches[norm]

    def begin(self) -> None:
        """Forget the statistics of the norms that have seen batches, e.g. of another path."""
        for norm, batches in self._batches.items():
            if batches:
                norm.reset_running_stats()
                self._batches[norm] = 0

    def end(self) -> None:
        """Keep the statistics, and give the norms their own momentum back."""
        for hook in self._hooks:
            hook.remove()
        for norm, momentum in self._momenta.items():
            norm.momentum = momentum


@contextmanager
def recalibrated_statistics(
    network: nn.Module, batches: Iterable[Batch], compute: Compute
) -> Iterator[Callable[[Predict], None]]:
    """Yield a function that estimates the statistics of the path that ``predict`` runs.

    Statistics are the mean over the calibration batches, all of equal weight (cumulative
    average), not the exponential average of training, which forgets all but the last batches.
    """
    norms = _norms(network)
    saved = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    statistics = CumulativeStatistics(norms)

    @torch.inference_mode()
    def recalibrate(predict: Predict) -> None:
        for norm in norms:
            norm.training = True
        statistics.begin()
        for images, _ in batches:
            with compute.autocast():
                predict(compute.images(images))
        for norm in norms:
            norm.training = False

    try:
        yield recalibrate
    finally:
        statistics.end()
        for norm, buffers in zip(norms, saved, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])


@torch.inference_mode()
def estimate_statistics(
    network: Network, batches: Iterable[Batch], compute: Compute, stage: Stage
) -> None:
    """Replace the running statistics of batch norms by their mean over ``batches``.

    All batches have equal weight; no weight is changed. It is the end of SPOS' retraining: its
    released code runs one more epoch at a learning rate of 0, with momentum 1 / i in step i.

    stage: is told of each batch.
    """
    statistics = CumulativeStatistics(_norms(network))
    network.noise.stop()
    network.train()  # also the auxiliary head, which has batch norms, too
    for images, _ in batches:
        with compute.autocast():
            network(compute.images(images))
        stage.advance()
    network.eval()
    network.auxiliary_logits = None
    statistics.end()


@contextmanager
def batch_norm_protocol(
    protocol: Protocol, network: nn.Module, batches: Iterable[Batch], compute: Compute
) -> Iterator[Callable[[Predict], None]]:
    """Yield a function to be called with a path's ``predict`` before the path is scored.

    batches: the calibration batches, always the same.
    """
    network.eval()
    if protocol == "recalibrated":
        with recalibrated_statistics(network, batches, compute) as recalibrate:
            yield recalibrate
    elif protocol == "batch":
        with batch_statistics(network):
            yield lambda predict: None
    else:
        yield lambda predict: None
