"""Trainings that ranks carry out together, and beside it each of them alone (fork_server.py)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any, cast

import torch
from helpers import CPU, TASK, Images, train_step, trainer
from torch import Tensor, nn

from nasrun.run import ranks
from nasrun.run.compute import Compute
from nasrun.search_space.base import Supernet
from nasrun.search_space.gates import Gates, mixed
from nasrun.streams import Streams
from nasrun.trainer.step_rules import StepRules

BATCHES = (16, 11, 3, 16)
"""Images of the steps: an uneven batch, and one that is too small to be shared."""

Found = dict[str, Tensor]


class Tiny(Supernet):
    """Two decisions between two convolutions with batch norm, or mixtures of these, and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(nn.Conv2d(inputs, 4, 3, bias=False), nn.BatchNorm2d(4))
                for _ in range(2)
            )
            for inputs in (1, 4)
        )
        self.classify = nn.Linear(4, TASK.classes)

    def forward(self, x: Tensor, gates: Any) -> Tensor:
        for options, gate in zip(self.decisions, gates, strict=True):
            x = mixed(gate, lambda option, x=x, options=options: options[option](x)).relu()
            x = self.noise.drop_path(x, 1.0)
        return self.classify(self.noise.dropout(x.mean((2, 3))))


def supernet() -> Tiny:
    with Streams(0).default("init"):
        return Tiny().double()  # else rounding grows from step to step


def steps(
    compute: Compute, rules: StepRules, sizes: tuple[int, ...] = BATCHES, paths: int = 1, **how: Any
) -> Found:
    """The state after some steps of a supernet with random paths, and what was measured."""
    training = trainer(**how).bind(supernet(), Images(64), compute, Streams(0), rules=rules)
    training.network.train()
    found: Found = {}
    for step, size in enumerate(sizes):
        rng = Streams(0).numpy("paths", step)
        images, labels = next(Images(64).train_batches(size, streams=Streams(step)))
        gates: list[Gates] = rng.integers(2, size=(paths, 2)).tolist()
        found[f"measured {step}"] = train_step(training, images.double(), labels, gates)
        training.step += 1
    compute.ranks.copy_first(list(training.network.buffers()))
    return found | {
        name: value.detach().double() for name, value in training.network.state_dict().items()
    }


def gate_gradients(compute: Compute) -> Found:
    """The gradients of a gate's weights, in a step of the weights and in one of its own."""
    network = supernet()
    training = trainer().bind(network, Images(64), compute, Streams(0))
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    images = images.double()
    logits = torch.tensor([0.3, -0.2], requires_grad=True)
    leaf = logits.softmax(0).detach().requires_grad_()
    training.network.train()
    for weights in (logits.softmax(0), leaf):
        mixture = dict(enumerate(weights.unbind()))
        training.batch_gradients.add(images, labels, [[mixture, 1]], training.position)
        training.updates.forget_gradients()
    other = leaf.detach().clone().requires_grad_()
    training.gradients(images, labels, [dict(enumerate(other.unbind())), 0], [other])
    found = {"logits": logits.grad, "leaf": leaf.grad, "own step": other.grad}
    assert all(gradient is not None for gradient in found.values())
    return cast(Found, found)


CASES: dict[str, tuple[Callable[[Compute], Found], Callable[[Compute], Found]]] = {}
"""Two functions that must find the same: the first by one process, the second by ranks."""


def alike(name: str, case: Callable[[Compute], Found]) -> None:
    CASES[name] = (case, case)


alike(
    "one path, with all noise",
    lambda compute: steps(
        compute, StepRules(), dropout_keep=0.7, drop_path_keep=0.7, label_smoothing=0.1
    ),
)
alike(
    "paths on the same images, the first teaches",
    lambda compute: steps(
        compute, StepRules(distillation=True, gradients="mean"), paths=3, sizes=(16, 11)
    ),
)
alike(
    "a path for each ghost batch, means by use",
    lambda compute: parameters(
        steps(compute, StepRules(ghost_batch=4, gradients="by_use"), paths=4, sizes=(16, 9, 16))
    ),
)
alike("gradients of gates", gate_gradients)
CASES["statistics of each rank are those of ghost batches"] = (
    lambda compute: parameters(steps(compute, StepRules(ghost_batch=8), sizes=(16, 16))),
    lambda compute: parameters(
        steps(replace(compute, sync_batch_norm=False), StepRules(), sizes=(16, 16))
    ),
)


def parameters(found: Found) -> Found:
    """Without the statistics of batch norm, which may be those of the first rank's images alone."""
    return {
        name: value
        for name, value in found.items()
        if "running" not in name and "num_batches" not in name
    }


def differences() -> None:
    """Print for each case the largest difference, and whether all ranks have the same bits."""
    ranks.join(ranks.place())
    own = ranks.current
    told = {}
    for name, (by_one, by_ranks) in CASES.items():
        one, several = by_one(CPU), by_ranks(replace(CPU, ranks=own))
        assert one.keys() == several.keys()
        largest = max((one[key] - several[key]).abs().max().item() for key in one)
        bits = b"".join(value.detach().numpy().tobytes() for value in several.values())
        digests = own.gather(blake2b(bits).hexdigest())
        told[name] = {"difference": largest, "equal": len(set(digests)) == 1}
    apart = parameters(steps(replace(CPU, ranks=own, sync_batch_norm=False), StepRules()))
    one = parameters(steps(CPU, StepRules()))
    told["other statistics"] = {
        "difference": max((one[key] - apart[key]).abs().max().item() for key in one),
        "equal": True,
    }
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()
