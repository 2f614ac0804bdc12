"""Intervals over architectures: what they cover, how they pair, and when they are too wide."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nasrun.metrics import (
    Estimate,
    bootstrap,
    difference,
    distinguishable,
    kendall,
    needed,
    warn_if_too_small,
)
from nasrun.metrics.median import median_of


def normal(n: int, correlation: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Two vectors [n]; their true tau is 2 / pi * asin(correlation)."""
    x, noise = rng.standard_normal((2, n))
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def tau_of(x: Any, y: Any) -> dict[str, float]:
    return {"tau": kendall(x, y)}


class Taus:
    """tau of scores with the truth for many resamples of the same architectures, quickly."""

    def __init__(self, truth: Any, *scores: Any) -> None:
        signs = [np.sign(v[:, None] - v).astype(np.float32) for v in (truth, *scores)]
        self.agree = [signs[0] * other for other in signs[1:]]

    def __call__(self, drawn: Any) -> dict[str, float]:
        """Of the architectures with these indices; also the difference of the first two."""
        times = np.bincount(drawn, minlength=len(self.agree[0])).astype(np.float32)
        pairs = times.sum() ** 2 - (times**2).sum()  # without those of one and itself
        taus = [float(times @ agree @ times / pairs) for agree in self.agree]
        return {"tau": taus[0], "difference": taus[0] - taus[-1]}

    def estimate(self, name: str, rng: np.random.Generator, resamples: int = 200) -> Estimate:
        return bootstrap(self, np.arange(len(self.agree[0])), resamples=resamples, rng=rng)[name]


def test_taus_are_kendalls() -> None:
    rng = np.random.default_rng(0)
    x, y = normal(40, 0.5, rng)
    slow = bootstrap(tau_of, x, y, resamples=20, rng=np.random.default_rng(1))["tau"]
    quick = Taus(y, x).estimate("tau", np.random.default_rng(1), resamples=20)
    assert astuple(quick) == pytest.approx(astuple(slow), abs=1e-5)


@pytest.mark.soak
@pytest.mark.parametrize(("n", "samples"), [(50, 120), (500, 50)])
def test_the_interval_covers_the_truth(n: int, samples: int) -> None:
    rng = np.random.default_rng(n)
    covered = []
    for correlation in [0, 0.5, 0.9] * samples:
        found = Taus(*normal(n, correlation, rng)).estimate("tau", rng)
        covered.append(found.low <= 2 / math.pi * math.asin(correlation) <= found.high)
    assert 0.9 <= np.mean(covered) <= 0.98


@pytest.mark.soak
def test_the_interval_of_a_difference_covers_none() -> None:
    """Two methods that are equally good: their scores share the truth and something besides."""
    rng = np.random.default_rng(3)
    covered, paired, alone = 0, [], []
    for _ in range(150):
        truth, common, a, b = rng.standard_normal((4, 50))
        taus = Taus(truth, *(truth + common + 0.3 * own for own in (a, b)))
        found, single = (taus.estimate(name, rng) for name in ("difference", "tau"))
        covered += not distinguishable(found)
        paired.append(found.high - found.low)
        alone.append(single.high - single.low)
    assert 0.9 <= covered / 150 <= 0.98
    # Narrower by far than if each method had architectures of its own.
    assert np.mean(paired) < 0.6 * np.mean(alone) * math.sqrt(2)


def test_a_difference_is_that_of_the_same_architectures() -> None:
    rng = np.random.default_rng(0)
    truth, a, b = rng.standard_normal((3, 30))
    found = difference(truth + a, truth + b, truth, resamples=20, rng=np.random.default_rng(1))
    taus = Taus(truth, truth + a, truth + b)
    same = taus.estimate("difference", np.random.default_rng(1), resamples=20)
    assert astuple(found) == pytest.approx(astuple(same), abs=1e-5)


