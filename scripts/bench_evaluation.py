"""Measure the candidates per second of an evolution, against SPOS' reference protocol.

    python scripts/bench_evaluation.py                      # CPU: a quarter of the width, minutes
    python scripts/bench_evaluation.py --device cuda --width 1 --images 8000 --batches 200

The reference protocol takes one candidate after the other: it resets the statistics of batch norm,
runs 200 training batches of 128 with momentum 0.1, then the validation images in evaluation mode.
Ours has the same candidates, weights and validation images, with exact cumulative statistics over
2,000 fixed training images (recalibrated), or with the statistics of the scored batch (batch). Then
follow the time of the search itself for each candidate, as the population grows, and the time for
the costs of 10,000 networks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.dataset.base import Splits
from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.run.compute import Compute
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.evolution import Evolution
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Problem, Trial

CALIBRATION = 128
"""Images of a training batch in the reference protocol."""


def seconds(work: Callable[[], object], compute: Compute) -> float:
    began = time.perf_counter()
    work()
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.inference_mode()
def reference(
    supernet: Supernet,
    architecture: Architecture,
    splits: Splits,
    images: int,
    batches: int,
    compute: Compute,
) -> float:
    """Score a candidate as the released code does."""

    def predict(batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = supernet(batch, architecture.choices)
        return logits

    norms = [norm for norm in supernet.modules() if isinstance(norm, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    done = 0
    while done < batches:
        for batch, _ in splits.train.eval_batches(CALIBRATION):
            with compute.autocast():
                predict(compute.images(batch))
            done += 1
            if done == batches:
                break
    supernet.eval()
    return accuracy(predict, splits.validation.eval_batches(500, images), compute, NullMonitor())


def search_alone(space: SearchSpace, population: int, problem: Problem) -> float:
    """Return the seconds per candidate of an evolution of 20 generations without scoring."""
    algo = Evolution(
        population=population,
        generations=20,
        top=min(10, population),
        mutations=population // 2,
        crossovers=population // 2,
        probability=0.1,
        tries=10,
        batch=population,
    )
    size = space.sizer("macs", problem, "final")
    low, high = (size(architecture) for architecture in space.extremes(size, Streams(0)))
    candidates = Candidates(space, [Bounds("macs", 0, (low + high) / 2)], {"macs": size})
    search = algo.bind(candidates, Streams(0), torch.device("cpu"))
    count, began = 0, time.perf_counter()
    search.next_round(NullMonitor())
    while asked := search.ask():
        trials = [Trial(each, sum(each.choices) / 100, Cost(1, 1), 0) for each in asked]
        search.tell(trials)
        count += len(asked)
    return (time.perf_counter() - began) / count


def show(name: str, times: Sequence[float], against: float) -> None:
    middle = statistics.median(times)
    print(
        f"{name:28} {1 / middle:8.2f} candidates/s ({min(times):.3f} to {max(times):.3f} s, "
        f"n = {len(times)}), {against / middle:.1f} times the reference"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", default="0.25")
    parser.add_argument("--images", type=int, default=1000, help="of validation")
    parser.add_argument("--batches", type=int, default=200, help="of the reference's calibration")
    parser.add_argument("--candidates", type=int, default=5)
    options = parser.parse_args()
    words = [
        *("task=search", "search_space=spos_blocks", "dataset=synthetic", "dataset.image_size=32"),
        *(f"dataset.validation={options.images}", "dataset.train_images=10000"),
        *(f"search_space.search.width={options.width}", "dataset.classes=10"),
    ]
    setup = build_setup(compose(words))
    compute = Compute.choose(options.device, precision="auto", deterministic=False)
    splits, space = setup.dataset.load(Streams(0), compute.device), setup.search_space
    supernet = compute.place(space.supernet(splits.problem))
    rng = Streams(0).numpy("candidates")
    chosen = [space.sample(rng) for _ in range(options.candidates)]
    print(f"{compute.describe()}, width {options.width}, {options.images} validation images")
    slow = [
        seconds(
            lambda architecture=architecture: reference(  # type: ignore[misc]
                supernet, architecture, splits, options.images, options.batches, compute
            ),
            compute,
        )
        for architecture in chosen
    ]
    against = statistics.median(slow)
    show(f"reference, {options.batches} batches", slow, against)
    for protocol in ("recalibrated", "batch"):
        evaluator = SupernetEvaluator(
            images=options.images,
            batch_size=500,
            batch_norm=protocol,  # type: ignore[arg-type]
            recalibration_images=2000,
        )
        scorer = evaluator.bind(space, splits, compute, Streams(0))
        trials = scorer.score(chosen, supernet, NullMonitor())
        show(protocol, [seconds(partial(next, trials), compute) for _ in chosen], against)
    for population in (25, 50, 100, 200):
        spent = search_alone(space, population, splits.problem)
        print(f"evolution of {population:3} × 20: {1e6 * spent:6.0f} µs a candidate besides scores")
    began = time.perf_counter()
    for _ in range(10_000):
        space.cost(space.sample(rng), splits.problem, "final")
    print(f"costs of 10,000 architectures: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
