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


class Preparation:
    """Prepares batch norms for scoring; in this base class there is nothing to be done."""

    def __call__(self, predict: Predict) -> None:
        """Prepare the path that ``predict`` runs."""

    def images(self) -> Iterator[Tensor]:
        """Yield the batches of images on which ``part`` prepares the first part of a path."""
        yield from ()

    def part(self, run: Predict, inputs: Iterable[Tensor]) -> list[Tensor]:
        """Prepare a part of a path, and return its outputs, the inputs of the next part.

        Parts of a path have no batch norm in common. inputs: outputs of the part before.
        """
        return []


class Recalibration(Preparation):
    """Estimates the statistics of the batch norms that calibration images pass through.

    Statistics are the mean over the calibration batches, all of equal weight (cumulative
    average), not the exponential average of training, which forgets all but the last batches.
    They are those of one path or part at a time, and of the last one at the end.
    """

    def __init__(
        self, norms: Sequence[nn.BatchNorm2d], batches: Iterable[Batch], compute: Compute
    ) -> None:
        self.norms, self.batches, self.compute = norms, batches, compute
        self.statistics = CumulativeStatistics(norms)

    def __call__(self, predict: Predict) -> None:
        for _ in self._outputs(predict, self.images()):
            pass

    def images(self) -> Iterator[Tensor]:
        for images, _ in self.batches:
            yield self.compute.images(images)

    def part(self, run: Predict, inputs: Iterable[Tensor]) -> list[Tensor]:
        return list(self._outputs(run, inputs))

    def _outputs(self, run: Predict, inputs: Iterable[Tensor]) -> Iterator[Tensor]:
        for norm in self.norms:
            norm.training = True
        self.statistics.begin()
        for each in inputs:
            with torch.inference_mode(), self.compute.autocast():
                out = run(each)
            yield out
        for norm in self.norms:
            norm.training = False


@contextmanager
def recalibrated_statistics(
    network: nn.Module, batches: Iterable[Batch], compute: Compute
) -> Iterator[Recalibration]:
    """Yield the recalibration of a network's paths; its own statistics come back in the end."""
    norms = _norms(network)
    saved = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    recalibration = Recalibration(norms, batches, compute)
    try:
        yield recalibration
    finally:
        recalibration.statistics.end()
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
) -> Iterator[Preparation]:
    """Yield a function to be called with a path's ``predict`` before the path is scored.

    batches: the calibration batches, always the same.
    """
    network.eval()
    if protocol == "recalibrated":
        with recalibrated_statistics(network, batches, compute) as recalibration:
            yield recalibration
    elif protocol == "batch":
        with batch_statistics(network):
            yield Preparation()
    else:
        yield Preparation()
