"""Hierarchical cells: motifs of operations, and a motif of these motifs."""

from nasrun.search_space.hier_cell.space import HierCell, HierScale

__all__ = ["HierCell", "HierScale"]
