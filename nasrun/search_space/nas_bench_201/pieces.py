"""What a stand-alone network of ``nas_bench_201`` computes, each operation by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from nasrun.search_space.base import Piece
from nasrun.search_space.nas_bench_201.cell import NAMES, NONE, OPTIONS
from nasrun.search_space.nas_bench_201.network import Reduction, Stage, head, stem
from nasrun.values import Problem


def list_pieces(stages: Sequence[Stage], problem: Problem, choices: Sequence[int]) -> list[Piece]:
    """Stem, the operations of all cells with the reductions in between, head."""
    channels = stages[0].channels
    found = [
        Piece(
            f"nas_bench_201/stem {problem.channels}-{channels} {problem.size}",
            (problem.channels, problem.size, problem.size),
            partial(stem, problem, channels),
        )
    ]
    for index, stage in enumerate(stages):
        if index > 0:
            found.append(_reduction(stages[index - 1]))
        # all cells of a stage are alike, so one list does for them
        cell = [_operation(choice, stage) for choice in choices if choice != NONE]
        found += cell * stage.cells
    return [*found, _head(stages[-1], problem)]


def _operation(choice: int, stage: Stage) -> Piece:
    name = NAMES[choice]
    return Piece(
        f"nas_bench_201/{name} {stage.channels} {stage.size}",
        (stage.channels, stage.size, stage.size),
        partial(OPTIONS[name].module, stage.channels, 1),
    )


def _reduction(stage: Stage) -> Piece:
    """That which follows the stage."""
    return Piece(
        f"nas_bench_201/reduction {stage.channels}-{2 * stage.channels} {stage.size}",
        (stage.channels, stage.size, stage.size),
        partial(Reduction, stage.channels),
    )


def _head(stage: Stage, problem: Problem) -> Piece:
    def build() -> nn.Module:
        return nn.Sequential(
            *head(stage.channels),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(stage.channels, problem.classes),
        )

    name = f"nas_bench_201/head {stage.channels}-{problem.classes} {stage.size}"
    return Piece(name, (stage.channels, stage.size, stage.size), build)
