"""Mutation and crossover of architectures, decision by decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nasrun.errors import UserError
from nasrun.values import Architecture, Decision

Repair = Callable[[Architecture, np.random.Generator], Architecture]
"""``SearchSpace.repair``."""


def mutate(
    parent: Architecture,
    decisions: Sequence[Decision],
    probability: float,
    rng: np.random.Generator,
) -> Architecture:
    """Sample each decision anew, uniformly, with ``probability`` (SPOS, Algorithm 1: 0.1)."""
    choices = tuple(
        int(rng.integers(len(decision.options))) if rng.random() < probability else choice
        for decision, choice in zip(decisions, parent.choices, strict=True)
    )
    return Architecture(parent.space, choices)


def change_one(
    parent: Architecture,
    decisions: Sequence[Decision],
    allows: Callable[[Architecture], bool],
    rng: np.random.Generator,
    repair: Repair = lambda child, rng: child,
) -> Architecture:
    """Give a random decision another option, both sampled uniformly (Real et al. 2019).

    allows: changes that it refuses are skipped; the result is the parent if it refuses all.
    repair: repairs results that are not valid architectures of the space.
    """
    for index in rng.permutation(len(decisions)).tolist():
        options = rng.permutation(len(decisions[index].options)).tolist()
        for option in options:
            choices = (*parent.choices[:index], option, *parent.choices[index + 1 :])
            child = repair(Architecture(parent.space, choices), rng)
            if child != parent and allows(child):
                return child
    return parent


def cross(first: Architecture, second: Architecture, rng: np.random.Generator) -> Architecture:
    """Take each decision from a random parent, both with equal probability.

    Raises UserError if the parents are of different search spaces.
    """
    if first.space != second.space or len(first.choices) != len(second.choices):
        raise UserError(
            f"an architecture of {first.space} cannot be crossed with one of {second.space}"
        )
    return Architecture(
        first.space,
        tuple(
            a if rng.random() < 0.5 else b
            for a, b in zip(first.choices, second.choices, strict=True)
        ),
    )
