"""The cost of a result: the work that went into it, over all processes of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nasrun.run.ranks import Ranks
from nasrun.run.state import whole_number
from nasrun.run.stopwatch import Stopwatch

MAX_COUNT = 2**53
"""Upper bound of a count; no run comes near it."""

RETRAINING = "retrain"
"""The stage in which the winner is trained."""


@dataclass
class Work:
    """Work that one of several ranks does by itself, which the others hear of later.

    steps: of the weights of any network. images: see ``Spent``. lines: of metrics: stage, step,
    values by name.
    """

    steps: int = 0
    images: int = 0
    lines: list[tuple[str, int, Mapping[str, float]]] = field(default_factory=list)

    def to_json(self) -> list[Any]:
        return [self.steps, self.images, self.lines]

    @staticmethod
    def from_json(found: list[Any]) -> Work:
        return Work(found[0], found[1], [(name, step, metrics) for name, step, metrics in found[2]])


class Spent:
    """Counts the work of a run that is part of its result; kept in checkpoints.

    Work that a kill has undone and that was done again counts once. The training of a ground
    truth, which runs share, counts as time alone.

    evaluations: scored architectures, as many as trials.jsonl has lines.
    training_steps: steps of the weights of any network.
    images: images that passed forward and backward, for weights or gates: each once for each path
    and step. retraining_images: those of them that trained the winner.
    also: what counts them beside.
    """

    also: Work | None = None

    def __init__(self, device: torch.device) -> None:
        """Start with nothing; device: where networks run, whose time counts."""
        self.evaluations = self.training_steps = self.images = self.retraining_images = 0
        self._watch = Stopwatch(device)
        self._watch.start()

    def add(self, stage: str, *, steps: int, images: int) -> None:
        """Count training in a stage, e.g. ``supernet/round0``."""
        self.training_steps += steps
        self.images += images
        if self.also is not None:
            self.also.steps += steps
            self.also.images += images
        if stage == RETRAINING:
            self.retraining_images += images

    def to_json(self, ranks: Ranks) -> dict[str, int | float]:
        """Return the content of result.json, the same on all ranks, which must all ask for it.

        device_seconds: of cores or of another device, of all ranks; of those but the first one only
        the time since the run was last resumed.
        """
        seconds = self._watch.before + sum(ranks.gather(self._watch.now))
        return {**self._counts(), "device_seconds": round(seconds, 1)}

    def _counts(self) -> dict[str, int]:
        return {
            "evaluations": self.evaluations,
            "training_steps": self.training_steps,
            "images": self.images,
            "retraining_images": self.retraining_images,
        }

    def state_dict(self) -> dict[str, Any]:
        return {**self._counts(), "watch": self._watch.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if a count cannot be."""
        for name in self._counts():
            setattr(self, name, whole_number(state[name], most=MAX_COUNT))
        self._watch.load_state_dict(state["watch"])
