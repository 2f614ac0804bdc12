"""Measures of ranking on benchmark tables as published, where they are at hand."""

from __future__ import annotations

import numpy as np
import pytest
from tables import MACRO, NB201, rows

from nasrun.metrics import compare, kendall, noise_ceiling, pairwise_accuracy, spearman


def test_nas_bench_macro() -> None:
    """Size alone and one seed against another, over all 6,561 networks."""
    table = rows(MACRO)
    flops, params, truth, *seeds = (
        np.array([float(row[name]) for row in table])
        for name in ("flops", "params", "mean_acc", "acc1", "acc2", "acc3")
    )
    assert len(table) == 6561
    assert spearman(flops, truth) == pytest.approx(0.748, abs=0.0005)
    assert spearman(params, truth) == pytest.approx(0.318, abs=0.0005)
    assert kendall(flops, truth) == pytest.approx(0.5561, abs=5e-5)
    assert kendall(params, truth) == pytest.approx(0.2177, abs=5e-5)
    assert kendall(seeds[0], seeds[1]) == pytest.approx(0.8820, abs=5e-5)
    assert pairwise_accuracy(seeds[0], seeds[1]) == pytest.approx(0.9400, abs=5e-5)
    ceiling = noise_ceiling(seeds, resamples=10, rng=np.random.default_rng(0))
    assert ceiling["spearman"].value == pytest.approx(0.980, abs=0.001)
    assert ceiling["kendall"].value == pytest.approx(0.8813, abs=5e-5)
    assert ceiling["kendall"].high - ceiling["kendall"].low < 0.01


def test_nas_bench_201() -> None:
    """Accuracy after 12 epochs as a score of that after 200, over all 15,625 cells."""
    table = rows(NB201)
    params, mflops, score, truth = (
        np.array([float(row[name]) for row in table])
        for name in ("params", "mflops", "c10_test_12", "c10_test_200")
    )
    report = compare(
        *(score / 100, truth / 100),
        params=params,
        macs=mflops * 1e6,
        resamples=5,
        rng=np.random.default_rng(0),
    )
    assert report.architectures == 15_625
    assert report["params_alone"].value == pytest.approx(0.5778, abs=5e-5)
    assert report["kendall"].value == pytest.approx(kendall(score, truth))
    assert report["kendall"].value == pytest.approx(0.700, abs=0.001)
    assert report.warning is None
