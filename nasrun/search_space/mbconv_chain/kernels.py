"""Super-kernels: the operations of a layer as parts of one kernel (Single-Path NAS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.depthwise import Depthwise, depthwise
from nasrun.search_space.gates import Gate, Weight, mixed
from nasrun.search_space.mbconv_chain.layers import activation, build_option
from nasrun.search_space.mbconv_chain.table import MbconvPlan, Option, Style
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import Pointwise
from nasrun.search_space.spos.sliced import SlicedBatchNorm

Part = tuple[int, int]
"""A kernel and an expansion, by their places among those of the layer, in rising order."""


def sides_of(options: Sequence[Option]) -> tuple[list[int], list[int]]:
    """Return the kernels and the expansions of the operations, each in rising order."""
    operations = [option for option in options if option is not None]
    kernels = sorted({operation.kernel for operation in operations})
    return kernels, sorted({operation.expansion for operation in operations})


def parts_of(options: Sequence[Option]) -> tuple[Part | None, ...]:
    """Return the part of the super-kernel that each option has; None: the identity has none."""
    kernels, expansions = sides_of(options)
    return tuple(
        None if one is None else (kernels.index(one.kernel), expansions.index(one.expansion))
        for one in options
    )


def check_nested(number: int, options: Sequence[Option], style: Style) -> None:
    """Raise UserError if the operations of a stage are not parts of one kernel."""
    kernels, expansions = sides_of(options)
    operations = [option for option in options if option is not None]
    plain = not any(operation.groups > 1 or operation.squeeze_excite for operation in operations)
    if not plain or len(operations) != len(kernels) * len(expansions):
        raise UserError(
            f"share=kernels: operations of stage {number} must be every kernel with every "
            "expansion, without groups and squeeze-excite"
        )
    if expansions[0] == 1 < expansions[-1] and not style.expand_always:
        raise UserError(
            f"share=kernels: in stage {number} blocks of expansion 1 have no first convolution, "
            "which others would share with them: set expand_always=true"
        )


class SuperKernel(nn.Module):
    """A layer whose operations share weights: [B, inputs, H, W] -> [B, outputs, H', W'].

    The depthwise kernel of an operation is the centre of the largest one, and its hidden channels
    are the first of the largest expansion's. Batch norms are shared in the same way.
    Source: Stamoulis et al. 2019, arXiv 1904.02877, §3.1.
    """

    def __init__(self, plan: MbconvPlan, options: Sequence[Option]) -> None:
        super().__init__()
        self.kernels, expansions = sides_of(options)
        self.parts = parts_of(options)
        self.hidden = [expansion * plan.inputs for expansion in expansions]
        self.stride, self.keeps_shape = plan.stride, plan.keeps_shape
        largest, widest = self.kernels[-1], self.hidden[-1]
        self.expand: nn.Conv2d | None = None
        if expansions[-1] > 1 or plan.style.expand_always:
            self.expand, self.expand_norm = Pointwise(plan.inputs, widest), SlicedBatchNorm(widest)
        self.kernel, self.kernel_norm = (
            Depthwise(widest, largest, plan.stride),
            SlicedBatchNorm(widest),
        )
        self.project, self.project_norm = (
            Pointwise(widest, plan.outputs),
            nn.BatchNorm2d(plan.outputs),
        )
        self.activation = activation(plan.activation)
        self.identity = build_option(plan, None) if None in options else None
        self.register_buffer("rings", _rings(self.kernels), persistent=False)
        self.register_buffer("groups", _groups(self.hidden), persistent=False)

    def forward(self, x: Tensor, gate: Gate, noise: Noise, depth: float) -> Tensor:
        """Compute an option; or a mixture, in one pass where its weights are scalars.

        Such a mixture scales each ring of the kernel by the weights of all operations that have it,
        and each group of hidden channels likewise (Eq. 3 and 4). Weights of 0 and 1, of which one
        is 1, give the option's own output.
        """

        def run(option: int) -> Tensor:
            part = self.parts[option]
            if part is None:
                return self._pass_on(x)
            out = self._part(x, *part)
            return x + noise.drop_path(out, depth) if self.keeps_shape else out

        if isinstance(gate, int) or len(gate) == 1 or any(map(_is_of_images, gate.values())):
            return mixed(gate, run)
        weights = {self.parts[option]: weight for option, weight in gate.items()}
        blocks = {part: weight for part, weight in weights.items() if part is not None}
        total = _sum(blocks.values())
        out = total * noise.drop_path(self._blend(x, blocks), depth)
        if self.keeps_shape:
            out = out + total * x
        return out + weights[None] * self._pass_on(x) if None in weights else out

    def _pass_on(self, x: Tensor) -> Tensor:
        if self.identity is None:
            raise RuntimeError("this layer has no identity")
        out: Tensor = self.identity(x)
        return out

    def _part(self, x: Tensor, kernel: int, expansion: int) -> Tensor:
        """Compute an operation by its part of the weights."""
        hidden, margin = self.hidden[expansion], (self.kernels[-1] - self.kernels[kernel]) // 2
        inside = slice(margin, self.kernels[-1] - margin)
        return self._block(x, self.kernel.weight[:hidden, :, inside, inside], hidden, None)

    def _blend(self, x: Tensor, weights: Mapping[Part, Weight]) -> Tensor:
        """Compute all operations in one pass, by the weights of rings and groups of channels."""
        rings, groups = cast(Tensor, self.rings), cast(Tensor, self.groups)
        scale, mask = rings[0], groups[0]
        for place in range(1, len(rings)):
            scale = scale + rings[place] * _sum(w for (k, _), w in weights.items() if k >= place)
        for place in range(1, len(groups)):
            mask = mask + groups[place] * _sum(w for (_, e), w in weights.items() if e >= place)
        return self._block(x, self.kernel.weight * scale, self.hidden[-1], mask)

    def _block(self, x: Tensor, weight: Tensor, hidden: int, mask: Tensor | None) -> Tensor:
        """Run the inverted residual. weight: [hidden, 1, k, k]. mask: [hidden, 1, 1]."""
        if self.expand is not None:
            x = self.activation(self.expand_norm(F.conv2d(x, self.expand.weight[:hidden])))
        x = self.activation(self.kernel_norm(depthwise(x, weight, self.stride)))
        if mask is not None:
            x = x * mask
        out: Tensor = self.project_norm(F.conv2d(x, self.project.weight[:, :hidden]))
        return out

    def norms(self) -> Tensor:
        """Return the squared norm of each ring in each group of channels, [rings, groups]."""
        squares = self.kernel.weight[:, 0].square()
        rings, groups = cast(Tensor, self.rings), cast(Tensor, self.groups)
        return torch.einsum("cij,rij,gc->rg", squares, rings, groups[:, :, 0, 0])


def _rings(kernels: Sequence[int]) -> Tensor:
    """Return 1 at the taps that each kernel adds to the next smaller one, [R, k, k]."""
    side = kernels[-1]
    distance = (torch.arange(side) - side // 2).abs()
    reach = torch.maximum(distance[:, None], distance[None])
    inside = torch.stack([reach <= kernel // 2 for kernel in kernels]).float()
    return torch.diff(inside, dim=0, prepend=torch.zeros(1, side, side))


def _groups(hidden: Sequence[int]) -> Tensor:
    """Return 1 at the channels that each width adds to the next smaller one, [G, hidden, 1, 1]."""
    inside = torch.arange(hidden[-1]) < torch.tensor(hidden)[:, None]
    return torch.diff(inside.float(), dim=0, prepend=torch.zeros(1, hidden[-1]))[:, :, None, None]


def _is_of_images(weight: Weight) -> bool:
    return isinstance(weight, Tensor) and weight.dim() > 0


def _sum(weights: object) -> Weight:
    return cast(Weight, sum(weights))  # type: ignore[call-overload]
