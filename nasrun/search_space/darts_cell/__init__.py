"""DARTS' cells: two inputs and an operation on each for every node, 28 edges to choose from."""

from nasrun.search_space.darts_cell.space import DartsCell
from nasrun.search_space.genotype_space import DartsScale

__all__ = ["DartsCell", "DartsScale"]
