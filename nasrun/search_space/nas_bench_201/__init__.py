"""NAS-Bench-201: cells of four nodes and five operations, all with known accuracies."""

from nasrun.search_space.nas_bench_201.space import NasBench201, Nb201Scale

__all__ = ["NasBench201", "Nb201Scale"]
