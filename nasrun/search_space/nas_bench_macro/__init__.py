"""NAS-Bench-Macro: chains of eight layers with three options each, all of known accuracy."""

from nasrun.search_space.nas_bench_macro.space import MacroScale, NasBenchMacro

__all__ = ["MacroScale", "NasBenchMacro"]
