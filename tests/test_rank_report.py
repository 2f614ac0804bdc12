"""Everything that is said of one ranking, the ceiling, and what no ranking can be made of."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

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
