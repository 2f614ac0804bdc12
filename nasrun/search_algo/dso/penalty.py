"""Penalty strength of each edge, by the costs of its block and operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nasrun.search_space.capabilities import OperationLevels
from nasrun.search_space.dso_block.roles import OUTPUT, Role
from nasrun.search_space.dso_block.wiring import CONVOLUTION_COUNT, OPERATION_NAMES
from nasrun.search_space.layer import Layer
from nasrun.values import Problem

Costs = Mapping[str, float]
"""Costs of each operation, and of ``output``, relative to the most expensive one."""


class Penalty:
    """Computes the strength γ of the penalty on every edge, [n], from the edges' values.

    base: γ of all edges, before the factors below.
    by_flops: whether γ is multiplied by the share of a block's 1×1 convolutions that are left
    (DSO-NAS, Eq. 9, as its released code counts them: one for the shortcut, one for each
    convolution of level 1 and for each above that reads anything, one for each edge to the output).
    costs: for each block with decisions of its own, the factors of the edges into an operation, or
    to the output (Eq. 10).
    Edges of reductions have γ = base.
    """

    def __init__(
        self,
        space: OperationLevels,
        base: float,
        device: torch.device,
        *,
        by_flops: bool,
        costs: list[Costs] | None,
    ) -> None:
        self.device = device
        self.blocks = [role.block for role in space.roles]
        self.block_of = torch.tensor([-1 if b is None else b for b in self.blocks], device=device)
        self.count = 1 + max(b for b in self.blocks if b is not None)
        self.base = torch.tensor([base * _cost(role, costs) for role in space.roles], device=device)
        self.by_flops = by_flops
        convolutions: dict[tuple[int, int], list[int]] = {}
        for index, role in enumerate(space.roles):
            if role.operation is not None and role.name in OPERATION_NAMES[:CONVOLUTION_COUNT]:
                assert role.block is not None  # noqa: S101
                convolutions.setdefault((role.block, role.operation), []).append(index)
        self._inputs = self._long([i for group in convolutions.values() for i in group])
        self._group = self._long([g for g, v in enumerate(convolutions.values()) for _ in v])
        self._group_block = self._long([block for block, _ in convolutions])
        outputs = [index for index, role in enumerate(space.roles) if role.name == OUTPUT]
        self._outputs = self._long(outputs)
        self._all = 1.0 + CONVOLUTION_COUNT + (len(convolutions) + len(outputs)) / self.count

    def _long(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)

    def strengths_of(self, values: Tensor) -> Tensor:
        """Return γ of every edge [n] from the values λ of all edges [n]."""
        if not self.by_flops:
            return self.base
        shares = torch.cat([self.shares_left(values), torch.ones(1, device=self.device)])
        return self.base * shares[self.block_of]  # index -1, of reductions, is the last element

    def shares_left(self, values: Tensor) -> Tensor:
        """Return the share of each block's 1×1 convolutions that are left, [blocks]."""
        alive = (values.detach() != 0).float()
        fed = torch.zeros(len(self._group_block), device=self.device)
        fed.index_add_(0, self._group, alive[self._inputs])
        count = torch.full((self.count,), 1.0 + CONVOLUTION_COUNT, device=self.device)
        count.index_add_(0, self._group_block, (fed > 0).float())
        count.index_add_(0, self.block_of[self._outputs], alive[self._outputs])
        return count / self._all


def _cost(role: Role, costs: list[Costs] | None) -> float:
    return 1.0 if costs is None or role.block is None else costs[role.block][role.name]


def latency_costs(
    space: OperationLevels, problem: Problem, milliseconds: Callable[[Layer], float]
) -> list[Costs]:
    """Measure the times of the operations, relative to the slowest one.

    Times are summed over the blocks that share decisions. Source: adaptive latency, released code
    for ImageNet.
    """
    known: dict[str, float] = {}

    def time_of(layer: Layer) -> float:
        if layer.name not in known:
            known[layer.name] = milliseconds(layer)
        return known[layer.name]

    found: list[Costs] = []
    for blocks in space.layers_of_blocks(problem):
        sums = {name: sum(time_of(block[name]) for block in blocks) for name in blocks[0]}
        slowest = max(sums.values())
        found.append({name: time / slowest for name, time in sums.items()})
    return found
