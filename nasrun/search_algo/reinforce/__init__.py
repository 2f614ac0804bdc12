"""Reinforcement learning behind ask/tell: a policy learns which architectures score well."""

from nasrun.search_algo.reinforce.search import Reinforce

__all__ = ["Reinforce"]