def test_the_interval_is_scipys_percentile_interval() -> None:
    rng = np.random.default_rng(0)
    x, y = normal(60, 0.6, rng)

    def correlation(x: Any, y: Any) -> float:
        return float(np.corrcoef(x, y)[0, 1])

    ours = bootstrap(
        lambda x, y: {"r": correlation(x, y)},
        *(x, y),
        resamples=3000,
        confidence=0.9,
        rng=rng,
    )["r"]
    scipys = stats.bootstrap(
        *((x, y), correlation),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=3000,
        confidence_level=0.9,
        rng=rng,
    ).confidence_interval
    assert ours.value == correlation(x, y)
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.02)


def test_all_values_come_from_the_same_architectures() -> None:
    def sums(x: Any, y: Any) -> dict[str, float]:
        assert (y == 10 * x).all()
        assert (np.diff(x) >= 0).all()  # in their order
        return {"x": x.sum(), "negative": -x.sum()}

    x = np.arange(20)
    found = bootstrap(sums, x, 10 * x, resamples=50, rng=np.random.default_rng(0))
    assert found["x"].low == -found["negative"].high


def test_the_generator_decides() -> None:
    x, y = normal(30, 0.5, np.random.default_rng(0))
    first, again, other = (
        bootstrap(tau_of, x, y, resamples=20, rng=np.random.default_rng(seed))["tau"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.value == other.value and first.low != other.low


def test_more_architectures_and_less_confidence_make_it_narrower() -> None:
    rng = np.random.default_rng(0)
    x, y = normal(800, 0.5, rng)

    def width(n: int, confidence: float) -> float:
        found = bootstrap(tau_of, x[:n], y[:n], resamples=200, confidence=confidence, rng=rng)[
            "tau"
        ]
        return found.high - found.low

    assert width(50, 0.95) / width(800, 0.95) == pytest.approx(4, rel=0.25)
    assert width(800, 0.5) / width(800, 0.95) == pytest.approx(0.6745 / 1.96, rel=0.25)


def test_resamples_without_a_value_do_not_count() -> None:
    found = bootstrap(tau_of, [1, 2, 3], [1, 2, 3], resamples=50, rng=np.random.default_rng(0))
    assert astuple(found["tau"]) == pytest.approx((1, 1, 1))
    tied = bootstrap(tau_of, [1, 1, 1], [1, 2, 3], resamples=50, rng=np.random.default_rng(0))
    assert all(math.isnan(x) for x in astuple(tied["tau"]))
    assert tied["tau"].to_json() == {"value": None, "low": None, "high": None}


def test_strata_keep_their_counts_and_one_stratum_is_none() -> None:
    strata = [2, 0, 1, 0, 2, 0, 0, 1]
    seen = []

    def counts(stratum: Any, value: Any) -> dict[str, float]:
        seen.append(np.bincount(stratum).tolist())
        return {"sum": float(value.sum())}

    values = np.arange(8.0)
    rng = np.random.default_rng(0)
    bootstrap(counts, strata, values, resamples=50, rng=rng, strata=strata)
    assert seen == [[4, 2, 2]] * 51
    plain, one = (
        bootstrap(counts, strata, values, resamples=50, rng=np.random.default_rng(0), strata=of)
        for of in (None, [7] * 8)
    )
    assert plain == one


def test_the_interval_of_a_stratified_mean_is_that_of_the_values_within_strata() -> None:
    """Strata that differ by far: var = sum of w^2 s^2 / n over strata, not the variance of all."""
    rng = np.random.default_rng(1)
    strata = np.repeat([0, 1, 2], [20, 60, 120])
    values = 100.0 * strata + rng.standard_normal(200)
    found = bootstrap(
        lambda x: {"mean": float(x.mean())}, values, resamples=2000, rng=rng, strata=list(strata)
    )["mean"]
    variance = sum((strata == s).sum() * values[strata == s].var() for s in range(3)) / 200**2
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.1)


def test_no_resamples_no_interval() -> None:
    found = bootstrap(tau_of, [1, 2, 3], [1, 3, 2], resamples=0, rng=np.random.default_rng(0))
    assert found["tau"].to_json() == {"value": pytest.approx(1 / 3), "low": None, "high": None}
    assert not distinguishable(found["tau"])


def test_arrays_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"one length, not \[\(3,\), \(2,\)\]"):
        bootstrap(tau_of, [1, 2, 3], [1, 2], rng=np.random.default_rng(0))


