"""Scores by the shared weights of a supernet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, Literal

import torch
from pydantic import Field

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import Evaluator, GatesOf, Scorer, choices_of
from nasrun.evaluator.batch_norm import Protocol
from nasrun.evaluator.batches import fixed_batches
from nasrun.evaluator.paths import PathScores, Shares, pieces_of
from nasrun.evaluator.prefix import MIN_SAVING, Walk, Work, plan_walk
from nasrun.evaluator.race import Race
from nasrun.evaluator.score_store import KeptScores, ScoreStore, definition_of, weights_of
from nasrun.limits import AtMost, Count, Images, SomeImages
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.run.processor import processor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.capabilities import ChainSupernet
from nasrun.search_space.gates import Gates, path_of
from nasrun.search_space.layer import count_layers
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem, Trial

MEMORY_SHARE = 0.25
"""Share of the free memory that the outputs of a walk may take; ours."""

Ties = Literal["none", "top5"]
"""The order of architectures of equal scores: none, or by top-5 accuracy."""


class SupernetEvaluator(Evaluator):
    """Scores by accuracy on the same validation images for every architecture.

    images: number of validation images (None: all).
    batch_norm: see ``nasrun.evaluator.batch_norm``.
    recalibration_images: training images for ``batch_norm=recalibrated``.
    ties: what orders architectures of equal scores: nothing, or the top-5 accuracy (SPOS'
    released code), with fewer than six classes that of all but one.
    canonical: whether an architecture has the score of its canonical form, so that all that stand
    for one network are scored by one path.
    share: whether paths of chains that are scored together compute equal first pieces once, where
    that saves enough (see ``nasrun.evaluator.prefix``); scores are the same to the bit.
    store: folder of scores by weights and images, so that no path is scored twice; None: none.
    race: number of the best that are scored on all images, while others are stopped once they
    cannot be among them (see ``nasrun.evaluator.race``); None: all are scored on all images.
    race_confidence: that none of the best is stopped.
    """

    needs_supernet = True
    network_scale = "search"

    def __init__(
        self,
        *,
        images: SomeImages | None,
        batch_size: Annotated[Count, Field(ge=2)],
        batch_norm: Protocol,
        recalibration_images: Images,
        ties: Ties = "none",
        canonical: bool = False,
        share: bool = True,
        store: str | None = None,
        race: Count | None = None,
        race_confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.99,
    ) -> None:
        if race is not None and store is not None:
            raise UserError(
                "evaluator.race and evaluator.store: the score of an architecture that is stopped "
                "in a race depends on its rivals, so it cannot be kept; set one of them to null"
            )
        self.images = images
        self.batch_size = batch_size
        self.batch_norm = batch_norm
        self.recalibration_images = recalibration_images
        self.ties: Ties = ties
        self.canonical, self.share, self.store = canonical, share, store
        self.race, self.race_confidence = race, race_confidence

    def images_per_score(self, splits: Splits) -> int:
        """Return the images that are scored, and those that set the statistics first."""
        scored = min(self.images or len(splits.validation), len(splits.validation))
        first = self.recalibration_images if self.batch_norm == "recalibrated" else 0
        return scored + min(first, len(splits.train))

    def bind(
        self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams
    ) -> SupernetScorer:
        there = len(splits.validation)
        count = there if self.images is None else AtMost.fitting(self.images, there)
        if count > there:
            raise UserError(
                f"evaluator.images={count}: the validation split has {there} images; lower it "
                "or raise dataset.validation"
            )
        calibrating = min(self.recalibration_images, len(splits.train))
        measured = {"batch": count, "recalibrated": calibrating}.get(self.batch_norm, 2)
        if measured < 2:
            raise UserError(
                f"evaluator.batch_norm={self.batch_norm} needs at least two images: there are no "
                "statistics of one"
            )
        size, problem = self.batch_size, splits.problem
        return SupernetScorer(
            space=space,
            problem=problem,
            compute=compute,
            seed=streams.seed,
            batch_norm=self.batch_norm,
            count=count,
            batch_size=size,
            validation=fixed_batches(splits.validation, problem, size, count),
            calibration=fixed_batches(splits.train, problem, size, calibrating),
            calibrating=calibrating,
            places=[min(5, max(problem.classes - 1, 1))] if self.ties == "top5" else [],
            canonical=self.canonical,
            share=self.share,
            store=None if self.store is None else ScoreStore(self.store),
            race=None if self.race is None else Race(self.race, self.race_confidence),
        )


@dataclass(frozen=True, kw_only=True)
class SupernetScorer(PathScores, Scorer):
    """Scores the paths of a supernet on fixed batches.

    canonical, share: see ``SupernetEvaluator``. store, race: None: there is none.
    """

    space: SearchSpace
    problem: Problem
    seed: int
    canonical: bool = False
    share: bool = False
    store: ScoreStore | None = None
    race: Race | None = None

    def with_protocol(self, batch_norm: Protocol) -> SupernetScorer:
        """Return a scorer of another batch norm protocol that shares the batches of this one."""
        return replace(self, batch_norm=batch_norm)

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        assert supernet is not None  # since needs_supernet  # noqa: S101
        paths = [self.gates(one, gates_of) for one in architectures]
        for shares, one in zip(self.alone(paths, supernet, monitor), architectures, strict=True):
            yield self._trial(one, shares)

    def together(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> tuple[Sequence[Architecture], Iterator[Trial]]:
        """Walk the paths of a chain together where that pays; others are scored one by one.

        Scores that the store has come first. In a race a score does depend on the others.
        """
        assert supernet is not None  # since needs_supernet  # noqa: S101
        gates = {one: self.gates(one, gates_of) for one in architectures}
        if self.race is not None:
            return architectures, self._raced(self.race, gates, supernet, monitor)
        kept = None if self.store is None else self._kept(self.store, supernet, monitor)
        known: Mapping[tuple[int, ...] | None, Shares] = {} if kept is None else kept.read()
        there = [one for one, path in gates.items() if path_of(path) in known]
        left = [one for one, path in gates.items() if path_of(path) not in known]
        walk = self.walk_for([gates[one] for one in left], supernet)
        in_order = left if walk is None else [left[step.place] for step in walk.steps]

        def trials() -> Iterator[Trial]:
            for one in there:
                yield self._trial(one, known[path_of(gates[one])])
            paths = [gates[one] for one in left]
            scored = (
                self.alone(paths, supernet, monitor)
                if walk is None
                else self.walked(walk, paths, supernet, monitor)
            )
            for shares, one in zip(scored, in_order, strict=True):
                if kept is not None:
                    kept.add(path_of(gates[one]), shares)
                yield self._trial(one, shares)

        return [*there, *in_order], trials()

    def walk_for(self, paths: Sequence[Gates], supernet: Supernet) -> Walk | None:
        """Plan a walk of all paths; None: too little would be saved.

        Of networks that are no chains only those are saved that are asked for more than once.
        """
        chosen = [path for gates in paths if (path := path_of(gates)) is not None]
        if not self.share or len(chosen) != len(paths) or len(paths) < 2:
            return None
        keys = [[piece.key for piece in pieces_of(supernet, path)] for path in chosen]
        known: dict[str, Work] = {}
        chain = isinstance(supernet, ChainSupernet)
        work = [self._work(path, known) if chain else [self._whole(path)] for path in chosen]
        images = self.count + (self.calibrating if self.batch_norm == "recalibrated" else 0)
        walk = plan_walk(keys, work, images, int(MEMORY_SHARE * self.compute.free_bytes()))
        return walk if walk.saving >= MIN_SAVING else None

    def _work(self, path: tuple[int, ...], known: dict[str, Work]) -> list[Work]:
        """Return the work of each piece of a path. known: that of layers by name; grows."""
        layers = self.space.layers(Architecture(self.space.name, path), self.problem)
        for layer in layers:
            if layer.name not in known:
                known[layer.name] = Work(count_layers([layer]).macs, prod(layer.shape))
        return [known[layer.name] for layer in layers]

    def _whole(self, path: tuple[int, ...]) -> Work:
        """Return the work of a path that is no chain."""
        macs = self.space.cost(Architecture(self.space.name, path), self.problem).macs
        return Work(macs, prod(self.problem.shape))

    def _kept(self, store: ScoreStore, supernet: Supernet, monitor: Monitor) -> KeptScores:
        """Return the scores of this supernet that the store keeps."""
        recalibrated = self.batch_norm == "recalibrated"
        protocol = {
            "batch_norm": self.batch_norm,
            "places": list(self.places),
            "device": self.compute.describe(),
            "channels_last": self.compute.channels_last,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "processor": processor(),
        }
        images = [self.validation, *([self.calibration] if recalibrated else [])]
        return store.of(definition_of(supernet, images, protocol), monitor.say)

    def _raced(
        self,
        race: Race,
        gates: Mapping[Architecture, Gates],
        supernet: Supernet,
        monitor: Monitor,
    ) -> Iterator[Trial]:
        """Yield the trials of a race, which goes on with the next architectures."""
        monitor.keep("race", race)
        race.begin(weights_of(supernet))
        scored = self.raced(race, list(gates.values()), supernet, monitor)
        for (shares, images), one in zip(scored, gates, strict=True):
            yield self._trial(one, shares, images)

    def gates(self, architecture: Architecture, gates_of: GatesOf) -> Gates:
        """Return the gates by which an architecture is scored."""
        return gates_of(self.space.canonical(architecture) if self.canonical else architecture)

    def _trial(
        self, architecture: Architecture, shares: Shares, images: int | None = None
    ) -> Trial:
        """Return the trial. images: those that it was scored on; None: all."""
        score, *tie_break = shares
        evaluation = {
            "evaluator": "supernet",
            "batch_norm": self.batch_norm,
            "images": self.count if images is None else images,
            "batch_size": self.batch_size,
        }
        if self.canonical:
            evaluation["canonical"] = True
        cost = self.space.cost(architecture, self.problem)
        return Trial(architecture, score, cost, self.seed, evaluation, *tie_break)
