"""Costs in the units in which people read them: millions, and milliseconds."""

from __future__ import annotations

from collections.abc import Mapping

UNITS: Mapping[str, tuple[str, str, float]] = {
    "params": ("parameters", "M", 1e6),
    "macs": ("multiply-adds", "M", 1e6),
    "bitops": ("bit-operations", "G", 1e9),
    "latency_ms": ("latency", "ms", 1.0),
}
"""Words for a cost, its unit, and how much of the cost makes one."""


def in_unit(cost: str, value: float) -> float:
    """Return a cost in its unit."""
    return value / UNITS[cost][2] if cost in UNITS else value


def with_unit(cost: str) -> str:
    """Name a cost with its unit, for an axis or a column: ``parameters (M)``."""
    if cost not in UNITS:
        return cost
    words, unit, _ = UNITS[cost]
    return f"{words} ({unit})"
