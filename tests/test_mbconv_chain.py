"""Chains of inverted residuals: published networks, torchvision's, super-kernels, bad tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from nasrun.building.build import build
from nasrun.errors import UserError
from nasrun.search_space.mbconv_chain.kernels import SuperKernel
from nasrun.search_space.mbconv_chain.layers import ChannelShuffle
from nasrun.search_space.mbconv_chain.network import ChoiceLayer
from nasrun.search_space.mbconv_chain.table import LayerPlan, Operation, Style, divisible
from nasrun.search_space.noise import Noise
from nasrun.streams import Streams
from nasrun.values import Architecture, MapSize, Problem

CONF = Path(__file__).parents[1] / "conf/search_space"
IMAGENET = Problem(3, 224, 1000)


def space_of(option: str, **changes: Any):
    """The space of an option, at full size and with the strides for ImageNet."""
    node = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    return build({**node, "stem": "imagenet", **changes}, "search_space")


def repeated(*stages: str) -> str:
    """An architecture, of ``k3_e6 3`` for three layers of an operation, and so on."""
    words = [stage.split() for stage in stages]
    return ",".join(name for name, count in words for _ in range(int(count)))


MNASNET = [(16, 1, 1), (24, 3, 2), (40, 3, 2), (80, 3, 2), (96, 2, 1), (192, 4, 2), (320, 1, 1)]


def of_stages(*operations: str) -> dict[str, Any]:
    """The table of MnasNet-B1, whose stages may have one fixed operation each."""
    rows = [
        {"channels": c, "layers": n, "stride": s, "operations": [operation]}
        for (c, n, s), operation in zip(MNASNET, operations, strict=True)
    ]
    rows[-1]["operations"].append("k7_e6")  # something must be left to decide
    return {"stages": rows}


FBNET_A = (
    "identity,k3_e3,k3_e1,identity,identity,k5_e6,k3_e3,k5_e1,k3_e3,k5_e6,k5_e3,k5_e1_g2,k5_e6,"
    "k3_e6,k5_e1_g2,k5_e3,k3_e1_g2,k5_e6,k5_e6,k5_e3,k5_e6,k5_e6"
)
FBNET_B = (
    "k3_e1,k3_e6,k5_e1,k3_e1,k3_e1,k5_e6,k5_e3,k3_e6,k5_e6,k5_e6,k5_e1,identity,k5_e3,"
    "k5_e6,k3_e1,k5_e1,k5_e3,k5_e6,k5_e1,k5_e6,k5_e6,k3_e6"
)
FBNET_C = (
    "k3_e1,k3_e6,identity,k3_e1,k3_e1,k5_e6,k5_e3,k5_e6,k3_e6,k5_e6,k5_e3,k5_e6,k5_e6,"
    "k5_e6,k5_e6,k5_e6,k5_e3,k5_e6,k5_e6,k5_e6,k5_e6,k3_e6"
)
PROXYLESS_R = (
    "k5_e3,k3_e3,identity,identity,k7_e3,k3_e3,k5_e3,k5_e3,k7_e6,k5_e3,k5_e3,k5_e3,"
    "k5_e6,k5_e3,k5_e3,k5_e3,k7_e6,k7_e6,k7_e3,k7_e3,k7_e6"
)
PROXYLESS_GPU = (
    "k5_e3,identity,identity,identity,k7_e3,identity,identity,k3_e3,k7_e6,identity,identity,k5_e3,"
    "k5_e6,identity,k3_e3,k5_e3,k7_e6,k7_e6,k7_e6,k5_e6,k7_e6"
)
PROXYLESS_CPU = (
    "k3_e6,k3_e3,k3_e3,k3_e3,k3_e6,k3_e3,k3_e3,k5_e3,k3_e6,identity,identity,k3_e3,"
    "k5_e6,k3_e3,k3_e3,k3_e3,k5_e6,k5_e3,k5_e3,k3_e3,k5_e6"
)
SINGLE_PATH = (
    "k3_e3,k3_e3,k3_e3,identity,k5_e6,k3_e3,k3_e3,k3_e3,k5_e6,k3_e3,k3_e3,k3_e3,"
    "k5_e6,k5_e3,k5_e3,k5_e3,k5_e6,k5_e6,k5_e6,k5_e6"
)
MNASNET_A1 = "k3_e6,2,k5_e3_se,3,k3_e6,4,k3_e6_se,2,k5_e6_se,3,k3_e6,1"
PUBLISHED = [
    ("mbconv_mobilenet_v2", {}, repeated("k3_e6 16"), 3_504_872, 300_774_272),
    ("mbconv_mnasnet", {}, MNASNET_A1, 3_887_038, 312e6),
    ("mbconv_fbnet", {"features": 1504}, FBNET_A, 4.3e6, 249e6),
    ("mbconv_fbnet", {}, FBNET_B, 4.5e6, 295e6),
    ("mbconv_fbnet", {}, FBNET_C, 5.5e6, 375e6),
    ("mbconv_proxyless", {}, PROXYLESS_R, 4_080_512, 320e6),
    ("mbconv_proxyless_gpu", {}, PROXYLESS_GPU, 7_119_848, 465e6),
    ("mbconv_proxyless_cpu", {}, PROXYLESS_CPU, 4_361_648, 439e6),
    ("mbconv_single_path", {}, SINGLE_PATH, 4_421_616, 334e6),
]


if __name__ == "__main__":
    for option, changes, text, params, macs in PUBLISHED:
        space = space_of(option, **changes)
        print(option, space.cost(space.parse(text), IMAGENET, "final"), params, macs)
