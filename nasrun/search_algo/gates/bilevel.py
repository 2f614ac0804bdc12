"""The second order of DARTS: how the held-out loss changes by the gates through the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.search_space.gates import Gates
from nasrun.trainer.gate_learner import Gradients

DIFFERENCE_LENGTH = 0.01
"""Length of the step along the gradient for finite differences of gradients (DARTS, §2.3)."""


def second_order(
    training: Gradients,
    batch: Batch,
    held_out: Batch,
    weights: Tensor,
    open_by: Callable[[Tensor], Gates],
) -> tuple[Tensor, Tensor]:
    """Compute the gradient of the held-out loss after one more step of the network on ``batch``.

    weights: weights of the gates, with respect to which the gradient is taken.
    open_by: the gates of the network for such weights.
    Returns the gradient, of the shape of ``weights``, and (loss, accuracy) [2] on the held-out
    images.

    The second derivatives come from finite differences of two gradients. Source: DARTS
    (Liu et al. 2019), Eq. 6-8; the step has momentum and weight decay as in its released code.
    """
    parameters = [p for p in training.network.parameters() if p.requires_grad]
    rate = training.learning_rate()

    def by_gates(images_and_labels: Batch) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Return the gate gradients, (loss, accuracy) [2], and the gradients of the parameters."""
        leaf = weights.clone().requires_grad_()
        measured = training.gradients(*images_and_labels, open_by(leaf), [leaf, *parameters])
        found = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        by_leaf = torch.zeros_like(weights) if leaf.grad is None else leaf.grad
        return by_leaf, measured, found

    training.gradients(*batch, open_by(weights), parameters)
    before = training.look_ahead()
    direct, measured, direction = by_gates(held_out)
    norm = torch.stack([g.square().sum() for g in direction if g is not None]).sum().sqrt()
    length = DIFFERENCE_LENGTH / norm.clamp(min=1e-12)
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for (parameter, saved), along in zip(before, direction, strict=True):
                parameter.copy_(saved if along is None else saved + sign * length * along)
        sides.append(by_gates(batch)[0])
    with torch.no_grad():
        for parameter, saved in before:
            parameter.copy_(saved)
    return direct - rate * (sides[0] - sides[1]) / (2 * length), measured
