"""Numbers of a report in words: units, intervals, durations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.share import wilson

NAMES = {
    "Nao": "NAO",
    "NaoCell": "NAO's cells",
    "DartsCell": "DARTS' cells",
    "DsoBlock": "DSO-NAS' blocks",
    "PnasCell": "PNAS' cells",
    "HierCell": "hierarchical cells",
    "GeneralCell": "cells of any edges",
    "MbconvChain": "chains of inverted bottlenecks",
    "TorchvisionModel": "networks of torchvision",
    "TimmModel": "networks of timm",
    "OneShotBlocks": "one-shot blocks (Bender et al.)",
    "NasBench201": "NAS-Bench-201",
    "NasBenchMacro": "NAS-Bench-Macro",
    "SposBlocks": "SPOS' choice blocks",
    "SposChannels": "SPOS' channels",
    "SposBlocksChannels": "SPOS' blocks and channels",
    "SposQuantized": "SPOS' bits of weights and activations",
    "Evolution": "evolution",
    "RegularizedEvolution": "regularised evolution",
    "RandomSearch": "random search",
    "Nsga2": "NSGA-II",
    "PDarts": "P-DARTS",
    "Enas": "ENAS",
    "Dso": "DSO-NAS",
    "BayesNas": "BayesNAS",
    "SinglePath": "Single-Path NAS",
    "Pnas": "PNAS",
    "Bayesian": "Bayesian optimisation",
    "Digits": "images of digits",
    "CIFAR10": "CIFAR-10",
    "CIFAR100": "CIFAR-100",
    "FashionMNIST": "Fashion-MNIST",
    "ImageNet": "ImageNet",
    "ImageFolder": "own images",
    "Synthetic": "made-up images",
}
"""Classes of the configuration, in the words of the field."""


def class_words(node: Any) -> str:
    """Name the class of a node of the configuration; empty if it names none."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        return ""
    name = target.rpartition(".")[2]
    return NAMES.get(name, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())


def number(value: Any) -> float | None:
    """Return a finite number; None for anything else."""
    if type(value) not in (int, float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def percent(value: float, digits: int = 2) -> str:
    """Write a share as per cent."""
    return f"{100 * value:.{digits}f} %"


def millions(value: float) -> str:
    """Write a count in millions, with three significant digits or more."""
    scaled = value / 1e6
    digits = 3 if scaled < 10 else 2 if scaled < 100 else 1
    return f"{scaled:,.{digits}f} M"


def duration(seconds: float) -> str:
    """Write seconds as a person would say them."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def estimate(found: Estimate, digits: int = 3) -> str:
    """Write a value with its interval."""
    if not math.isfinite(found.value):
        return "–"
    value = f"{found.value:.{digits}f}"
    if not math.isfinite(found.low):
        return value
    return f"{value} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def in_points(found: Estimate) -> Estimate:
    """Convert an estimate in [0, 1] to percentage points."""
    return Estimate(100 * found.value, 100 * found.low, 100 * found.high)


def accuracy(share: float, count: float | None) -> str:
    """Write an accuracy, with its 95 % interval if the number of images is known."""
    if not count:
        return percent(share)
    found = wilson(share, int(count))
    return f"{percent(share)} ({100 * found.low:.2f} to {100 * found.high:.2f})"
