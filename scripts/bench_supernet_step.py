"""Measure a supernet step against a step of the same architecture's stand-alone network.

Both have the same batch and trainer, and are interleaved in one run.

    python scripts/bench_supernet_step.py [--size 32] [--batch 64] [--layers 3] [--channels 20]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nasrun.dataset.base import Batch, Split
from nasrun.run.compute import Compute
from nasrun.search_space.gates import Gates
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.streams import Streams
from nasrun.trainer.schedule import Schedule
from nasrun.trainer.trainer import Trainer
from nasrun.trainer.training import Training
from nasrun.values import Problem


class NoImages(Split):
    """A split without images, since only steps are measured, not the training loop."""

    def __len__(self) -> int:
        return 1000

    def fingerprint(self) -> str:
        return "none"

    def train_batches(self, *_: object, **__: object) -> Iterator[Batch]:
        yield from ()

    def eval_batches(self, *_: object, **__: object) -> Iterator[Batch]:
        yield from ()


def trainer(batch: int) -> Trainer:
    schedule = Schedule(
        kind="constant",
        lr=0.025,
        lr_end=0.0,
        spans="round",
        cycle_epochs=0,
        cycle_factor=1,
        power=1,
        decay=1,
        warmup_epochs=0,
    )
    return Trainer(
        epochs=1,
        batch_size=batch,
        schedule=schedule,
        momentum=0.9,
        nesterov=False,
        weight_decay=3e-4,
        decay_norm_and_bias=False,
        clip=5.0,
        label_smoothing=0.0,
        dropout_keep=1.0,
        drop_path_keep=0.9,
        auxiliary_weight=0.0,
        cutout=0,
        log_every=20,
    )


def seconds(training: Training, batch: Batch, gates: list[Gates] | None) -> float:
    begin = time.perf_counter()
    measured = training.batch_gradients.add(*batch, gates, training.position)
    training.update(measured, gates).sum().item()  # .item() waits for the device
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=32, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3, help="N")
    parser.add_argument("--channels", type=int, default=20, help="C")
    parser.add_argument("--architectures", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each")
    options = parser.parse_args()

    scale = CellScale(layers=options.layers, channels=options.channels)
    space = NaoCell(operations="small", nodes=5, stem="small", search=scale, final=scale)
    problem = Problem(3, options.size, 10)
    compute = Compute.choose(options.device, precision="auto", deterministic=False)
    streams, train = Streams(0), trainer(options.batch)
    images = torch.randn(options.batch, 3, options.size, options.size, device=compute.device)
    batch = images, torch.randint(10, (options.batch,), device=compute.device)
    shared = train.bind(space.supernet(problem), NoImages(), compute, streams)
    shared.network.train()
    rng = np.random.default_rng(0)

    table = Table(title=f"{compute.describe()}, torch {torch.__version__}, {options}")
    for column in (
        "architecture",
        "MACs (M)",
        "supernet step (ms)",
        "stand-alone step (ms)",
        "ratio",
    ):
        table.add_column(column, justify="right")
    ratios = []
    for index in range(options.architectures):
        architecture = space.sample(rng)
        alone = train.bind(
            space.network(architecture, problem, "search"), NoImages(), compute, streams
        )
        alone.network.train()
        pairs = [
            (seconds(shared, batch, [architecture.choices]), seconds(alone, batch, None))
            for _ in range(options.repeats + 1)
        ][1:]  # the first pair warms up
        ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratios.append(ours / theirs)
        macs = space.cost(architecture, problem).macs
        table.add_row(
            str(index),
            f"{macs / 1e6:.1f}",
            f"{1e3 * ours:.1f}",
            f"{1e3 * theirs:.1f}",
            f"{ratios[-1]:.3f}",
        )
    console = Console(width=140)
    console.print(table)
    console.print(
        f"ratio: median {statistics.median(ratios):.3f}, mean {statistics.mean(ratios):.3f}, "
        f"s.d. {statistics.stdev(ratios):.3f}, n = {len(ratios)} architectures"
    )


if __name__ == "__main__":
    main()
