"""The power of paired comparisons: known answers, and simulation beside the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nasrun.metrics.power import (
    SUPERNETS,
    noisy,
    note,
    pairs_needed,
    power_of,
    simulated_deviations,
)
from nasrun.metrics.ranking import kendall


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_pairs_of_the_textbook(effect: float, pairs: int) -> None:
    """Cohen's effects at 80 % and 5 %, two-sided, as tables of the paired t-test have them."""
    assert pairs_needed(effect, 1.0) == pairs
    assert pairs_needed(-effect / 10, 0.1) == pairs
    assert power_of(effect, 1.0, pairs) >= 0.8 > power_of(effect, 1.0, pairs - 1)


def test_power_is_the_share_of_simulated_tests() -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(0.15, 0.2, (4000, 12))
    share = (stats.ttest_1samp(found, 0, axis=1).pvalue < 0.05).mean()
    assert power_of(0.15, 0.2, 12) == pytest.approx(share, abs=0.025)
    assert power_of(0.0, 0.2, 12) == pytest.approx(0.05)


def test_what_no_number_of_pairs_shows() -> None:
    assert pairs_needed(0.0, 1.0) is None
    assert pairs_needed(1e-6, 1.0) is None
    assert pairs_needed(0.1, 0.0) == 2
    assert power_of(0.5, 1.0, 1) == 0.0


@pytest.mark.parametrize("tau", [-0.5, 0.0, 0.4, 0.9, 1.0])
def test_scores_of_a_wanted_agreement(tau: float) -> None:
    rng = np.random.default_rng(1)
    truth = rng.standard_normal(4000)
    assert kendall(noisy(truth, tau, rng), truth) == pytest.approx(tau, abs=0.03)


def test_deviations_shrink_with_the_sample() -> None:
    """The variance of τ of normal variables has a closed form (Kendall; Esscher 1924)."""
    for n, tau in ((50, 0.0), (50, 0.4), (20, 0.7)):
        r = math.sin(math.pi * tau / 2)
        inner = 1 / 9 - (2 / math.pi * math.asin(r / 2)) ** 2
        variance = 2 / (n * (n - 1)) * (1 - tau**2 + 2 * (n - 2) * inner)
        assert simulated_deviations(n, tau, ())[0] == pytest.approx(variance**0.5, rel=0.06)
    of = (0.3, (0.1, 0.2))
    assert all(np.less(simulated_deviations(200, *of)[1], simulated_deviations(50, *of)[1]))


def test_the_note_before_a_run() -> None:
    said = note(50)
    _, (apart, _) = simulated_deviations(50, 0.4, (0.15, 0.05))
    both = (apart**2 + 2 * SUPERNETS**2) ** 0.5  # of the sample, and of each of two supernets
    assert f"{pairs_needed(0.15, both)} pairs of runs for a difference of 0.15" in said
    assert said.startswith("50 architectures: by chance alone τ-b varies by ±0.")
    one, _ = simulated_deviations(4000, 0.4, ())
    assert one == pytest.approx(simulated_deviations(1000, 0.4, ())[0] / 2)
