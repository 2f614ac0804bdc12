"""Measures of ranking, against hand-worked cases, scipy and their definitions in O(n^2)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise, permutations
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nasrun.metrics import (
    best_rank_at,
    kendall,
    kendall_within,
    pairwise_accuracy,
    partial_kendall,
    partial_spearman,
    precision_at_top,
    sparse_kendall,
    spearman,
    top_regret,
)
from nasrun.metrics.ranking import ranks, ranks_by_order
from nasrun.metrics.size import size_groups

Vector = list[int]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Nothing here may print a warning, whatever is tied."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def tied(n: int = 2, most: int = 12, columns: int = 2) -> st.SearchStrategy[list[Vector]]:
    """Columns of n or more small numbers, so that many are tied."""
    column = st.integers(n, most).flatmap(
        lambda size: st.tuples(
            *[st.lists(st.integers(0, 4), min_size=size, max_size=size)] * columns
        )
    )
    return column.map(list)


def tau_b(a: Vector, b: Vector) -> float:
    """By its definition."""
    pairs = list(combinations(range(len(a)), 2))
    x, y = (np.array([np.sign(v[i] - v[j]) for i, j in pairs]) for v in (a, b))
    untied = math.sqrt(np.count_nonzero(x) * np.count_nonzero(y))
    return float((x * y).sum() / untied) if untied else math.nan


def orders(scores: Vector) -> list[tuple[int, ...]]:
    """Every order of the architectures, best first, that the scores allow."""
    return [
        order
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]


@settings(max_examples=60)
@given(tied())
def test_kendall_is_its_definition_and_scipys(columns: list[Vector]) -> None:
    a, b = columns
    assert kendall(a, b) == pytest.approx(tau_b(a, b), nan_ok=True)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, nan_ok=True)
    assert kendall(ranks(np.array(a)), ranks(np.array(b))) == pytest.approx(
        tau_b(a, b), nan_ok=True
    )


@settings(max_examples=60)
@given(tied())
def test_spearman_is_the_correlation_of_mean_ranks(columns: list[Vector]) -> None:
    a, b = columns
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman(a, b))
    else:
        expected = np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1]
        assert spearman(a, b) == pytest.approx(expected)


@settings(max_examples=60)
@given(tied(most=40))
def test_pairwise_accuracy_is_its_definition(columns: list[Vector]) -> None:
    a, b = columns
    agree = [
        (a[i] >= a[j] and b[i] >= b[j]) or (a[i] < a[j] and b[i] < b[j])
        for i, j in combinations(range(len(a)), 2)
    ]
    assert pairwise_accuracy(a, b) == sum(agree) / len(agree)


def test_ranks_by_order_hold_no_ties() -> None:
    assert ranks_by_order(np.array([2, 1, 2, 1])).tolist() == [3, 1, 2, 0]
    assert ranks(np.array([0.5, 0.1, 0.5])).tolist() == [2, 1, 2]


@pytest.mark.parametrize("n", [40_000])
def test_many_architectures(n: int) -> None:
    values = np.random.default_rng(0).permutation(n)
    assert kendall(ranks(values), values) == pytest.approx(1)
    assert pairwise_accuracy(values, values) == 1
    assert pairwise_accuracy(values, -values) == 0


def test_sparse_kendall_by_hand() -> None:
    # In steps of 0.1 %: 0.9000 and 0.9004 are alike, 0.9010 is one bin further.
    truth = [0.9000, 0.9004, 0.9010]
    assert sparse_kendall([1, 2, 3], truth) == pytest.approx(2 / math.sqrt(3 * 2))
    assert sparse_kendall([2, 1, 3], truth) == pytest.approx(2 / math.sqrt(3 * 2))
    assert sparse_kendall([1, 2, 3], truth, bin_width=1e-4) == 1
    assert sparse_kendall([2, 1, 3], truth, bin_width=1e-4) == pytest.approx(1 / 3)
    assert math.isnan(sparse_kendall([1, 2, 3], truth, bin_width=1))


def test_sparse_kendall_keeps_accuracies_on_the_grid_apart() -> None:
    truth = np.arange(1001) / 1000
    assert sparse_kendall(truth, truth) == pytest.approx(1)


def test_top_measures_by_hand() -> None:
    scores = [5, 4, 3, 2, 1]
    truth = [0.7, 0.9, 0.5, 0.8, 0.6]
    # The best two by score are 0 and 1, the best two by truth 1 and 3.
    assert precision_at_top(scores, truth, 0.4) == 0.5
    assert precision_at_top(scores, truth, 1) == 1
    assert precision_at_top(scores, truth, 0.01) == 0  # one at least: 0 against 1
    assert [best_rank_at(scores, truth, k) for k in range(1, 6)] == [3, 1, 1, 1, 1]
    assert top_regret(scores, truth, 1) == pytest.approx(0.2)
    assert top_regret(scores, truth, 2) == 0


def test_scores_that_say_nothing_are_worth_chance() -> None:
    truth = np.arange(10)
    assert precision_at_top(np.zeros(10), truth, 0.3) == pytest.approx(0.3)
    for k in range(1, 11):
        assert best_rank_at(np.zeros(10), truth, k) == pytest.approx(11 / (k + 1))


def test_equal_truths_share_the_best_rank() -> None:
    assert best_rank_at([1, 2, 3], [0.9, 0.5, 0.9], 1) == 1
    assert best_rank_at([1, 3, 2], [0.9, 0.5, 0.9], 1) == 3


@settings(deadline=None, max_examples=40)
@given(tied(most=5), st.data())
def test_top_measures_are_means_over_the_orders_that_ties_allow(
    columns: list[Vector], data: st.DataObject
) -> None:
    scores, truth = columns
    k = data.draw(st.integers(1, len(scores)))
    found = orders(scores)
    overlap = fmean(
        len({*order[:k]} & {*best[:k]}) / k for order in found for best in orders(truth)
    )
    assert precision_at_top(scores, truth, k / len(scores)) == pytest.approx(overlap)
    regret = fmean(max(truth) - max(truth[i] for i in order[:k]) for order in found)
    assert top_regret(scores, truth, k) == pytest.approx(regret)
    rank = fmean(min(1 + sum(t > truth[i] for t in truth) for i in order[:k]) for order in found)
    assert best_rank_at(scores, truth, k) == pytest.approx(rank)


@pytest.mark.parametrize("k", [0, 4])
def test_the_best_k_are_some_of_all(k: int) -> None:
    with pytest.raises(ValueError, match=f"1 <= k <= 3, not {k}"):
        best_rank_at([1, 2, 3], [1, 2, 3], k)
    with pytest.raises(ValueError, match="share"):
        precision_at_top([1, 2, 3], [1, 2, 3], k / 3 if k == 0 else 1.1)


MEASURES: list[Callable[[Any, Any], float]] = [
    kendall,
    spearman,
    lambda a, b: precision_at_top(a, b, 0.3),
    lambda a, b: best_rank_at(a, b, 3),
]


@settings(max_examples=40)
@given(tied(n=4), st.randoms(use_true_random=False))
def test_only_the_ranking_counts(columns: list[Vector], random: Any) -> None:
    a, b = (np.array(column) for column in columns)
    order = list(range(len(a)))
    random.shuffle(order)
    for measure in MEASURES:
        value = pytest.approx(measure(a, b), nan_ok=True)
        assert measure(a[order], b[order]) == value
        assert measure(np.exp(a) - 3, b**3 / 7) == value
    for symmetric in (kendall, spearman, pairwise_accuracy):
        assert symmetric(a, b) == pytest.approx(symmetric(b, a), nan_ok=True)
    assert kendall(-a, b) == pytest.approx(-kendall(a, b), nan_ok=True)


@pytest.mark.parametrize("measure", [kendall, spearman, sparse_kendall])
def test_where_all_are_tied_nothing_is_defined(measure: Callable[[Any, Any], float]) -> None:
    assert math.isnan(measure([1, 1, 1], [1, 2, 3]))
    assert math.isnan(measure([1, 2, 3], [1, 1, 1]))
    assert math.isnan(measure([1, 1], [1, 1]))


@pytest.mark.parametrize("measure", [kendall, spearman, sparse_kendall])
@pytest.mark.parametrize(
    ("a", "b"), [([1], [1]), ([], []), ([1, 2], [1, 2, 3]), ([[1, 2]] * 2,) * 2]
)
def test_vectors_of_one_length(measure: Callable[[Any, Any], float], a: Any, b: Any) -> None:
    with pytest.raises(ValueError, match=r"pairs need|shape"):
        measure(a, b)


def test_size_groups_are_terciles_and_equal_sizes_stay_together() -> None:
    assert size_groups([30, 10, 20, 60, 40, 50]).tolist() == [1, 0, 0, 2, 1, 2]
    assert size_groups([1, 1, 1, 1, 2, 3]).tolist() == [1, 1, 1, 1, 2, 2]
    assert set(size_groups([7, 7, 7]).tolist()) == {1}
    counts = np.bincount(size_groups(np.arange(100)))
    assert sorted(counts.tolist()) == [33, 33, 34]


def test_kendall_within_by_hand() -> None:
    size = [1, 1, 2, 2, 3, 3]
    scores = [1, 2, 4, 3, 5, 6]
    truth = [1, 2, 3, 4, 6, 6]
    mean, each = kendall_within(scores, truth, size)
    assert each[:2] == (1, -1) and math.isnan(each[2])  # the large ones are tied
    assert mean == 0
    mean, each = kendall_within(scores, truth, [5] * 6)
    assert mean == each[1] == kendall(scores, truth)
    assert math.isnan(each[0]) and math.isnan(each[2])
    assert math.isnan(kendall_within([1, 2, 3], [1, 2, 3], [1, 2, 3])[0])  # alone in each group


def test_size_that_explains_everything() -> None:
    """Scores and truth that share nothing but size: partial rho and tau within show it."""
    rng = np.random.default_rng(0)
    size, noise, other = rng.standard_normal((3, 20_000))
    r = 0.7
    scores, truth = (r * size + math.sqrt(1 - r * r) * e for e in (noise, other))
    assert kendall(scores, truth) == pytest.approx(2 / math.pi * math.asin(r * r), abs=0.01)
    assert partial_spearman(scores, truth, size) == pytest.approx(0.012, abs=0.015)
    # Kendall's partial tau undercorrects, as its docstring says.
    assert partial_kendall(scores, truth, size) == pytest.approx(0.109, abs=0.015)
    # The finer the groups, the less of the size is left within them.
    left = [kendall_within(scores, truth, size, groups)[0] for groups in (1, 3, 30, 300)]
    assert left == sorted(left, reverse=True)
    assert abs(left[-1]) < 0.02


def test_partial_kendall_by_hand_and_where_size_says_nothing() -> None:
    x, y, z = [1, 2, 3, 4], [1, 3, 2, 4], [2, 1, 4, 3]
    xy, xz, yz = 4 / 6, 2 / 6, 0
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_kendall(x, y, z) == pytest.approx(expected)
    rng = np.random.default_rng(1)
    scores, noise, size = rng.standard_normal((3, 5000))
    truth = scores + noise
    assert partial_kendall(scores, truth, size) == pytest.approx(kendall(scores, truth), abs=0.01)


@pytest.mark.parametrize("partial", [partial_kendall, partial_spearman])
def test_partial_correlation_where_size_ranks_alone(
    partial: Callable[[Any, Any, Any], float],
) -> None:
    assert math.isnan(partial([1, 2, 3], [1, 3, 2], [1, 2, 3]))  # like the scores
    assert math.isnan(partial([1, 3, 2], [1, 2, 3], [3, 2, 1]))  # against the truth
    assert math.isnan(partial([1, 2, 3], [1, 3, 2], [5, 5, 5]))
    assert math.isnan(partial([1, 1, 1], [1, 3, 2], [1, 2, 3]))


@pytest.mark.parametrize("n", [1, 2, 126, 127, 128, 129, 255, 256, 300, 32767, 32768, 32769])
def test_ranks_rise_with_the_values_at_every_size(n: int) -> None:
    """Short integers hold the ranks of all, the best one's too."""
    values = np.random.default_rng(n).permutation(n)
    for found in (ranks(values), ranks_by_order(values)):
        assert found[np.argsort(values)].tolist() == sorted(found.tolist())
        assert len(set(found.tolist())) == n
    if n > 1:
        noisy = values + np.random.default_rng(0).normal(0, n / 3, n)
        tau = stats.kendalltau(values, noisy).statistic
        assert kendall(ranks(values), ranks(noisy)) == pytest.approx(tau, abs=1e-12)
