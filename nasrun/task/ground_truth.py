"""The ground truth of a ranking: looked up, or trained once and kept for every later run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.dataset.base import Splits
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Evaluator, needs_no_supernet
from nasrun.run.files import read_bytes
from nasrun.run.monitor import Monitor, Stage
from nasrun.run.run import Run
from nasrun.run.screen import ScreenStage
from nasrun.run.state import Stateful
from nasrun.search_space.base import Scale, SearchSpace
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem, Trial

TrueScores = npt.NDArray[np.float64]


class Store:
    """Trials of stand-alone networks in a file of JSON lines, one file for each definition.

    definition: all that a score depends on besides architecture and seed; equal ones share a file.
    Appending is one write, so that several processes may do it side by side.
    """

    def __init__(self, folder: Path, definition: Mapping[str, Any]) -> None:
        text = json.dumps(definition, sort_keys=True)
        name = blake2b(text.encode(), digest_size=8).hexdigest()
        self.path = folder.expanduser() / f"{name}.jsonl"
        self.definition = text

    def read(self, space: SearchSpace, problem: Problem) -> dict[tuple[Architecture, int], Trial]:
        """All trials so far; raises UserError where they are of other networks than today's.

        A line that a killed process left unfinished is passed over.
        """
        found: dict[tuple[Architecture, int], Trial] = {}
        if not self.path.exists():
            return found
        for number, line in enumerate(read_bytes(self.path, 2**30).splitlines(), 1):
            try:
                trial = Trial.from_json(json.loads(line)["trial"])
            except (ValueError, KeyError, TypeError, RecursionError, UserError):
                continue
            architecture = space.check(trial.architecture)
            if trial.cost != space.cost(architecture, problem):
                raise UserError(
                    f"{self.path}, line {number}: {trial.cost.params:,} parameters and "
                    f"{trial.cost.macs:,} MACs, but the architecture has "
                    f"{space.cost(architecture, problem).params:,} and "
                    f"{space.cost(architecture, problem).macs:,}: it was trained with another "
                    "definition of the networks; move the file away, or set rank.truth_store"
                )
            found[architecture, trial.seed] = trial
        return found

    def add(self, trial: Trial) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = b""
        if not self.path.exists():
            line = json.dumps({"definition": json.loads(self.definition)}).encode() + b"\n"
        elif not self.path.read_bytes().endswith(b"\n"):
            line = b"\n"  # what a killed process left unfinished
        line += json.dumps({"trial": trial.to_json()}).encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        file = os.open(self.path, flags, 0o666)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)


class ShownOnly:
    """A monitor whose stages are shown but not logged.

    What is in the store is not trained again, so lines of metrics would depend on who came first.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Stage]:
        with self.run.screen.stage(name, total) as shown:
            yield Shown(shown)

    def say(self, line: str = "", style: str | None = None) -> None:
        self.run.say(line, style)

    def keep(self, name: str, stateful: Stateful, label: str = "") -> None:
        self.run.keep(name, stateful, label)

    def drop(self, name: str) -> None:
        self.run.drop(name)

    def safe_point(self) -> None:
        self.run.safe_point()

    def poll(self) -> None:
        self.run.poll()

    def write_note(self, name: str, content: Mapping[str, Any]) -> str:
        return self.run.write_note(name, content)


class Shown:
    def __init__(self, shown: ScreenStage) -> None:
        self.shown = shown

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.shown.advance(steps, metrics)


class GroundTruth:
    """True scores of some architectures, [seeds, architectures]."""

    def __init__(
        self, evaluator: Evaluator, seeds: int, folder: Path, config: Mapping[str, Any]
    ) -> None:
        """config: of the search space and the evaluator, as far as scores depend on it.

        Raises UserError where the evaluator needs a supernet: that would be no ground truth."""
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
        """Raises UserError where there is no ground truth to be had."""
        self.space, self.splits, self.run = space, splits, run
        self.scorer = self.evaluator.bind(space, splits, run.compute, run.streams)
        definition = {
            **self.config,
            "task": asdict(splits.problem),
            "train": splits.train.fingerprint(),
            "validation": splits.validation.fingerprint(),
        }
        self.store = Store(self.folder, definition)

    def scores(self, architectures: Sequence[Architecture]) -> TrueScores:
        """Every network is trained at most once; what is known already is read."""
        published = self.scorer.published_scores
        if published is not None:
            list(self.scorer.score(architectures, None, self.run))  # raises over a missing one
            return np.array([published[architecture] for architecture in architectures]).T
        found = [list(self._of_seed(architectures, seed)) for seed in range(self.seeds)]
        return np.array([[trial.score for trial in trials] for trials in found])

    @property
    def scale(self) -> Scale:
        """The networks whose accuracy it is: those of the search, or those of a publication."""
        return self.evaluator.network_scale

    def _of_seed(self, architectures: Sequence[Architecture], seed: int) -> Iterator[Trial]:
        monitor: Monitor = ShownOnly(self.run)
        known = self.store.read(self.space, self.splits.problem)
        streams = Streams(seed).sub("ground_truth")
        scorer = self.evaluator.bind(self.space, self.splits, self.run.compute, streams)
        left = [one for one in architectures if (one, seed) not in known]
        trained = scorer.score(left, None, monitor)
        with self.run.screen.stage(f"truth/seed{seed}", len(architectures)) as stage:
            for architecture in architectures:
                trial = known.get((architecture, seed))
                if trial is None:
                    trial = next(trained)
                    self.store.add(trial)
                stage.advance(1, {"accuracy": trial.score})
                yield trial
                self.run.safe_point()
