"""The steps and losses of training by size of the architectures, by sampling them once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nasrun.metrics.size import size_groups
from nasrun.report.size_bias import SizeClasses
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.search_space.gates import Gates, GatesOfStep, path_of
from nasrun.values import Architecture


def classes_by_size(
    space: SearchSpace,
    size: Measure,
    ranked: Sequence[Architecture],
    gates: GatesOfStep,
    steps: int,
    losses: Sequence[float],
) -> SizeClasses:
    """Return what each tercile of size got in ``steps`` steps.

    A sampler's gates are a pure function of the step, so that they are those of the training. The
    terciles are those of the ``ranked`` architectures; another path belongs to the first tercile
    whose largest architecture is not smaller, or to the last. Gates that open several options at
    once, as in a warm-up, are not counted.
    losses: of the last steps, as many as are known; nan for a step that did not count.
    """
    sizes = np.array([size(architecture) for architecture in ranked])
    third = size_groups(sizes)
    edges = [float(sizes[third <= index].max(initial=0)) for index in (0, 1)]
    known: dict[tuple[int, ...], int] = {}

    def terciles(paths: Sequence[Gates]) -> list[int]:
        found = [path for gates_of_path in paths if (path := path_of(gates_of_path)) is not None]
        for path in set(found) - known.keys():
            value = size(Architecture(space.name, path))
            known[path] = sum(value > edge for edge in edges)
        return [known[path] for path in found]

    counts, sums, measured = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(steps):
        paths = gates(step)
        found = terciles(paths)
        for tercile in found:
            counts[tercile] += 1
        place = step - steps + len(losses)
        if len(paths) == len(found) == 1 and place >= 0 and math.isfinite(losses[place]):
            sums[found[0]] += losses[place]
            measured[found[0]] += 1
    return SizeClasses(_ratios(counts, counts.sum()), _ratios(sums, measured))


def _ratios(values: Any, totals: Any) -> tuple[float, ...]:
    """Return values / totals [3]; nan where a total is 0."""
    pairs = zip(*np.broadcast_arrays(values, totals), strict=True)
    return tuple(float(value / total) if total else math.nan for value, total in pairs)
