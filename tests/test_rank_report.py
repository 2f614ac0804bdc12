"""Everything that is said of one ranking, the ceiling, and what no ranking can be made of."""

from __future__ import annotations

import json
import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nasrun.errors import UserError
from nasrun.metrics import (
    RankReport,
    best_rank_at,
    compare,
    kendall,
    kendall_within,
    noise_ceiling,
    pairwise_accuracy,
    partial_kendall,
    partial_spearman,
    precision_at_top,
    sparse_kendall,
    spearman,
    top_regret,
)

N = 60


def random_sample(n: int, ties: bool) -> dict[str, Any]:
    """Scores, truth and sizes of ``n`` architectures; with ties, many of each are equal."""
    rng = np.random.default_rng(n)
    params = rng.permutation(n) * 100 + 1
    truth = 0.5 + rng.permutation(n) / (4 * n)
    scores = truth + rng.permutation(n) / (2 * n)
    macs = params + rng.permutation(n)
    if ties:
        truth, scores = np.round(truth, 2), np.round(scores, 1)
        params, macs = params // (30 * n) + 1, macs // (20 * n) + 1
    return {"scores": scores, "truth": truth, "params": params, "macs": macs}


def tau(a: Any, b: Any) -> float:
    """Of numbers that no short type holds, by scipy."""
    x, y = (np.asarray(v, dtype=np.float64) for v in (a, b))
    return float(stats.kendalltau(x, y).statistic) if len(x) > 1 else math.nan


def rho(a: Any, b: Any) -> float:
    x, y = stats.rankdata(a), stats.rankdata(b)
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else math.nan


def given(xy: float, xz: float, yz: float) -> float:
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else math.nan


