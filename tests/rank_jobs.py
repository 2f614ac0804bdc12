"""Trainings that ranks carry out together, and beside it each of them alone (fork_server.py)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from helpers import CPU, TASK, Images, space, train_step, trainer
from torch import Tensor, nn

from nasrun.run import ranks
from nasrun.run.compute import Compute
from nasrun.search_space.base import Supernet
from nasrun.streams import Streams
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.training import Training

BATCHES = (16, 11, 3, 16)
"""Images of the steps: an uneven batch, and one that is too small to be shared."""

Found = dict[str, Tensor]


class Mixture(Supernet):
    """Two convolutions by the weights of one gate, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.options = nn.ModuleList(nn.Conv2d(1, 4, 3, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(4)
        self.classify = nn.Linear(4, TASK.classes)

    def forward(self, x: Tensor, gates: Any) -> Tensor:
        mixed = sum(weight * self.options[option](x) for option, weight in gates[0].items())
        return self.classify(self.norm(mixed).relu().mean((2, 3)))


def steps(
    compute: Compute, rules: StepRules, sizes: tuple[int, ...] = BATCHES, paths: int = 1, **how: Any
) -> Found:
    """The state after some steps of a supernet with random paths, and what was measured."""
    search_space = space()
    with Streams(0).default("init"):
        supernet = search_space.supernet(TASK)
    training: Training[Supernet] = trainer(**how).bind(
        supernet, Images(64), compute, Streams(0), rules=rules
    )
    training.network.train()
    found: Found = {}
    for step, size in enumerate(sizes):
        rng = Streams(0).numpy("paths", step)
        images, labels = next(Images(64).train_batches(size, streams=Streams(step)))
        gates = [search_space.sample(rng).choices for _ in range(paths)]
        found[f"measured {step}"] = train_step(training, images, labels, gates)
        training.step += 1
    compute.ranks.copy_first(list(training.network.buffers()))
    return found | {
        name: value.detach().double() for name, value in training.network.state_dict().items()
    }


def gate_gradients(compute: Compute) -> Found:
    """The gradients of a gate's weights, in a step of the weights and in one of its own."""
    with Streams(0).default("init"):
        network = Mixture()
    training = trainer().bind(network, Images(64), compute, Streams(0))
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    logits = torch.tensor([0.3, -0.2], requires_grad=True)
    leaf = logits.softmax(0).detach().requires_grad_()
    training.network.train()
    for weights in (logits.softmax(0), leaf):
        training.batch_gradients.add(
            images, labels, [[dict(enumerate(weights.unbind()))]], training.position
        )
    other = leaf.detach().clone().requires_grad_()
    training.gradients(images, labels, [dict(enumerate(other.unbind()))], [other])
    grads = {"logits": logits.grad, "leaf": leaf.grad, "own step": other.grad}
    weights = {name: p.grad for name, p in network.named_parameters()}
    return {name: grad for name, grad in (grads | weights).items() if grad is not None}


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
    lambda compute: steps(
        compute, StepRules(ghost_batch=4, gradients="by_use"), paths=4, sizes=(16, 9, 16)
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
    return {name: value for name, value in found.items() if "running" not in name}


def differences() -> None:
    """Print for each case the largest difference, and whether all ranks have the same bits."""
    ranks.join(ranks.place())
    own = ranks.current
    told = {}
    for name, (by_one, by_ranks) in CASES.items():
        one, several = by_one(CPU), by_ranks(replace(CPU, ranks=own))
        assert one.keys() == several.keys()
        largest = max((one[key] - several[key]).abs().max().item() for key in one)
        texts = own.gather([value.tolist() for value in several.values()])
        told[name] = {"difference": largest, "equal": all(text == texts[0] for text in texts)}
    apart = parameters(steps(replace(CPU, ranks=own, sync_batch_norm=False), StepRules()))
    one = parameters(steps(CPU, StepRules()))
    told["other statistics"] = {
        "difference": max((one[key] - apart[key]).abs().max().item() for key in one),
        "equal": True,
    }
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()
