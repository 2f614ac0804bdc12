"""NAS-Bench-Macro: chains of eight layers of three options, all with known accuracies."""

from nasrun.search_space.nas_bench_macro.space import NasBenchMacro

__all__ = ["NasBenchMacro"]
