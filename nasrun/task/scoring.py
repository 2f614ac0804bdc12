"""How far a task has come, as parts that checkpoints keep."""

from __future__ import annotations

from typing import Any

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.search_space.base import SearchSpace
from nasrun.values import Trial


class SameImages:
    """Nothing to continue, but something to check: the images are those that the run began with."""

    def __init__(self, splits: Splits) -> None:
        self.images = {
            "training": splits.train.fingerprint(),
            "validation": splits.validation.fingerprint(),
        }

    def state_dict(self) -> dict[str, Any]:
        return dict(self.images)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where they are others."""
        for split, now in self.images.items():
            if now != state[split]:
                raise UserError(
                    f"the {split} images are not those that the run began with ({now}; then "
                    f"{state[split]!s:.80}): set dataset.root to where those are"
                )


class Tally:
    """Scores of the round under way: their number and the best of them.

    free: the share of parameter-free operations of the best (``SearchSpace.free_share``).
    """

    def __init__(self) -> None:
        self.round = -1
        self.count = 0
        self.best = self.free = 0.0

    def begin(self, round_: int) -> int:
        """Go on with a round, or start it; how many scores it has."""
        if round_ != self.round:
            self.round, self.count = round_, 0
            self.best = self.free = 0.0
        return self.count

    def add(self, trial: Trial, free: float) -> None:
        """Count it; free: its share of parameter-free operations."""
        self.count += 1
        if self.count == 1 or trial.score > self.best:
            self.free = free
        self.best = max(self.best, trial.score)

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round, "count": self.count, "best": self.best, "free": self.free}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.count = int(state["round"]), int(state["count"])
        self.best, self.free = float(state["best"]), float(state["free"])


class ScoresByEpoch:
    """The supernet's scores so far: for each measured epoch those of the first architectures."""

    def __init__(self) -> None:
        self.scores: dict[str, list[float]] = {}

    def of(self, epoch: int) -> list[float]:
        return self.scores.setdefault(str(epoch), [])

    def state_dict(self) -> dict[str, Any]:
        return {"scores": {epoch: list(scores) for epoch, scores in self.scores.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores = {
            str(epoch): [float(score) for score in scores]
            for epoch, scores in state["scores"].items()
        }


class Scored:
    """Trials that belong to no search algorithm, in order."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.trials: list[Trial] = []

    def state_dict(self) -> dict[str, Any]:
        return {"trials": [trial.to_json() for trial in self.trials]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where the state belongs to another search space."""
        self.trials = [Trial.from_json(trial) for trial in state["trials"]]
        for trial in self.trials:
            self.space.check(trial.architecture)
