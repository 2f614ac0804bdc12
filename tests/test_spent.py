"""The cost of a result, counted in two ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, TASK, Images, Probe, space, train_step, trainer
from processes import lines

from nasrun.run.ranks import Ranks
from nasrun.run.spent import Spent
from nasrun.streams import Streams
from nasrun.trainer.step_rules import StepRules


def test_a_search_costs_what_its_logs_say(undisturbed: Path) -> None:
    """Of 32 training images in batches of 8, every step takes eight."""
    spent = json.loads((undisturbed / "result.json").read_text())["spent"]
    steps: dict[str, int] = {}
    for line in lines(undisturbed / "metrics.jsonl"):
        if "lr" in line:
            steps[line["stage"]] = max(steps.get(line["stage"], 0), line["step"])
    assert {stage.partition("/")[0] for stage in steps} == {"supernet", "standalone", "retrain"}
    assert spent["training_steps"] == sum(steps.values())
    assert spent["images"] == 8 * sum(steps.values())
    assert spent["retraining_images"] == 8 * steps["retrain"]
    assert spent["evaluations"] == len(lines(undisturbed / "trials.jsonl"))
    assert 0 < spent["device_seconds"] < 1000


def supernet_training(**rules: Any) -> Any:
    supernet = space().supernet(TASK, auxiliary=False)
    streams = Streams(0)
    bound = trainer().bind(supernet, Images(64), CPU, streams, rules=StepRules(**rules))
    bound.network.train()
    return bound


def test_images_count_once_for_each_path() -> None:
    training = supernet_training()
    images, labels = torch.randn(16, 1, 8, 8), torch.zeros(16, dtype=torch.int64)
    paths = [space().sample(Streams(seed).numpy("x")).choices for seed in range(3)]
    assert training.batch_gradients.pop_images_passed() == 0
    train_step(training, images, labels, paths)
    assert training.batch_gradients.pop_images_passed() == 3 * 16
    assert training.batch_gradients.pop_images_passed() == 0


def test_ghost_batches_have_a_path_each() -> None:
    training = supernet_training(ghost_batch=4)
    images, labels = torch.randn(16, 1, 8, 8), torch.zeros(16, dtype=torch.int64)
    paths = [space().sample(Streams(seed).numpy("x")).choices for seed in range(4)]
    train_step(training, images, labels, paths)
    assert training.batch_gradients.pop_images_passed() == 16


class Short(Probe):
    """Finds no memory for more than eight images at once."""

    def forward(self, x):
        if len(x) > 8:
            raise MemoryError
        return super().forward(x)


def test_steps_of_gates_count_and_passes_without_memory_do_not() -> None:
    compute = replace(CPU, batch_size="auto")
    training = trainer().bind(Short(), Images(64), compute, Streams(0))
    images, labels = torch.randn(16, 1, 8, 8), torch.zeros(16, dtype=torch.int64)
    gradients = training.batch_gradients
    gradients.add(images, labels, None, training.position, [training.network.weight])
    assert gradients.images_at_once == 8
    assert gradients.pop_images_passed() == 16


def test_a_state_goes_on_and_a_wrong_one_is_refused() -> None:
    first = Spent(torch.device("cpu"))
    first.add("supernet/round0", steps=3, images=24)
    first.add("retrain", steps=1, images=8)
    first.evaluations += 5
    again = Spent(torch.device("cpu"))
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    again.add("retrain", steps=1, images=8)
    found = again.to_json(Ranks())
    assert found.pop("device_seconds") >= 0
    counts = {"evaluations": 5, "training_steps": 5, "images": 40, "retraining_images": 16}
    assert found == counts
    for wrong in (-1, 2**60, 1.5, "7", None, True):
        with pytest.raises(ValueError, match="is no number"):
            again.load_state_dict({**first.state_dict(), "images": wrong})
