"""Measures of a classifier's answers, held against answers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nasrun.metrics.bootstrap import bootstrap
from nasrun.metrics.classification import Answers
from nasrun.report.test_report import Report

LABELS = [0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED = [0, 0, 1, 2, 1, 1, 0, 2]
PROBABILITY = [0.9, 0.8, 0.8, 0.4, 1.0, 0.6, 0.55, 0.5]


def answers(
    labels: list[int] = LABELS,
    predicted: list[int] = PREDICTED,
    probability: list[float] = PROBABILITY,
    classes: int = 4,
) -> Answers:
    right = np.array(labels) == np.array(predicted)
    likelihood = np.log(np.where(right, probability, 0.1))
    return Answers(
        classes,
        np.array(labels),
        np.array(predicted),
        np.array(probability),
        likelihood,
        right,
    )


def test_accuracies_are_those_counted_by_hand() -> None:
    found = answers()
    assert found.accuracy(0.95).value == 5 / 8
    assert found.confusion.tolist() == [[2, 1, 1, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    recalls = [recall.value for recall in found.recalls(0.95)]
    assert recalls[:3] == [0.5, 1.0, 0.5] and np.isnan(recalls[3])
    assert found.precisions[:3].tolist() == [2 / 3, 2 / 3, 1 / 2] and np.isnan(found.precisions[3])
    assert found.confusions() == [(0, 1, 1), (0, 2, 1), (2, 0, 1)]
    logs = [0.9, 0.8, 0.1, 0.1, 1.0, 0.6, 0.1, 0.5]
    assert found.negative_log_likelihood == pytest.approx(-np.log(logs).mean())


def test_the_balanced_accuracy_leaves_absent_classes_aside() -> None:
    found = answers().balanced_accuracy(0.95, 500, np.random.default_rng(0))
    assert found.value == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert found.low < found.value < found.high


def test_its_interval_is_that_of_images_resampled_in_their_classes() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [60, 25, 15])
    predicted = np.where(rng.random(100) < 0.7, labels, (labels + 1) % 3)
    found = answers(labels.tolist(), predicted.tolist(), [0.5] * 100, classes=3)
    quick = found.balanced_accuracy(0.9, 4000, np.random.default_rng(2))

    def balanced(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
        return {"balanced": float(np.mean([(p[y == k] == k).mean() for k in range(3)]))}

    slow = bootstrap(
        balanced,
        labels,
        predicted,
        resamples=1000,
        confidence=0.9,
        rng=np.random.default_rng(3),
        strata=labels.tolist(),
    )["balanced"]
    assert quick.value == slow.value
    assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high), abs=0.012)


def test_the_calibration_error_is_that_counted_by_hand() -> None:
    found = answers().calibration(2)  # below 0.5, and from 0.5 on; 1.0 belongs to the last bin
    assert found.counts.tolist() == [1, 7]
    right, sure = 5 / 7, sum(PROBABILITY[:3] + PROBABILITY[4:]) / 7
    assert found.error == pytest.approx((1 * abs(0 - 0.4) + 7 * abs(right - sure)) / 8)


def test_confidence_that_comes_true_has_no_error() -> None:
    n = 1000
    found = answers([0] * n, [0] * 800 + [1] * 200, [0.8] * n, classes=2).calibration(15)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert np.isnan(found.accuracy).sum() == 14


def test_accuracy_is_no_different_if_images_change_places() -> None:
    order = np.random.default_rng(0).permutation(8)
    one, other = answers(), answers(*([x[k] for k in order] for x in (LABELS, PREDICTED)))  # type: ignore[arg-type]
    assert one.accuracy(0.95) == other.accuracy(0.95)
    assert (one.confusion == other.confusion).all()


def test_the_worst_classes_stand_below_each_other() -> None:
    names = ["ox", "a long name of a class", "goat", "x"]
    report = Report(
        answers([0, 1, 1], [1, 0, 2], [0.9] * 3),
        names,
        ["", "", ""],
        rng=np.random.default_rng(1),
        confidence=0.95,
        resamples=10,
        bins=5,
    )
    lines = report.lines(2, "mine")
    at = next(k for k, line in enumerate(lines) if line.startswith("worst classes"))
    first, second = lines[at : at + 2]
    assert first.index("0.00 %") == second.index("0.00 %") and first.endswith("of 1 image")
    assert second.endswith("of 2 images")
