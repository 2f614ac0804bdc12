"""Bender et al.'s choice blocks: any subset of the operations over any subset of the inputs."""

from nasrun.search_space.one_shot_blocks.space import BlockScale, OneShotBlocks

__all__ = ["BlockScale", "OneShotBlocks"]
