"""Measure our weight gradient of depthwise convolutions against oneDNN's, in one CPU thread.

    python scripts/bench_depthwise.py [--repeats 9] [--batch 128]

The weight gradient alone, for a table of shapes; whole steps: scripts/bench_cpu_step.py. Both sides
are interleaved in one run; times are medians of the process's own time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nasrun.search_space import depthwise

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each")
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
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
