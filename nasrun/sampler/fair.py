"""Strict fairness: every step trains all options of every decision equally often."""

from __future__ import annotations

from collections.abc import Sequence

from nasrun.errors import UserError
from nasrun.sampler.base import Sampler
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates, GatesOfStep
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem


class Fair(Sampler):
    """Permutes the options of each decision in a step and trains the paths that result.

    All paths of a step make one update. With m options there are m paths, and each option is in
    exactly one of them. A decision with fewer options repeats its permutation, so the counts of its
    options differ by at most one.
    Source: FairNAS (Chu et al., arXiv 1907.01845), Algorithm 1.
    """

    takes_pool = False

    def bind(
        self,
        space: SearchSpace,
        problem: Problem,
        pool: Sequence[Architecture] | None,
        streams: Streams,
        *,
        steps: int,
        ghost_batches: int = 1,
    ) -> GatesOfStep:
        if pool is not None:
            raise UserError("sampler=fair trains the whole search space, not a pool")
        counts = [len(decision.options) for decision in space.decisions]
        paths = max(counts)

        def gates(step: int) -> list[Gates]:
            rng = streams.numpy("sampler", step)
            orders = [rng.permutation(count).tolist() for count in counts]
            return [tuple(order[path % len(order)] for order in orders) for path in range(paths)]

        return gates
