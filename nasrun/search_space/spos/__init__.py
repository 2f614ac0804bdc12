"""Single Path One-Shot: choices of operations, of widths, or of both in twenty blocks."""

from nasrun.search_space.spos.channels import SposBlocksChannels, SposChannels
from nasrun.search_space.spos.space import SposBlocks, SposFinalScale

__all__ = ["SposBlocks", "SposBlocksChannels", "SposChannels", "SposFinalScale"]
