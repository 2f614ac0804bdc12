"""Measure the seconds for exact parameters and multiply-adds of random architectures.

python scripts/bench_costs.py [--count 1000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.values import Problem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    problem, rng = Problem(3, 32, 10), np.random.default_rng(0)
    table = Table(title=f"costs of {options.count} architectures at N=6, C=36, one thread")
    for column in ("operations", "seconds"):
        table.add_column(column, justify="right")
    for operations in ("small", "middle", "large"):
        scale = CellScale(layers=6, channels=36)
        space = NaoCell(operations=operations, nodes=5, stem="small", search=scale, final=scale)
        architectures = [space.sample(rng) for _ in range(options.count)]
        begin = time.perf_counter()
        for architecture in architectures:
            space.cost(architecture, problem, "final")
        table.add_row(operations, f"{time.perf_counter() - begin:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
