"""DSO-NAS' block: levels of four operations, between which edges are removed."""

from nasrun.search_space.dso_block.space import DsoBlock, FinalScale, SearchScale

__all__ = ["DsoBlock", "FinalScale", "SearchScale"]
