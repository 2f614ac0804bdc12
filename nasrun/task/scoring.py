"""Scores of a run: one store of trials, and the loop that fills it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import GatesOf, Scorer, choices_of
from nasrun.run.layout import NONFINITE
from nasrun.run.run import Run, RunStage
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


EARLY = "/early"
"""End of the name of a group's early trials in a checkpoint."""


class Trials(list[Trial]):
    """The trials of a group, in order.

    early: those that are there before their turn, as a scorer may prefer another order.
    """

    def __init__(self, trials: Iterable[Trial] = (), early: Iterable[Trial] = ()) -> None:
        super().__init__(trials)
        self.early = {trial.architecture: trial for trial in early}


class Scores:
    """Trials by the name of their group (a round, an epoch, the shortlist), in order.

    They are kept in checkpoints, so a run that is continued scores only the rest.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.groups: dict[str, Trials] = {}

    def trials_of(self, group: str) -> Trials:
        """Return the list of trials of a group, to which trials may be added."""
        return self.groups.setdefault(group, Trials())

    @property
    def mark(self) -> tuple[tuple[int, int], ...]:
        """The numbers of trials of each group: equal marks mean equal states."""
        return tuple((len(trials), len(trials.early)) for trials in self.groups.values())

    def state_dict(self) -> dict[str, Any]:
        groups: dict[str, Iterable[Trial]] = {}
        for group, trials in self.groups.items():
            groups[group] = trials
            if trials.early:
                groups[f"{group}{EARLY}"] = trials.early.values()
        return {group: [trial.to_json() for trial in trials] for group, trials in groups.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError if it belongs to another search space."""
        found = {
            str(group): [Trial.from_json(trial) for trial in trials]
            for group, trials in state.items()
        }
        for trials in found.values():
            for trial in trials:
                self.space.check(trial.architecture)
        self.groups = {
            group: Trials(trials, found.get(f"{group}{EARLY}", ()))
            for group, trials in found.items()
            if not group.endswith(EARLY)
        }


def score_all(
    scorer: Scorer,
    architectures: Sequence[Architecture],
    trials: Trials,
    run: Run,
    stage: RunStage | None = None,
    *,
    supernet: Supernet | None = None,
    gates_of: GatesOf = choices_of,
    notes_of: Callable[[Trial], dict[str, Any]] = lambda _: {},
    **context: Any,
) -> Iterator[Trial]:
    """Score architectures, log each trial, add it to ``trials``, and yield it, in their order.

    After each score, and when the caller asks for the next trial, the run may write a checkpoint or
    stop. A score that is not finite stops the search or, with ``on_nonfinite=skip``, counts as the
    worst. Several ranks share the work.

    stage: is told how many have a score before their turn.
    notes_of, context: are added to each trial in trials.jsonl, e.g. its parents, and the round.
    """
    early = trials.early
    left = [one for one in dict.fromkeys(architectures) if one not in early]
    in_order, found = _scores(scorer, left, supernet, run, gates_of)
    found = run.measured(found, in_order)
    turns = Counter(architectures)
    for architecture in architectures:
        while architecture not in early:
            trial = next(found)
            early[trial.architecture] = trial if math.isfinite(trial.score) else _worst(trial, run)
            if trial.architecture != architecture:
                _tell_ahead(stage, trials)
                run.safe_point()
        trial = early[architecture]
        turns[architecture] -= 1
        if not turns[architecture]:
            del early[architecture]
        _tell_ahead(stage, trials)
        trials.append(trial)
        run.record([trial], **context, **notes_of(trial))
        yield trial
        run.safe_point()
    next(found, None)  # lets the scorer put back what it changed
    early.clear()


def _scores(
    scorer: Scorer,
    architectures: Sequence[Architecture],
    supernet: Supernet | None,
    run: Run,
    gates_of: GatesOf,
) -> tuple[Sequence[Architecture], Iterator[Trial]]:
    """Return the architectures in the order in which they are scored, and their trials."""
    ranks = run.compute.ranks
    if ranks.size == 1:
        return scorer.together(architectures, supernet, run, gates_of)
    return architectures, spread(
        run, architectures, lambda own: scorer.score(own, supernet, run, gates_of)
    )


def _tell_ahead(stage: RunStage | None, trials: Trials) -> None:
    """Tell the stage how many architectures have a score before their turn."""
    if stage is not None:
        stage.ahead(len(trials.early))


def _worst(trial: Trial, run: Run) -> Trial:
    """Return the trial with the worst score; raises UserError unless ``on_nonfinite=skip``."""
    if run.compute.on_nonfinite == "skip":
        return replace(
            trial, score=0.0, tie_break=None, evaluation={**trial.evaluation, "nonfinite": True}
        )
    note = run.write_note(NONFINITE, {"architecture": trial.architecture.to_json()})
    raise UserError(
        f"the outputs of architecture {list(trial.architecture.choices)} are not finite, "
        "so it has no score: lower trainer.schedule.lr, or count such architectures as "
        f"the worst with on_nonfinite=skip; {note}"
    )
