"""Measure the candidates per second: paths walked together, and SPOS' reference protocol.

    python scripts/bench_evaluation.py sharing              # CPU, small images: two minutes
    python scripts/bench_evaluation.py protocols            # CPU: a quarter of the width, minutes
    python scripts/bench_evaluation.py protocols --device cuda --width 1 --images 8000 --batches 200

``sharing`` scores the same candidates on the same images one by one and walked together, in turns,
and checks that the scores are equal: 300 random ones of NAS-Bench-Macro, all of them, all of them
by canonical forms, and an evolution in SPOS' space. Of many candidates only every tenth
(``--every``) is scored one by one.

In ``protocols``, the reference protocol takes one candidate after the other: it resets the
statistics of batch norm, runs 200 training batches of 128 with momentum 0.1, then the validation
images in evaluation mode. Ours has the same candidates, weights and validation images, with exact
cumulative statistics over 2,000 fixed training images (recalibrated), or with the statistics of the
scored batch (batch). Then follow the time of the search itself for each candidate, as the
population grows, and the time for the costs of 10,000 networks.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.dataset.base import Splits
from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.base import choices_of
from nasrun.evaluator.supernet import SupernetEvaluator, SupernetScorer
from nasrun.run.compute import Compute
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.base import Search
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


def evolution(space: SearchSpace, population: int, generations: int, problem: Problem) -> Search:
    """Return an evolution below the middle of the multiply-adds."""
    algo = Evolution(
        population=population,
        generations=generations,
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
    return algo.bind(candidates, Streams(0), torch.device("cpu"))


def search_alone(space: SearchSpace, population: int, problem: Problem) -> float:
    """Return the seconds per candidate of an evolution of 20 generations without scoring."""
    search = evolution(space, population, 20, problem)
    count, began = 0, time.perf_counter()
    search.next_round(NullMonitor())
    while asked := search.ask():
        trials = [Trial(each, sum(each.choices) / 100, Cost(1, 1), 0) for each in asked]
        search.tell(trials)
        count += len(asked)
    return (time.perf_counter() - began) / count


class Turns:
    """Times of candidates that are scored one by one and walked together, in turns."""

    def __init__(self, scorer: SupernetScorer, supernet: Supernet) -> None:
        self.scorer = scorer
        self.one_by_one, self.walked = supernet, copy.deepcopy(supernet)
        self.alone: list[float] = []
        self.together: list[float] = []
        self.work = [0.0, 0.0]

    def score(self, asked: Sequence[Architecture], every: int = 1) -> list[Trial]:
        """Score candidates; every so many-th of them also one by one."""
        compute, scorer, monitor = self.scorer.compute, self.scorer, NullMonitor()
        began = time.perf_counter()
        in_order, found = scorer.together(asked, self.walked, monitor)
        planned = (time.perf_counter() - began) / len(asked)
        alone = scorer.score(in_order[::every], self.one_by_one, monitor)
        trials: list[Trial] = []
        for index in range(len(in_order)):
            self.together.append(
                planned + seconds(lambda: trials.append(next(found)), compute)  # type: ignore[misc]
            )
            if index % every == 0:
                other: list[Trial] = []
                self.alone.append(seconds(lambda: other.append(next(alone)), compute))  # noqa: B023
                if other != trials[-1:]:
                    raise AssertionError(f"other scores together: {other}, {trials[-1]}")
        paths = [scorer.gates(one, choices_of) for one in asked]
        walk = scorer.walk_for(paths, self.walked)
        self.work[0] += len(asked) * (walk.saving if walk else 1.0)
        self.work[1] += len(asked)
        return trials

    def show(self, name: str) -> None:
        """Print both rates; the work is counted in multiply-adds."""
        alone, together = statistics.fmean(self.alone), statistics.fmean(self.together)
        less = self.work[0] / self.work[1]
        print(
            f"{name:44} {1 / alone:7.1f} candidates/s one by one (n = {len(self.alone):,}), "
            f"{1 / together:7.1f} together (n = {len(self.together):,}): "
            f"{alone / together:.2f} times as many; work {less:.2f} times less"
        )


def sharing(options: argparse.Namespace) -> None:
    """Measure walks against one by one."""
    for protocol in options.protocols:
        macro, space, supernet = _small("nas_bench_macro", protocol, options)
        rng = Streams(0).numpy("candidates")
        chosen = list(dict.fromkeys(space.sample(rng) for _ in range(320)))[:300]
        everything = list(space.every())
        for name, asked, scorer, every in (
            ("300 random", chosen, macro, 1),
            ("all 6,561", everything, macro, options.every),
            ("all, by 3,969 canonical", everything, replace(macro, canonical=True), options.every),
        ):
            turns = Turns(scorer, supernet)
            turns.score(asked, every)
            turns.show(f"nas_bench_macro, {protocol}, {name}")
        blocks, space, supernet = _small("spos_blocks", protocol, options)
        turns = Turns(blocks, supernet)
        search = evolution(space, 50, options.generations, blocks.problem)
        search.next_round(NullMonitor())
        while asked := search.ask():
            search.tell(turns.score(asked))
        turns.show(f"spos_blocks, {protocol}, evolution 50 × {options.generations}")


def _small(
    name: str, protocol: str, options: argparse.Namespace
) -> tuple[SupernetScorer, SearchSpace, Supernet]:
    """Return a scorer on few small images, its space, and an untrained supernet."""
    words = [
        *("task=search", f"search_space={name}", "dataset=synthetic", "dataset.classes=10"),
        *(f"dataset.image_size={options.size}", f"dataset.validation={options.images}"),
        *("dataset.train_images=1000", f"search_space.search.width={options.width}"),
    ]
    setup = build_setup(compose(words))
    compute = Compute.choose(options.device, precision="auto", deterministic=False)
    splits = setup.dataset.load(Streams(0), compute.device)
    evaluator = SupernetEvaluator(
        images=options.images,
        batch_size=options.batch,
        batch_norm=protocol,  # type: ignore[arg-type]
        recalibration_images=options.images,
    )
    scorer = evaluator.bind(setup.search_space, splits, compute, Streams(0))
    space = setup.search_space
    with Streams(0).default("init"):
        supernet = compute.place(space.supernet(splits.problem))
    rng = Streams(0).numpy("first")
    for one in [space.sample(rng) for _ in range(50)]:  # multiply-adds are counted once a process
        space.cost(one, splits.problem)
        seconds(partial(list, scorer.score([one], supernet, NullMonitor())), compute)
    return scorer, space, supernet


def show(name: str, times: Sequence[float], against: float) -> None:
    middle = statistics.median(times)
    print(
        f"{name:28} {1 / middle:8.2f} candidates/s ({min(times):.3f} to {max(times):.3f} s, "
        f"n = {len(times)}), {against / middle:.1f} times the reference"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("sharing", "protocols"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", default="0.25")
    parser.add_argument("--images", type=int, help="of validation; 1000, for sharing 64")
    parser.add_argument("--batches", type=int, default=200, help="of the reference's calibration")
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--size", type=int, default=16, help="side of the images of sharing")
    parser.add_argument("--batch", type=int, default=64, help="images at once in sharing")
    parser.add_argument("--generations", type=int, default=20, help="of the evolution of sharing")
    parser.add_argument("--every", type=int, default=10, help="of many: which are scored alone")
    parser.add_argument("--protocols", nargs="+", default=["batch", "recalibrated"])
    options = parser.parse_args()
    if options.what == "sharing":
        options.images = options.images or 64
        sharing(options)
    else:
        options.images = options.images or 1000
        protocols(options)


def protocols(options: argparse.Namespace) -> None:
    """Measure our protocols against the reference."""
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
