"""SPOS' search for mixed precision: ResNets with a choice of bits for every convolution."""

from nasrun.search_space.spos_quantized.space import SposQuantized

__all__ = ["SposQuantized"]
