"""What an evaluator is: it gives architectures their scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from nasrun.dataset.base import Splits
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

GatesOf = Callable[[Architecture], Gates]


def choices_of(architecture: Architecture) -> Gates:
    """The single path of an architecture."""
    return architecture.choices


class Evaluator(ABC):
    """From architectures to trials; the same images and protocol for all of them."""

    needs_supernet: bool
    """Whether a supernet must be trained before it can score."""

    @abstractmethod
    def start(self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams) -> None:
        """Begin a search over ``space``; the seed of ``streams`` is written into the trials."""

    @abstractmethod
    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        """A trial for each architecture, in order, each as it is done.

        The score of one does not depend on the others. gates_of: by which a supernet runs it;
        monitor hears of long work inside
        (training), and keeps it so that it can be continued.
        """