def test_a_difference_that_is_there_is_seen_and_one_to_oneself_is_not() -> None:
    rng = np.random.default_rng(0)
    truth, a, b = rng.standard_normal((3, 400))
    good, bad = truth + 0.5 * a, truth + 2 * b
    found = difference(good, bad, truth, resamples=100, rng=rng)
    assert found.value == pytest.approx(kendall(good, truth) - kendall(bad, truth))
    assert distinguishable(found) and found.low > 0
    assert distinguishable(difference(bad, good, truth, resamples=100, rng=rng))
    same = difference(good, good, truth, resamples=100, rng=rng)
    assert same == Estimate(0, 0, 0) and not distinguishable(same)


def test_needed_by_hand() -> None:
    # s.e. 0.1 at n = 50, of a difference: to show 0.1 with 80 % takes (1.96 + 0.8416)^2 times 50.
    interval = Estimate(0.3, 0.3 - 0.196, 0.3 + 0.196)
    paired = needed(50, interval, 0.1, paired=True)
    assert paired == pytest.approx(50 * 2.8016**2, abs=2)
    # One method's interval: the difference of two such has twice the variance.
    assert needed(50, interval, 0.1) == pytest.approx(2 * paired, abs=2)
    assert needed(50, interval, 0.05, paired=True) == pytest.approx(4 * paired, abs=4)
    assert needed(50, interval, 0.1, paired=True, power=0.5) == pytest.approx(50 * 1.96**2, abs=2)
    assert needed(10**6, Estimate(0.3, 0.3, 0.3), 0.1) == 10


@pytest.mark.soak
def test_needed_keeps_its_promise() -> None:
    """With as many as it asks for, about 80 % of the samples show the difference."""
    rng = np.random.default_rng(0)

    def sample(n: int) -> Estimate:
        truth, a, b = rng.standard_normal((3, n))
        return Taus(truth, truth + 0.7 * a, truth + b).estimate("difference", rng)

    gap = 2 / math.pi * (math.asin(1 / math.sqrt(1.49)) - math.asin(1 / math.sqrt(2)))
    n = needed(400, sample(400), gap, paired=True)
    shown = [distinguishable(sample(n)) for _ in range(200)]
    assert 0.7 <= np.mean(shown) <= 0.9


def test_warning_in_plain_words() -> None:
    interval = Estimate(0.3, 0.3 - 0.196, 0.3 + 0.196)
    assert warn_if_too_small(50, interval) == (
        "50 architectures are too few to tell two methods apart whose τ-b differ by 0.05: they "
        "show differences from about 0.40 on (with a chance of 80%); about 3,200 would do"
    )
    assert warn_if_too_small(50, interval, gap=0.5) is None
    assert warn_if_too_small(50, Estimate(0, -0.01, 0.01), paired=True) is None


@pytest.mark.parametrize("interval", [Estimate(1, 1, 1), Estimate(0.5, math.nan, math.nan)])
def test_a_handful_is_too_small_however_well_it_agrees(interval: Estimate) -> None:
    warning = warn_if_too_small(5, interval)
    assert warning is not None and warning.startswith("5 architectures are too few")
    assert warning.endswith("about 2,800 would do")


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 1, 1), (3, 1, 3), (6, 1, 6), (10, 2, 9), (50, 18, 33), (100, 40, 61)],
)
def test_the_interval_of_a_median_is_the_one_in_tables(count: int, low: int, high: int) -> None:
    """Ranks for 95 %, as of Conover, Practical Nonparametric Statistics, section 3.2."""
    found = median_of(range(count, 0, -1), 0.95)
    assert (found.low, found.high) == (low, high)
    assert found.value == (count + 1) / 2
