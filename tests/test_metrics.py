"""The pairwise accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from nasrun.metrics import pairwise_accuracy
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.share import wilson


def test_pairwise_accuracy_by_hand() -> None:
    # Pairs (0,1) agree, (0,2) agree, (1,2) do not.
    assert pairwise_accuracy([3, 1, 2], [9, 5, 4]) == pytest.approx(2 / 3)
    # Of a tie, the earlier one counts as the better one: agrees with a fall, not with a rise.
    assert pairwise_accuracy([1, 1], [2, 1]) == 1
    assert pairwise_accuracy([1, 1], [1, 2]) == 0
    assert pairwise_accuracy([1, 1], [1, 1]) == 1


def test_pairwise_accuracy_is_symmetric_and_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(5, size=(2, 40))
    pairs = [(i, j) for i in range(40) for j in range(i + 1, 40)]
    agree = [(a[i] >= a[j] and b[i] >= b[j]) or (a[i] < a[j] and b[i] < b[j]) for i, j in pairs]
    assert pairwise_accuracy(a, b) == pytest.approx(np.mean(agree))
    assert pairwise_accuracy(b, a) == pairwise_accuracy(a, b)


@pytest.mark.parametrize("seed", range(5))
def test_pairwise_accuracy_and_kendall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.permutation(60)
    b = a + 20 * rng.standard_normal(60)
    assert 2 * pairwise_accuracy(a, b) - 1 == pytest.approx(kendalltau(a, b).statistic)


@pytest.mark.parametrize(("a", "b"), [([1], [1]), ([], []), ([1, 2], [1, 2, 3])])
def test_pairwise_accuracy_needs_pairs(a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="pairs need"):
        pairwise_accuracy(a, b)


@pytest.mark.parametrize(
    ("cases", "count", "low", "high"),
    [  # Newcombe 1998, Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_of_a_share(cases: int, count: int, low: float, high: float) -> None:
    found = wilson(cases / count, count)
    assert (found.value, found.low, found.high) == pytest.approx(
        (cases / count, low, high), abs=5e-5
    )
    other = wilson(1 - cases / count, count)
    assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low))
    assert wilson(0.5, 0) == Estimate(0.5, 0.0, 1.0)
