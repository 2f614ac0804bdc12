"""Single-Path NAS: the norms of a super-kernel's parts decide which of them are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Epochs, Strength
from nasrun.run.state import load_optimiser_state, optimiser_state
from nasrun.search_algo.gates.learned import ArchitectureLearner, LearnedAlgo
from nasrun.search_algo.gates.resource import UNITS, CostName, ExpectedCost
from nasrun.search_algo.gates.soft_gates import GateAdam
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import SuperKernels, has_super_kernels
from nasrun.search_space.gates import Gates
from nasrun.trainer.gate_learner import GateContext, Gradients, Unread
from nasrun.values import Architecture

SMALLEST_SQUARE = 1e-12
"""Added to squared norms, so that their roots have a derivative where all weights are 0."""


class LogCost(BaseModel):
    """A term of the loss: weight · log(cost of the chosen network).

    cost: a cost of the final network; none: no term.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: CostName
    weight: Strength


class NormedSupernet(Protocol):
    """A supernet of a space with ``SuperKernels``."""

    def norms(self) -> Mapping[int, Tensor]:
        """Return the squared norms of each decision's kernel, [rings, groups of channels]."""


def indicator(x: Tensor) -> Tensor:
    """Return 1 where ``x`` is at least 0, else 0; its derivative is that of the sigmoid.

    Source: Single-Path NAS, Eq. 6; the straight-through form is that of its code.
    """
    soft = x.sigmoid()
    return (x >= 0).to(x) - soft.detach() + soft


class KernelChoices:
    """The options of all decisions as parts of kernels with R rings and G groups of channels.

    Kernels with fewer of them are padded. forward: norms and thresholds -> the share of every
    option [D, K], 0 or 1.
    """

    def __init__(self, space: SearchSpace, parts: Mapping[int, Any], device: torch.device) -> None:
        of_decisions = [parts[index] for index in range(len(space.decisions))]
        most = max(map(len, of_decisions))
        kernels = [[part for part in options if part is not None] for options in of_decisions]
        self.rings = 1 + max(ring for some in kernels for ring, _ in some)
        self.groups = 1 + max(group for some in kernels for _, group in some)
        nowhere = self.rings * self.groups  # the place of the identity; the next one is always 0
        places = torch.full((len(of_decisions), most), nowhere + 1)
        has_ring = torch.zeros(len(of_decisions), self.rings)
        has_group = torch.zeros(len(of_decisions), self.groups)
        always = torch.ones(len(of_decisions), 1)
        for decision, options in enumerate(of_decisions):
            for option, part in enumerate(options):
                if part is None:
                    places[decision, option], always[decision] = nowhere, 0
                    continue
                places[decision, option] = part[0] * self.groups + part[1]
                has_ring[decision, part[0]] = has_group[decision, part[1]] = 1
        self.places, self.always = places.to(device), always.to(device)
        self.has_ring, self.has_group = has_ring.to(device), has_group.to(device)

    def squares(self, norms: Mapping[int, Tensor]) -> Tensor:
        """Stack the squared norms of all decisions, [D, R, G]."""
        grid = (self.rings, self.groups)
        return torch.stack(
            [
                torch.nn.functional.pad(one, (0, grid[1] - one.shape[1], 0, grid[0] - one.shape[0]))
                for _, one in sorted(norms.items())
            ]
        )

    def shares(self, squares: Tensor, thresholds: Tensor, kept: Tensor) -> Tensor:
        """Decide by the norms: an outer ring or a group of channels is used if it is large.

        The norm of a group is that of its rings in use, and a part is used only if all smaller ones
        are. Where there is no identity the first group is always used.

        squares: [D, R, G]. thresholds, kept: [D, R - 1 + G], of rings and of groups; an indicator
        counts as 0 where ``kept`` is 0.
        Source: Single-Path NAS, Eq. 3 to 5.
        """
        of_rings, of_groups = thresholds[:, : self.rings - 1], thresholds[:, self.rings - 1 :]
        keep_rings, keep_groups = kept[:, : self.rings - 1], kept[:, self.rings - 1 :]
        norms = (squares.sum(2) + SMALLEST_SQUARE).sqrt()
        rings = indicator(norms[:, 1:] - of_rings) * keep_rings
        used = (torch.cat([torch.ones_like(self.always), rings], 1) * self.has_ring).cumprod(1)
        norms = ((used.square()[:, :, None] * squares).sum(1) + SMALLEST_SQUARE).sqrt()
        groups = indicator(norms - of_groups) * keep_groups
        first = torch.where(self.always > 0, torch.ones_like(groups[:, :1]), groups[:, :1])
        present = (torch.cat([first, groups[:, 1:]], 1) * self.has_group).cumprod(1)
        largest = used - torch.nn.functional.pad(used[:, 1:], (0, 1))
        last = present - torch.nn.functional.pad(present[:, 1:], (0, 1))
        parts = (largest[:, :, None] * last[:, None]).flatten(1)
        none = torch.zeros_like(self.always)
        return torch.cat([parts, 1 - present[:, :1], none], 1).gather(1, self.places)


