"""Reinforcement learning behind ask/tell: a policy over architectures learns from their scores."""

from nasrun.search_algo.reinforce.search import Reinforce

__all__ = ["Reinforce"]
