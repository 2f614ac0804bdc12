"""The pairwise accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from nasrun.metrics import pairwise_accuracy


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
