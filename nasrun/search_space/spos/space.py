"""The base of the SPOS spaces, and the space of the blocks' operations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

from pydantic import Field

from nasrun.errors import UserError
from nasrun.limits import Amount
from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale, Supernet
from nasrun.search_space.chain import MAX_WIDTH, WidthScale
from nasrun.search_space.gates import GateKind
from nasrun.search_space.graph import Graph, chain_in_stages, with_shape, words
from nasrun.search_space.layer import Layer, count_layers
from nasrun.search_space.spos.layers import OPERATION_NAMES, Choice
from nasrun.search_space.spos.network import BlocksSupernet, SposNetwork, list_layers
from nasrun.search_space.spos.plan import (
    BLOCK_COUNT,
    STAGE_WIDTHS,
    BlockPlan,
    SposPlan,
    StemKind,
    plan_network,
)
from nasrun.values import Architecture, Cost, Decision, Problem


class SposFinalScale(WidthScale):
    """The width of final networks, or limits to which it is fitted (the rows of Table 3).

    params, macs: limits of the network; None: no limit. With a limit the width is the largest
    multiple of ``step`` within both, and ``width`` is not used.
    """

    step: Annotated[float, Field(ge=1e-4, le=MAX_WIDTH)] = 0.01
    params: Annotated[Amount, Field(gt=0)] | None = None
    macs: Annotated[Amount, Field(gt=0)] | None = None


def op_of(block: int) -> Decision:
    """Return the decision on the operation of a block."""
    return Decision(f"block{block:02}/op", OPERATION_NAMES)


class SposSpace(AdditiveSpace):
    """Chains of twenty blocks (Guo et al., ECCV 2020, arXiv 1904.00420).

    stem: ``imagenet`` as published, ``cifar`` for images of about 32 pixels.
    affine: whether the batch norms of the supernet scale and shift; in stand-alone networks always.

    ``Cost.params`` counts the batch norms' scales and shifts, ``Cost.macs`` the linear layer.
    """

    def __init__(
        self, *, stem: StemKind, affine: bool, search: WidthScale, final: SposFinalScale
    ) -> None:
        self.stem: StemKind = stem
        self.affine = affine
        self.search, self.final = search, final
        self._fitted: dict[tuple[Architecture, Problem], float] = {}

    @abstractmethod
    def _choice(self, index: int, options: Sequence[int], block: BlockPlan) -> Choice:
        """Return the choice in block ``index`` for the options of its decisions."""

    @abstractmethod
    def _supernet(self, plan: SposPlan) -> Supernet:
        """Build the supernet."""

    @cached_property
    def limits(self) -> dict[str, float]:
        """The limits to which final networks are fitted by their width, by name."""
        limits = {"params": self.final.params, "macs": self.final.macs}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def limit(self, name: str) -> float | None:
        return self.limits.get(name)

    def fitted_width(self, architecture: Architecture, problem: Problem) -> float | None:
        """Return the factor of all channels, where a limit is given."""
        return self.width(architecture, problem, "final") if self.limits else None

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The decisions of each block."""
        return self.singles

    @cached_property
    def additive(self) -> tuple[tuple[int, ...], ...] | None:
        """``groups``; None if the width is fitted, as it then depends on all decisions."""
        return None if self.limits else self.groups

    def width(self, architecture: Architecture, problem: Problem, scale: Scale) -> float:
        """Return the factor of all channels; raises UserError if none is within the limits."""
        if scale == "search":
            return self.search.width
        if not self.limits:
            return self.final.width
        key = (architecture, problem)
        if key not in self._fitted:
            if len(self._fitted) > 10_000:
                self._fitted.clear()
            self._fitted[key] = self._fit(architecture, problem)
        return self._fitted[key]

    def _fit(self, architecture: Architecture, problem: Problem) -> float:
        """Find the largest multiple of the step within the limits by bisection."""

        def width(steps: int) -> float:
            return round(steps * self.final.step, 9)

        def exceeded(steps: int) -> str | None:
            cost = count_layers(self._layers(architecture, problem, width(steps)))
            for name, limit in self.limits.items():
                if getattr(cost, name) > limit:
                    return f"{limit:,.10g} {name}: this one has {getattr(cost, name):,}"
            return None

        if found := exceeded(1):
            raise UserError(
                f"an architecture of {self.name} has no network, not even one of width "
                f"{width(1):g}, of at most {found}; raise search_space.final's limits, or lower "
                "search_space.final.step"
            )
        low, high = 1, int(MAX_WIDTH / self.final.step) + 1  # low fits; high is excluded
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if exceeded(middle) is None else (low, middle)
        return width(low)

    def _choices(self, architecture: Architecture, plan: SposPlan) -> list[Choice]:
        """Return the choice in each block."""
        options = architecture.choices
        return [
            self._choice(index, [options[decision] for decision in decisions], block)
            for index, (decisions, block) in enumerate(zip(self.groups, plan.blocks, strict=True))
        ]

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Supernet:
        self.refuse_auxiliary(auxiliary)
        return self._supernet(plan_network(problem, self.stem, self.search.width))

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> SposNetwork:
        self.refuse_auxiliary(auxiliary)
        width = self.width(self.check(architecture), problem, scale)
        plan = plan_network(problem, self.stem, width)
        return SposNetwork(plan, self._choices(architecture, plan))

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, blocks and head.

        Names contain the operation, its channels, the input's side and the stride:
        ``spos/shuffle_3x3 32-32-32 28 s1`` has 32 channels before, inside and after the main
        branch.
        """
        return self._layers(architecture, problem, self.width(architecture, problem, scale))

    def _layers(self, architecture: Architecture, problem: Problem, width: float) -> list[Layer]:
        plan = plan_network(problem, self.stem, width)
        return list_layers(plan, self._choices(architecture, plan))

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The stages of the chain, with the shape of each output."""
        plan = plan_network(problem, self.stem, self.width(architecture, problem, scale))
        labels = [
            with_shape(words(OPERATION_NAMES[choice.op]), b.outputs, b.size_out, b.stride)
            + self._inside(choice)
            for choice, b in zip(self._choices(architecture, plan), plan.blocks, strict=True)
        ]
        stem = with_shape("stem conv 3×3", plan.stem, plan.stem_size, plan.stem_stride)
        head = with_shape("conv 1×1", plan.features, plan.size)
        return chain_in_stages(problem, stem, labels, head, [count for count, _ in STAGE_WIDTHS])

    def _inside(self, choice: Choice) -> str:
        """Return the line of a label that tells the channels inside a block, if they are chosen."""
        return ""

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        if scale == "final" and self.limits:
            return count_layers(self.layers(architecture, problem, scale))
        return super().cost(architecture, problem, scale)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Return upper bounds; where widths are fitted: the limits, or the costs of the widest."""
        if scale == "search" or not self.limits:
            return super().cost_bound(problem, scale)
        start = Architecture(self.name, (0,) * len(self.decisions))

        def widest(architecture: Architecture) -> Cost:
            return count_layers(self._layers(architecture, problem, MAX_WIDTH))

        first = widest(start)
        params, macs = first.params, first.macs
        for group in self.groups:
            costs = [widest(variant) for variant in self.variants(start, group)]
            params += max(cost.params for cost in costs) - first.params
            macs += max(cost.macs for cost in costs) - first.macs
        return Cost(
            min(params, int(self.limits.get("params", params))),
            min(macs, int(self.limits.get("macs", macs))),
        )


class SposBlocks(SposSpace):
    """``spos_blocks``: twenty decisions of four operations, 4²⁰ architectures.

    An architecture is written as twenty digits: 0, 1, 2 are shuffle blocks of kernel 3, 5, 7, and 3
    is the Xception-like block. At width 1, on 3×224×224 images of 1,000 classes, the released
    architecture 21012020202300003233 has 322.9 M multiply-adds and 3.56 M parameters.
    """

    name = "spos_blocks"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(op_of(block) for block in range(BLOCK_COUNT))

    def _choice(self, index: int, options: Sequence[int], block: BlockPlan) -> Choice:
        (op,) = options
        return Choice(op, block.mid)

    def _supernet(self, plan: SposPlan) -> BlocksSupernet:
        return BlocksSupernet(plan, affine=self.affine)

    def write(self, architecture: Architecture) -> str:
        return "".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """Read twenty digits; raises UserError for anything else."""
        return super().parse(" ".join(text.strip()))
