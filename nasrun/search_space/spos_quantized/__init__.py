"""SPOS' search for mixed precision: ResNets, with bits to choose for every convolution."""

from nasrun.search_space.spos_quantized.space import SposQuantized, WidthScale

__all__ = ["SposQuantized", "WidthScale"]
