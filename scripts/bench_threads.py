"""Measure training steps beside a busy process, by what the waiting threads of OpenMP do.

Each row is the time of a step against that of torch's default with as many threads on the same
machine, alone and beside processes that compute without end. Rounds are interleaved; each
measurement is a process of its own, since OpenMP reads its environment as it is loaded.

    python scripts/bench_threads.py [--steps 150] [--rounds 3] [--threads 2] [--busy 1]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack

from rich.console import Console
from rich.table import Table

WAITING = {
    "OMP_WAIT_POLICY": "passive",  # the standard's word, of all libraries
    "GOMP_SPINCOUNT": "0",  # GNU's OpenMP, in torch's wheels for Linux
    "KMP_BLOCKTIME": "0",  # LLVM's and Intel's OpenMP, in other builds of torch; milliseconds
}
"""Variables of the environment by which waiting threads sleep at once instead of spinning."""

MEASURE = """
import sys, time
import numpy as np
import torch
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.values import Problem

threads, steps = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
setup = build_setup(compose(["task=search"]))
problem = Problem(1, 8, 10)
space = setup.search_space
network = space.network(space.sample(np.random.default_rng(0)), problem, "search", auxiliary=False)
optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
images, labels = torch.randn(64, 1, 8, 8), torch.arange(64) % 10
times = []
for step in range(steps + 5):
    begin = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()
    times.append(time.perf_counter() - begin)
print(sum(times[5:]) / steps)
"""

BUSY = "while True: pass"


def seconds(threads: int, steps: int, policy: dict[str, str]) -> float:
    """Seconds of a training step in a new process with these variables of the environment."""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    kept.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(threads), str(steps)],
        env=kept | policy,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=1, help="processes that compute beside it")
    wanted = parser.parse_args()
    ways = {
        "default": (wanted.threads, {}),
        "sleeping": (wanted.threads, WAITING),
        "one thread": (1, {}),
    }
    table = Table("beside", "way", "ms a step", "ratio to default")
    for busy in (0, wanted.busy):
        found: dict[str, list[float]] = {way: [] for way in ways}
        with ExitStack() as stack:
            for _ in range(busy):
                other = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
                stack.callback(other.kill)
            for _ in range(wanted.rounds):
                for way, (threads, policy) in ways.items():
                    found[way].append(seconds(threads, wanted.steps, policy))
                    print(f"{busy} busy, {way}: {1000 * found[way][-1]:.1f} ms", flush=True)
        default = statistics.median(found["default"])
        for way, times in found.items():
            middle = statistics.median(times)
            table.add_row(f"{busy}", way, f"{1000 * middle:.1f}", f"{middle / default:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
