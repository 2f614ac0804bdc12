"""Measure what racing saves and what it loses, on a table with noise; no network runs.

    python scripts/bench_racing.py                          # 100 seeds, half a minute
    python scripts/bench_racing.py --top 1 --confidence 0.9

Each seed gives the networks of NAS-Bench-Macro (its published accuracies, or made-up ones without
the table) the scores of a supernet whose Kendall's tau with the table is --tau, and samples which
images each network has right: image j if a normal variable of the network, plus one of the image,
which all networks share in the proportion --common, is high enough for the network's score.
Random networks are then scored one after the other, in races and without.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.evaluator.race import Race
from nasrun.evaluator.rank_noise import RankNoise
from nasrun.evaluator.table import TableEvaluator
from nasrun.streams import Streams
from nasrun.values import Architecture

TABLE = "tables/nas_bench_macro_cifar10.csv.gz"


def truth() -> dict[Architecture, float]:
    """Return the accuracies of the table, or made-up ones of the same spread."""
    setup = build_setup(compose(["task=search", "search_space=nas_bench_macro"]))
    path = Path(os.environ.get("NASRUN_DATA", "data")) / TABLE
    if not path.is_file():
        print(f"there is no {path}: accuracies are made up")
        rng = Streams(0).numpy("truth")
        return {one: float(0.9 + 0.02 * rng.normal()) for one in setup.search_space.every()}
    evaluator = TableEvaluator(
        path=str(path), architecture="arch", score="mean_acc", scale="auto", tau=1.0
    )
    return {
        one: values[0] for one, values in evaluator._read(str(path), setup.search_space).items()
    }


def races(
    scores: np.ndarray, rng: np.random.Generator, options: argparse.Namespace
) -> tuple[float, int, bool, float]:
    """Race once, with architectures of these scores in this order.

    Return the share of images saved, how many of the k best were stopped, whether the best was, and
    the root mean square error of the scores of those that were stopped.
    """
    count, batch = options.images, options.batch
    images = rng.standard_normal(count) * np.sqrt(options.common)
    race, full, used = Race(options.top, options.confidence), [], 0
    stopped = set()
    errors = []
    looks = -(-count // batch) - 1
    for index, score in enumerate(scores):
        own = rng.standard_normal(count) * np.sqrt(1 - options.common)
        right = torch.from_numpy(images + own < NormalDist().inv_cdf(float(score)))
        full.append(int(right.sum()))
        for seen in range(batch, count, batch):
            if race.lost(right[:seen], looks):
                stopped.add(index)
                errors.append(race.estimate(right[:seen]) - full[-1] / count)
                used += seen
                break
        else:
            race.enter(right)
            used += count
    best = sorted(range(len(full)), key=lambda index: -full[index])[: options.top]
    lost = sum(index in stopped for index in best)
    error = float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0
    return 1 - used / (count * len(scores)), lost, best[0] in stopped, error


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--confidence", type=float, default=0.99)
    parser.add_argument("--tau", type=float, default=0.6)
    parser.add_argument("--common", type=float, default=0.8)
    options = parser.parse_args()
    noise = RankNoise(truth())
    found = []
    for seed in range(options.seeds):
        streams = Streams(seed)
        values = np.array(list(noise.scores(options.tau, streams).values()))
        rng = streams.numpy("races")
        chosen = rng.choice(len(values), size=options.candidates, replace=False)
        found.append(races(values[chosen], rng, options))
    saved = [each[0] for each in found]
    lost = [each[1] for each in found]
    print(
        f"{options.seeds} seeds of {options.candidates:,} candidates, top {options.top} at "
        f"{options.confidence:g}, {options.images:,} images by {options.batch}, tau {options.tau:g}"
    )
    error = statistics.fmean(each[3] for each in found)
    print(
        f"images saved {100 * statistics.fmean(saved):.1f} % (seeds {100 * min(saved):.1f} to "
        f"{100 * max(saved):.1f} %); of the best {options.top} stopped {sum(lost)} of "
        f"{options.top * options.seeds:,}; the best one in {sum(each[2] for each in found)} of "
        f"{options.seeds} seeds; error of a stopped score {error:.4f}"
    )


if __name__ == "__main__":
    main()
