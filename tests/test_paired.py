"""Methods against a control: known answers of the tests, by hand and by chance."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from nasrun.metrics import holm, sign_flip_p, win_share


def test_win_share_by_hand() -> None:
    assert win_share([1, 2, 3, 4], [2, 2, 2, 5]) == (2 + 0.5) / 4
    assert win_share([1.0], [1.0]) == 0.5
    a, b = np.random.default_rng(0).integers(0, 3, (2, 50))
    assert win_share(a, b) + win_share(b, a) == 1


def test_holm_by_hand() -> None:
    # 3 x 0.01, 2 x 0.02, 1 x 0.03, which is not below the one before; then cut at 1.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9, 0.01]) == pytest.approx([1.0, 1.0, 0.03])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_all_swaps_of_few_pairs() -> None:
    """Of 2^n signs those whose mean is at least as far from 0, both sides."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 8):
        difference = rng.normal(0.5, 1, n)
        means = [np.mean(np.array(signs) * difference) for signs in product((-1, 1), repeat=n)]
        reached = np.abs(means) >= abs(difference.mean()) - 1e-12
        assert sign_flip_p(difference, np.zeros(n), rng=rng) == pytest.approx(reached.mean())
    assert sign_flip_p([1, 2, 3], [2, 3, 4], rng=rng) == 2 / 8


def test_many_pairs() -> None:
    rng = np.random.default_rng(1)
    control = rng.normal(size=60)
    assert sign_flip_p(control, control, rng=rng) == 1
    better = control - rng.uniform(0.1, 1, 60)
    assert sign_flip_p(better, control, rng=rng) <= 3 / 10_000
    other = control + rng.normal(0.2, 1, 60)
    found = sign_flip_p(other, control, rng=np.random.default_rng(2))
    assert found == sign_flip_p(other, control, rng=np.random.default_rng(2))
    assert found == pytest.approx(sign_flip_p(control, other, rng=rng), abs=0.02)
    assert found == pytest.approx(stats.ttest_rel(other, control).pvalue, abs=0.03)


def test_without_a_difference_p_is_uniform() -> None:
    rng = np.random.default_rng(3)
    found = [sign_flip_p(*rng.normal(size=(2, 20)), resamples=199, rng=rng) for _ in range(300)]
    assert np.mean(np.array(found) <= 0.05) < 0.09
    assert stats.kstest(found, "uniform").pvalue > 1e-3