class NormGates(ArchitectureLearner):
    """Opens in each layer the part of the kernel that norms and learned thresholds choose.

    The gates are 0 and 1, and learn in the step of the weights, by their sigmoids' derivatives;
    through the norms the weights learn from them too. In the first epochs indicators are dropped at
    random, and the cost does not count yet.
    """

    def __init__(self, algo: SinglePath, context: GateContext, cost: ExpectedCost | None) -> None:
        space = context.space
        assert isinstance(space, SuperKernels)  # checked by SinglePath.check  # noqa: S101
        self.algo, self.context, self.space, self.cost = algo, context, context.space, cost
        device = context.compute.device
        self.choices = KernelChoices(context.space, space.kernel_parts, device)
        shape = (len(context.space.decisions), self.choices.rings - 1 + self.choices.groups)
        self.thresholds = torch.zeros(shape, device=device, requires_grad=True)
        self.optimiser = torch.optim.Adam(
            [self.thresholds],
            lr=algo.adam.lr,
            betas=(algo.adam.beta1, algo.adam.beta2),
            weight_decay=algo.adam.weight_decay,
        )
        self.first = round(algo.warm_up_epochs * context.steps_per_epoch)
        self.supernet: NormedSupernet | None = None
        self.decided = self._shares(torch.ones(shape, device=device)).detach()
        self._cost_due = self._cost_added = False

    def _shares(self, kept: Tensor) -> Tensor:
        """Decide by the present norms; before the first step all are 1, which opens everything."""
        counts = (len(self.space.decisions), self.choices.rings, self.choices.groups)
        if self.supernet is None:
            squares = torch.ones(counts, device=self.thresholds.device)
        else:
            squares = self.choices.squares(self.supernet.norms())
        return self.choices.shares(squares, self.thresholds, kept)

    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        self.supernet = cast(NormedSupernet, training.network)

    def gates(self, step: int) -> list[Gates]:
        self._cost_due, self._cost_added = step >= self.first, False
        kept = torch.ones_like(self.thresholds)
        if step < self.first:
            generator = self.context.streams.torch("indicators", step)
            random = torch.rand(self.thresholds.shape, generator=generator)
            kept = (random < self.algo.keep).to(kept)
        shares = self._shares(kept)
        leaf = shares.detach().requires_grad_()
        leaf.register_hook(partial(self._pass_on, shares))  # type: ignore[no-untyped-call]
        gates: Gates = [
            dict(enumerate(row.unbind()[: len(decision.options)]))
            for row, decision in zip(leaf.unbind(), self.space.decisions, strict=True)
        ]
        return [gates]

    def _pass_on(self, shares: Tensor, gradient: Tensor) -> None:
        """Pass the gradient of the gates on to thresholds and weights, in the same backward."""
        roots, gradients = [shares], [gradient]
        if self.cost is not None and self._cost_due and not self._cost_added:
            unit = UNITS[self.algo.resource.cost][0]
            with torch.enable_grad():  # off in a hook
                term = self.algo.resource.weight * (self.cost.expected_of(shares) / unit).log()
            roots, gradients = [shares, term], [gradient, torch.ones_like(term)]
            self._cost_added = True
        torch.autograd.backward(roots, gradients, retain_graph=True)

    def learn_after(self, step: int) -> None:
        gradient = self.thresholds.grad
        if gradient is not None:
            skip = self.context.compute.on_nonfinite == "skip"
            if not skip or gradient.isfinite().all():
                if self.algo.adam.clip:
                    torch.nn.utils.clip_grad_norm_([self.thresholds], self.algo.adam.clip)
                self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.decided = self._shares(torch.ones_like(self.thresholds))

    def drop_gradients(self) -> None:
        self.thresholds.grad = None
        self._cost_added = False

    def derive(self) -> Architecture:
        return self._architecture(self.decided.tolist())

    def _architecture(self, shares: list[list[float]]) -> Architecture:
        counts = [len(decision.options) for decision in self.space.decisions]
        rows = [row[:count] for row, count in zip(shares, counts, strict=True)]
        return self.space.strongest(rows)

    def pop_metrics(self) -> Unread:
        return Unread([self.decided], self._named)

    def _named(self, numbers: Sequence[Tensor]) -> dict[str, float]:
        favoured = self._architecture(numbers[0].tolist())
        return {"parameter_free": self.space.free_share(favoured)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "thresholds": self.thresholds.detach(),
            "decided": self.decided,
            "optimiser": optimiser_state(self.optimiser),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of another search space."""
        with torch.no_grad():
            for own, name in ((self.thresholds, "thresholds"), (self.decided, "decided")):
                if own.shape != state[name].shape:
                    raise ValueError("the gates are of another search space")
                own.copy_(state[name])
        load_optimiser_state(self.optimiser, state["optimiser"])


@dataclass(frozen=True, kw_only=True)
class SinglePath(LearnedAlgo):
    """Single-Path NAS (Stamoulis et al., ECML PKDD 2019, arXiv 1904.02877).

    adam: the optimiser of the thresholds, which begin at 0.
    warm_up_epochs: epochs at first in which indicators are dropped, and the cost does not count.
    keep: probability that an indicator is not dropped then.
    resource: see ``LogCost``.
    """

    adam: GateAdam
    warm_up_epochs: Epochs
    keep: Annotated[float, Field(gt=0, le=1)]
    resource: LogCost

    def check(self, space: SearchSpace) -> None:
        if not isinstance(space, SuperKernels):
            raise MissingCapabilityError(
                "search_algo=single_path decides on parts of a kernel "
                f"(search_space.share=kernels), and {space.name} has none",
                group="search_space",
                has=has_super_kernels,
            )
        if set(space.kernel_parts) != set(range(len(space.decisions))):
            raise UserError(
                "search_algo=single_path decides on parts of a kernel, layer by layer: set "
                "search_space.share=kernels and search_space.decide=layer, or take "
                "search_space=mbconv_single_path"
            )

    def make_learner(self, context: GateContext, candidates: Candidates) -> NormGates:
        cost = ExpectedCost.measured(self.resource.cost, candidates)
        if cost is not None and cost.smallest <= 0:
            raise UserError(
                f"search_algo.resource.cost={self.resource.cost}: a network costs nothing"
            )
        return NormGates(self, context, cost)
