"""Warm-up: the first epochs of a supernet open other gates than the sampler's."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Epochs
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import WidthRatios, has_width_ratios
from nasrun.search_space.gates import Gates, GatesOfStep, has_mixtures, single_path
from nasrun.streams import Streams


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
        self, gates: GatesOfStep, space: SearchSpace, steps_per_epoch: int, streams: Streams
    ) -> GatesOfStep:
        """Return the gates of the warm-up in the first steps, and then those of ``gates``."""
        steps = round(self.epochs * steps_per_epoch)
        if not steps:
            return gates
        first = self.first_gates(gates, space, streams)
        return lambda step: first(step) if step < steps else gates(step)

    def first_gates(self, gates: GatesOfStep, space: SearchSpace, streams: Streams) -> GatesOfStep:
        """Return the gates of the warm-up, which open everything.

        gates: those of the sampler. streams: named by the step, for what is sampled here.
        """
        whole = space.whole
        return lambda step: [whole]


class WideWarmUp(WarmUp):
    """Leaves narrow widths out of the sampler's paths in the first ``epochs``.

    Where the sampler opens a width below ``min_ratio``, one of the others takes its place, all
    alike likely: if the sampler is uniform, so are the first paths over what is allowed.
    Source: a reimplementation of SPOS' channel search in MXNet trains the widest blocks alone for
    60 epochs, then takes smaller ratios in one by one; with an option none below 0.6.
    """

    def __init__(self, *, epochs: Epochs, min_ratio: Annotated[float, Field(gt=0)]) -> None:
        super().__init__(epochs=epochs)
        self.min_ratio = min_ratio

    def check(self, space: SearchSpace) -> None:
        """Raise UserError if the space has no widths, or a decision has none of ``min_ratio``."""
        if not self.epochs:
            return
        if not isinstance(space, WidthRatios):
            raise MissingCapabilityError(
                f"warm_up leaves widths out, and {space.name} decides on none; set "
                "warm_up.epochs=0, or",
                group="search_space",
                has=has_width_ratios,
            )
        self._allowed(space)

    def _allowed(self, space: WidthRatios) -> dict[int, list[int]]:
        """Return the options of each decision on a width that are not left out, by index."""
        allowed = {
            decision: [option for option, ratio in enumerate(ratios) if ratio >= self.min_ratio]
            for decision, ratios in space.width_ratios.items()
        }
        if not all(allowed.values()):
            raise UserError(f"warm_up.min_ratio={self.min_ratio:g} leaves no width of a block")
        return allowed

    def first_gates(self, gates: GatesOfStep, space: SearchSpace, streams: Streams) -> GatesOfStep:
        """Return the sampler's paths with wide options in the place of narrow ones."""
        assert isinstance(space, WidthRatios)  # see check  # noqa: S101
        allowed = self._allowed(space)

        def wide(path: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
            chosen = list(path)
            for decision, options in allowed.items():
                if chosen[decision] not in options:
                    chosen[decision] = options[int(rng.integers(len(options)))]
            return tuple(chosen)

        def first(step: int) -> list[Gates]:
            rng = streams.numpy("widths", step)
            return [wide(single_path(path), rng) for path in gates(step)]

        return first
