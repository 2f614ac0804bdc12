"""Scores that several ranks compute, each its share of the architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nasrun.run.run import Run
from nasrun.run.spent import Work
from nasrun.values import Architecture, Trial


def spread(
    run: Run,
    architectures: Sequence[Architecture],
    score: Callable[[Sequence[Architecture]], Iterator[Trial]],
) -> Iterator[Trial]:
    """Yield a trial for each architecture, in order, the same ones on all ranks.

    Of several ranks each scores one architecture, then all tell each other; so the results do not
    depend on the number of ranks, and a run that stops loses one score a rank at most. With its
    score a rank tells what it has spent on it, and its lines of metrics, for the run's logs.

    score: yields the trials of some of the architectures, in order; a score does not depend on the
    others.
    """
    ranks = run.compute.ranks
    if ranks.size == 1:
        yield from score(architectures)
        return
    own = score(architectures[ranks.rank :: ranks.size])
    for _ in range(0, len(architectures), ranks.size):
        with run.alone() as work:
            trial = next(own, None)
        answer: list[Any] | None = trial and [trial.to_json(), work.to_json()]
        for rank, found in enumerate(ranks.gather(answer)):
            if found is None:
                continue
            if rank != ranks.rank:
                run.add_work(Work.from_json(found[1]))
            yield Trial.from_json(found[0])
    next(own, None)  # puts back what was changed for the scores
