"""Chains of inverted residuals: FBNet's, ProxylessNAS', MnasNet's and OFA's search spaces."""

from nasrun.search_space.mbconv_chain.space import MbconvChain
from nasrun.search_space.mbconv_chain.table import Stage

__all__ = ["MbconvChain", "Stage"]
