"""Measures of a classifier's answers: accuracies with intervals, confusions, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.share import wilson

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answers:
    """A classifier's answers to N images of K classes.

    labels, predicted: classes, [N]. probability: of the predicted class, [N].
    log_likelihood: natural logarithm of the probability of the label, [N].
    among_best: whether the label is among the five most probable classes, [N].
    """

    classes: int
    labels: Ints
    predicted: Ints
    probability: Floats
    log_likelihood: Floats
    among_best: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def confusion(self) -> Ints:
        """The number of images by label (row) and predicted class (column), [K, K]."""
        flat = np.bincount(self.labels * self.classes + self.predicted, minlength=self.classes**2)
        return flat.reshape(self.classes, self.classes)

    @property
    def counts(self) -> Ints:
        """The number of images of each class, [K]."""
        return np.asarray(self.confusion.sum(1))

    @property
    def correct(self) -> Ints:
        """The number of images of each class that are recognised, [K]."""
        return np.asarray(self.confusion.diagonal())

    def accuracy(self, confidence: float) -> Estimate:
        """Share of the images whose predicted class is their label, with Wilson's interval."""
        return wilson(int(self.correct.sum()) / len(self), len(self), confidence)

    def top5(self, confidence: float) -> Estimate:
        """Share of the images whose label is among the five most probable classes."""
        return wilson(int(self.among_best.sum()) / len(self), len(self), confidence)

    def recalls(self, confidence: float) -> list[Estimate]:
        """Share of each class's images that are recognised; nan where there are none, [K]."""
        shares = [c / n if n else np.nan for c, n in zip(self.correct, self.counts, strict=True)]
        return [
            wilson(float(share), int(n), confidence)
            for share, n in zip(shares, self.counts, strict=True)
        ]

    @property
    def precisions(self) -> Floats:
        """Share of the images taken for a class that are of it; nan where there are none, [K]."""
        taken = self.confusion.sum(0)
        shares = np.full(self.classes, np.nan)
        np.divide(self.correct, taken, out=shares, where=taken > 0)
        return shares

    def balanced_accuracy(
        self, confidence: float, resamples: int, rng: np.random.Generator
    ) -> Estimate:
        """Mean of the recalls of the classes that have images, with a bootstrap interval.

        Images are resampled within each class. Of answers that are right or wrong this needs no
        resampled images: the number of right ones is binomial.
        """
        counts = self.counts[self.counts > 0]
        recalls = self.correct[self.counts > 0] / counts
        if resamples == 0:
            return Estimate(float(recalls.mean()), np.nan, np.nan)
        means = (rng.binomial(counts, recalls, (resamples, len(counts))) / counts).mean(1)
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Estimate(float(recalls.mean()), float(low), float(high))

    @property
    def negative_log_likelihood(self) -> float:
        """Mean of -ln of the probability of the label."""
        return float(-self.log_likelihood.mean())

    def calibration(self, bins: int) -> Calibration:
        """Group the images by the probability of the predicted class, in bins of equal width."""
        place = np.minimum((self.probability * bins).astype(np.int64), bins - 1)
        right = (self.labels == self.predicted).astype(np.float64)
        counts = np.bincount(place, minlength=bins)
        return Calibration(
            counts,
            _means(place, self.probability, counts),
            _means(place, right, counts),
        )

    def confusions(self) -> list[tuple[int, int, int]]:
        """List (label, predicted class, images) of all wrong answers, the most frequent first."""
        wrong = self.confusion * (1 - np.eye(self.classes, dtype=np.int64))
        rows, columns = np.nonzero(wrong)
        found = [(int(a), int(b), int(wrong[a, b])) for a, b in zip(rows, columns, strict=True)]
        return sorted(found, key=lambda row: (-row[2], row[0], row[1]))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images by bin of confidence, [bins] each; means are nan in an empty bin.

    counts: images. confidence: mean probability of the predicted class. accuracy: share of right
    answers.
    """

    counts: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: mean |accuracy - confidence|, weighted by images.

        Source: Guo et al. 2017 (arXiv 1706.04599), Eq. 3.
        """
        some = self.counts > 0
        gaps = np.abs(self.accuracy[some] - self.confidence[some])
        return float((self.counts[some] * gaps).sum() / self.counts.sum())


def _means(place: Ints, values: Floats, counts: Ints) -> Floats:
    sums = np.bincount(place, weights=values, minlength=len(counts))
    means = np.full(len(counts), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
