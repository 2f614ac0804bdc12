"""The surrogate of PNAS: an ensemble that predicts the score of a cell from its blocks.

Shapes: N cells of b blocks, T decisions of a block, E units of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from nasrun.errors import UserError
from nasrun.limits import Count, Strength, Width
from nasrun.run.monitor import Monitor, Stage
from nasrun.search_space.capabilities import GrowingCells
from nasrun.streams import Streams

Rate = Annotated[Strength, Field(gt=0)]

Blocks = Sequence[Sequence[int]]
"""The choices of each block of a cell."""

PREDICTED_AT_ONCE = 2**15
"""Cells in one pass of a prediction."""

SURE = 0.99
"""Bound of the mean score, and of its distance from 0, by which the output's bias begins."""


class SurrogateSettings(BaseModel):
    """Settings of the ensemble and of its training; units and sources stand in the YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mlp", "lstm"]
    members: Annotated[int, Field(gt=0, le=100)]
    share: Annotated[float, Field(gt=0, le=1)]
    embedding: Width
    hidden: Width
    init_range: Strength
    epochs: Count
    batch: Count
    lr_first: Rate
    lr: Rate


class Member(nn.Module):
    """One predictor: blocks [N, b, T] of cells of one size, int64 -> scores [N] in (0, 1).

    Decisions of one kind share an embedding. ``mlp``: the embeddings of a block side by side, the
    mean over the blocks, one hidden layer. ``lstm``: reads the decisions one after the other. Both
    take cells of any number of blocks.
    """

    def __init__(self, settings: SurrogateSettings, space: GrowingCells) -> None:
        """Make the predictor, with weights from torch's default generator."""
        super().__init__()
        widths: dict[str, int] = {}
        kinds = [decision.kind for decision in space.block_decisions]
        for decision in space.block_decisions:
            widths[decision.kind] = max(widths.get(decision.kind, 0), len(decision.options))
        self.tables = [list(widths).index(kind) for kind in kinds]
        self.embeddings = nn.ModuleList(
            nn.Embedding(width, settings.embedding) for width in widths.values()
        )
        self.lstm = (
            nn.LSTM(settings.embedding, settings.hidden, batch_first=True)
            if settings.kind == "lstm"
            else None
        )
        joined = settings.embedding * len(kinds)
        self.inner = nn.Linear(joined, settings.hidden) if self.lstm is None else None
        self.last = nn.Linear(settings.hidden, 1)
        for table in self.embeddings:
            nn.init.uniform_(
                cast(nn.Embedding, table).weight, -settings.init_range, settings.init_range
            )

    def forward(self, blocks: Tensor) -> Tensor:
        embedded = torch.stack(
            [self.embeddings[table](blocks[:, :, i]) for i, table in enumerate(self.tables)], dim=2
        )  # [N, b, T, E]
        if self.lstm is not None:
            output, _ = self.lstm(embedded.flatten(1, 2))
            found = output[:, -1]
        else:
            assert self.inner is not None  # noqa: S101
            found = F.relu(self.inner(embedded.flatten(2).mean(1)))
        scores: Tensor = torch.sigmoid(self.last(found))[:, 0]
        return scores


class Surrogate:
    """The ensemble: the mean of its members, each trained on another share of the cells."""

    def __init__(self, settings: SurrogateSettings, space: GrowingCells, streams: Streams) -> None:
        self.settings, self.streams = settings, streams
        with streams.default("surrogate/init"):
            self.members = nn.ModuleList(Member(settings, space) for _ in range(settings.members))

    def fit(
        self, level: int, cells: Sequence[Blocks], scores: Sequence[float], monitor: Monitor
    ) -> None:
        """Train on the cells of one level, which all have as many blocks, from the present weights.

        level: 1 for the first, before which the biases are set to the mean score. The loss is the
        absolute error. The weights change at the end alone, so that a training that was interrupted
        begins anew. Raises UserError if the loss is not finite.
        """
        blocks, targets = torch.tensor(cells), torch.tensor(scores)
        members = deepcopy(self.members)
        if level == 1:
            mean = min(max(targets.mean().item(), 1 - SURE), SURE)
            for member in members:
                nn.init.constant_(cast(Member, member).last.bias, math.log(mean / (1 - mean)))
        total = self.settings.epochs * len(members)
        with monitor.stage(f"surrogate/blocks{level}", total) as stage:
            for index, member in enumerate(members):
                self._fit_member(cast(Member, member), (level, index), blocks, targets, stage)
                monitor.poll()
        self.members = members

    def _fit_member(
        self, member: Member, place: tuple[int, int], blocks: Tensor, targets: Tensor, stage: Stage
    ) -> None:
        """Train a member on a random share of the cells. place: the level, and its number."""
        settings = self.settings
        rate = settings.lr_first if place[0] == 1 else settings.lr
        optimiser = torch.optim.Adam(member.parameters(), lr=rate)
        shuffle = self.streams.torch("surrogate/share", *place)
        count = max(round(settings.share * len(blocks)), 1)
        chosen = torch.randperm(len(blocks), generator=shuffle)[:count]
        for epoch in range(settings.epochs):
            generator = self.streams.torch("surrogate/batches", *place, epoch)
            order = chosen[torch.randperm(count, generator=generator)]
            losses = 0.0
            for batch in torch.split(order, settings.batch):
                loss = F.l1_loss(member(blocks[batch]), targets[batch])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses += loss.item() * len(batch)
            if not math.isfinite(losses):
                raise UserError(
                    f"the loss of the surrogate is not finite at {place[0]} blocks: lower "
                    "search_algo.surrogate.lr_first or search_algo.surrogate.lr"
                )
            stage.advance(1, loss=losses / count)

    @torch.no_grad()
    def predict(self, cells: Sequence[Blocks]) -> Tensor:
        """Return the predicted scores [N] of cells that all have as many blocks."""
        found = [
            torch.stack([member(blocks) for member in self.members]).mean(0)
            for blocks in torch.split(torch.tensor(cells), PREDICTED_AT_ONCE)
        ]
        return torch.cat(found)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.members.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises RuntimeError if it does not fit."""
        self.members.load_state_dict(state)
