"""The base of the SPOS spaces, and the space of the blocks' operations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale, Supernet
from nasrun.search_space.gates import GateKind
from nasrun.search_space.layer import Layer
from nasrun.search_space.spos.layers import OPERATION_NAMES, Choice
from nasrun.search_space.spos.network import BlocksSupernet, SposNetwork, list_layers
from nasrun.search_space.spos.plan import BLOCK_COUNT, BlockPlan, SposPlan, StemKind, plan_network
from nasrun.values import Architecture, Decision, Problem


class SposScale(BaseModel):
    """The scale of a network. width: factor of all channels; 1 is the published network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Annotated[float, Field(gt=0, le=16)]


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
        self, *, stem: StemKind, affine: bool, search: SposScale, final: SposScale
    ) -> None:
        self.stem: StemKind = stem
        self.affine = affine
        self.scales: dict[Scale, SposScale] = {"search": search, "final": final}

    @abstractmethod
    def _choice(self, index: int, options: Sequence[int], block: BlockPlan) -> Choice:
        """Return the choice in block ``index`` for the options of its decisions."""

    @abstractmethod
    def _supernet(self, plan: SposPlan) -> Supernet:
        """Build the supernet."""

    def _plan(self, problem: Problem, scale: Scale) -> SposPlan:
        return plan_network(problem, self.stem, self.scales[scale].width)

    def _choices(self, architecture: Architecture, plan: SposPlan) -> list[Choice]:
        """Return the choice in each block; the groups of ``additive`` are the blocks' decisions."""
        options = architecture.choices
        return [
            self._choice(index, [options[decision] for decision in decisions], block)
            for index, (decisions, block) in enumerate(zip(self.additive, plan.blocks, strict=True))
        ]

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Supernet:
        self.refuse_auxiliary(auxiliary)
        return self._supernet(self._plan(problem, "search"))

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> SposNetwork:
        self.refuse_auxiliary(auxiliary)
        plan = self._plan(problem, scale)
        return SposNetwork(plan, self._choices(self.check(architecture), plan))

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, blocks and head.

        Names contain the operation, its channels, the input's side and the stride:
        ``spos/shuffle_3x3 32-32-32 28 s1`` has 32 channels before, inside and after the main
        branch.
        """
        plan = self._plan(problem, scale)
        return list_layers(plan, self._choices(architecture, plan))


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