def pairs_alike(x: Any, y: Any) -> float:
    """Share of the pairs i < j that both order alike, by its definition, a row at a time."""
    n = len(x)
    rows = ((x[i] >= x[i + 1 :]) == (y[i] >= y[i + 1 :]) for i in range(n - 1))
    return sum(int(np.count_nonzero(row)) for row in rows) / (n * (n - 1) // 2)


def places(values: Any, k: int) -> tuple[list[int], list[int], int]:
    """The indices above the k-th highest, those equal to it, and how many of these are among k."""
    order = np.argsort(-np.asarray(values), kind="stable")
    edge = values[order[k - 1]]
    above = [int(i) for i in order if values[i] > edge]
    return above, [int(i) for i in order if values[i] == edge], k - len(above)


def expected_least(loss: Any, scores: Any, k: int) -> float:
    """Least loss among the k highest scores: the mean over all choices among equal ones."""
    above, tied, left = places(scores, k)
    sure = min((float(loss[i]) for i in above), default=math.inf)
    rest = sorted(float(loss[i]) for i in tied)
    count = len(rest)
    if left == 1:
        return fmean(min(sure, value) for value in rest)
    every = math.comb(count, left)
    ways = (math.comb(count - 1 - j, left - 1) for j in range(count - left + 1))
    return sum(way / every * min(sure, value) for way, value in zip(ways, rest, strict=False))


def top_shared(x: Any, y: Any, k: int) -> float:
    chances = []
    for values in (x, y):
        above, tied, left = places(values, k)
        chances.append(dict.fromkeys(above, 1.0) | dict.fromkeys(tied, left / len(tied)))
    first, second = chances
    return sum(chance * second.get(index, 0.0) for index, chance in first.items()) / k


def by_definition(scores: Any, truth: Any, params: Any, macs: Any) -> dict[str, float]:
    """Every measure of a report, by scipy or its definition, from the values themselves."""
    n = len(scores)
    true_rank = 1 + n - np.searchsorted(np.sort(truth), truth, "right")
    found = {
        "kendall": tau(scores, truth),
        "pairwise_accuracy": pairs_alike(scores, truth),
        "spearman": rho(scores, truth),
        "sparse_kendall": tau(scores, np.floor(truth * 1000 + 1e-6)),
        "precision_at_top_0.1": top_shared(scores, truth, max(1, round(0.1 * n))),
    }
    for k in (k for k in (1, 10) if k < n):
        found[f"best_rank_at_{k}"] = expected_least(true_rank, scores, k)
        found[f"regret_at_{k}"] = expected_least(truth.max() - truth, scores, k)
    for name, size in (("params", params), ("macs", macs)):
        order = np.sort(size)
        middle = (np.searchsorted(order, size) + np.searchsorted(order, size, "right")) / 2
        third = np.minimum(middle * 3 // n, 2)
        each = [tau(scores[third == i], truth[third == i]) for i in range(3)]
        defined = [value for value in each if not math.isnan(value)]
        found |= {
            f"{name}_alone": tau(size, truth),
            f"above_{name}": tau(scores, truth) - tau(size, truth),
            f"within_{name}": fmean(defined) if defined else math.nan,
            f"within_{name}_small": each[0],
            f"within_{name}_medium": each[1],
            f"within_{name}_large": each[2],
            f"partial_{name}": given(tau(scores, truth), tau(scores, size), tau(size, truth)),
            f"partial_spearman_{name}": given(
                rho(scores, truth), rho(scores, size), rho(size, truth)
            ),
        }
    return found


def check_all_measures(n: int, ties: bool) -> None:
    sample = random_sample(n, ties)
    report = compare(**sample, resamples=0, rng=np.random.default_rng(0))
    found = {measure.name: measure.estimate.value for measure in report.measures}
    assert found == pytest.approx(by_definition(**sample), abs=1e-9, nan_ok=True)


SIZES = [3, 126, 127, 128, 129, 255, 256, 257, 32767, 32768, 32769]
"""Numbers of architectures at which the type that holds their ranks changes, and the least."""


@pytest.mark.few(8)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_every_measure_is_its_definition_where_types_change(n: int, ties: bool) -> None:
    check_all_measures(n, ties)


@pytest.mark.few(6)
@pytest.mark.parametrize("n", [n for n in range(4, 301) if n not in SIZES])
def test_every_measure_is_its_definition(n: int) -> None:
    check_all_measures(n, ties=False)
    check_all_measures(n, ties=True)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_architectures_are_no_ranking(n: int) -> None:
    with pytest.raises(UserError, match=f"3 architectures at least, not {n}"):
        compare(**random_sample(n, ties=False), rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    """Scores, truth and sizes with ties in each."""
    rng = np.random.default_rng(0)
    params = rng.integers(1, 20, N) * 100_000
    macs = params * 10 + rng.integers(0, 3, N) * 1_000_000
    truth = np.round(0.9 + params / 1e8 + 0.01 * rng.standard_normal(N), 3)
    scores = np.round(truth + 0.01 * rng.standard_normal(N), 2)
    return {"scores": scores, "truth": truth, "params": params, "macs": macs}


@pytest.fixture(scope="module")
def report(sample: dict[str, Any]) -> RankReport:
    rng = np.random.default_rng(1)
    return compare(**sample, top_shares=(0.1, 0.25), ks=(1, 5, N), resamples=60, rng=rng)


def test_every_value_is_that_of_its_function(sample: dict[str, Any], report: RankReport) -> None:
    x, y = sample["scores"], sample["truth"]
    expected = {
        "kendall": kendall(x, y),
        "pairwise_accuracy": pairwise_accuracy(x, y),
        "spearman": spearman(x, y),
        "sparse_kendall": sparse_kendall(x, y),
        "precision_at_top_0.1": precision_at_top(x, y, 0.1),
        "precision_at_top_0.25": precision_at_top(x, y, 0.25),
        "best_rank_at_1": best_rank_at(x, y, 1),
        "regret_at_1": top_regret(x, y, 1),
        "best_rank_at_5": best_rank_at(x, y, 5),
        "regret_at_5": top_regret(x, y, 5),
    }
    for name in ("params", "macs"):
        size = sample[name]
        mean, (small, medium, large) = kendall_within(x, y, size)
        expected |= {
            f"{name}_alone": kendall(size, y),
            f"above_{name}": kendall(x, y) - kendall(size, y),
            f"within_{name}": mean,
            f"within_{name}_small": small,
            f"within_{name}_medium": medium,
            f"within_{name}_large": large,
            f"partial_{name}": partial_kendall(x, y, size),
            f"partial_spearman_{name}": partial_spearman(x, y, size),
        }
    assert {m.name: m.estimate.value for m in report.measures} == pytest.approx(expected)


def test_every_measure_has_its_interval(report: RankReport) -> None:
    assert (report.architectures, report.resamples, report.confidence) == (N, 60, 0.95)
    for measure in report.measures:
        low, high = measure.estimate.low, measure.estimate.high
        assert low <= high, measure.name
        if measure.group != "top":
            assert low < measure.estimate.value < high, measure.name


def test_json_and_rows(report: RankReport) -> None:
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    groups = ["agreement", "top", "size alone", "given size"]
    assert list(found) == ["architectures", "resamples", "confidence", *groups]
    assert found["agreement"]["kendall"]["low"] == report["kendall"].low
    rows = report.rows()
    assert list(dict.fromkeys(row[0] for row in rows)) == groups
    assert len(rows) == len(report.measures) == sum(len(found[group]) for group in groups)
    tau = report["kendall"]
    interval = f"{tau.low:.3f} to {tau.high:.3f}"
    assert rows[0] == ("agreement", "Kendall's τ-b", f"{tau.value:.3f}", interval)
    assert ("top", "precision at the top 10 %") in [row[:2] for row in rows]
    with pytest.raises(KeyError):
        report["tau"]


def test_ranks_are_whole_in_words_where_they_are_whole() -> None:
    truth = np.arange(3000) / 3000
    sizes = {"params": truth, "macs": truth}
    rng = np.random.default_rng(0)
    words = {
        row[1]: row[2:] for row in compare(-truth, truth, **sizes, resamples=0, rng=rng).rows()
    }
    assert words["best true rank of the top one"] == ("3,000", "– to –")
    assert words["partial τ given parameters"] == ("–", "– to –")
    words = {
        row[1]: row[2]
        for row in compare(
            [1, 1, 0], [2, 3, 1], params=[1, 2, 3], macs=[1, 2, 3], resamples=0, rng=rng
        ).rows()
    }
    assert words["best true rank of the top one"] == "1.5"


def test_strata_follow_their_architectures(sample: dict[str, Any]) -> None:
    """Where each architecture is a stratum of its own, every resample is the sample itself."""
    words: dict[str, Any] = {"resamples": 5, "rng": np.random.default_rng(0)}
    report = compare(**sample, **words, strata=list(range(N)))
    for measure in report.measures:
        value = measure.estimate.value
        assert (measure.estimate.low, measure.estimate.high) == pytest.approx((value, value))
    seeds = [sample["truth"], sample["scores"]]
    ceiling = noise_ceiling(seeds, **words, strata=list(range(N)))["kendall"]
    assert (ceiling.low, ceiling.high) == pytest.approx((ceiling.value, ceiling.value))
    # By the true size: the least accurate third of the architectures is its own stratum.
    strata = (np.argsort(np.argsort(sample["truth"], kind="stable")) // (N // 3)).tolist()
    best = compare(**sample, resamples=50, rng=np.random.default_rng(0), strata=strata)
    assert best["kendall"].low > compare(**sample, **words | {"resamples": 50})["kendall"].low


def test_the_generator_decides(sample: dict[str, Any]) -> None:
    first, again, other = (
        compare(**sample, resamples=5, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_sizes_may_be_tied(sample: dict[str, Any]) -> None:
    report = compare(**{**sample, "params": np.ones(N)}, resamples=5, rng=np.random.default_rng(0))
    assert math.isnan(report["params_alone"].value)
    assert math.isnan(report["partial_params"].value)
    assert report["within_params"].value == report["kendall"].value
    assert report.to_json()["size alone"]["params_alone"]["value"] is None


def test_a_small_sample_is_warned_of(report: RankReport) -> None:
    assert report.warning is not None and report.warning.startswith("60 architectures are too few")


def wrong(**values: Any) -> dict[str, Any]:
    return {
        "scores": [1, 2, 3],
        "truth": [1, 3, 2],
        "params": [1, 2, 3],
        "macs": [4, 5, 6],
    } | values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (wrong(scores=[1, 2]), "2 scores but 3 true accuracies: one for each architecture"),
        (wrong(macs=[1, 2, 3, 4]), "3 scores but 4 multiply-adds: one for each architecture"),
        (
            {name: [1, 2] for name in wrong()},
            "a ranking needs 3 architectures at least, not 2",
        ),
        ({name: [] for name in wrong()}, "a ranking needs 3 architectures at least, not 0"),
        (wrong(scores=[0.1] * 3), "all 3 scores are 0.1: they rank nothing"),
        (wrong(truth=[0.1] * 3), "all 3 true accuracies are 0.1: they rank nothing"),
        (wrong(scores=[1, math.nan, 3]), "scores: nan of architecture 1 is no finite number"),
        (
            wrong(truth=[1, -math.inf, math.nan], labels=["aa", "ab", "ac"]),
            "true accuracies: -inf of architecture ab is no finite number, and 1 more are none",
        ),
        (wrong(params=[math.inf, 1, 2]), "parameters: inf of architecture 0 is no finite number"),
        (wrong(labels=["a"]), "3 scores but 1 architectures"),
    ],
)
def test_no_ranking_can_be_made_of(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        compare(**values, rng=np.random.default_rng(0))
    assert str(error.value) == message


def test_noise_ceiling_by_hand() -> None:
    # Seeds 0 and 1 agree in all three pairs, each of them with seed 2 in two of three.
    found = noise_ceiling(
        [[1, 2, 3], [2, 3, 4], [2, 1, 3]], resamples=0, rng=np.random.default_rng(0)
    )
    assert found["pairwise_accuracy"].value == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert found["kendall"].value == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found["spearman"].value == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_noise_ceiling_of_known_noise() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(2000)
    seeds = [truth + 0.5 * rng.standard_normal(2000) for _ in range(3)]
    found = noise_ceiling(seeds, resamples=40, rng=rng)
    correlation = 1 / (1 + 0.25)
    tau = found["kendall"]
    assert tau.low < 2 / math.pi * math.asin(correlation) < tau.high
    assert found["pairwise_accuracy"].value == pytest.approx((tau.value + 1) / 2)
    rho = 6 / math.pi * math.asin(correlation / 2)
    assert found["spearman"].value == pytest.approx(rho, abs=0.02)
    # A score without noise ranks better than the ceiling says, above all against the mean.
    assert kendall(truth, seeds[0]) > tau.high
    assert kendall(truth, np.mean(seeds, 0)) > kendall(truth, seeds[0])


def test_noise_ceiling_needs_seeds_that_rank() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="two seeds at least"):
        noise_ceiling([[1, 2, 3]], rng=rng)
    with pytest.raises(UserError, match="true accuracies of seed 1: nan of architecture b is no"):
        noise_ceiling([[1, 2, 3], [1, math.nan, 3]], labels=list("abc"), rng=rng)
    with pytest.raises(UserError, match="3 true accuracies of seed 0 but 2 true accuracies of se"):
        noise_ceiling([[1, 2, 3], [1, 2]], rng=rng)
