"""The true scores of a ranking: read from a table, or trained once and kept for later runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.dataset.base import Splits
from nasrun.errors import MissingCapabilityError
from nasrun.evaluator.base import Evaluator, needs_no_supernet
from nasrun.evaluator.store import TrialStore
from nasrun.run.run import Run
from nasrun.run.unlogged_monitor import UnloggedMonitor
from nasrun.search_space.base import Scale, SearchSpace
from nasrun.streams import Streams
from nasrun.task.spread import spread
from nasrun.values import Architecture, Trial

TrueScores = npt.NDArray[np.float64]


class GroundTruth:
    """Finds the true scores of architectures: looks them up, or trains the networks once."""

    def __init__(
        self, evaluator: Evaluator, seeds: int, folder: Path, config: Mapping[str, Any]
    ) -> None:
        """Check that the evaluator can be a ground truth.

        seeds: networks trained per architecture. folder: where the trials are stored.
        config: settings of the search space and the evaluator on which scores depend.
        Raises UserError if the evaluator needs a supernet: its scores are no ground truth.
        """
        if evaluator.needs_supernet:
            raise MissingCapabilityError(
                "rank.truth: the scores of a supernet are no ground truth",
                group="evaluator@rank.truth",
                has=needs_no_supernet,
            )
        self.evaluator = evaluator
        self.seeds = seeds
        self.folder, self.config = folder, config

    def start(self, space: SearchSpace, splits: Splits, run: Run) -> None:
        """Bind the evaluator and open the store; raises UserError if the truth cannot be had."""
        self.space, self.splits, self.run = space, splits, run
        self.scorer = self.evaluator.bind(space, splits, run.compute, run.streams)
        definition = {
            **self.config,
            "task": asdict(splits.problem),
            "train": splits.train.fingerprint(),
            "validation": splits.validation.fingerprint(),
        }
        self.store = TrialStore(self.folder, definition)

    def missing(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """Return the architectures whose true score can neither be looked up nor trained."""
        published = self.scorer.published_scores
        if published is None:
            return []
        return [architecture for architecture in architectures if architecture not in published]

    def scores(self, architectures: Sequence[Architecture]) -> TrueScores:
        """The scores, [seeds, architectures]; trains only the networks that the store lacks."""
        published = self.scorer.published_scores
        if published is not None:
            list(self.scorer.score(architectures, None, self.run))  # raises over a missing one
            return np.array([published[architecture] for architecture in architectures]).T
        found = [list(self._of_seed(architectures, seed)) for seed in range(self.seeds)]
        return np.array([[trial.score for trial in trials] for trials in found])

    def known(self, architectures: Sequence[Architecture]) -> TrueScores | None:
        """The scores that are known without training, [seeds, architectures]; None: not all."""
        if self.scorer.published_scores is not None:
            return self.scores(architectures)
        stored = self.store.read(self.space, self.splits.problem)
        keys = [[(one, seed) for one in architectures] for seed in range(self.seeds)]
        if not all(key in stored for row in keys for key in row):
            return None
        return np.array([[stored[key].score for key in row] for row in keys])

    @property
    def scale(self) -> Scale:
        """The size of the scored networks: that of the search, or that of a publication."""
        return self.evaluator.network_scale

    def _of_seed(self, architectures: Sequence[Architecture], seed: int) -> Iterator[Trial]:
        monitor = UnloggedMonitor(self.run)
        ranks = self.run.compute.ranks
        stored = self.store.read(self.space, self.splits.problem)
        wanted = [stored.get((architecture, seed)) for architecture in architectures]
        # Other runs may add to the store just now, so the first rank tells what is known.
        found = ranks.agree([None if trial is None else trial.to_json() for trial in wanted])
        known = [None if trial is None else Trial.from_json(trial) for trial in found]
        streams = Streams(seed).sub("ground_truth")
        scorer = self.evaluator.bind(self.space, self.splits, self.run.compute, streams)
        missing = [one for one, trial in zip(architectures, known, strict=True) if trial is None]
        scores = spread(self.run, missing, lambda own: scorer.score(own, None, monitor))
        trained = self.run.measured(scores, missing)
        with self.run.screen.stage(f"truth/seed{seed}", len(architectures)) as stage:
            for trial in known:
                if trial is None:
                    trial = next(trained)
                    self.store.add(trial)
                stage.advance(1, {"accuracy": trial.score})
                yield trial
                self.run.safe_point()


def truth_config(config: Any) -> dict[str, Any]:
    """Return the settings that the accuracy of a stand-alone network depends on."""
    truth = {**config["rank"]["truth"]}
    if isinstance(truth.get("trainer"), dict):
        truth["trainer"] = {k: v for k, v in truth["trainer"].items() if k != "log_every"}
    return {"search_space": config["search_space"], "truth": truth}
