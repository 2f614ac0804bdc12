"""The largest eigenvalue of the Hessian of the held-out loss by the logits of the gates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nasrun.run.compute import float64

DIFFERENCE_LENGTH = 0.05
"""Length of the step along a unit vector for finite differences of gradients; ours."""


def product_by_differences(
    gradient_at: Callable[[Tensor], Tensor], point: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return v -> H v, for unit vectors v, by central differences of gradients at ``point``."""

    def times(vector: Tensor) -> Tensor:
        step = DIFFERENCE_LENGTH * vector
        return (gradient_at(point + step) - gradient_at(point - step)) / (2 * DIFFERENCE_LENGTH)

    return times


def largest_eigenvalue(times: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> float:
    """Return the largest eigenvalue of a symmetric matrix, by Lanczos' method.

    times: its product with a unit vector, of any shape.
    start: a random vector of that shape; entries that are 0 in it and in all products stay 0.
    iterations: products, at most; as many as the vector has entries give all eigenvalues.
    """
    shape = start.shape
    first = float64(start.flatten())
    basis = [first / first.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(min(iterations, start.numel())):
        product = float64(times(basis[-1].view(shape).to(start)).flatten())
        diagonal.append(product @ basis[-1])
        known = torch.stack(basis)
        for _ in range(2):  # twice, since rounding leaves a part of the known directions
            product = product - known.T @ (known @ product)
        length = product.norm()
        if length < 1e-6 * torch.stack(diagonal).abs().max():
            break  # the directions found so far are mapped onto themselves
        beside.append(length)
        basis.append(product / length)
    matrix = torch.diag(torch.stack(diagonal))
    if len(diagonal) > 1:
        off = torch.stack(beside[: len(diagonal) - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(matrix)[-1])
