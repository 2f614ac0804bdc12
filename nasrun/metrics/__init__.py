"""Measures of rankings: how well scores rank architectures, with intervals; no torch."""

from nasrun.metrics.bootstrap import (
    Estimate,
    bootstrap,
    difference,
    distinguishable,
    needed,
    warn_if_too_small,
)
from nasrun.metrics.paired import holm, sign_flip_p, win_share
from nasrun.metrics.ranking import (
    best_rank_at,
    kendall,
    pairwise_accuracy,
    precision_at_top,
    sparse_kendall,
    spearman,
    top_regret,
)
from nasrun.metrics.report import Measure, RankReport, compare, noise_ceiling
from nasrun.metrics.size import kendall_within, partial_kendall, partial_spearman

__all__ = [
    "Estimate",
    "Measure",
    "RankReport",
    "best_rank_at",
    "bootstrap",
    "compare",
    "difference",
    "distinguishable",
    "holm",
    "kendall",
    "kendall_within",
    "needed",
    "noise_ceiling",
    "pairwise_accuracy",
    "partial_kendall",
    "partial_spearman",
    "precision_at_top",
    "sign_flip_p",
    "sparse_kendall",
    "spearman",
    "top_regret",
    "warn_if_too_small",
    "win_share",
]
