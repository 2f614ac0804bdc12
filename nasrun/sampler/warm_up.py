"""Warm-up: first train the whole supernet, so that all options start equally trained."""

from __future__ import annotations

from nasrun.errors import MissingCapabilityError
from nasrun.limits import Epochs
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import GatesOfStep, has_mixtures


class WarmUp:
    """Opens everything for the first ``epochs``; then the sampler sets the gates.

    During warm-up every decision is the mean of all of its options.
    Source: the released code of Yu et al.'s landmark regularisation (CVPR 2021), 15 epochs.
    """

    def __init__(self, *, epochs: Epochs) -> None:
        self.epochs = epochs

    def check(self, space: SearchSpace) -> None:
        """Raise UserError if the space cannot open several options of a decision."""
        if self.epochs and "mix" not in space.gate_kinds:
            raise MissingCapabilityError(
                f"warm_up.epochs={self.epochs:g}: {space.name} opens one option of a decision at a "
                "time, so its supernet cannot be trained whole; set warm_up.epochs=0, or",
                group="search_space",
                has=has_mixtures,
            )

    def put_before(
        self, gates: GatesOfStep, space: SearchSpace, steps_per_epoch: int
    ) -> GatesOfStep:
        """Return gates that open everything in the first steps, and then follow ``gates``."""
        steps = round(self.epochs * steps_per_epoch)
        if not steps:
            return gates
        whole = space.whole
        return lambda step: [whole] if step < steps else gates(step)
