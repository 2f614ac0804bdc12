"""Statistics of each option while a supernet trains: passes, and shares of the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from nasrun.run.compute import float64
from nasrun.search_space.base import Supernet
from nasrun.search_space.gates import Gates
from nasrun.values import Decision


class StepWatch(Protocol):
    """An observer of the steps of a training; changes no weight, gradient or random stream."""

    def stepped(self, step: int, paths: Sequence[Gates], good: Tensor | None) -> None:
        """Called when the gradients of ``step`` are computed, before the weights change.

        good: a truth value on the device: false if the step is going to be undone; None: true.
        """

    def logged(self, metrics: Mapping[str, float], progress: float) -> None:
        """Called with each line of metrics.

        progress: share of all steps that are done, in [0, 1].
        """


MAX_UNREAD_STEPS = 10_000
"""Steps of which the device may keep something that the host has not read; ours."""


class OptionCounts:
    """Counts the forward and backward passes in which each option was open.

    counts: by decision and option, [D][K]. passes: number of all passes. In mixtures an option
    counts if its weight is not 0.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._passes = 0
        self._counts = [[0] * len(decision.options) for decision in decisions]
        # What may lie on a GPU, and is read together when it is needed: weights, and the steps of
        # which only the device knows whether they count.
        self._unread: list[tuple[list[tuple[int, int]], Tensor]] = []
        self._uncertain: list[tuple[Sequence[Gates], Tensor]] = []

    def add(self, paths: Sequence[Gates], good: Tensor | None = None) -> None:
        """Count the passes of one step, if ``good``, a truth value on the device, is not false."""
        if good is None:
            self._add(paths)
        else:
            self._uncertain.append((paths, good))
        if max(len(self._unread), len(self._uncertain)) >= MAX_UNREAD_STEPS:
            self.read()

    def _add(self, paths: Sequence[Gates]) -> None:
        for gates in paths:
            self._passes += 1
            places: list[tuple[int, int]] = []
            weights: list[Tensor] = []
            for decision, gate in enumerate(gates):
                if isinstance(gate, int):
                    self._counts[decision][gate] += 1
                    continue
                for option, weight in gate.items():
                    if isinstance(weight, Tensor):
                        places.append((decision, option))
                        value = weight.detach()
                        weights.append(value.abs().max() if value.dim() else value)
                    else:
                        self._counts[decision][option] += weight != 0
            if weights:
                self._unread.append((places, torch.stack(weights)))

    @property
    def passes(self) -> int:
        """The number of all passes."""
        self.read()
        return self._passes

    @property
    def counts(self) -> list[list[int]]:
        """The passes that trained each option, [D][K]."""
        self.read()
        return self._counts

    def read(self) -> None:
        """Read what has not been read yet."""
        if self._uncertain:
            steps, self._uncertain = self._uncertain, []
            good = torch.stack([good for _, good in steps]).tolist()
            for (paths, _), is_good in zip(steps, good, strict=True):
                if is_good:
                    self._add(paths)
        if not self._unread:
            return
        values = iter(torch.cat([weights for _, weights in self._unread]).tolist())
        for decision, option in (place for places, _ in self._unread for place in places):
            self._counts[decision][option] += next(values) != 0
        self._unread = []

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as data."""
        return {"passes": self.passes, "counts": [list(row) for row in self.counts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of other decisions."""
        self._passes, self._unread, self._uncertain = int(state["passes"]), [], []
        self._counts = _numbers(state["counts"], self._counts, int)


class OptionGradients:
    """Measures the share of each option's weights in the squared gradient norm of a supernet.

    Shares are [D][K], before clipping, averaged over the ``samples`` measured steps. A weight
    belongs to an option if only that option uses it (``Supernet.option_modules``); stem, head and
    shared weights belong to no option. A weight that needs the options of two decisions counts for
    both.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.samples = 0
        self._sums = [[0.0] * len(decision.options) for decision in decisions]
        self._known: set[int] = set()
        self._parameters: list[tuple[torch.nn.Parameter, list[tuple[int, int]]]] = []
        self._unread: list[tuple[list[list[tuple[int, int]]], Tensor]] = []

    def knows(self, decision: int) -> bool:
        """Tell whether there are samples, and weights that belong to options of ``decision``."""
        return self.samples > 0 and decision in self._known

    def begin(self, supernet: Supernet) -> None:
        """Measure the gradients of ``supernet`` from now on."""
        owners = {
            id(parameter): places
            for module, places in supernet.option_modules()
            for parameter in module.parameters()
        }
        self._parameters = [
            (parameter, owners.get(id(parameter), [])) for parameter in supernet.parameters()
        ]
        self._known = {decision for places in owners.values() for decision, _ in places}

    @torch.no_grad()
    def look(self, good: Tensor | None = None) -> None:
        """Add a sample of the current gradients, unless ``good`` on the device turns out false."""
        active = [(p.grad, owners) for p, owners in self._parameters if p.grad is not None]
        if active and self._known:
            norms = torch.stack(torch._foreach_norm([gradient for gradient, _ in active]))
            squares = float64(norms) ** 2
            shares = squares / squares.sum()
            if good is not None:
                shares = torch.where(good.to(shares.device), shares, torch.nan)
            self._unread.append(([owners for _, owners in active], shares))

    @property
    def sums(self) -> list[list[float]]:
        """Sums of the shares over all samples, [D][K]; each sample has finite gradients."""
        if not self._unread:
            return self._sums
        all_shares = iter(torch.cat([shares for _, shares in self._unread]).tolist())
        for owners, _ in self._unread:
            values = list(islice(all_shares, len(owners)))
            if not all(map(math.isfinite, values)):
                continue
            self.samples += 1
            for places, value in zip(owners, values, strict=True):
                for decision, option in places:
                    self._sums[decision][option] += value
        self._unread = []
        return self._sums

    def state_dict(self) -> dict[str, Any]:
        """Return the number of samples and the sums as data."""
        sums = [list(row) for row in self.sums]
        return {"samples": self.samples, "sums": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of other decisions."""
        self.samples, self._unread = int(state["samples"]), []
        self._sums = _numbers(state["sums"], self._sums, float)


def _numbers(found: Any, own: Sequence[Sequence[Any]], kind: type) -> list[list[Any]]:
    """Return ``found`` as rows of numbers, as long as the rows of ``own``."""
    rows = [[kind(value) for value in row] for row in found]
    if [len(row) for row in rows] != [len(row) for row in own]:
        raise ValueError("what was counted is of another search space")
    return rows
