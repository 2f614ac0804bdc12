"""Measure the time for checkpoints, as a share of the time of the run.

    python scripts/bench_checkpoint.py            # both: some five minutes on two CPU cores
    python scripts/bench_checkpoint.py --short    # the main job as a smoke: seconds

1. The main job (``nasrun search``) with its default settings: seconds inside Run.checkpoint and
   Run.save_weights as a share of all. The job is short, so the checkpoints at the end of every
   stage take most of it.
2. The supernet of the full CIFAR-10 recipe (Balanced NAO), with 1,000 architectures in the pool:
   one checkpoint in seconds and MB, as a share of the default interval; and the bookkeeping of one
   step (Run.safe_point with no checkpoint due) as a share of a training step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasrun.budget.candidates import Candidates
from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.run.compute import Compute
from nasrun.run.run import CheckpointEvery, Run
from nasrun.streams import Streams
from nasrun.values import Cost, Trial


def timed(method: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            spent.append(time.perf_counter() - began)

    return call


def main_job(short: bool) -> None:
    before = Run.checkpoint, Run.save_weights
    checkpoints: list[float] = []
    weights: list[float] = []
    Run.checkpoint = timed(Run.checkpoint, checkpoints)  # type: ignore[method-assign]
    Run.save_weights = timed(Run.save_weights, weights)  # type: ignore[method-assign]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        words = ["search", f"outputs={place}", *(["effort=smoke"] if short else [])]
        if status := main(words):
            raise SystemExit(status)
    total = time.perf_counter() - began
    Run.checkpoint, Run.save_weights = before  # type: ignore[method-assign]
    share = (sum(checkpoints) + sum(weights)) / total
    print(
        f"\nmain job: {total:.1f} s; {len(checkpoints)} checkpoints {sum(checkpoints):.2f} s and "
        f"{len(weights)} files of weights {sum(weights):.2f} s: {100 * share:.2f} % of it"
    )


def full_size() -> None:
    images = ["dataset=synthetic", "dataset.channels=3", "dataset.image_size=32"]
    config = compose(["task=search", "experiment=balanced_nao_cifar10", *images])
    setup = build_setup(config)
    compute = Compute.choose("auto", precision="auto", deterministic=False)
    space, streams = setup.search_space, Streams(0)
    splits = setup.dataset.load(streams, compute.device)
    search = setup.search_algo.bind(Candidates(space), streams, compute.device)
    with tempfile.TemporaryDirectory() as place:
        run = Run(
            Path(place),
            task="search",
            config=config,
            overrides=[],
            seed=0,
            compute=compute,
            checkpoint=CheckpointEvery(minutes=None, steps=None),
        )
        with streams.default("init"):
            supernet = space.supernet(splits.problem, auxiliary=setup.trainer.auxiliary)
        training = setup.trainer.bind(supernet, splits.train, compute, streams)
        run.begin()
        round_ = search.next_round(run)
        if round_ is None:
            raise SystemExit("the search has no round")
        search.tell([Trial(a, 0.5, Cost(1, 1), 0, {}) for a in search.ask()])
        run.keep("search_algo", search)
        run.keep("supernet", training)
        gates = setup.sampler.bind(
            space, splits.problem, round_.pool, streams.sub("sampler"), steps=training.steps
        )
        batches = splits.train.train_batches(setup.trainer.batch_size, streams=streams)
        training.network.train()
        steps, points, writes = [], [], []
        for step in range(12):
            began = time.perf_counter()
            paths, position = gates(step), training.position
            measured = training.batch_gradients.add(*next(batches), paths, position)
            training.update(measured, paths).tolist()
            training.step += 1
            steps.append(time.perf_counter() - began)
            began = time.perf_counter()
            for _ in range(1000):
                run.safe_point()
            points.append((time.perf_counter() - began) / 1000)
        for _ in range(5):
            training.step += 1  # otherwise there would be nothing new to write
            began = time.perf_counter()
            run.checkpoint()
            writes.append(time.perf_counter() - began)
        size = sum(path.stat().st_size for path in Path(place, "checkpoints").iterdir())
        kept = len(list(Path(place, "checkpoints").glob("*.json")))
        run.close()
    step, point, write = map(statistics.median, (steps, points, writes))
    minutes = config["checkpoint"]["minutes"]
    print(
        f"full supernet on {compute.describe()}: a checkpoint takes {write:.2f} s (of "
        f"{min(writes):.2f} to {max(writes):.2f}, n = {len(writes)}) and {size / kept / 1e6:.0f} "
        f"MB: {100 * write / (60 * minutes):.2f} % of the time at one every {minutes} minutes; a "
        f"safe point takes {1e6 * point:.1f} µs, {100 * point / step:.4f} % of a training step of "
        f"{1000 * step:.0f} ms"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--short", action="store_true", help="the main job as a smoke, in seconds")
    arguments = parser.parse_args()
    main_job(arguments.short)
    full_size()
