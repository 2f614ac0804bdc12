"""Measure the images per second of augmentation: crop, flip, cutout, normalisation.

python scripts/bench_augmentation.py [--device auto] [--seconds 3]
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table

from nasrun.dataset.synthetic import Synthetic
from nasrun.run.compute import Compute
from nasrun.streams import Streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args()
    compute = Compute.choose(options.device, precision="auto", deterministic=False)
    streams = Streams(0)
    dataset = Synthetic(
        channels=3,
        image_size=32,
        classes=10,
        train_images=10_000,
        test_images=10,
        validation=100,
        crop_padding=4,
        flip=True,
        mean=[0.5],
        std=[0.25],
    )
    train = dataset.load(streams, compute.device).train
    table = Table(title=f"augmentation of 3×32×32 images, {compute.describe()}")
    for column in ("batch", "cutout", "images/s"):
        table.add_column(column, justify="right")
    for batch in (64, 256, 1024):
        for cutout in (0, 16):
            batches = train.train_batches(batch, streams=streams, cutout=cutout)
            for _ in range(3):
                next(batches)
            images, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < options.seconds:
                images += len(next(batches)[1])
                if compute.device.type == "cuda":
                    torch.cuda.synchronize()
            rate = images / (time.perf_counter() - begin)
            table.add_row(str(batch), str(cutout), f"{rate:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
