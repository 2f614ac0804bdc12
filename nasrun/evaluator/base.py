"""Interfaces of evaluators (settings) and of scorers (an evaluator bound to a space)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nasrun.dataset.base import Splits
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import Scale, SearchSpace, Supernet
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

GatesOf = Callable[[Architecture], Gates]

PASSES_PER_TRAINED_IMAGE = 3
"""A backward pass takes about twice the time of a forward pass."""


def choices_of(architecture: Architecture) -> Gates:
    """Return the single path of an architecture."""
    return architecture.choices


def needs_no_supernet(evaluator: type) -> bool:
    """Return whether a class of evaluators scores without a supernet."""
    return not getattr(evaluator, "needs_supernet", True)


def scores_a_supernet(evaluator: type) -> bool:
    """Return whether a class of evaluators scores by a supernet."""
    return bool(getattr(evaluator, "needs_supernet", False))


@dataclass(frozen=True)
class ScoreAxis:
    """The axis on which a plot shows scores: its label, and whether it shows their logarithms."""

    label: str
    logarithm: bool = False


class Scorer(ABC):
    """Scores architectures of one space, all with the same images and protocol."""

    @abstractmethod
    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        """Yield a trial for each architecture, in order, each as it is done.

        The score of an architecture does not depend on the others.
        supernet: None if the evaluator needs none.
        gates_of: the gates by which a supernet runs an architecture.
        monitor: shows long work (training), and keeps its state so that it can be continued.
        """

    def together(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> tuple[Sequence[Architecture], Iterator[Trial]]:
        """Return the architectures in an order of the scorer's own, and their trials in that order.

        The trials are those of ``score``. A scorer that computes once what several architectures
        have in common does it here.
        """
        return architectures, self.score(architectures, supernet, monitor, gates_of)

    @property
    def published_scores(self) -> Mapping[Architecture, Sequence[float]] | None:
        """Known scores of each architecture by training seed; None: there are none."""
        return None


class Evaluator(ABC):
    """The settings of a way to score architectures."""

    needs_supernet: bool
    """Whether the evaluator scores by a trained supernet."""

    trains: bool = False
    """Whether each score takes a training of its own."""

    network_scale: Scale = "final"
    """The scale of the stand-alone networks whose accuracy the scores are."""

    @abstractmethod
    def bind(
        self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams
    ) -> Scorer:
        """Return the scorer of architectures of ``space``.

        The seed of ``streams`` is written into the trials.
        Raises UserError if the settings do not fit the space or the images.
        """

    def images_per_score(self, splits: Splits) -> int:
        """Return the images that one score passes forward, a trained one counting three times.

        It tells what a score costs beside a step of training; 0: next to nothing, or unknown.
        """
        return 0

    def axis(self, role: str) -> ScoreAxis:
        """Return the axis of plots of the scores; role: the setting, e.g. ``rank.also``."""
        return ScoreAxis(f"score by {role}")
