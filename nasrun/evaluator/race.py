"""Racing: architectures that cannot become one of the best are not scored on all images.

All are scored on the same images in the same order, so two are compared image by image, which is
far more exact than two accuracies. An architecture races against the k-th best one so far: d is the
difference of an image, 1, 0 or -1. After n of N images, of mean m and variance s², the sum over all
images is about normal, of mean N m and variance N (N - n) s² / n, as the other images are sampled
from the same finite set. Where it is below 0 with the wanted confidence, the race is lost, and the
score is that of the k-th best plus m, the better estimate of its accuracy by all images.

Source: ours; races of this kind are Hoeffding races (Maron and Moore, NeurIPS 1993).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor


class Race:
    """The best architectures so far, image by image.

    top: number k of the best, which are scored on all images. confidence: that an architecture
    which is one of them is not stopped, over all looks at its race.
    """

    def __init__(self, top: int, confidence: float) -> None:
        self.top, self.confidence = top, confidence
        self.supernet = ""
        self.best: list[Tensor] = []

    def begin(self, supernet: str) -> None:
        """Begin anew unless the supernet, told by a digest, is the one that was raced in before."""
        if supernet != self.supernet:
            self.supernet, self.best = supernet, []

    def rival(self) -> Tensor | None:
        """Return which images the k-th best one has right, bool [N]; None: there are fewer."""
        return self.best[-1] if len(self.best) == self.top else None

    def enter(self, right: Tensor) -> None:
        """Take part with the images that are right, bool [N]; of equal ones the first is better."""
        self.best = sorted([*self.best, right], key=lambda one: -int(one.sum()))[: self.top]

    def lost(self, right: Tensor, looks: int) -> bool:
        """Return whether the race is lost after the first n images. right: bool [n], n below N.

        looks: number of looks at each race, among which the error is divided.
        """
        rival = self.rival()
        return rival is not None and is_lost(right, rival, self.confidence, looks)

    def estimate(self, right: Tensor) -> float:
        """Return the score of one that is stopped after the first n images; right: bool [n]."""
        rival = self.rival()
        assert rival is not None  # as it was stopped  # noqa: S101
        difference = (right.sum() - rival[: len(right)].sum()).item() / len(right)
        return max(rival.sum().item() / len(rival) + difference, 0.0)

    @property
    def mark(self) -> tuple[str, int, int]:
        """The supernet, the best and their right images: equal marks mean equal states."""
        return self.supernet, len(self.best), sum(int(one.sum()) for one in self.best)

    def state_dict(self) -> dict[str, Any]:
        return {"supernet": self.supernet, "best": list(self.best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is none of a race."""
        self.supernet, self.best = str(state["supernet"]), list(state["best"])
        for one in self.best:
            if one.dtype != torch.bool or one.shape != self.best[0].shape or one.dim() != 1:
                raise ValueError("its best are none of a race")


def is_lost(right: Tensor, rival: Tensor, confidence: float, looks: int) -> bool:
    """Return whether the sum of ``right`` over all images stays below that of ``rival``.

    right: bool [n], of the first n images. rival: bool [N]. confidence: over all of the ``looks``.
    """
    count, of = len(right), len(rival)
    difference = right.int() - rival[:count].int()
    total, unequal = int(difference.sum()), int(difference.abs().sum())
    if total + of - count < 0:
        return True  # for certain, even with all others right
    mean = total / count
    # One image more that is unequal: a few equal images do not mean that all are.
    variance = max((unequal + 1) / (count + 1) - mean * mean, 1 / (count + 1))
    spread = math.sqrt(of * (of - count) / count * variance)
    needed = NormalDist().inv_cdf(1 - (1 - confidence) / max(looks, 1))
    return mean * of + needed * spread < 0
