"""Path dropout: every ghost batch closes random decisions, and opens all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Count
from nasrun.sampler.base import Sampler
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates, GatesOfStep, is_binary
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem


class PathDropout(Sampler):
    """Switches each decision off with probability progress · rate^(1/k).

    k: number of decisions in its group: names of a group differ only after the last slash, e.g. the
    inputs or the operations of one choice block. So in the last step all k decisions are off with
    probability ``rate``, for any k. progress: rises linearly from 0 at the first step to 1 at the
    last. ghost_batch: images with a pattern and batch norm statistics of their own; None: all
    images of a batch share both.
    Source: Bender et al., ICML 2018; the root and the schedule by general knowledge.
    """

    takes_pool = False

    def __init__(
        self,
        *,
        rate: Annotated[float, Field(gt=0, lt=1)],
        ghost_batch: Annotated[Count, Field(ge=2)] | None,
    ) -> None:
        self.rate, self.ghost_batch = rate, ghost_batch

    def check(self, space: SearchSpace) -> None:
        if not space.binary:
            raise MissingCapabilityError(
                f"sampler=path_dropout drops what may be off or on, and {space.name} has no such "
                "decisions",
                group="search_space",
                has=is_binary,
            )

    def ghost_batch_of(self, batch_size: int) -> int | None:
        ghost_batch = self.ghost_batch or batch_size
        if ghost_batch > batch_size:
            raise UserError(
                f"sampler.ghost_batch={ghost_batch} is larger than trainer.batch_size={batch_size}"
            )
        if batch_size % ghost_batch:
            raise UserError(
                f"sampler.ghost_batch={ghost_batch} does not divide trainer.batch_size={batch_size}"
            )
        return self.ghost_batch

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
            raise UserError("sampler=path_dropout trains the whole search space, not a pool")
        self.check(space)
        groups = [decision.name.rpartition("/")[0] for decision in space.decisions]
        sizes = Counter(groups)
        final = np.array([self.rate ** (1 / sizes[group]) for group in groups])
        last = max(steps - 1, 1)

        def gates(step: int) -> list[Gates]:
            off = final * min(step / last, 1.0)
            random = streams.numpy("sampler", step).random((ghost_batches, len(groups)))
            return [tuple(pattern) for pattern in (random >= off).astype(int).tolist()]

        return gates
