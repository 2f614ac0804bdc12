"""ENAS: a controller that learns by REINFORCE which architectures to sample."""

from nasrun.search_algo.enas.enas import Enas

__all__ = ["Enas"]
