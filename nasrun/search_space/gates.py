"""Gates: the weight of each option in a forward pass; every method is a rule for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from nasrun.errors import UserError

Weight = float | Tensor
"""A number, or a tensor that broadcasts over images, [] or [B, 1, 1, 1]."""

Weights = Sequence[Weight | None]
"""The weight of each ``BINARY`` decision that is on, None for the others."""

Gate = int | Mapping[int, Weight]
"""An ``int`` opens that option alone; a mapping opens its options, each times its weight."""

Gates = Sequence[Gate]
"""One gate for each decision, in the order of ``SearchSpace.decisions``."""

GatesOfStep = Callable[[int], list[Gates]]
"""The gates of training step s: one forward and backward pass for each, then one update."""

GateKind = Literal["path", "mix"]
"""``path``: one option a decision, only that path is computed; ``mix``: sums of several."""

BINARY = ("off", "on")
"""The options of a decision on whether something exists; if it is off, it adds nothing."""


def has_mixtures(space: type) -> bool:
    """Return whether a class of search spaces takes gates of kind ``mix``."""
    return "mix" in getattr(space, "gate_kinds", ())


def is_binary(space: type) -> bool:
    """Return whether all decisions of a class of search spaces are ``BINARY``."""
    return bool(getattr(space, "binary", False))


def mixed(gate: Gate, option: Callable[[int], Tensor]) -> Tensor:
    """The open option's output, or the weighted sum of several; no other option is computed.

    Raises UserError if no option is open: such a decision has no output.
    """
    if isinstance(gate, int):
        return option(gate)
    total: Tensor | None = None
    for index, weight in gate.items():
        term = weight * option(index)
        total = term if total is None else total + term
    if total is None:
        raise UserError("all options of a decision are shut: open at least one")
    return total


def gate_without(gate: Gate, option: int) -> Gate | None:
    """Return the gate without ``option``, which adds nothing; None: no other option is open."""
    if isinstance(gate, int):
        return None if gate == option else gate
    return {other: weight for other, weight in gate.items() if other != option} or None


def weight_of_on(gate: Gate) -> Weight | None:
    """Return the weight of a ``BINARY`` decision that is on; None: it is off."""
    if isinstance(gate, int):
        return 1.0 if gate else None
    return gate.get(1)


def weighted(weight: Weight | None, x: Tensor) -> Tensor:
    """Return ``x`` times the weight; ``x`` itself if the weight is 1 or None."""
    if weight is None or (not isinstance(weight, Tensor) and weight == 1):
        return x
    return weight * x


def are_learned(gates: Gates) -> bool:
    """Tell whether a weight of the gates gets a gradient."""
    return any(
        isinstance(weight, Tensor) and weight.requires_grad
        for gate in gates
        if not isinstance(gate, int)
        for weight in gate.values()
    )


def single_path(gates: Gates) -> tuple[int, ...]:
    """Return the choices of a single path; raises UserError if a gate opens several options."""
    path = path_of(gates)
    if path is None:
        raise UserError("this search space opens one option of a decision at a time")
    return path


def path_of(gates: Gates) -> tuple[int, ...] | None:
    """Return the choices of a single path; None if a gate opens several options."""
    choices = tuple(gate for gate in gates if isinstance(gate, int))
    return choices if len(choices) == len(gates) else None
