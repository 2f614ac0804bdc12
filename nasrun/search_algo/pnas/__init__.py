"""PNAS: cells grow block by block, and a surrogate says which of them are scored."""

from nasrun.search_algo.pnas.pnas import Pnas

__all__ = ["Pnas"]
