"""Run directories made up for reports, without any training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nasrun.run import layout
from nasrun.values import Architecture, Cost, Trial

SPACE = {
    "_target_": "nasrun.search_space.nas_bench_macro.NasBenchMacro",
    "affine": True,
    "search": {"width": 0.25},
    "final": {"width": 1.0},
}

HOSTILE = "<script>window.owned=1</script><img src=x onerror=window.owned=1>"
"""A name that would run as a script in a page that does not escape it."""


def jsonl(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_run(
    directory: Path,
    *,
    count: int = 30,
    result: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
) -> list[Trial]:
    """Make a search of ``count`` trials; returns these. result: {}: the run has not ended."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(7)
    trials = []
    for _ in range(count):
        choices = tuple(rng.integers(3, size=8).tolist())
        size = int(100_000 + 40_000 * sum(choices) + rng.integers(1000))
        score = float(np.clip(0.5 + sum(choices) / 60 + rng.normal(0, 0.03), 0, 1))
        evaluation = {"evaluator": "supernet", "images": 500}
        architecture = Architecture("nas_bench_macro", choices)
        trials.append(Trial(architecture, score, Cost(size, 50 * size), 0, evaluation))
    best = max(trials, key=lambda trial: trial.score)
    settings = {
        "task": "search",
        "search_space": SPACE,
        "dataset": {"_target_": "nasrun.dataset.digits.Digits"},
        "search_algo": {"_target_": "nasrun.search_algo.evolution.Evolution"},
        "evaluator": {"_target_": "nasrun.evaluator.supernet.SupernetEvaluator"},
        "sampler": {"_target_": "nasrun.sampler.uniform.Uniform"},
        "trainer": {"epochs": 3},
        "budget": {"macs": {"min": None, "max": 30e6}},
        "seed": 3,
        "split_seed": 3,
        **(config or {}),
    }
    (directory / layout.RECORD).write_text(
        json.dumps(
            {
                "nasrun": "0.1.0",
                "task": settings["task"],
                "overrides": ["search_algo=evolution", "seed=3"],
                "seed": 3,
                "device": "CPU, 1 thread, fp32",
                "versions": {"python": "3.12", "torch": "2.10"},
                "git": {"commit": "c0ffee", "clean": False},
                "started": "2026-01-01T00:00:00+0000",
                "config": settings,
                **(record or {}),
            }
        )
    )
    lines = [{"round": 0, **trial.to_json()} for trial in trials]
    for child in range(5, count):  # of five random ones, and of each other
        lines[child] |= {"by": "mutation", "parents": [trials[child - 5].architecture.digest]}
    jsonl(directory / layout.TRIALS, lines)
    curve = [
        {"stage": stage, "step": step, "loss": 2 / step, "accuracy": 1 - 1 / step, "lr": 0.1}
        for stage in ("supernet/round0", "retrain")
        for step in range(1, 21)
    ]
    curve += [
        {"stage": "retrain/validation", "step": s, "accuracy": 0.7 + s / 100} for s in (10, 20)
    ]
    jsonl(directory / layout.METRICS, curve)
    ended = {
        "status": "done",
        "task": settings["task"],
        "score": best.score,
        "architecture": best.architecture.to_json(),
        "params": 2_500_000,
        "macs": 61_250_000,
        "parameter_free": 0.25,
        "validation_accuracy": 0.92,
        "test_accuracy": 0.9,
        "test_images": 360,
        "seconds": 75.0,
        "epochs": {"trained": 2, "used": 1, "best": 1, "best_validation_accuracy": 0.9},
    }
    if result != {}:
        (directory / layout.RESULT).write_text(json.dumps({**ended, **(result or {})}))
    return trials
