"""Single Path One-Shot: twenty shuffle blocks whose operations, widths or both are chosen."""

from nasrun.search_space.spos.channels import SposBlocksChannels, SposChannels
from nasrun.search_space.spos.space import SposBlocks, SposScale

__all__ = ["SposBlocks", "SposBlocksChannels", "SposChannels", "SposScale"]
