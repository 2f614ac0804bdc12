"""Checks of one's own spaces, datasets, samplers, algorithms and evaluators.

Each check holds the laws of its kind, in the manner of scikit-learn's, and raises AssertionError
over the first that is broken::

    def test_my_space():
        check_space(MySpace(channels=4), Problem(channels=3, size=16, classes=10))
"""

from __future__ import annotations

from collections.abc import Collection

from nasrun.dataset.base import Dataset, Splits
from nasrun.evaluator.base import Evaluator
from nasrun.sampler.base import Sampler
from nasrun.search_algo.base import SearchAlgo
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.testing.algo import ALGO_LAWS, GATE_LAWS
from nasrun.testing.algo_case import TRAINER, AlgoCase
from nasrun.testing.dataset import DATASET_LAWS, DatasetCase
from nasrun.testing.evaluator import EVALUATOR_LAWS, EvaluatorCase
from nasrun.testing.law import hold
from nasrun.testing.sampler import SAMPLER_LAWS, SamplerCase, must_be_refused
from nasrun.testing.small import small_space, small_splits
from nasrun.testing.space import VALUE_LAWS
from nasrun.testing.space_case import SpaceCase, count_cost
from nasrun.testing.supernet import NETWORK_LAWS
from nasrun.trainer.trainer import Trainer
from nasrun.values import Problem

SPACE_LAWS = (*VALUE_LAWS, *NETWORK_LAWS)
"""The laws of a search space, in the order in which they are checked."""

__all__ = [
    "ALGO_LAWS",
    "DATASET_LAWS",
    "EVALUATOR_LAWS",
    "GATE_LAWS",
    "SAMPLER_LAWS",
    "SPACE_LAWS",
    "check_algo",
    "check_dataset",
    "check_evaluator",
    "check_sampler",
    "check_space",
    "count_cost",
    "small_space",
    "small_splits",
]


def check_space(
    space: SearchSpace,
    problem: Problem,
    *,
    samples: int = 2,
    seed: int = 0,
    only: Collection[str] = (),
) -> None:
    """Check the laws of a search space on a problem, networks included; small ones take seconds.

    samples: random architectures of which networks are built, besides three that are extreme.
    seed: of all random choices. only: names of laws, of ``SPACE_LAWS``; empty: all.
    Raises AssertionError that names the space, the law and the architecture.
    """
    case = SpaceCase(space, problem, samples, Streams(seed, "testing/"))
    hold(SPACE_LAWS, case, f"search space {space.name} on {problem}", only)


def check_dataset(
    dataset: Dataset,
    *,
    batch_size: int = 7,
    duplicates: int = 0,
    seed: int = 0,
    only: Collection[str] = (),
) -> None:
    """Check the laws of a dataset, which is read three times; a part of a large one will do.

    batch_size: images of a batch. duplicates: images that the data itself holds in two splits.
    seed: of the splits; the next one is the other seed. only: names of laws; empty: all.
    Raises AssertionError that names the dataset and the law.
    """
    case = DatasetCase(dataset, seed, batch_size, duplicates)
    hold(DATASET_LAWS, case, f"dataset {dataset.name}", only)


def check_sampler(
    sampler: Sampler,
    space: SearchSpace,
    problem: Problem,
    *,
    steps: int = 6,
    batch_size: int = 8,
    seed: int = 0,
    only: Collection[str] = (),
) -> None:
    """Check the laws of a sampler in a search space on a problem.

    In a space that ``Sampler.check`` refuses, the sampler must refuse to be bound, and no more.
    steps: of the training; batch_size: images of a batch. only: names of laws; empty: all.
    Raises AssertionError that names the sampler, the space and the law.
    """
    case = SamplerCase(sampler, space, problem, seed, steps, batch_size)
    laws = SAMPLER_LAWS if case.fits else (must_be_refused,)
    hold(laws, case, f"sampler {type(sampler).__name__} in {space.name}", only if case.fits else ())


def check_algo(
    algo: SearchAlgo,
    space: SearchSpace,
    splits: Splits,
    *,
    trainer: Trainer = TRAINER,
    seed: int = 0,
    only: Collection[str] = (),
) -> None:
    """Check the laws of a search algorithm on made-up scores; a small one takes a second.

    splits: images, of which some dozens will do: gates are learned on them by ``trainer``.
    trainer: what trains the supernet of an algorithm that learns gates; by default two epochs in
    batches of eight images. seed: of all random choices; the next one is the other seed.
    only: names of laws, of ``ALGO_LAWS`` and ``GATE_LAWS``; empty: all.
    Raises AssertionError that names the algorithm, the space and the law.
    """
    algo.check(space)
    case = AlgoCase(algo, space, splits, trainer, seed)
    laws = (*GATE_LAWS, *ALGO_LAWS) if algo.learns_gates else ALGO_LAWS
    hold(laws, case, f"search algorithm {type(algo).__name__} in {space.name}", only)


def check_evaluator(
    evaluator: Evaluator,
    space: SearchSpace,
    splits: Splits,
    *,
    samples: int = 3,
    seed: int = 0,
    only: Collection[str] = (),
) -> None:
    """Check the laws of an evaluator, by an untrained supernet where it needs one.

    splits: images, of which some dozens will do. samples: architectures that are scored.
    seed: of all random choices. only: names of laws, of ``EVALUATOR_LAWS``; empty: all.
    Raises AssertionError that names the evaluator, the space and the law.
    """
    case = EvaluatorCase(evaluator, space, splits, samples, seed)
    hold(EVALUATOR_LAWS, case, f"evaluator {type(evaluator).__name__} in {space.name}", only)
