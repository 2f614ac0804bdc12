"""General cells: any number of operations at a node, outputs as given, NASNet's operations."""

from nasrun.search_space.general_cell.space import GeneralCell

__all__ = ["GeneralCell"]
