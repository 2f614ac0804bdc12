"""The measures of a classifier as tables, pictures, numbers, and lines on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasrun.errors import plural
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.classification import Answers
from nasrun.report.figures_test import plot_calibration, plot_confusion
from nasrun.run.files import printable, write_csv
from nasrun.run.layout import (
    CALIBRATION_PICTURE,
    CLASSES,
    CONFUSION,
    CONFUSION_PICTURE,
    PREDICTIONS,
)

NAME_CHARACTERS = 24
"""Length of a class's name on the screen."""


class Report:
    """All measures of a classifier's answers.

    classes: names, [K]. sources: file or number of each image, [N]. rng: of the bootstrap.
    """

    def __init__(
        self,
        answers: Answers,
        classes: Sequence[str],
        sources: Sequence[str],
        *,
        rng: np.random.Generator,
        confidence: float,
        resamples: int,
        bins: int,
    ) -> None:
        self.answers, self.classes, self.sources = answers, classes, sources
        self.confidence, self.bins = confidence, bins
        self.accuracy = answers.accuracy(confidence)
        self.top5 = answers.top5(confidence) if len(classes) > 5 else None
        self.balanced = answers.balanced_accuracy(confidence, resamples, rng)
        self.recalls = answers.recalls(confidence)
        self.calibration = answers.calibration(bins)

    def to_json(self) -> dict[str, Any]:
        """Return the measures for result.json, with their intervals."""
        numbers = {
            "balanced_accuracy": self.balanced.value,
            "calibration_error": self.calibration.error,
            "negative_log_likelihood": self.answers.negative_log_likelihood,
        }
        intervals = {"test_accuracy": self.accuracy, "balanced_accuracy": self.balanced}
        if self.top5 is not None:
            numbers["top5_accuracy"] = self.top5.value
            intervals["top5_accuracy"] = self.top5
        return {
            **numbers,
            "confidence": self.confidence,
            "calibration_bins": self.bins,
            "intervals": {name: found.to_json() for name, found in intervals.items()},
        }

    def write(self, directory: Path) -> None:
        """Write the tables and the pictures."""
        answers, classes = self.answers, self.classes
        write_csv(
            directory / PREDICTIONS,
            ("image", "true", "predicted", "probability"),
            (
                (source, classes[label], classes[predicted], f"{probability:.6f}")
                for source, label, predicted, probability in zip(
                    self.sources,
                    answers.labels.tolist(),
                    answers.predicted.tolist(),
                    answers.probability.tolist(),
                    strict=True,
                )
            ),
        )
        rows = zip(
            classes, answers.counts.tolist(), self.recalls, answers.precisions.tolist(), strict=True
        )
        write_csv(
            directory / CLASSES,
            ("class", "images", "recall", "recall_low", "recall_high", "precision"),
            (
                (name, count, *map(_cell, (recall.value, recall.low, recall.high, precision)))
                for name, count, recall, precision in rows
            ),
        )
        table = zip(classes, answers.confusion.tolist(), strict=True)
        write_csv(directory / CONFUSION, ("true", *classes), ((name, *row) for name, row in table))
        plot_confusion(answers.confusion, classes, directory / CONFUSION_PICTURE)
        plot_calibration(self.calibration, directory / CALIBRATION_PICTURE)

    def lines(self, shown: int, images: str) -> list[str]:
        """Return lines for the screen. shown: classes and confusions; images: what they are."""
        answers = self.answers
        lines = [
            f"{len(answers):,} images: {images}",
            f"top-1 accuracy        {told(self.accuracy)}",
        ]
        if self.top5 is not None:
            lines.append(f"top-5 accuracy        {told(self.top5)}")
        lines += [
            f"balanced accuracy     {told(self.balanced)}",
            f"calibration error     {100 * self.calibration.error:.2f} % ({self.bins} bins)",
            f"-ln p, mean           {answers.negative_log_likelihood:.4f}",
        ]
        missed = [k for k, recall in enumerate(self.recalls) if recall.value < 1]
        worst = sorted(missed, key=lambda k: self.recalls[k].value)[:shown]
        width = max((len(self._name(k)) for k in worst), default=0)
        for place, k in enumerate(worst):
            head = "worst classes" if place == 0 else ""
            lines.append(
                f"{head:<21} {self._name(k):<{width}} {told(self.recalls[k])} "
                f"of {plural(int(answers.counts[k]), 'image')}"
            )
        for place, (label, predicted, count) in enumerate(answers.confusions()[:shown]):
            head = "most confused" if place == 0 else ""
            share = 100 * count / int(answers.counts[label])
            lines.append(
                f"{head:<21} {self._name(label)} taken for {self._name(predicted)}: "
                f"{plural(count, 'time')}, {share:.1f} %"
            )
        return lines

    def _name(self, k: int) -> str:
        name = printable(self.classes[k])
        return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"


def told(found: Estimate) -> str:
    """Write a share in per cent with its interval."""
    if math.isnan(found.low):
        return f"{100 * found.value:.2f} %"
    return f"{100 * found.value:.2f} % ({100 * found.low:.2f} to {100 * found.high:.2f})"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
