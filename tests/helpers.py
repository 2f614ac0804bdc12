"""What several test files build: a tiny space, a trainer, images without a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.dataset.base import Batch, Split, Splits
from nasrun.run.compute import Compute
from nasrun.run.monitor import NullMonitor
from nasrun.search_space.base import Network, SearchSpace
from nasrun.search_space.gates import Gates
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateContext
from nasrun.trainer.schedule import Schedule
from nasrun.trainer.trainer import Trainer
from nasrun.trainer.training import Training
from nasrun.values import Problem

TASK = Problem(1, 8, 4)
CPU = Compute.choose("cpu", precision="auto", deterministic=False)


def as_job(function: Callable[[Any], object]) -> Callable[[Any], Any]:
    """In the place of ``nasrun.cli.main.job``: it does ``function(composed)``."""

    @contextmanager
    def job(composed: Any) -> Iterator[Callable[[], object]]:
        yield partial(function, composed)

    return job


def space_of(name: str, *overrides: str) -> SearchSpace:
    """The space of that name as a smoke run has it."""
    words = [f"search_space={name}", "effort=smoke", *overrides]
    return build_setup(compose(["task=search", *words])).search_space


def space(channels: int = 4) -> NaoCell:
    scale = CellScale(layers=1, channels=channels)
    return NaoCell(operations="small", nodes=5, stem="small", search=scale, final=scale)


def schedule(**changes: Any) -> Schedule:
    values: dict[str, Any] = {
        "kind": "cosine",
        "lr": 0.1,
        "lr_end": 0.0,
        "spans": "round",
        "cycle_epochs": 0,
        "cycle_factor": 2,
        "power": 1.0,
        "decay": 1.0,
        "warmup_epochs": 0,
    }
    return Schedule(**{**values, **changes})


def gate_context(space: SearchSpace, epochs: int = 2, seed: int = 0) -> GateContext:
    """What learners of gates are bound to: small images, four steps an epoch."""
    found = splits()
    return GateContext(
        space=space,
        problem=TASK,
        train=found.train,
        held_out=found.validation,
        batch_size=16,
        steps=epochs * 4,
        steps_per_epoch=4,
        compute=CPU,
        streams=Streams(seed).sub("gates"),
    )


def trainer(**changes: Any) -> Trainer:
    values: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "schedule": schedule(),
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-3,
        "decay_norm_and_bias": False,
        "clip": 5.0,
        "label_smoothing": 0.0,
        "dropout_keep": 1.0,
        "drop_path_keep": 1.0,
        "auxiliary_weight": 0.0,
        "cutout": 0,
        "log_every": 3,
    }
    return Trainer(**{**values, **changes})


def train_step(
    training: Training[Any], images: Tensor, labels: Tensor, gates: list[Gates] | None
) -> Tensor:
    """One update on images [B, C, H, W] and labels [B]; returns (loss, accuracy) [2]."""
    measured = training.batch_gradients.add(images, labels, gates, training.position)
    return training.update(measured, gates)


class Recorder(NullMonitor):
    """A monitor that remembers what it was told."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.lines: list[str] = []
        self.steps = 0

    def say(self, line: str = "", style: str | None = None) -> None:
        self.lines.append(line)

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.steps += steps
        if metrics:
            self.metrics.append(metrics)


class Probe(Network):
    """Its only weight is the logit of class 0; the auxiliary head gives constant logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, 1))

    def forward(self, x):
        batch = x.shape[0]
        self.auxiliary_logits = torch.zeros(batch, 4)
        return F.pad(self.weight.expand(batch, 1), (0, 3))


class Images(Split):
    """Learnable images: each class has a mean of its own."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % TASK.classes
        patterns = torch.randn(TASK.classes, 1, 8, 8, generator=torch.Generator().manual_seed(99))
        noise = torch.randn(count, 1, 8, 8, generator=generator)
        self.images = patterns[self.labels] + 0.5 * noise

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        return f"{len(self)} images, {self.images.sum().item()}"

    def train_batches(
        self, batch_size: int, *, streams: Streams, first_step: int = 0, cutout: int = 0
    ) -> Iterator[Batch]:
        step = first_step
        while True:
            chosen = streams.torch("order", step)
            index = torch.randint(len(self), (batch_size,), generator=chosen)
            yield self.images[index], self.labels[index]
            step += 1

    def eval_batches(self, batch_size: int, count: int | None = None) -> Iterator[Batch]:
        for begin in range(0, count or len(self), batch_size):
            end = min(begin + batch_size, count or len(self))
            yield self.images[begin:end], self.labels[begin:end]


def splits() -> Splits:
    return Splits(
        TASK, Images(64), Images(32, seed=1), lambda: Images(96), lambda: Images(32, seed=2)
    )


def few_images() -> Splits:
    """Three steps of eight images in an epoch, and two batches of validation images."""
    return replace(splits(), train=Images(24), validation=Images(16, seed=1))
