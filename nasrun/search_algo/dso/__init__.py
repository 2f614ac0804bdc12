"""DSO-NAS: sparse optimisation of a complete network."""

from nasrun.search_algo.dso.dso import Dso

__all__ = ["Dso"]
