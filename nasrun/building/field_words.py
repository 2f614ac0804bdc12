"""Lead from the words that people use for costs to the settings that bound them."""

from __future__ import annotations

import re

COSTS = (
    (
        r"[kmgt]?flops?|flop_?count",
        "macs",
        "multiply-adds of one image (one is two FLOPs: halve the number, unless your source calls "
        "multiply-adds FLOPs, as most papers on NAS do)",
        "300M",
    ),
    (
        r"macc?s?|[mg]macs?|m?adds?|(mul|mult|multiply)_?adds?|mul_?acc",
        "macs",
        "multiply-adds of one image",
        "300M",
    ),
    (
        r"parameters?|params?|n_?params|num_?(params|parameters)|(model_?)?size|weights",
        "params",
        "number of parameters, not bytes",
        "3.5M",
    ),
    (
        r"(inference_?)?(latency|time|speed)(_?m?s(ec)?)?|ms|(milli)?seconds",
        "latency_ms",
        "milliseconds of one batch (budget.latency says how it is measured)",
        "25",
    ),
    (r"bops|bit_?flops|bit_?op(s|erations)", "bitops", "bit-operations of one image", "10G"),
)
"""For each cost: words for it, the name of its setting, its unit, and an example."""

_SURE = re.compile(r"flop|mac|add|param|latency|bops")
"""Parts of words that are surely about costs, also where they stand outside of ``budget``."""


def in_our_words(key: str) -> str | None:
    """Return which setting bounds the cost that ``key`` names, with its unit; None: no cost."""
    *heads, last = key.lstrip("+").lower().split(".")
    side = "max"
    if last in ("max", "min", "maximum", "minimum", "limit", "target") and heads:
        side, last = ("min" if last.startswith("min") else "max"), heads.pop()
    if bounded := re.fullmatch(r"(max|min)_?(.+)|(.+)_(max|min|limit)", last):
        side = "min" if "min" in (bounded[1], bounded[4]) else "max"
        last = bounded[2] or bounded[3]
    if heads not in ([], ["budget"]) or not (heads or _SURE.search(last)):
        return None
    for words, cost, unit, example in COSTS:
        if re.fullmatch(words, last):
            setting = f"budget.{cost}.{side}"
            return f"the bound is {setting}, in {unit}: {setting}={example}"
    return None
