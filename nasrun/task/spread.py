"""Scores that several ranks compute, each its share of the architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nasrun.run.ranks import Ranks
from nasrun.values import Architecture, Trial


def spread(
    ranks: Ranks,
    architectures: Sequence[Architecture],
    score: Callable[[Sequence[Architecture]], Iterator[Trial]],
) -> Iterator[Trial]:
    """Yield a trial for each architecture, in order, the same ones on all ranks.

    Of several ranks each scores one architecture, then all tell each other; so the results do not
    depend on the number of ranks, and a run that stops loses one score a rank at most.

    score: yields the trials of some of the architectures, in order; a score does not depend on the
    others.
    """
    if ranks.size == 1:
        yield from score(architectures)
        return
    own = score(architectures[ranks.rank :: ranks.size])
    for _ in range(0, len(architectures), ranks.size):
        trial = next(own, None)
        for found in ranks.gather(None if trial is None else trial.to_json()):
            if found is not None:
                yield Trial.from_json(found)
    next(own, None)  # puts back what was changed for the scores
