"""The training steps that architectures of each size got, by sampling them once more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasrun.metrics.size import size_groups
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.search_space.gates import Gates, GatesOfStep, path_of
from nasrun.values import Architecture


def steps_by_size(
    space: SearchSpace,
    size: Measure,
    ranked: Sequence[Architecture],
    gates: GatesOfStep,
    steps: int,
) -> list[float]:
    """Return the share of the trained paths in each tercile of size, from small to large.

    A sampler's gates are a pure function of the step, so that they are those of the training. The
    terciles are those of the ``ranked`` architectures; another path belongs to the first tercile
    whose largest architecture is not smaller, or to the last. Gates that open several options at
    once, as in a warm-up, are not counted; all shares are nan if there is nothing else.
    """
    sizes = np.array([size(architecture) for architecture in ranked])
    third = size_groups(sizes)
    edges = [float(sizes[third <= index].max(initial=0)) for index in (0, 1)]
    known: dict[tuple[int, ...], int] = {}
    counts = np.zeros(3)

    def tercile(path: tuple[int, ...]) -> int:
        if path not in known:
            value = size(Architecture(space.name, path))
            known[path] = sum(value > edge for edge in edges)
        return known[path]

    def count(paths: Sequence[Gates]) -> None:
        for gates_of_path in paths:
            if (path := path_of(gates_of_path)) is not None:
                counts[tercile(path)] += 1

    for step in range(steps):
        count(gates(step))
    total = counts.sum()
    return (counts / total).tolist() if total else [float("nan")] * 3
