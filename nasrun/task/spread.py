"""Scores that several ranks compute, each its share of the architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
        with _noted(run) as work:
            trial = next(own, None)
        answer: list[Any] | None = None
        if trial is not None:
            answer = [trial.to_json(), work.to_json()]
        for rank, found in enumerate(ranks.gather(answer)):
            if found is None:
                continue
            if rank != ranks.rank:
                _add(Work.from_json(found[1]), run)
            yield Trial.from_json(found[0])
    next(own, None)  # puts back what was changed for the scores


@contextmanager
def _noted(run: Run) -> Iterator[Work]:
    """Note the work inside, which this rank does and the others do not."""
    work = Work()
    run.spent.also = work
    run.logs.also = None if run.writes else work
    try:
        yield work
    finally:
        run.spent.also = run.logs.also = None


def _add(work: Work, run: Run) -> None:
    """Count and log what another rank has done by itself."""
    run.spend("", steps=work.steps, images=work.images)
    for stage, step, metrics in work.lines:
        run.logs.metrics(stage, step, metrics)
