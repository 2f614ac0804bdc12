"""The part of a step that one of several ranks computes, and the sum of all parts.

A step's gradient is a sum over its images, so each rank takes a share of the images through the
same paths, or, where paths have images of their own (ghost batches), a share of the paths. The
batch size stays that of the configuration.

The gradients are added by one plain operation after the backward passes, not by torch's
DistributedDataParallel, whose advantage is to send some while others are computed. For that it
fixes beforehand which weights have gradients; here every step has other paths, so it would search
the graph of each pass for unused weights. It also adds up once a backward pass, of which a step may
have many, and it knows no gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor

from nasrun.errors import UserError
from nasrun.run.compute import Compute
from nasrun.run.ranks import IMAGES_PER_RANK, Ranks
from nasrun.search_space.gates import Gates

Paths = Sequence[tuple[Gates, ...]]
"""The arguments of each forward pass of a step besides the images."""

Microbatch = tuple[Tensor, Tensor, Paths]
"""Images and labels that go through the network together, and the paths that they take."""


@dataclass(frozen=True)
class Part:
    """The microbatches of one rank.

    whole: images that all ranks compute, by which the share of a microbatch is reckoned.
    rows: numbers of the first image and after the last one within the batch of all ranks, if these
    share its images; None: this rank computes all of them, or ghost batches.
    """

    microbatches: Iterator[Microbatch]
    whole: int
    rows: tuple[int, int] | None = None


def part_of(
    images: Tensor,
    labels: Tensor,
    paths: Paths,
    images_at_once: int | None,
    ghost_batch: int | None,
    ranks: Ranks,
) -> Part:
    """Return this rank's part of a batch; images: [B, C, H, W], labels: [B], of all ranks."""
    count = len(images)
    if ranks.size == 1:
        return Part(microbatches(images, labels, paths, images_at_once, ghost_batch), count)
    if ghost_batch is not None:
        every = microbatches(images, labels, paths, None, ghost_batch)
        return Part(islice(every, ranks.rank, None, ranks.size), count)
    rows = ranks.rows(count)
    first, last = rows.start, rows.stop
    own = microbatches(images[first:last], labels[first:last], paths, images_at_once, None)
    if len(rows) == count:  # a small batch, which every rank computes as a whole
        return Part(own, count * ranks.size)
    return Part(own, count, (first, last))


def check_parts(compute: Compute, batch_size: int, ghost_batch: int | None, *, joint: bool) -> None:
    """Raise UserError if the ranks cannot share the batches of a training.

    joint: whether batch norm takes its statistics over all ranks.
    """
    size = compute.ranks.size
    if size == 1:
        return
    if batch_size < IMAGES_PER_RANK * size:
        raise UserError(
            f"{size} ranks share a batch of {batch_size} images, and each needs "
            f"{IMAGES_PER_RANK}: raise the trainer's batch_size, or start fewer ranks"
        )
    if ghost_batch is not None and batch_size // ghost_batch < size:
        raise UserError(
            f"{size} ranks share the {batch_size // ghost_batch} ghost batches of a step: raise "
            "path_rules.slices, lower sampler.ghost_batch, or start fewer ranks"
        )
    if joint and ghost_batch is None and compute.batch_size != "full":
        raise UserError(
            f"batch_size={compute.batch_size} splits the part of each rank by itself, which leaves "
            "no statistics of the whole batch: set sync_batch_norm=false, or batch_size=full"
        )


def add_gradients(ranks: Ranks, parameters: Sequence[Tensor], measured: Tensor) -> None:
    """Replace ``grad`` of the parameters, and ``measured``, by their sums over all ranks.

    A parameter that no rank has used keeps no gradient. The ranks tell each other first which ones
    they have used; this goes through the CPU, so a rank that was lost is noticed there, before a
    device waits for it for ever.
    """
    used = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
    ranks.add_up([used])
    gradients = []
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if not count:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter, requires_grad=False)
        gradients.append(parameter.grad)
    ranks.add_up([*gradients, measured])


def leaves_of(gates: Sequence[Gates]) -> list[Tensor]:
    """Return the tensors, from which weights of gates are computed, that get gradients.

    A learner of gates may learn from the backward pass of the weights' step (SNAS). The order is
    that in which autograd's graph is walked, the same on all ranks.
    """
    tensors = [
        weight
        for path in gates
        for gate in path
        if not isinstance(gate, int)
        for weight in gate.values()
        if isinstance(weight, Tensor) and weight.requires_grad
    ]
    found: dict[int, Tensor] = {id(tensor): tensor for tensor in tensors if tensor.is_leaf}
    ahead = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(ahead)
    for node in ahead:  # which grows
        if (leaf := getattr(node, "variable", None)) is not None:
            found[id(leaf)] = leaf
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                ahead.append(following)
    return list(found.values())


def microbatches(
    images: Tensor,
    labels: Tensor,
    paths: Paths,
    images_at_once: int | None,
    ghost_batch: int | None,
) -> Iterator[Microbatch]:
    """Yield images and labels that go through the network together, and the paths they take.

    images_at_once: upper bound of the images; None: all. Ghost batches, of size ``ghost_batch``,
    have a path each, or share the only path. No microbatch has a single image, since batch norm
    needs two.
    """
    if ghost_batch is None:
        count = -(-len(images) // (images_at_once or len(images)))
        count = max(min(count, len(images) // 2), 1)
        for microbatch, answers in zip(
            images.tensor_split(count), labels.tensor_split(count), strict=True
        ):
            yield microbatch, answers, paths
        return
    # The last batch of an epoch may be smaller, and so may its last ghost batch. If that has a
    # single image, the image joins the ghost batch before.
    starts = list(range(0, len(images), ghost_batch))
    if len(images) - starts[-1] == 1 and len(starts) > 1:
        starts.pop()
    for index, (start, stop) in enumerate(pairwise([*starts, len(images)])):
        path = paths[index] if len(paths) > 1 else paths[0]
        yield images[start:stop], labels[start:stop], [path]
