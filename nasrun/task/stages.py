"""The stages that tasks have in common, planned from the settings before anything runs."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nasrun.dataset.base import Splits, steps_per_epoch
from nasrun.evaluator.base import PASSES_PER_TRAINED_IMAGE, Evaluator
from nasrun.run.stages import PlannedStage, Unit
from nasrun.search_space.base import Scale, SearchSpace
from nasrun.task.setup import Setup
from nasrun.trainer.trainer import Trainer
from nasrun.values import Architecture, Problem

MACS_SAMPLE = 4
"""Random architectures whose multiply-adds are averaged."""


def typical_macs(space: SearchSpace, problem: Problem, scale: Scale = "search") -> float:
    """Return the mean multiply-adds of a few random architectures, always the same ones."""
    rng = np.random.default_rng(0)
    sample = (space.repair(space.sample(rng), rng) for _ in range(MACS_SAMPLE))
    return float(np.mean([space.cost(each, problem, scale).macs for each in sample]))


def search_stages(setup: Setup, splits: Splits, *, loaded: bool = False) -> list[PlannedStage]:
    """Plan a search: its rounds, the shortlist and the retraining.

    loaded: whether a trained supernet is loaded, so that none is trained here.
    """
    algo, space = setup.search_algo, setup.search_space
    macs = typical_macs(space, splits.problem)
    trained = setup.evaluator.needs_supernet and not loaded
    images = len(algo.training_images(splits)) if trained else 0
    found: list[PlannedStage] = []
    scored = 0
    for index in range(algo.rounds):
        found += algo.stages_before(index)
        if trained:
            found.append(supernet_stage(setup, index, images, macs))
        count = min(algo.scored_in(index), space.size)
        found.append(scoring_stage(f"score/round{index}", setup.evaluator, splits, count, macs))
        scored = max(scored, count)
    count = min(setup.shortlist.count, scored)
    if count > 1:
        evaluator = setup.shortlist.evaluator
        found.append(scoring_stage("shortlist", evaluator, splits, count, macs))
    return [*found, *retrain_stages(setup, splits)]


def supernet_stage(setup: Setup, round_: int, images: int, macs: float) -> PlannedStage:
    """Plan a round of supernet training on so many images.

    A step counts as one path; gates that are learned mixtures compute all options.
    """
    trainer = setup.trainer
    paths = 1.0
    if setup.search_algo.learns_gates:
        paths = float(np.mean([len(each.options) for each in setup.search_space.decisions]))
    return training_stage(f"supernet/round{round_}", trainer, images, paths * macs)


def training_stage(name: str, trainer: Trainer, images: int, macs: float) -> PlannedStage:
    """Plan a training; images: of an epoch. macs: multiply-adds of an image."""
    steps = trainer.epochs * steps_per_epoch(images, trainer.batch_size)
    work = PASSES_PER_TRAINED_IMAGE * min(trainer.batch_size, images) * macs
    return PlannedStage(name, steps, "steps", work)


def scoring_stage(
    name: str, evaluator: Evaluator, splits: Splits, count: int, macs: float
) -> PlannedStage:
    """Plan the scoring of ``count`` architectures; macs: multiply-adds of an image."""
    unit: Unit = "networks" if evaluator.trains else "architectures"
    return PlannedStage(name, count, unit, evaluator.images_per_score(splits) * macs)


class RankSettings(Protocol):
    """The settings of a ranking from which its stages follow."""

    epochs: list[int]
    truth: Evaluator
    also: Evaluator | None
    truth_seeds: int


def rank_stages(
    setup: Setup, splits: Splits, ranking: RankSettings, count: int, *, loaded: bool = False
) -> list[PlannedStage]:
    """Plan a ranking of ``count`` architectures; loaded: whether a trained supernet is loaded.

    The networks of a stand-alone truth may be known from other runs, which costs nothing then.
    """
    macs, last = typical_macs(setup.search_space, splits.problem), setup.trainer.epochs
    looks = [0] if loaded else [*(each for each in ranking.epochs if each < last), last]
    ways = [("score", setup.evaluator)]
    if ranking.also is not None:
        ways.append(("also", ranking.also))
    found = [] if loaded else [supernet_stage(setup, 0, len(splits.train), macs)]
    found += [
        scoring_stage(f"{name}/epoch{epoch}", evaluator, splits, count, macs)
        for epoch in looks
        for name, evaluator in ways
    ]
    if ranking.truth.trains:
        found += [
            scoring_stage(f"truth/seed{seed}", ranking.truth, splits, count, macs)
            for seed in range(ranking.truth_seeds)
        ]
    return found


def retrain_stages(
    setup: Setup, splits: Splits, architecture: Architecture | None = None
) -> list[PlannedStage]:
    """Plan the training of the winner; architecture: the winner if it is known."""
    retrain, space, problem = setup.retrain, setup.search_space, splits.problem
    if retrain.truth is not None:
        return []
    if architecture is None:
        macs = typical_macs(space, problem, "final")
        most = setup.budget.ranges["macs"].max
        macs = macs if most is None else min(macs, most)
    else:
        macs = float(space.cost(architecture, problem, "final").macs)
    images = len(splits.train)
    if retrain.images != "train":
        images += len(splits.validation)
    training = training_stage("retrain", retrain.trainer, images, macs)
    again = round(retrain.batch_norm_epochs * steps_per_epoch(images, retrain.trainer.batch_size))
    passes = training.work / PASSES_PER_TRAINED_IMAGE
    return [training, PlannedStage("batch norm", again, "steps", passes)]
