"""The stages of a run as they are planned: values by which time left and costs are estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["steps", "architectures", "networks", "epochs", "searches"]
"""Unit of a stage's steps: steps of training, architectures scored, networks trained, epochs of a
predictor, whole searches."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage that a run will have, known before it begins.

    name: as the stage is named while it runs, e.g. ``supernet/round0``.
    steps: of the stage, as far as is known. unit: of its steps.
    work: multiply-adds of one step, roughly, a trained image counting three times; 0: unknown, or
    next to nothing. Rates of unmeasured stages are guessed from it, so only ratios matter.
    """

    name: str
    steps: int
    unit: Unit
    work: float = 0.0


def likeness(one: str, other: str) -> int:
    """Count the leading words that two names of stages share: 1 for two rounds of a supernet."""
    count = 0
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if a != b:
            break
        count += 1
    return count


def in_order(stages: Sequence[PlannedStage]) -> dict[str, PlannedStage]:
    """Return the stages by name, those without a step left out."""
    return {stage.name: stage for stage in stages if stage.steps > 0}
