"""The supernet of ``one_shot_blocks`` and its stand-alone networks.

Both are a stack of equal cells, with all or some of the inputs and operations of each block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.gates import Gates, Weights, weight_of_on, weighted
from nasrun.search_space.noise import Noise
from nasrun.search_space.one_shot_blocks.operations import (
    BLOCK_OPERATIONS,
    OPERATION_NAMES,
    norm_relu,
)
from nasrun.search_space.one_shot_blocks.wiring import (
    PREVIOUS_CELLS,
    Block,
    Needs,
    Wiring,
    input_at,
    needs_of,
    operation_at,
    wire,
)
from nasrun.search_space.operation import Pointwise
from nasrun.search_space.stages import StagePlan, reduced_side


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


class ChoiceBlock(nn.Module):
    """Inputs [B, C, H, W] each -> the sum of the open operations [B, C, H, W].

    A 1×1 convolution of the concatenated inputs is the sum of a 1×1 convolution of each input. So
    convolutions of closed inputs are not computed.
    """

    def __init__(self, channels: int, block: Block) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict(
            {str(state): Pointwise(channels, channels) for state in block.inputs}
        )
        self.operations = nn.ModuleDict(
            {
                str(op): BLOCK_OPERATIONS[OPERATION_NAMES[op]].module(channels, 1)
                for op in block.operations
            }
        )
        self.output = Pointwise(channels, channels)

    def forward(
        self,
        states: Mapping[int, Tensor],
        wiring: Block,
        inputs: Weights,
        operations: Weights,
        noise: Noise,
        depth: float,
    ) -> Tensor:
        """Compute the block; inputs, operations: weights by state and by operation."""
        x: Tensor | None = None
        for state in wiring.inputs:
            x = _plus(x, weighted(inputs[state], self.inputs[str(state)](states[state])))
        out: Tensor | None = None
        for op in wiring.operations:
            term = noise.drop_path(self.operations[str(op)](x), depth)
            out = _plus(out, weighted(operations[op], term))
        assert out is not None  # only blocks that are on are run  # noqa: S101
        return out


class Cell(nn.Module):
    """Outputs of cells k-2 and k-1, [B, C, H, W] each -> [B, C, H, W].

    The output is a 1×1 convolution of the concatenated blocks, again as a sum over the blocks that
    are on. Every 1×1 convolution reads its state after batch norm and ReLU, which are computed once
    per state.
    """

    def __init__(self, channels: int, wiring: Wiring) -> None:
        super().__init__()
        self.norms = nn.ModuleDict(
            {str(state): nn.Sequential(*norm_relu(channels)) for state in wiring.states}
        )
        self.blocks = nn.ModuleDict(
            {
                str(index): ChoiceBlock(channels, block)
                for index, block in enumerate(wiring.blocks)
                if block.on
            }
        )

    def forward(
        self,
        before: Sequence[Tensor | None],
        wiring: Wiring,
        weights: Weights,
        noise: Noise,
        depth: float,
    ) -> Tensor:
        """Compute the cell; before: cells k-2 and k-1, None if no block reads them."""
        states: dict[int, Tensor] = {}
        for state, x in enumerate(before):
            if x is not None and state in wiring.states:
                states[state] = self.norms[str(state)](x)
        total: Tensor | None = None
        for index, opened in enumerate(wiring.blocks):
            if not opened.on:
                continue
            block = self.blocks[str(index)]
            first, operations = input_at(index, 0), operation_at(index, 0)
            out = block(
                states,
                opened,
                weights[first:operations],
                weights[operations : operations + len(OPERATION_NAMES)],
                noise,
                depth,
            )
            state = index + len(PREVIOUS_CELLS)
            states[state] = self.norms[str(state)](out)
            total = _plus(total, block.output(states[state]))  # type: ignore[operator]
        assert total is not None  # only cells that are on are run  # noqa: S101
        return total


def reduction(channels: int) -> nn.Sequential:
    """Build the reduction of one state: [B, C, H, W] -> [B, 2C, ceil(H / 2), ceil(W / 2)]."""
    convolution = nn.Conv2d(channels, 2 * channels, 3, 2, padding=1, bias=False)
    return nn.Sequential(*norm_relu(channels), convolution)


def stem(plan: StagePlan) -> nn.Sequential:
    """Build the stem: [B, C, H, W] -> [B, channels of the first stage, H', W']."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs, stride) in enumerate(plan.stem):
        layers += norm_relu(inputs) if index else []
        layers.append(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False))
    return nn.Sequential(*layers)


