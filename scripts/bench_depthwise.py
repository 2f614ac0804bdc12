"""Measure our weight gradient of depthwise convolutions against oneDNN's, in one CPU thread.

    python scripts/bench_depthwise.py [--repeats 9] [--batch 128]

First the weight gradient alone, for a table of shapes; then a whole training step of the supernet
of NAS-Bench-Macro (width 0.25, images of 16×16, one random path), with and without ours. Both sides
are interleaved in one run; times are medians of the process's own time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nasrun.search_space import depthwise
from nasrun.search_space.nas_bench_macro import MacroScale, NasBenchMacro
from nasrun.values import Problem

SHAPES = (
    *((384, 2, 5, 1, 1), (192, 2, 3, 1, 1), (192, 4, 5, 1, 1), (192, 4, 5, 2, 1), (96, 6, 7, 1, 1)),
    *((48, 5, 5, 2, 1), (48, 3, 3, 2, 1), (48, 4, 3, 1, 2), (48, 8, 3, 1, 2), (48, 8, 5, 1, 2)),
    *((16, 16, 3, 1, 2), (16, 16, 5, 1, 2), (16, 16, 3, 2, 2), (16, 32, 5, 1, 2)),
)
"""Channels, side of the map, kernel, stride, dilation."""


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> list[float]:
    """Return the median milliseconds of both, and how many times as fast ours is."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for work, list_of_times in zip((ours, theirs), times, strict=True):
            begin = time.process_time()
            work()
            list_of_times.append(1e3 * (time.process_time() - begin))
    mine, other = (statistics.median(each[1:]) for each in times)  # the first warms up
    return [mine, other, other / mine]


def weight_gradients(
    batch: int, channels: int, side: int, kernel: int, stride: int, dilation: int, repeats: int
) -> list[float]:
    def image(side: int) -> Tensor:
        return torch.randn(batch, channels, side, side).contiguous(
            memory_format=torch.channels_last
        )

    x, gradient = image(side), image(-(-side // stride))
    weight, padding = torch.randn(channels, 1, kernel, kernel), dilation * (kernel // 2)
    return ratio(
        lambda: depthwise.weight_gradient(x, weight, gradient, stride, dilation),
        lambda: torch.ops.aten.convolution_backward(
            *(gradient, x, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, False),
            *([0, 0], channels, [False, True, False]),
        ),
        repeats,
    )


def supernet_steps(batch: int, paths: int, repeats: int) -> list[list[float]]:
    """Measure steps of random paths: [milliseconds with ours, without, ratio] for each path."""
    scale, problem = MacroScale(width=0.25), Problem(3, 16, 10)
    space = NasBenchMacro(affine=True, search=scale, final=scale)
    supernet = space.supernet(problem).to(memory_format=torch.channels_last)
    supernet.train()
    optimiser = torch.optim.SGD(supernet.parameters(), 0.01, momentum=0.9)
    images = torch.randn(batch, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    labels, rng = torch.randint(10, (batch,)), np.random.default_rng(0)

    def step(choices: tuple[int, ...]) -> None:
        optimiser.zero_grad()
        F.cross_entropy(supernet(images, choices), labels).backward()
        optimiser.step()

    def plain(choices: tuple[int, ...]) -> None:
        with patch.object(depthwise, "gains", lambda *_: False):
            step(choices)

    found = []
    for _ in range(paths):
        choices = space.sample(rng).choices
        found.append(ratio(lambda: step(choices), lambda: plain(choices), repeats))  # noqa: B023
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each")
    parser.add_argument("--paths", type=int, default=20, help="random paths of the supernet")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    table = Table(title=f"CPU, 1 thread, torch {torch.__version__}, {options}")
    for column in (
        "channels, side, kernel, stride, dilation",
        "ours (ms)",
        "oneDNN (ms)",
        "times as fast",
    ):
        table.add_column(column, justify="right")
    for shape in SHAPES:
        ours, theirs, faster = weight_gradients(options.batch, *shape, options.repeats)
        name = ", ".join(map(str, shape))
        table.add_row(name, f"{ours:.2f}", f"{theirs:.2f}", f"{faster:.1f}")
    console = Console(width=120)
    console.print(table)
    steps = supernet_steps(options.batch, options.paths, options.repeats)
    ours, theirs = (statistics.mean(column) for column in list(zip(*steps, strict=True))[:2])
    faster = [row[2] for row in steps]
    console.print(
        f"supernet step: mean {ours:.1f} ms, without {theirs:.1f} ms: {theirs / ours:.2f} times as "
        f"fast; paths: median {statistics.median(faster):.2f}, {min(faster):.2f} to "
        f"{max(faster):.2f}, n = {len(faster)}"
    )


if __name__ == "__main__":
    main()
