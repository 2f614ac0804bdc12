"""Measure a supernet step on the CPU, with and without what makes it fast, in one thread.

    python scripts/bench_cpu_step.py [--paths 20] [--repeats 3]

Each row adds to the row above: weight gradients of depthwise convolutions that are ours
(depthwise.py); small 1×1 convolutions as matrix products, no slices of everything
(operation.Pointwise), ReLU in place in NAS-Bench-Macro's layers; one fused update for all weights
(trainer/updates.py). All rows take the same random paths, one after the other in one run. Times
are means over the paths of the process's own time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nasrun.search_space import depthwise, operation
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.search_space.nas_bench_macro import NasBenchMacro
from nasrun.values import Problem

CELL, QUARTER = CellScale(layers=1, channels=16), WidthScale(width=0.25)


@dataclass(frozen=True)
class Case:
    """A supernet and its batch. classes of the problem: always 10."""

    name: str
    space: SearchSpace
    problem: Problem
    batch: int


CASES = (
    Case(
        "NAS-Bench-Macro, width 0.25, 16×16, batch 128",
        NasBenchMacro(affine=True, search=QUARTER, final=QUARTER),
        Problem(3, 16, 10),
        128,
    ),
    Case(
        "the default job: NAO's cells, 8×8, batch 32",
        NaoCell(operations="small", nodes=5, stem="small", search=CELL, final=CELL),
        Problem(1, 8, 10),
        32,
    ),
)

ROWS = ("before", "depthwise", "pointwise", "fused update")


def sliced(layer: operation.Pointwise, x: Tensor) -> Tensor:
    """Compute a 1×1 convolution as before: sliced at every stride, by oneDNN at every size."""
    return nn.Conv2d.forward(layer, x[:, :, :: layer.subsample, :: layer.subsample])


def measure(case: Case, paths: int, repeats: int) -> list[float]:
    """Return the milliseconds of a step of each row."""
    torch.manual_seed(0)
    supernet = case.space.supernet(case.problem).to(memory_format=torch.channels_last).train()
    weights = list(supernet.parameters())
    groups = [[w for w in weights if w.dim() > 1], [w for w in weights if w.dim() < 2]]
    optimisers = [
        torch.optim.SGD(
            [{"params": groups[0], "weight_decay": 3e-4}, {"params": groups[1]}],
            *(1e-3, 0.9),
            nesterov=True,
            fused=fused,
        )
        for fused in (False, True)
    ]
    for weight in weights:  # fused updates need the buffers of all weights, or of none
        optimisers[1].state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    x = torch.randn(
        case.batch, case.problem.channels, case.problem.size.height, case.problem.size.width
    )
    images, labels = x.contiguous(memory_format=torch.channels_last), torch.arange(case.batch) % 10

    in_place = [m for m in supernet.modules() if isinstance(m, nn.ReLU) and m.inplace]

    def step(row: int, choices: tuple[int, ...]) -> None:
        gains: Callable[..., bool] = depthwise.gains if row >= 1 else lambda *_: False
        forward = operation.Pointwise.forward if row >= 2 else sliced
        optimiser = optimisers[row >= 3]
        with (
            patch.object(depthwise, "gains", gains),
            patch.object(operation.Pointwise, "forward", forward),
        ):
            F.cross_entropy(supernet(images, choices), labels).backward()
        nn.utils.clip_grad_norm_([w for w in weights if w.grad is not None], 5.0)
        for group, members in zip(optimiser.param_groups, groups, strict=True):
            group["params"] = [w for w in members if w.grad is not None]
        optimiser.step()
        for weight in weights:
            weight.grad = None

    rng = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in ROWS]
    for choices in [case.space.sample(rng).choices for _ in range(paths)]:
        of_path: list[list[float]] = [[] for _ in ROWS]
        for _ in range(repeats + 1):
            for row in range(len(ROWS)):
                for relu in in_place:
                    relu.inplace = row >= 2
                begin = time.process_time()
                step(row, choices)
                of_path[row].append(1e3 * (time.process_time() - begin))
        for row, found in enumerate(of_path):
            times[row].append(statistics.median(found[1:]))  # the first warms up
    return [statistics.mean(row) for row in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=20, help="random paths of each supernet")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each path and row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for case in CASES:
        table = Table(title=f"{case.name} (CPU, 1 thread, torch {torch.__version__})")
        for column in ("", "step (ms)", "times as fast"):
            table.add_column(column, justify="right")
        found = measure(case, options.paths, options.repeats)
        for name, milliseconds in zip(ROWS, found, strict=True):
            table.add_row(name, f"{milliseconds:.1f}", f"{found[0] / milliseconds:.2f}")
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
