"""Races: who cannot become one of the best is stopped, and hardly anybody else."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, few_images

from nasrun.evaluator.race import Race, is_lost
from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.run.monitor import NullMonitor
from nasrun.run.state import pack, unpack
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.nas_bench_macro import NasBenchMacro
from nasrun.streams import Streams
from nasrun.values import Architecture


def bits(text: str) -> torch.Tensor:
    return torch.tensor([each == "1" for each in text])


def test_a_race_is_lost_for_certain_or_with_confidence() -> None:
    rival = bits("1" * 9 + "0")
    assert is_lost(bits("0" * 6), rival, 0.99, 1)  # at most 4 of 10, below 9
    assert not is_lost(bits("1" * 9), rival, 0.99, 1)
    assert not is_lost(bits("0"), bits("1" * 100), 0.99, 1)  # one image tells little
    # 10 of 100 images are worse: the mean is -0.1, the variance (10 + 1) / 101 - 0.01.
    right = torch.ones(100, dtype=torch.bool)
    right[:10] = False
    rival = torch.ones(1000, dtype=torch.bool)
    spread = math.sqrt(1000 * 900 / 100 * (11 / 101 - 0.01))
    level = NormalDist().cdf(100 / spread)
    assert is_lost(right, rival, level - 1e-4, 1) and not is_lost(right, rival, level + 1e-4, 1)
    alone = 1 - 2 * (1 - level)  # the error is divided among two looks
    assert is_lost(right, rival, alone - 1e-4, 2) and not is_lost(right, rival, alone + 1e-4, 2)


@pytest.mark.parametrize("common", [0.0, 0.9])
def test_one_that_reaches_its_rival_is_stopped_once_in_a_hundred_races_at_most(
    common: float,
) -> None:
    """Whether or not both find the same images hard; those that are far behind are stopped."""
    rng = np.random.default_rng(0)
    wrong = behind = stopped = 0
    for _ in range(500):
        image = math.sqrt(common) * rng.standard_normal(400)
        own = math.sqrt(1 - common) * rng.standard_normal((2, 400))
        one, other = torch.from_numpy(image + own < [[0.8], [0.8]])
        worse = torch.from_numpy(image + own[0] < 0.3)
        for right, rival in ((one, other), (worse, other)):
            lost = any(is_lost(right[:n], rival, 0.99, 3) for n in (100, 200, 300))
            if right.sum() >= rival.sum():
                wrong += lost
            elif right is worse:
                behind, stopped = behind + 1, stopped + lost
    assert wrong <= 5
    assert stopped > 0.8 * behind > 300


def test_the_best_are_the_rivals_and_estimates_stay_below_them() -> None:
    race = Race(2, 0.9)
    texts = ["1110000000", "1111100000", "0000011111", "1111111000"]
    rivals = []
    for text in texts:
        race.enter(bits(text))
        rival = race.rival()
        rivals.append(None if rival is None else int(rival.sum()))
    assert rivals == [None, 3, 5, 5]
    assert torch.equal(race.rival(), bits(texts[1]))  # of equal ones the first
    assert race.lost(bits("0000"), 1)
    assert race.estimate(bits("0000")) == 0.0
    assert race.estimate(bits("1100")) == pytest.approx(0.5 - 0.5)
    assert race.estimate(bits("1110")) == pytest.approx(0.5 - 0.25)
    again = Race(2, 0.9)
    again.load_state_dict(unpack(*pack(race.state_dict())))
    assert again.mark == race.mark and torch.equal(again.rival(), race.rival())
    again.begin(race.supernet)
    assert again.rival() is not None
    again.begin("another")
    assert again.rival() is None
    with pytest.raises(ValueError, match="none of a race"):
        again.load_state_dict({"supernet": "", "best": [bits("1"), bits("11")]})


def test_a_scorer_races_and_says_on_how_many_images() -> None:
    """The best are those of scoring all; of the others some are stopped, with a lower score."""
    width, images = WidthScale(width=0.05), few_images()
    search_space = NasBenchMacro(affine=True, search=width, final=width)
    settings: dict[str, Any] = {"images": None, "batch_size": 2, "recalibration_images": 8}
    settings["share"] = False
    rng = np.random.default_rng(1)
    chosen: list[Architecture] = [search_space.sample(rng) for _ in range(12)]
    with Streams(0).default("init"):
        network = CPU.place(search_space.supernet(images.problem))
    monitor = NullMonitor()

    def scores(**changes: Any) -> list[Any]:
        made = SupernetEvaluator(batch_norm="batch", **settings, **changes)
        bound = made.bind(search_space, images, CPU, Streams(0))
        in_order, trials = bound.together(chosen, network, monitor)
        assert list(in_order) == chosen
        return list(trials)

    full, raced = scores(), scores(race=1, race_confidence=0.6)
    best = max(trial.score for trial in full)
    stopped = [trial.evaluation["images"] < 16 for trial in raced]
    assert any(stopped) and not all(stopped)
    for one, other, early in zip(full, raced, stopped, strict=True):
        assert one.score == other.score if not early else other.score < best
    assert max(trial.score for trial in raced) == best
