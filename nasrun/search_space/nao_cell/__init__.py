"""NAO's cell space: decisions and costs, the supernet, the stand-alone network."""

from nasrun.search_space.nao_cell.space import CellScale, NaoCell

__all__ = ["CellScale", "NaoCell"]
