"""Measurements of gates and supernet in training, for the parts that decide by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.batch_norm import batch_norm_protocol
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.gates.hessian import largest_eigenvalue, product_by_differences
from nasrun.search_algo.gates.readiness import free_correlation
from nasrun.search_algo.gates.selection import share_in_open
from nasrun.search_algo.gates.skips import count_skips
from nasrun.search_algo.gates.soft_gates import SoftGates
from nasrun.search_space.base import Supernet
from nasrun.trainer.gate_learner import Gradients
from nasrun.values import Architecture


class Probe:
    """Measures before a step of the training, on held-out images; changes no weight and no gate.

    images: number of images for ``accuracy``, at most. iterations: of Lanczos' method.
    """

    def __init__(
        self, gates: SoftGates, training: Gradients, step: int, *, images: int, iterations: int
    ) -> None:
        self.gates, self.training, self.step = gates, training, step
        self.images, self.iterations = images, iterations
        self.network = cast(Supernet, training.network)

    @property
    def logits(self) -> Tensor:
        """A copy of the logits [D, K]."""
        return self.gates.logits.detach().clone()

    def skip_count(self) -> int:
        """Return the number of skip connections in the architecture that the gates favour."""
        return count_skips(self.gates.space, self.gates.derive())

    def sharpness(self) -> float:
        """Return the largest eigenvalue of the Hessian of the held-out loss by the logits."""
        gates, context = self.gates, self.gates.context
        batch = gates.batches.batch_of_step(self.step)
        opened = gates.opened.to(gates.logits)

        def gradient_at(point: Tensor) -> Tensor:
            moved = point.detach().requires_grad_()
            weights = gates.with_edges(gates.relaxation.shares(gates.mask_closed(moved)))
            leaf = weights.detach().requires_grad_()
            self.training.gradients(*batch, gates.gates_by(leaf), [leaf])
            (gradient,) = torch.autograd.grad(weights, moved, leaf.grad)
            return gradient * opened

        generator = context.streams.torch("eigenvalue", self.step)
        start = torch.randn(opened.shape, generator=generator).to(opened) * opened
        times = product_by_differences(gradient_at, gates.logits.detach())
        return largest_eigenvalue(times, start, self.iterations)

    def accuracy(self, opened: Tensor) -> float:
        """Return the supernet's accuracy with ``opened`` [D, K] options, by batch statistics.

        The open options have the weights that they have among all.
        """
        gates, context = self.gates, self.gates.context
        weights = share_in_open(gates.weights().detach(), opened.to(gates.logits.device))
        count = min(self.images, len(context.held_out))
        self.network.noise.stop()
        with batch_norm_protocol("batch", self.network, (), context.compute):
            found = accuracy(
                partial(self.network, gates=gates.gates_by(weights, opened)),
                context.held_out.eval_batches(context.batch_size, count),
                context.compute,
                NullMonitor(),
            )
        self.network.train()
        return found if math.isfinite(found) else 0.0

    def correlation(self, paths: Sequence[Architecture]) -> float | None:
        """See ``free_correlation``; on one batch."""
        gates, context = self.gates, self.gates.context
        batch = gates.batches.batch_of_step(self.step)
        found = free_correlation(self.network, gates.space, paths, batch, context.compute)
        self.network.train()
        return found
