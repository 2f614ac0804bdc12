"""The choice of the architecture: by the largest weights, or by what the supernet misses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Epochs, Images
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import LimitedEdges, has_limited_edges
from nasrun.streams import Streams
from nasrun.values import Architecture

AccuracyOf = Callable[[Tensor], float]
"""Open options [D, K] -> the accuracy of the supernet with these alone."""


class Selection(BaseModel):
    """Settings of the selection.

    rule: ``largest``: the options of the largest weights; ``threshold``: of these only the edges
    that weigh enough, see ``without_light``; ``perturbation``: see ``PerturbationSelection``.
    threshold: smallest weight of an edge's option.
    epochs: the last epochs of the training, in which the decisions are taken one by one.
    images: held-out images by which each option is judged, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["largest", "threshold", "perturbation"]
    threshold: Annotated[float, Field(ge=0, le=1)]
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
            nodes = [g for g in space.edges_by_node if len(g) > self.limited.edge_counts[-1]]
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
        for edge in sorted(edges, key=without.__getitem__)[self.limited.edge_counts[-1] :]:
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


def check_threshold(space: SearchSpace) -> None:
    """Raise UserError unless nodes of the space may have fewer edges than others of it."""
    if not isinstance(space, LimitedEdges):
        raise MissingCapabilityError(
            "search_algo.selection.rule=threshold closes edges of nodes, and those of "
            f"{space.name} keep all of theirs: set selection.rule=largest, or",
            group="search_space",
            has=has_limited_edges,
        )
    if space.edge_counts[0] > 0:
        raise UserError(
            f"search_algo.selection.rule=threshold: nodes of {space.name} have "
            f"{space.edge_counts[-1]} edges: set search_space.fewer_edges=true"
        )


def without_light(
    space: LimitedEdges,
    architecture: Architecture,
    weights: Sequence[Sequence[float]],
    threshold: float,
) -> Architecture:
    """Close the edges whose option weighs less than ``threshold``.

    Where nothing flows through a cell any more, the heaviest edge of its first node stays (ours).
    weights: [D][K]. Edges of a node are in the order of what they read: inputs, then nodes.
    Source: FairDARTS (Chu et al., ECCV 2020, arXiv 1911.12126) and its released code,
    ``threshold_sparse``.
    """
    choices, nodes = list(architecture.choices), space.edges_by_node
    weight = [row[choice] for row, choice in zip(weights, choices, strict=True)]
    kept = [
        choice if weight[edge] >= threshold else space.closed_option
        for edge, choice in enumerate(choices)
    ]
    for cell in (nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]):
        live: list[bool] = []
        for index, node in enumerate(cell):
            inputs = len(node) - index
            opened = [place for place, edge in enumerate(node) if kept[edge] != space.closed_option]
            live.append(any(place < inputs or live[place - inputs] for place in opened))
        if not any(live):
            heaviest = max(cell[0], key=weight.__getitem__)
            kept[heaviest] = choices[heaviest]
    return Architecture(architecture.space, tuple(kept))
