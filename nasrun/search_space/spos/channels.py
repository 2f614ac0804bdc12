"""The SPOS spaces that choose how many channels the blocks have inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from nasrun.errors import UserError
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.gates import GateKind
from nasrun.search_space.spos.layers import Choice
from nasrun.search_space.spos.network import SlicedSupernet
from nasrun.search_space.spos.plan import BLOCK_COUNT, BlockPlan, SposPlan, StemKind
from nasrun.search_space.spos.space import SposBlocks, SposFinalScale, SposSpace, op_of
from nasrun.values import Decision

Ratios = Annotated[list[Annotated[float, Field(gt=0, le=4)]], Field(min_length=1, max_length=100)]
"""Channels inside a block, as factors of half of its output channels."""


Blocks = str | Annotated[int, Field(ge=0, lt=10**BLOCK_COUNT)]
"""Digits; Hydra turns them into a number if they do not begin with 0."""


class _ChannelSpace(SposSpace):
    """The base of spaces that decide on ratios.

    ratios: the options of each block's ratio, in rising order.
    """

    gate_kinds: frozenset[GateKind] = frozenset({"path"})

    def __init__(
        self,
        *,
        stem: StemKind,
        affine: bool,
        ratios: Ratios,
        search: WidthScale,
        final: SposFinalScale,
    ) -> None:
        super().__init__(stem=stem, affine=affine, search=search, final=final)
        if not all(low < high for low, high in pairwise(ratios)):
            raise UserError(f"ratios = {ratios}: must rise from each to the next")
        self.ratios = tuple(ratios)

    def _mid(self, ratio: int, block: BlockPlan) -> int:
        """Channels inside a block with that option."""
        return max(1, round(self.ratios[ratio] * block.mid))

    def _inside(self, choice: Choice) -> str:
        return f"\n{choice.mid} channels inside"

    def _ratio_of(self, block: int) -> Decision:
        return Decision(f"block{block:02}/ratio", tuple(map(str, self.ratios)))

    @cached_property
    def width_ratios(self) -> dict[int, tuple[float, ...]]:
        """The decisions on ratios, by index, and the ratios of their options."""
        return {
            index: self.ratios
            for index, decision in enumerate(self.decisions)
            if decision.kind == "ratio"
        }

    def _sliced(self, plan: SposPlan, ops: tuple[int, ...] | None) -> SlicedSupernet:
        options = range(len(self.ratios))
        mids = [[self._mid(ratio, block) for ratio in options] for block in plan.blocks]
        return SlicedSupernet(plan, mids, ops, affine=self.affine)


class SposChannels(_ChannelSpace):
    """``spos_channels``: the channels inside the blocks of one architecture of ``spos_blocks``.

    blocks: that architecture, as the twenty digits that its search ends with (a number if they do
    not begin with 0).

    In the supernet all ratios of a block share the weights of the largest one; smaller ones use the
    first channels. Inputs and outputs of a block do not depend on its ratio.
    """

    name = "spos_channels"

    def __init__(
        self,
        *,
        stem: StemKind,
        affine: bool,
        blocks: Blocks,
        ratios: Ratios,
        search: WidthScale,
        final: SposFinalScale,
    ) -> None:
        super().__init__(stem=stem, affine=affine, ratios=ratios, search=search, final=final)
        self.ops = _read_blocks(
            blocks, SposBlocks(stem=stem, affine=affine, search=search, final=final)
        )

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(self._ratio_of(block) for block in range(BLOCK_COUNT))

    def _choice(self, index: int, options: Sequence[int], block: BlockPlan) -> Choice:
        (ratio,) = options
        return Choice(self.ops[index], self._mid(ratio, block))

    def _supernet(self, plan: SposPlan) -> SlicedSupernet:
        return self._sliced(plan, self.ops)


def _read_blocks(blocks: str | int, space: SposBlocks) -> tuple[int, ...]:
    """Return the operations of the blocks; raises UserError that names the argument."""
    text = str(blocks)
    try:
        return space.parse(text).choices
    except UserError as error:
        # YAML reads digits that begin with 0 as a number in base 8, which has fewer digits.
        quotes = "; in YAML write the digits in quotes" if isinstance(blocks, int) else ""
        raise UserError(f"blocks = {text[:200]}: {error}{quotes}") from error


class SposBlocksChannels(_ChannelSpace):
    """``spos_blocks_channels``: the operation and the inner channels of every block.

    In the supernet each operation of a block has weights of its own, which its ratios share.
    """

    name = "spos_blocks_channels"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(
            decision
            for block in range(BLOCK_COUNT)
            for decision in (op_of(block), self._ratio_of(block))
        )

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The two decisions of each block."""
        return tuple((2 * block, 2 * block + 1) for block in range(BLOCK_COUNT))

    def _choice(self, index: int, options: Sequence[int], block: BlockPlan) -> Choice:
        op, ratio = options
        return Choice(op, self._mid(ratio, block))

    def _supernet(self, plan: SposPlan) -> SlicedSupernet:
        return self._sliced(plan, None)
