"""Measure training steps of two ranks with a thread each against one process with two threads.

Both have the same cores and the same batches. A row is the ratio of their times, the median over
rounds, which are interleaved; each measurement is made by processes of their own. ``alone`` is one
process with one thread, so its ratio tells how much of the second core is used at all.

    python scripts/bench_ranks.py [--steps 40] [--rounds 5] [--spaces nas_bench_macro spos ...]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

WAYS = {
    # ranks, threads of each, further settings
    "one process, 2 threads": (1, 2, []),
    "one process, 1 thread": (1, 1, []),
    "2 ranks, joint statistics": (2, 1, []),
    "2 ranks, own statistics": (2, 1, ["sync_batch_norm=false"]),
    "2 ranks, a path each": (2, 1, ["path_rules.slices=2"]),
}

MEASURE = """
import sys, time
import torch
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.run import ranks
from nasrun.run.compute import Compute
from nasrun.streams import Streams

threads, steps, side, *words = sys.argv[1:]
torch.set_num_threads(int(threads))
own = ranks.place()
if own.size > 1:
    ranks.join(own)
size = [f"dataset.image_size={side}", "dataset.train_images=2048", "dataset.validation=64"]
line = ["task=search", "dataset=synthetic", "sampler=uniform", "search_algo=random", *size, *words]
setup = build_setup(compose(line))
compute = Compute.choose(
    "cpu", precision="fp32", deterministic=False, sync_batch_norm=setup.sync_batch_norm
)
streams = Streams(0)
splits = setup.dataset.load(streams, compute.device)
with streams.default("init"):
    supernet = setup.search_space.supernet(splits.problem)
rules = setup.path_rules.bind(setup.search_space, splits.problem, streams, setup.ghost_batch)
training = setup.trainer.bind(supernet, splits.train, compute, streams, rules=rules)
gates = setup.gates(splits.problem, None, streams, steps=1000, steps_per_epoch=16)
batches = splits.train.train_batches(setup.trainer.batch_size, streams=streams)
training.network.train()
times = []
for step in range(int(steps) + 5):
    batch = next(batches)
    begin = time.perf_counter()
    chosen = gates(step)
    training.update(training.batch_gradients.add(*batch, chosen, training.position), chosen)
    times.append(time.perf_counter() - begin)
    training.step += 1
if own.rank == 0:
    print(sum(times[5:]) / int(steps))
ranks.leave(failed=False)
"""


def seconds(ranks: int, threads: int, steps: int, side: int, words: list[str]) -> float:
    """Return the seconds of a training step by so many new processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = [sys.executable, "-c", MEASURE, *map(str, (threads, steps, side)), *words]
    several = {"WORLD_SIZE": f"{ranks}", "LOCAL_WORLD_SIZE": f"{ranks}"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "OMP_NUM_THREADS": f"{threads}"}
    started = [
        subprocess.Popen(
            arguments,
            env={**os.environ, **several, **place, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a measurement has failed")
    return float(told[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=16, help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--spaces", nargs="+", default=["nas_bench_macro", "nas_bench_201"])
    wanted = parser.parse_args()
    table = Table("space", "way", "ms a step", "time ÷ one process, 2 threads", "least", "most")
    for space in wanted.spaces:
        words = [f"search_space={space}", f"trainer.batch_size={wanted.batch}"]
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(wanted.rounds):
            for way, (ranks, threads, more) in WAYS.items():
                took = seconds(ranks, threads, wanted.steps, wanted.side, [*words, *more])
                found[way].append(took)
                print(f"{space}, round {number}, {way}: {1000 * took:.1f} ms", flush=True)
        first = found[next(iter(WAYS))]
        for way, times in found.items():
            ratios = [a / b for a, b in zip(times, first, strict=True)]
            middle = [f"{1000 * statistics.median(times):.1f}", f"{statistics.median(ratios):.2f}"]
            table.add_row(space, way, *middle, f"{min(ratios):.2f}", f"{max(ratios):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
