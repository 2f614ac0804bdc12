"""Scores of a run: one store of trials, and the loop that fills it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import GatesOf, Scorer, choices_of
from nasrun.run.run import Run
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.task.spread import spread
from nasrun.values import Architecture, Trial


class SameImages:
    """A check, kept in checkpoints, that the images are those that the run began with."""

    def __init__(self, splits: Splits) -> None:
        self.images = {
            "training": splits.train.fingerprint(),
            "validation": splits.validation.fingerprint(),
        }

    def state_dict(self) -> dict[str, Any]:
        return dict(self.images)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raise UserError if the images differ from those of ``state``."""
        for split, now in self.images.items():
            if now != state[split]:
                raise UserError(
                    f"the {split} images are not those that the run began with ({now}; then "
                    f"{state[split]!s:.80}): set dataset.root to where those are"
                )


class Scores:
    """Trials by the name of their group (a round, an epoch, the shortlist), in order.

    They are kept in checkpoints, so a run that is continued scores only the rest.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.groups: dict[str, list[Trial]] = {}

    def trials_of(self, group: str) -> list[Trial]:
        """Return the list of trials of a group, to which trials may be added."""
        return self.groups.setdefault(group, [])

    @property
    def mark(self) -> tuple[int, ...]:
        """The number of trials of each group: equal marks mean equal states."""
        return tuple(map(len, self.groups.values()))

    def state_dict(self) -> dict[str, Any]:
        return {
            group: [trial.to_json() for trial in trials] for group, trials in self.groups.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError if it belongs to another search space."""
        self.groups = {
            str(group): [Trial.from_json(trial) for trial in trials]
            for group, trials in state.items()
        }
        for trials in self.groups.values():
            for trial in trials:
                self.space.check(trial.architecture)


def score_all(
    scorer: Scorer,
    architectures: Sequence[Architecture],
    trials: list[Trial],
    run: Run,
    *,
    supernet: Supernet | None = None,
    gates_of: GatesOf = choices_of,
    notes_of: Callable[[Trial], dict[str, Any]] = lambda _: {},
    **context: Any,
) -> Iterator[Trial]:
    """Score architectures one by one, log each trial, add it to ``trials``, and yield it.

    When the caller asks for the next trial, the run may write a checkpoint or stop. A score that is
    not finite stops the search or, with ``on_nonfinite=skip``, counts as the worst. Several ranks
    share the work.

    notes_of, context: are added to each trial in trials.jsonl, e.g. its parents, and the round.
    """
    scored = spread(
        run.compute.ranks,
        architectures,
        lambda own: scorer.score(own, supernet, run, gates_of),
    )
    for trial in run.measured(scored, architectures):
        if not math.isfinite(trial.score):
            trial = _worst(trial, run)
        trials.append(trial)
        run.record([trial], **context, **notes_of(trial))
        yield trial
        run.safe_point()


def _worst(trial: Trial, run: Run) -> Trial:
    """Return the trial with the worst score; raises UserError unless ``on_nonfinite=skip``."""
    if run.compute.on_nonfinite == "skip":
        return replace(
            trial, score=0.0, tie_break=None, evaluation={**trial.evaluation, "nonfinite": True}
        )
    note = run.write_note("nonfinite", {"architecture": trial.architecture.to_json()})
    raise UserError(
        f"the outputs of architecture {list(trial.architecture.choices)} are not finite, "
        "so it has no score: lower trainer.schedule.lr, or count such architectures as "
        f"the worst with on_nonfinite=skip; {note}"
    )
