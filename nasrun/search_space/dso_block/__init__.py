"""DSO-NAS' complete block, from which edges are removed: M levels of four operations."""

from nasrun.search_space.dso_block.space import DsoBlock, FinalScale, SearchScale

__all__ = ["DsoBlock", "FinalScale", "SearchScale"]
