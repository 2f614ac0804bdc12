"""The bias of a ranking to size: planted biases, none, and the steps that each size got."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from helpers import space_of

from nasrun.metrics.size_bias import SizeBias, rank_errors, size_bias, unbiased_kendall
from nasrun.report.size_bias import SizeBiasReport, SizeClasses
from nasrun.sampler.proportional import Proportional
from nasrun.streams import Streams
from nasrun.task.size_classes import classes_by_size
from nasrun.values import Problem

N = 600


def planted(bias: float, link: float = 0.0) -> SizeBias:
    """Of scores that are the truth, noise and ``bias`` times log2(size); truth goes with size."""
    rng = np.random.default_rng(3)
    log_size, own, noise = rng.standard_normal((3, N))
    truth = link * log_size + own
    scores = truth + noise + bias * log_size
    found = {"scores": scores, "truth": truth, "size": 1e6 * 2**log_size}
    return size_bias(**found, resamples=100, rng=rng)


def test_rank_errors_by_hand() -> None:
    assert rank_errors([1, 2, 3, 4], [1, 2, 4, 3]).tolist() == [0, 0, -25, 25]
    assert rank_errors([1, 1, 3], [1, 2, 3]) == pytest.approx([100 / 6, -100 / 6, 0])


def test_the_slope_is_that_of_each_doubling() -> None:
    """Size orders the scores, and its reverse the truth: four sizes, each twice the one before."""
    sizes = [1e6, 2e6, 4e6, 8e6]
    found = size_bias(sizes, [4, 3, 2, 1], sizes, resamples=0, rng=np.random.default_rng(0))
    assert found.slope.value == pytest.approx(50)  # -75, -25, 25, 75 % of four ranks
    assert found.kendall.value == pytest.approx(1)
    assert found.thirds == pytest.approx((-75, 0, 75))


@pytest.mark.parametrize("bias", [-0.7, 0.7])
def test_a_planted_bias_is_found(bias: float) -> None:
    found = planted(bias)
    sign = math.copysign(1, bias)
    for estimate in (found.kendall, found.given_truth, found.slope):
        assert sign * estimate.value > 0 and estimate.low * estimate.high > 0
    small, _, large = found.thirds
    assert sign * (large - small) > 20
    assert abs(found.unbiased) < 0.03


def test_no_bias_is_none() -> None:
    found = planted(0)
    for estimate in (found.kendall, found.given_truth, found.slope):
        assert estimate.low < 0 < estimate.high
    assert abs(found.kendall.value) < 0.06


def test_noise_alone_looks_like_a_bias_where_truth_goes_with_size() -> None:
    """The simulated scorers show as much of it, so that it is not taken for a bias."""
    found = planted(0, link=1.0)
    assert found.kendall.high < -0.1
    assert found.unbiased == pytest.approx(found.kendall.value, abs=0.05)
    assert abs(found.given_truth.value) < 0.1


def test_true_scores_have_no_errors() -> None:
    truth = np.arange(20.0)
    size = truth + 1
    assert math.isnan(
        size_bias(truth, truth, size, resamples=5, rng=np.random.default_rng(0)).unbiased
    )
    assert abs(unbiased_kendall(-truth, truth, size, np.random.default_rng(0))) > 0.5


@pytest.mark.parametrize("exponent", [0.0, 2.0, -1.0])
def test_steps_by_size_are_those_that_the_sampler_gives(exponent: float) -> None:
    """Shares of the sizes to the power, over a pool; several open options do not count."""
    space, problem = space_of("nas_bench_macro"), Problem(3, 16, 10)
    rng = np.random.default_rng(0)
    pool = [space.sample(rng) for _ in range(60)]
    size = space.sizer("macs", problem)
    sampled = Proportional(size="macs", exponent=exponent).bind(
        space, problem, pool, Streams(0), steps=1
    )

    def gates(step: int) -> Any:
        return [space.whole] if step < 100 else sampled(step)

    losses = [step % 7 + 1.0 for step in range(500)]
    found = classes_by_size(space, size, pool, gates, 2100, losses)
    shares = found.steps
    weights = np.sort([size(architecture) for architecture in pool]) ** exponent
    expected = weights.reshape(3, 20).sum(1) / weights.sum()
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx(expected.tolist(), abs=0.04)
    unknown = classes_by_size(space, size, pool, gates, 100, losses)
    assert all(map(math.isnan, [*unknown.steps, *unknown.losses]))


def test_losses_by_size_are_those_of_the_paths_that_the_steps_drew() -> None:
    """Of the last steps, one path each; skipped steps and steps of two paths do not count."""
    space = space_of("nas_bench_macro")
    size = space.sizer("macs", Problem(3, 16, 10))
    rng = np.random.default_rng(0)
    pool = sorted((space.sample(rng) for _ in range(6)), key=size)
    paths = [architecture.choices for architecture in pool]
    drawn: list[Any] = [[paths[5]], [paths[0]], [paths[1]], [paths[0]], [paths[2]], paths[:2]]
    drawn += [[space.whole], [paths[5]]]
    losses = [1.0, 2.0, math.nan, 4.0, 8.0, 16.0, 32.0]
    found = classes_by_size(space, size, pool, drawn.__getitem__, len(drawn), losses)
    assert found.losses == (1.5, 4.0, 32.0)
    assert found.steps == pytest.approx([5 / 8, 1 / 8, 2 / 8])
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["losses"] == [1.5, 4.0, 32.0]
    nothing = classes_by_size(space, size, pool, drawn.__getitem__, len(drawn), [])
    assert nothing.steps == found.steps and nothing.to_json()["losses"] == [None] * 3


def test_equal_sizes_have_no_bias_and_a_report_all_the_same() -> None:
    rng = np.random.default_rng(0)
    found = size_bias([1, 2, 3, 4], [2, 1, 4, 3], [5, 5, 5, 5], resamples=5, rng=rng)
    report = SizeBiasReport(
        {"params": found}, {"params": SizeClasses((math.nan,) * 3, (math.nan,) * 3)}
    )
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))["params"]
    assert content["slope"]["value"] is None and content["thirds"] == [None, 0, None]
    assert content["steps"] == content["losses"] == [None] * 3 and content["unbiased"] is None
    assert report.result() == {}