class BlockStack(Network):
    """Stem, three stages of cells with reductions between, BN, ReLU, pooling, dropout, linear.

    Each of the two states has a reduction of its own. The stem counts as cells -2 and -1. Cells
    that do not lead to the last one are not computed. Weights are initialised by torch's defaults.
    """

    def __init__(self, plan: StagePlan, wiring: Wiring) -> None:
        """Build the stack. wiring: the same for every cell."""
        super().__init__()
        self.plan, self.block_count = plan, len(wiring.blocks)
        needs = needs_of(wiring, plan.depth)
        self.stem = stem(plan)
        cells: dict[str, nn.Module] = {}
        reductions: dict[str, nn.Module] = {}
        for index, stage in enumerate(plan.stages):
            start = index * stage.depth
            if index > 0:
                channels = plan.stages[index - 1].channels
                wanted = {"older": needs[start].older, "newer": needs[start].newer}
                reductions[str(index)] = nn.ModuleDict(
                    {name: reduction(channels) for name, need in wanted.items() if need}
                )
            for k in range(start, start + stage.depth):
                if needs[k].cell:
                    cells[str(k)] = Cell(stage.channels, wiring)
        self.cells, self.reductions = nn.ModuleDict(cells), nn.ModuleDict(reductions)
        features = plan.stages[-1].channels
        self.head = nn.Sequential(*norm_relu(features))
        self.classifier = nn.Linear(features, plan.problem.classes)

    def logits(self, images: Tensor, gates: Gates) -> Tensor:
        """images [B, C, H, W] -> [B, K]; every cell has the same gates."""
        weights = [weight_of_on(gate) for gate in gates]
        wiring = wire([weight is not None for weight in weights], self.block_count)
        x: Tensor = self.stem(images)
        if wiring.on:
            x = self._run(x, wiring, weights)
        else:
            last = self.plan.stages[-1].channels
            height, width = (reduced_side(side, 4) for side in x.shape[2:])
            x = x.new_zeros(len(x), last, height, width)
        pooled = self.head(x).mean((2, 3))
        logits: Tensor = self.classifier(self.noise.dropout(pooled))
        return logits

    def _run(self, x: Tensor, wiring: Wiring, weights: Weights) -> Tensor:
        """Compute the cells: from the output of the stem to that of the last cell."""
        count, a_stage = self.plan.depth, self.plan.stages[0].depth
        older: Tensor | None = x
        newer: Tensor | None = x
        for k, need in enumerate(needs_of(wiring, count)):
            if k > 0 and k % a_stage == 0:
                older, newer = self._reduce(k // a_stage, need, older, newer)
            out: Tensor | None = None
            if need.cell:
                cell = self.cells[str(k)]
                out = cell((older, newer), wiring, weights, self.noise, (k + 1) / count)
            older, newer = newer, out
        assert newer is not None  # the last cell is needed  # noqa: S101
        return newer

    def _reduce(
        self, stage: int, need: Needs, older: Tensor | None, newer: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return both states at the stage's resolution, as far as they are needed."""
        reductions = self.reductions[str(stage)]
        return (
            reductions["older"](older) if need.older else None,  # type: ignore[index]
            reductions["newer"](newer) if need.newer else None,  # type: ignore[index]
        )


class BlockNetwork(BlockStack):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(self, plan: StagePlan, wiring: Wiring, choices: Sequence[int]) -> None:
        super().__init__(plan, wiring)
        self.choices = tuple(choices)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class BlockSupernet(BlockStack, Supernet):
    """All inputs and operations of every block: images and the gates of a cell -> logits [B, K].

    The weights have the names that they have in a stand-alone network.
    """

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        for cell in self.cells.values():
            for index, block in cell.blocks.items():  # type: ignore[union-attr,operator]
                for state, module in block.inputs.items():
                    yield module, [(input_at(int(index), int(state)), 1)]
                for operation, module in block.operations.items():
                    yield module, [(operation_at(int(index), int(operation)), 1)]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)
