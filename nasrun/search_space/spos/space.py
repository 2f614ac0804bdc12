"""What the SPOS spaces have in common, and the one that chooses the blocks' operations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from itertools import product
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from nasrun.errors import UserError
from nasrun.search_space.base import Piece, Scale, SearchSpace, Supernet
from nasrun.search_space.gates import GateKind
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import total
from nasrun.search_space.spos.layers import NAMES, Choice, block_cost
from nasrun.search_space.spos.network import Block, BlocksSupernet, Head, SposNetwork, stem
from nasrun.search_space.spos.plan import BLOCKS, BlockPlan, SposPlan, StemKind, plan_network
from nasrun.values import Architecture, Cost, Decision, Problem


class SposScale(BaseModel):
    """width: factor of all channels; 1 is the published network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Annotated[float, Field(gt=0, le=16)]


def op_of(block: int) -> Decision:
    """The decision on the operation of a block."""
    return Decision(f"block{block:02}/op", NAMES)


class SposSpace(SearchSpace):
    """Chains of twenty blocks (Guo et al., ECCV 2020, arXiv 1904.00420).

    stem: imagenet as published, cifar for images of about 32 pixels.
    affine: whether the batch norms of the supernet scale and shift; stand-alone ones always do.

    ``Cost.params`` counts the batch norms' scales and shifts, ``Cost.macs`` the linear layer.
    """

    def __init__(
        self, *, stem: StemKind, affine: bool, search: SposScale, final: SposScale
    ) -> None:
        self.stem: StemKind = stem
        self.affine = affine
        self.scales: dict[Scale, SposScale] = {"search": search, "final": final}

    @property
    @abstractmethod
    def additive(self) -> tuple[tuple[int, ...], ...]:
        """The decisions of each block, by index."""

    @abstractmethod
    def _choice(self, index: int, options: Sequence[int], block: BlockPlan) -> Choice:
        """What the options of its decisions make of block ``index``."""

    @abstractmethod
    def _supernet(self, plan: SposPlan) -> Supernet:
        """The supernet of that plan."""

    def _plan(self, problem: Problem, scale: Scale, *, auxiliary: bool = False) -> SposPlan:
        if auxiliary:
            raise UserError(
                f"{self.name} has no auxiliary head: set auxiliary_weight=0 for this trainer"
            )
        return plan_network(problem, self.stem, self.scales[scale].width)

    def _choices(self, architecture: Architecture, plan: SposPlan) -> list[Choice]:
        """What is chosen in each block."""
        options = architecture.choices
        return [
            self._choice(index, [options[decision] for decision in decisions], block)
            for index, (decisions, block) in enumerate(zip(self.additive, plan.blocks, strict=True))
        ]

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Supernet:
        return self._supernet(self._plan(problem, "search", auxiliary=auxiliary))

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> SposNetwork:
        plan = self._plan(problem, scale, auxiliary=auxiliary)
        return SposNetwork(plan, self._choices(self.check(architecture), plan))

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        plan = self._plan(problem, scale)
        choices = self._choices(architecture, plan)
        return total([_stem_cost(plan), _head_cost(plan), *map(block_cost, plan.blocks, choices)])

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """The largest cost of every block, found among all of its options."""
        plan = self._plan(problem, scale)
        largest = [_stem_cost(plan), _head_cost(plan)]
        for index, (decisions, block) in enumerate(zip(self.additive, plan.blocks, strict=True)):
            ranges = [range(len(self.decisions[decision].options)) for decision in decisions]
            costs = [
                block_cost(block, self._choice(index, options, block))
                for options in product(*ranges)
            ]
            params, macs = max(cost.params for cost in costs), max(cost.macs for cost in costs)
            largest.append(Cost(params, macs))
        return total(largest)

    def pieces(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Piece]:
        """Stem, blocks and head. Names tell the operation, its channels, the input's side and the
        stride: ``spos/shuffle_3x3 32-32-32 28 s1`` has 32 channels into and inside the main branch
        and out of it."""
        plan = self._plan(problem, scale)
        found = [_stem_piece(plan)]
        for block, choice in zip(plan.blocks, self._choices(architecture, plan), strict=True):
            channels = f"{block.branch_inputs}-{choice.mid}-{block.branch_outputs}"
            name = f"spos/{NAMES[choice.op]} {channels} {block.size} s{block.stride}"
            shape = (block.inputs, block.size, block.size)
            found.append(Piece(name, shape, partial(Block, block, choice)))
        return [*found, _head_piece(plan)]


def _stem_cost(plan: SposPlan) -> Cost:
    weights = 9 * plan.problem.channels * plan.stem
    return Cost(weights + 2 * plan.stem, weights * plan.stem_size**2)


def _head_cost(plan: SposPlan) -> Cost:
    """1×1 convolution with batch norm, and linear layer without bias."""
    convolution = plan.blocks[-1].outputs * plan.features
    linear = plan.features * plan.problem.classes
    return Cost(
        convolution + 2 * plan.features + linear,
        convolution * plan.size**2 + linear,
    )


def _stem_piece(plan: SposPlan) -> Piece:
    problem = plan.problem
    name = (
        f"spos/stem_{plan.kind} {problem.channels}-{plan.stem} {problem.size} s{plan.stem_stride}"
    )
    return Piece(name, (problem.channels, problem.size, problem.size), partial(stem, plan))


def _head_piece(plan: SposPlan) -> Piece:
    inputs = plan.blocks[-1].outputs
    channels = f"{inputs}-{plan.features}-{plan.problem.classes}"

    def build() -> nn.Module:
        return Head(plan, Noise())

    name = f"spos/head_{plan.kind} {channels} {plan.size}"
    return Piece(name, (inputs, plan.size, plan.size), build)


class SposBlocks(SposSpace):
    """``spos_blocks``: twenty decisions of four operations, 4²⁰ architectures.

    Written down, an architecture is twenty digits: 0, 1, 2 shuffle blocks of kernel 3, 5, 7, and 3
    the Xception-like one. At width 1, on 3×224×224 images of 1,000 classes, the released
    architecture 21012020202300003233 has 322.9 M multiply-adds and 3.56 M parameters.
    """

    name = "spos_blocks"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(op_of(block) for block in range(BLOCKS))

    @property
    def additive(self) -> tuple[tuple[int, ...], ...]:
        return tuple((block,) for block in range(BLOCKS))

    def _choice(self, index: int, options: Sequence[int], block: BlockPlan) -> Choice:
        (op,) = options
        return Choice(op, block.mid)

    def _supernet(self, plan: SposPlan) -> BlocksSupernet:
        return BlocksSupernet(plan, affine=self.affine)

    def write(self, architecture: Architecture) -> str:
        return "".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """Twenty digits; raises UserError for anything else."""
        return super().parse(" ".join(text.strip()))
