"""The choice of the architecture: by the largest weights, or by what the supernet misses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from nasrun.limits import Epochs, Images
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import LimitedEdges
from nasrun.streams import Streams

AccuracyOf = Callable[[Tensor], float]
"""Open options [D, K] -> the accuracy of the supernet with these alone."""


class Selection(BaseModel):
    """Settings of the selection.

    rule: ``largest``: the options of the largest weights; ``perturbation``: see
    ``PerturbationSelection``.
    epochs: the last epochs of the training, in which the decisions are taken one by one.
    images: held-out images by which each option is judged, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["largest", "perturbation"]
    epochs: Epochs
    images: Images


class PerturbationSelection:
    """Decides by the accuracy that the supernet loses without an option.

    The decisions are taken in a random order, at equal distances in the last epochs, while weights
    and other gates learn on. In each, the option without which the accuracy is lowest stays alone.
    In spaces whose nodes keep some of their edges (``LimitedEdges``) the nodes follow: the edges
    without which the accuracy is lowest stay.
    Source: DARTS-PT (Wang et al., ICLR 2021, arXiv 2108.04392), Algorithm 1; where the paper gives
    each decision five epochs, here all share ``epochs``.

    first, last: steps between which it decides.
    """

    def __init__(self, space: SearchSpace, streams: Streams, first: int, last: int) -> None:
        self.space, self.limited = space, space if isinstance(space, LimitedEdges) else None
        rng = streams.numpy("selection")
        decisions = [(int(index),) for index in rng.permutation(len(space.decisions))]
        nodes: list[tuple[int, ...]] = []
        if self.limited is not None:
            nodes = [g for g in space.edges_by_node if len(g) > self.limited.open_edges]
            nodes = [nodes[index] for index in rng.permutation(len(nodes))]
        # (decisions, whether they are the edges of a node)
        self.events = [*((one, False) for one in decisions), *((one, True) for one in nodes)]
        self.steps = [
            first + i * (last - first) // len(self.events) for i in range(len(self.events))
        ]
        self.done = 0

    def decide(self, step: int, opened: Tensor, accuracy: AccuracyOf) -> bool:
        """Take the decisions that are due before ``step``; returns whether there were any.

        opened: [D, K], whether each option is open; options are closed in it.
        """
        before = self.done
        while self.done < len(self.events) and step >= self.steps[self.done]:
            edges, of_node = self.events[self.done]
            if of_node:
                self._keep_edges(edges, opened, accuracy)
            else:
                self._keep_option(edges[0], opened, accuracy)
            self.done += 1
        return self.done > before

    def _keep_option(self, decision: int, opened: Tensor, accuracy: AccuracyOf) -> None:
        options = opened[decision].nonzero().flatten().tolist()
        if self.limited is not None and len(options) > 1:  # that would be an edge less
            options = [one for one in options if one != self.limited.closed_option]
        if len(options) > 1:
            without = [self._without(opened, decision, (option,), accuracy) for option in options]
            options = [options[without.index(min(without))]]
        opened[decision] = False
        opened[decision, options[0]] = True

    def _keep_edges(self, edges: Sequence[int], opened: Tensor, accuracy: AccuracyOf) -> None:
        assert self.limited is not None  # there are nodes  # noqa: S101
        every = range(opened.shape[1])
        without = {edge: self._without(opened, edge, every, accuracy) for edge in edges}
        for edge in sorted(edges, key=without.__getitem__)[self.limited.open_edges :]:
            self._close(opened, edge, every)

    def _without(
        self, opened: Tensor, decision: int, options: Sequence[int], accuracy: AccuracyOf
    ) -> float:
        left = opened.clone()
        self._close(left, decision, options)
        return accuracy(left)

    def _close(self, opened: Tensor, decision: int, options: Sequence[int]) -> None:
        opened[decision, list(options)] = False
        if self.limited is not None and not opened[decision].any():
            opened[decision, self.limited.closed_option] = True

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = int(state["done"])


def share_in_open(weights: Tensor, opened: Tensor) -> Tensor:
    """Return the weights [D, K] with 0 at all options outside ``opened``.

    Where a decision has no weight left, its open options share it.
    """
    kept = weights * opened
    empty = kept.sum(1, keepdim=True) == 0
    equal = opened / opened.sum(1, keepdim=True)
    return torch.where(empty, equal.to(kept), kept)
